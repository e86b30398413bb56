"""The mesh: one rule for all arrays, and the same training on any number of devices."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core.errors import UserError
from genzoo.train.sharding import MeshSettings, placement, problems

ROOT = Path(__file__).parents[2]
STATES = 4  # copies of each split array in the state: params, two moments of Adam, average


@pytest.fixture(scope="module")
def virtual(surroundings):
    """The output of virtual_devices.py with eight virtual devices."""

    def run(*arguments: str) -> dict:
        # Fast compilation: communication is decided at an earlier stage.
        done = subprocess.run(
            [sys.executable, Path(__file__).parent / "virtual_devices.py", *arguments],
            cwd=ROOT, capture_output=True, text=True, env=surroundings(devices=8, haste=True),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def runs(virtual):
    return virtual()


def same(found: dict, expected: dict, tolerance: float):
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=tolerance)
    assert found["norm"] == pytest.approx(expected["norm"], rel=tolerance)


MESHES = [(2, 1), (4, 2), (8, 8)]


@pytest.mark.parametrize(("devices", "fsdp"), MESHES)
def test_replicated_sharded_and_mixed_train_alike(runs, devices, fsdp):
    found, one = runs[f"points {devices} {fsdp}"], runs["points"]
    same(found, one, 1e-5)
    assert (found["split"] > 0) == (fsdp > 1)
    if fsdp == 1:
        assert found["bytes"] == one["bytes"]
    # 18 arrays, 11,208 bytes in total; the last bias has two entries, not divisible by eight.
    whole = 8 if fsdp == 8 else 0
    if fsdp > 1:
        scalars = one["bytes"] - STATES * 11_208
        assert found["bytes"] == scalars + STATES * ((11_208 - whole) // fsdp + whole)


@pytest.mark.parametrize(("devices", "fsdp"), MESHES)
def test_nothing_is_sent_but_gradients_and_what_is_split(runs, devices, fsdp):
    found = runs[f"points {devices} {fsdp}"]
    if fsdp == 1:
        assert found["collectives"] == {"all-reduce": 1}
    else:
        assert found["collectives"].keys() == {"all-reduce", "all-gather"}
        assert found["collectives"]["all-gather"] == found["split"]


def test_rules_say_otherwise(runs):
    found = runs["points rules"]
    same(found, runs["points"], 1e-5)
    # out/kernel, out/bias, out_norm/scale, out_norm/bias
    assert (found["split"], found["unsplit"]) == (14, 4)


def test_accumulation_and_steps_per_call_compose_with_it(runs):
    same(runs["points several 4 2"], runs["points several"], 1e-5)
    assert runs["points several"]["losses"] != runs["points"]["losses"]


def test_convolutions_bfloat16_and_remat_compose_with_it(runs):
    found = runs["images 4 2"]
    same(found, runs["images"], 1e-3)
    assert found["split"] > 60 and found["bytes"] < 0.51 * runs["images"]["bytes"]
    assert found["collectives"].keys() == {"all-reduce", "all-gather"}


def test_muon_does_not_depend_on_the_mesh_and_its_momentum_is_split(runs):
    found, one = runs["muon 4 2"], runs["muon"]
    same(found, one, 1e-4)
    assert one["losses"] != runs["points"]["losses"]
    assert found["bytes"] < 0.51 * one["bytes"] < 0.51 * runs["points"]["bytes"]


def test_players_in_turn_do_not_depend_on_the_mesh(runs):
    one = runs["players 1 1"]
    assert [losses["loss_second"][1] for losses in one["losses"]] == [0, 0, *[8, 0] * 5]
    other = runs["players 4 2"]
    np.testing.assert_allclose(other["numbers"], one["numbers"], rtol=1e-5)
    for found, expected in zip(other["losses"], one["losses"], strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5)
    # u and v with two moments and an average each; the three spare entries are not divisible.
    assert (one["split"], other["split"]) == (0, 8)


@pytest.mark.slow
def test_models_of_other_runs_do_not_depend_on_the_mesh(virtual):
    found = virtual("others")
    assert found.pop("split") > 10
    assert all(found.values()) and len(found) == 6, found


def test_mesh_problems_are_sentences():
    def sentences(devices, sizes=None, **settings):
        return problems(MeshSettings(**settings), sizes or {}, devices)

    assert sentences(4, {"train.batch_size": 8}) == []
    assert sentences(4, data=2, fsdp=2) == []
    (found,) = sentences(4, {"train.batch_size": 6})
    assert found == "train.batch_size = 6 is not divisible by the 4 devices of the mesh."
    assert sentences(4, fsdp=3) == ["mesh.fsdp = 3 does not divide the 4 devices."]
    (found,) = sentences(1, rules=(("dense(", "replicated"),))
    assert "'dense(' is not a regular expression" in found
    (found,) = sentences(1, rules=(("dense", "columns"),))
    assert "'columns' is unknown for 'dense'" in found
    (found,) = sentences(1, rules=(("dense",),))
    assert "must be a pair" in found
    with pytest.raises(UserError, match=r"mesh.data = 7"):
        placement(MeshSettings(data=7))


def test_a_small_state_stays_whole():
    place = placement()
    found = place.state({"w": jnp.zeros((512, 512)), "b": np.zeros(3)})
    assert all(leaf.is_fully_replicated for leaf in found.values())


def test_one_process_reads_every_row():
    np.testing.assert_array_equal(placement().rows(6 * jax.device_count()),
                                  np.arange(6 * jax.device_count()))  # fmt: skip
