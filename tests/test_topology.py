"""Topologies by name, and the messages for unknown names."""

import pytest

from genzoo.core.errors import UserError
from genzoo.runtime import topology


@pytest.mark.parametrize(
    ("name", "platform", "layout", "count", "slices"),
    [
        ("v5e:4x4", "tpu", "4x4", 16, 1),
        ("v5e-1", "tpu", "1x1", 1, 1),
        ("v5e-16", "tpu", "4x4", 16, 1),
        ("v5e-256", "tpu", "16x16", 256, 1),
        ("v6e-16", "tpu", "4x4", 16, 1),
        ("v5p-8", "tpu", "2x2x1", 4, 1),  # counts TensorCores, two per chip
        ("v5p-64", "tpu", "2x4x4", 32, 1),
        ("v5p:4x4x4", "tpu", "4x4x4", 64, 1),
        ("2xv5e-256", "tpu", "16x16", 512, 2),
        ("cpu", "cpu", "1", 1, 1),
        ("cpu:8", "cpu", "8", 8, 1),
        ("cpu-8", "cpu", "8", 8, 1),
        ("h100", "cuda", "1", 1, 1),
        ("h200:4", "cuda", "4", 4, 1),
    ],
)
def test_the_devices_of_a_name(name, platform, layout, count, slices):
    plan = topology.named(name)
    values = (plan.platform, plan.layout, plan.count, plan.slices)
    assert values == (platform, layout, count, slices)


@pytest.mark.parametrize("kind", topology._SLICES)
def test_every_slice_has_as_many_chips_as_its_name_says(kind):
    cores = 2 if kind == "v5p" else 1
    for number in topology._SLICES[kind]:
        assert topology.named(f"{kind}-{number}").count * cores == number


@pytest.mark.parametrize(
    "name",
    ["v5e", "v5e:", "v5e:4x", "v5e:0x4", "v5e:4x4x4", "v5p:4x4", "v5e:04x4", "v3-8", "cpu:0", "gpu",
     "cpu:4x2", "h100:16", "2xh100:4", "0xv5e-16", "v5e 16", ""],
)  # fmt: skip
def test_another_name_is_answered_with_the_known_ones(name):
    with pytest.raises(UserError, match=r"v5e:4x4.*cpu:8"):
        topology.named(name)


def test_a_slice_that_is_not_sold_is_answered_with_those_that_are():
    with pytest.raises(UserError, match=r"v5p-8, v5p-16, v5p-32, v5p-64"):
        topology.named("v5p-24")


def test_chips_differ_as_their_makers_say():
    """The ratios of the announcements: v6e has 4.7 times the peak of v5e and twice the memory and
    bandwidth; H200 has 1.76 times the memory and 1.4 times the bandwidth of H100."""
    v5e, v6e, h100, h200 = (topology.named(n).chip for n in ("v5e-1", "v6e-1", "h100", "h200"))
    assert v6e.peak_flops / v5e.peak_flops == pytest.approx(4.7, abs=0.05)
    assert v6e.memory_bytes / v5e.memory_bytes == pytest.approx(2, rel=0.02)
    assert v6e.hbm_bandwidth / v5e.hbm_bandwidth == pytest.approx(2, rel=0.02)
    assert h200.memory_bytes / h100.memory_bytes == pytest.approx(1.76, rel=0.01)
    assert h200.hbm_bandwidth / h100.hbm_bandwidth == pytest.approx(1.4, rel=0.03)
    assert topology.named("cpu:2").chip is None


@pytest.mark.parametrize(
    ("name", "extra"), [("v5e-16", "tpu-compile"), ("h100", "gpu-compile")]
)
def test_what_is_not_installed_is_named(monkeypatch, name, extra):
    monkeypatch.setattr(topology, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf"genzoo\[{extra}\]"):
        topology.devices(topology.named(name))


def test_too_many_cpu_devices_for_this_process():
    with pytest.raises(UserError, match="in a separate process"):
        topology.devices(topology.named("cpu:1000"))


def test_surroundings_of_a_tpu_are_left_alone(monkeypatch):
    """If there is a TPU, its own description must not be changed."""
    monkeypatch.setattr(topology, "_has_tpu", lambda: True)
    monkeypatch.setattr(topology.os, "environ", {})
    monkeypatch.setattr(topology.jax.config, "update", lambda key, value: None)
    topology.prepare(topology.named("v5e-16"))
    assert topology.os.environ == {}
    monkeypatch.setattr(topology, "_has_tpu", lambda: False)
    topology.prepare(topology.named("v5e-16"))
    assert topology.os.environ["TPU_SKIP_MDS_QUERY"] == "1"
