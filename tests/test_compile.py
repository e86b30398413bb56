"""`--mode=compile`: the report on a program, the suggestion if it does not fit, and the table.

The programs are real and compiled in their own processes; nothing is run.
"""

import dataclasses
import json
import math
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import jax
import pytest
from jax._src.config import EffortLevel

from genzoo import build, check, config
from genzoo.builders import datasets
from genzoo.core import tree
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.modes import compile as mode
from genzoo.modes import train
from genzoo.runtime import compiled, topology
from genzoo.runtime.compilation import LEVELS, OutOfMemory, compile_for, needed_bytes

ROOT = Path(__file__).parent.parent
SMOKE = "configs/ddpm_fashion.py:smoke"
POINTS = "configs/toy_mixture.py:smoke"


def resolved(name: str, *overrides: str):
    raw = config.override(config.load(name), config.parse_overrides(overrides))
    return build.settled(check.check(raw))


# --- the programs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
         "hbm. Used 18.50G of 15.75G hbm. Exceeded hbm capacity by 2.75G.", 18.5 * 2**30),
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
         "required for HLO temporaries (200.04G) exceeds available HBM (15.75G).",
         int(200.04 * 2**30)),
        ("RESOURCE_EXHAUSTED: something else", None),
    ],
)  # fmt: skip
def test_needed_bytes_are_read_from_the_message(message, needed):
    assert needed_bytes(message) == needed


@pytest.mark.parametrize("name", [SMOKE, "configs/fm_shapes.py:smoke"])
def test_the_compiled_step_takes_the_arguments_of_training(name):
    there = Experiment(resolved(name), devices=tuple(jax.devices()[:1]))
    source = there.open("train")
    data, inputs = train._inputs(there, source, 0)
    given = jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), (data, next(inputs)))
    inputs.close()
    *taken, held = mode._inputs(there)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tuple(taken)) == given
    assert held == (len(source) if name == SMOKE else 0)  # scenes are drawn on the host


@pytest.mark.parametrize("name", mode._EXAMPLES)
def test_sets_whose_size_is_known_have_a_row(name):
    assert name in datasets.DATA


@pytest.fixture
def ahead(monkeypatch, tmp_path):
    """Makes a report in this process, on its one CPU device."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))

    def run(name: str, *overrides: str) -> dict:
        return mode.compile_ahead(resolved(name, *overrides), topology.named("cpu"))

    return run


def test_a_program_that_the_family_lacks_is_skipped_with_a_reason(ahead):
    report = ahead("configs/pca_fashion.py:smoke", "--config.compile.program=train")
    assert "closed form" in report["programs"]["train"]["skipped"]
    report = ahead("configs/classifier_fashion.py:smoke", "--config.compile.program=sample")
    assert "cannot sample" in report["programs"]["sample"]["skipped"]


@pytest.mark.parametrize(("key", "known"), [("level", "O0"), ("program", "train")])
def test_a_wrong_choice_is_answered_with_the_known_ones(ahead, key, known):
    with pytest.raises(UserError, match=rf"compile\.{key}.*{known}"):
        ahead(SMOKE, f"--config.compile.{key}=1234")


def small(chip_bytes: int):
    return dataclasses.replace(topology.named("v5e-1").chip, memory_bytes=chip_bytes)


def figures(total: int, **others) -> dict:
    memory = {"arguments": 0, "outputs": 0, "temporary": total, "aliased": 0, "code": 0}
    return {
        "cached": False, "out_of_memory": False, "compile_seconds": 0.0, "memory": memory,
        "flops": 1.0, "bytes_accessed": 1.0, "collectives": {}, "collectives_once": {},
        "collectives_at_most": {},
    } | others  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "suggestion"),
    [
        ([90], None),
        ([200, 90], {"mesh.fsdp": 4}),
        ([200, None, 90], {"mesh.fsdp": 4, "network.remat": "full"}),
        ([None, 300, 200, 90],
         {"mesh.fsdp": 4, "network.remat": "full", "train.accumulate": 2}),
        ([None, 300, 200, 150, 101], "nothing tried fits"),
    ],
)  # fmt: skip
def test_remedies_are_tried_in_order(sizes, suggestion, monkeypatch):
    """A fake compiler for four devices. sizes: the bytes of successive programs; None if it runs
    out of memory. Batch 16 on four devices can be halved twice."""
    left, seen = list(sizes), []

    def answer(*_):
        size = left.pop(0)
        return figures(0, out_of_memory=True, needed=None) if size is None else figures(size)

    def lowered(there):
        chosen = there.config
        seen.append((chosen.mesh.fsdp, chosen.network.remat, chosen.train.accumulate))
        return None, {"accumulate": chosen.train.accumulate}

    monkeypatch.setattr(mode, "measured", answer)
    monkeypatch.setattr(mode, "_training", lowered)
    monkeypatch.setattr(mode, "_operations", lambda *_: 1.0)
    monkeypatch.setattr(topology, "devices", lambda plan: ())
    plan = dataclasses.replace(topology.named("v5e-4"), chip=small(100))
    smoke = resolved(SMOKE, "--config.compile.program=train")
    report = mode.compile_ahead(smoke, plan)["programs"]["train"]
    steps = [(1, "none", 1), (4, "none", 1), (4, "full", 1), (4, "full", 2), (4, "full", 4)]
    assert seen == steps[: len(sizes)] and not left
    assert report["fits"] is (suggestion is None)
    if isinstance(suggestion, dict):
        assert report["suggestion"] == suggestion | {"total_bytes_per_chip": 90}
    elif suggestion:
        assert report["suggestion"].startswith(suggestion)
    untried = resolved(SMOKE, "--config.compile.program=train", "--config.compile.suggest=False")
    left[:] = [200]
    assert "suggestion" not in mode.compile_ahead(untried, plan)["programs"]["train"]


@pytest.mark.parametrize(
    ("config", "override"),
    [
        ("fm_cifar", "--config.family.paired=True"),
        ("vqvae_fashion", "--config.train.batch_size=16"),
    ],
)
def test_what_the_model_does_not_allow_is_not_suggested(config, override, monkeypatch):
    """Neither a pairing over the batch nor averaged codes may be taken in parts."""
    seen = []

    def lowered(there):
        seen.append(there.config.train.accumulate)
        return None, {}

    monkeypatch.setattr(mode, "measured", lambda *_: figures(200))
    monkeypatch.setattr(mode, "_training", lowered)
    monkeypatch.setattr(mode, "_operations", lambda *_: 1.0)
    monkeypatch.setattr(topology, "devices", lambda plan: ())
    plan = dataclasses.replace(topology.named("v5e-4"), chip=small(100))
    smoke = resolved(f"configs/{config}.py:smoke", "--config.compile.program=train", override)
    found = mode.compile_ahead(smoke, plan)["programs"]["train"]
    assert found["suggestion"].startswith("nothing tried fits (the last: mesh.fsdp = 4")
    assert "accumulate" not in found["suggestion"] and set(seen) == {1}


class Lowered:
    """Stands in for a lowered program: records its options, and fails on request."""

    def __init__(self, message: str = ""):
        self.message, self.options = message, None

    def compile(self, compiler_options):
        self.options = compiler_options
        if self.message:
            raise jax.errors.JaxRuntimeError(self.message)


def test_lack_of_memory_is_distinguished_from_other_failures():
    with pytest.raises(OutOfMemory) as raised:
        compile_for("tpu", Lowered("RESOURCE_EXHAUSTED: Used 2.00K of 1.00K hbm."), "O0")
    assert raised.value.needed == 2048
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compile_for("tpu", Lowered("INTERNAL: broken"), "O0")


def test_an_unreadable_program_text_is_not_a_failure(monkeypatch, tmp_path, caplog):
    lowered = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((4,), "float32"))
    plan = dataclasses.replace(topology.named("cpu"), chip=small(100))

    def unreadable(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: arity")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", unreadable)
    report = compiled.shown(compiled.measured(lowered, plan, "O0", tmp_path), plan, 1)
    assert report["collectives"] is None and report["fits"]
    assert report["roofline"]["seconds"]["network"] is None
    assert "INTERNAL: arity" in caplog.text


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_those_of_jax(level):
    asked = Lowered()
    compile_for("tpu", asked, level)
    given = asked.options.get("optimization_level")
    assert given == (None if level == "default" else EffortLevel(level).value)


def test_remedies_on_several_devices():
    plan = topology.named("cpu:12")
    tried = list(mode._remedies(resolved(SMOKE, "--config.train.batch_size=48"), plan))
    assert tried == [("mesh.fsdp", 4), ("network.remat", "full"), ("train.accumulate", 2),
                     ("train.accumulate", 4)]  # fmt: skip


@pytest.fixture
def describe(capsys):
    """The report of `--mode=describe`, made in this process."""

    def run(*arguments: str) -> dict:
        capsys.readouterr()
        assert main(["--mode=describe", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_cpu_devices_from_start_to_end(genzoo, describe, tmp_path):
    """Twenty steps per call in a loop, on eight devices: one step reduces each gradient once and
    costs what `describe` counts; the second time nothing is compiled."""
    env = {"GENZOO_CACHE": str(tmp_path)}
    where = ("--config=configs/vae_fashion.py:smoke", "--config.train.steps_per_call=20",
             "--config.train.save_every=20", "--config.train.batch_size=64",
             "--config.eval.batch_size=64", "--config.sample.batch_size=9",
             "--config.sample.count=9")  # fmt: skip
    run = ("--mode=compile", *where, "--config.compile.topology=cpu:8")
    first = json.loads(genzoo(*run, env=env).stdout)
    assert first["topology"]["devices"] == 8
    train, sample = first["programs"]["train"], first["programs"]["sample"]
    described = describe(*where)
    weights = described["parameter_bytes"]
    assert weights <= train["collectives"]["all-reduce"]["bytes"] <= 1.01 * weights
    assert train["flops_per_chip"] * 8 == pytest.approx(described["train_step_flops"], rel=1e-6)
    assert train["state_bytes_per_chip"] == described["state_bytes"]
    assert train["bytes_per_chip"]["aliased"] >= described["state_bytes"]  # the new state reuses it
    assert sample["batch_size"] == 16  # nine, padded to a multiple of the devices
    assert train["fits"] is None and first["chip"] is None
    again = json.loads(genzoo(*run, "--config.compile.program=train", env=env).stdout)
    assert again["programs"]["train"] == train | {"cached": True}
    assert not train["cached"]


@pytest.mark.slow
def test_split_params_take_less_and_are_gathered(genzoo, tmp_path):
    """The memory of a device is recomputed here: a quarter of each array with at least 100 numbers
    and an axis divisible by four, and all of the others. The sampler gathers each once, outside any
    loop."""
    programs = json.loads(
        genzoo(
            "--mode=compile", f"--config={POINTS}", "--config.compile.topology=cpu:4",
            "--config.mesh.fsdp=4", "--config.mesh.floor=100",
            "--config.train.batch_size=64", "--config.eval.batch_size=64",
            env={"GENZOO_CACHE": str(tmp_path)},
        ).stdout
    )["programs"]  # fmt: skip
    train, sampler = programs["train"], programs["sample"]["collectives"]
    there = Experiment(resolved(POINTS)).abstract_state

    def whole(leaf):
        return leaf.size < 100 or all(side % 4 for side in leaf.shape)

    def size(leaves):
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    leaves, params = jax.tree.leaves(there), jax.tree.leaves(there.params)
    split = [leaf for leaf in leaves if not whole(leaf)]
    everywhere = [leaf for leaf in params if whole(leaf)]
    assert train["mesh"] == {"data": 1, "fsdp": 4}
    assert train["state_bytes_per_chip"] == size(leaves) - size(split) * 3 // 4
    assert train["whole_on_every_device"] == {"arrays": len(everywhere), "bytes": size(everywhere)}
    assert everywhere and len(everywhere) < len(params)
    assert train["collectives"]["all-gather"]["count"] > 0
    # And the outputs: the samples, whether they are finite, and the numbers of evaluations.
    assert sampler["all-gather"]["count"] <= len(params) - len(everywhere) + 3
    assert set(sampler) == {"all-gather"}


def test_a_topology_must_be_given(genzoo):
    done = genzoo("--mode=compile", f"--config={POINTS}", check=2)
    assert "compile.topology" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu (extra tpu-compile)")
def test_a_tpu_that_is_not_here(genzoo, describe, tmp_path):
    """A U-Net's training step for four chips: each holds the whole state, whose memory the new one
    reuses, and reduces the gradients."""
    done = genzoo(
        "--mode=compile", f"--config={SMOKE}", "--config.compile.topology=v5e:2x2",
        "--config.compile.program=train", env={"GENZOO_CACHE": str(tmp_path)},
    )  # fmt: skip
    report = json.loads(done.stdout)
    train = report["programs"]["train"]
    there = Experiment(resolved(SMOKE))
    weights = tree.size_in_bytes(there.abstract_state.params)
    state = tree.size_in_bytes(there.abstract_state)
    assert report["versions"]["libtpu"] and report["level"] == "O0"
    assert train["fits"] and train["bytes_per_chip"]["total"] < report["chip"]["memory_bytes"]
    assert train["state_bytes_per_chip"] == state
    # Small arrays are padded to memory tiles, so the state takes more than its bytes.
    aliased, outputs = (train["bytes_per_chip"][key] for key in ("aliased", "outputs"))
    assert state <= aliased <= outputs <= 1.05 * aliased
    assert 0.5 * weights <= train["collectives"]["all-reduce"]["bytes"] <= 1.01 * weights
    one = describe(f"--config={SMOKE}")["train_step_flops"]
    assert train["flops_per_chip"] == pytest.approx(one / 4, rel=0.5)  # fusion changes the count
    assert 0 < train["roofline"]["share_of_peak"] < 1
    assert math.isfinite(train["roofline"]["step_seconds"])


# --- the table ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    """launch/compile_table.py, which is not in a package."""
    spec = spec_from_file_location("compile_table", ROOT / "launch" / "compile_table.py")
    module = sys.modules["compile_table"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compile_table"]


def report(**train) -> dict:
    train = {
        "batch_size": 128, "fits": True, "flops_per_chip": 2.857e11,
        "bytes_per_chip": {"total": 1_406_606_848},
        "collectives": {"all-reduce": {"count": 2, "bytes": 77_329_712}},
    } | train  # fmt: skip
    return {"programs": {"train": train}, "given_batch": 128, "versions": {"jax": "1.2"}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (report(), "fits: 1.41 GB, 286 GFLOP, 2 all-reduce of 77.3 MB"),
        (report(collectives={}, batch_size=256),
         "fits: 1.41 GB, 286 GFLOP, no collectives; batch 256"),
        (report(fits=False, bytes_per_chip={"total": 20_583_630_766}, suggestion={
            "mesh.fsdp": 4, "train.accumulate": 2, "total_bytes_per_chip": 14_305_954_304}),
         "**no**: 20.58 GB; fits with mesh.fsdp = 4, train.accumulate = 2: 14.31 GB"),
        (report(collectives=None), "fits: 1.41 GB, 286 GFLOP, collectives unknown"),
        (report(fits=False, bytes_per_chip={"total": None}, suggestion="nothing tried fits"),
         "**no**: too much; nothing tried fits"),
        ({"error": "genzoo: no such config"}, "not compiled"),
    ],
)  # fmt: skip
def test_a_cell_of_the_table(script, given, words):
    assert script.cell(given) == words


@pytest.mark.parametrize(
    ("batch", "devices", "least"), [(128, 256, 256), (128, 32, 128), (20, 16, 32)]
)
def test_a_batch_that_does_not_divide_is_filled_up(script, batch, devices, least):
    assert script.enough(batch, devices) == least


def test_the_table_goes_between_its_marks(script, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n\n{script.BEGIN}\nold\n{script.END}\n\nafter\n")
    text = script.table({"ddpm_cifar": {"v5e-1": report(), "v5e-16": {"error": "why"}}}, "O0")
    script.write(text, readme)
    once = readme.read_text()
    script.write(text, readme)
    assert readme.read_text() == once
    assert once.startswith("# Before\n") and once.endswith("\n\nafter\n") and "old" not in once
    assert "| config (batch) | v5e-1 | v5e-16 |\n|---|---|---|\n| ddpm_cifar (128) | fits" in once
    assert "* ddpm_cifar: why" in once and "level O0 by jax 1.2" in once
    readme.write_text("# Alone\n")
    script.write(text, readme)
    assert readme.read_text().startswith(f"# Alone\n\n{script.BEGIN}\n")


def test_the_table_has_every_config_that_is_not_for_a_laptop(script):
    names = script.full_size()
    assert {"ddpm_cifar", "ddpm_lsun256", "edm_cifar", "vae_mnist"} <= set(names)
    assert not [name for name in names if "fashion" in name or "toy" in name]


def test_a_table_for_no_known_machine(script, capsys):
    assert script.main(["--topologies=v5e-16,nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
