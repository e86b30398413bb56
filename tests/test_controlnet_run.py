"""A ControlNet as a user runs it: on a base that is gone afterwards, resumed, sampled, rebased."""

import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from runs import final_state

from genzoo import check, config
from genzoo.builders import alike
from genzoo.evaluate.agreement import Agreement
from genzoo.main import main
from genzoo.systems.controlnet import BASE

SHORT = [
    "--config.train.save_every=2", "--config.train.log_every=2", "--config.train.picture_count=0",
    "--config.optimizer.learning_rate=0.03", "--config.optimizer.warmup=0",
]  # fmt: skip
CONTROL = "--config=configs/controlnet_fashion.py:smoke"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    place = tmp_path_factory.mktemp("base") / "run"
    smoke = "--config=configs/fm_fashion.py:smoke"
    assert main([smoke, f"--workdir={place}", *SHORT, "--config.train.steps=4"]) == 0
    return place


@pytest.fixture(scope="module")
def runs(tmp_path_factory, base):
    """(a run of four steps, one of two steps that was resumed without its base, which is gone)."""
    folder = tmp_path_factory.mktemp("control")
    straight, resumed, lent = folder / "straight", folder / "resumed", folder / "base"
    shutil.copytree(base, lent)
    of_base = f"--config.frozen.base.workdir={lent}"
    for place, steps in ((straight, 4), (resumed, 2)):
        length = f"--config.train.steps={steps}"
        assert main([CONTROL, f"--workdir={place}", *SHORT, of_base, length]) == 0
    shutil.rmtree(lent)
    assert main([f"--workdir={resumed}", "--config.train.steps=4"]) == 0
    return straight, resumed


def sampled(place, capsys, *settings: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """The report of --mode=sample, the samples and the images behind the hints."""
    capsys.readouterr()
    flags = [f"--config.sample.{setting}" for setting in ("npz=True", "count=4", *settings)]
    assert main([f"--workdir={place}", "--mode=sample", *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    arrays = np.load(Path(report["samples"]) / "samples.npz")
    return report, arrays["x"], arrays.get("original")


def test_a_resumed_run_is_the_same_and_neither_changes_its_base(runs, base):
    straight, resumed = map(final_state, runs)
    chex.assert_trees_all_equal(straight, resumed)
    trained = final_state(base)
    theirs = {"params": trained.averages["ema"], "stats": trained.stats}
    chex.assert_trees_all_equal(straight.frozen[BASE], theirs)
    copied = straight.params["branches"]["hint"]["entry"]["conv"]["kernel"]
    assert 0 < np.abs(copied - theirs["params"]["entry"]["conv"]["kernel"]).max() < 0.5
    zeros = [v for k, v in straight.params["branches"]["hint"].items() if k.startswith("zero_")]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(zeros))


def test_samples_of_test_hints_and_those_of_the_base(runs, base, capsys):
    run, _ = runs
    report, samples, originals = sampled(run, capsys, "pictures=restoration")
    expected = Agreement()
    expected.add(samples, originals)
    assert report["outlines"] == expected.report() and report["outlines"]["images"] == 4
    assert report["psnr"]["images"] == 4
    assert (Path(report["samples"]) / "restoration.png").is_file()
    _, off, _ = sampled(run, capsys, "control_scale=0.0")
    _, alone, _ = sampled(base, capsys)
    np.testing.assert_allclose(off.astype(int), alone.astype(int), atol=1)
    assert np.abs(samples.astype(int) - off).max() > 1


def test_another_model_of_the_same_start_takes_the_place_of_the_base(runs, base, capsys):
    run, _ = runs
    own, raw = f"tuned={base}", "tuned_weights=raw"
    _, instead, _ = sampled(run, capsys, own, raw, "control_scale=0.0")
    _, theirs, _ = sampled(base, capsys, "weights=raw")
    np.testing.assert_allclose(instead.astype(int), theirs.astype(int), atol=1)
    assert main([f"--workdir={run}", "--mode=sample", f"--config.sample.tuned={run}"]) == 2
    assert "it must be a run that started from the base" in capsys.readouterr().err


def test_a_model_of_another_shape_cannot_take_its_place():
    ours = config.load("configs/fm_fashion.py:smoke")
    theirs = ours | dict(network=ours["network"] | dict(width=8))
    told = ours | dict(conditions=dict(label=dict(null=True)))
    unlike = told | dict(conditions=dict(label=dict(null=False)))
    first, second, third, fourth = map(check.check, (ours, theirs, told, unlike))

    def problems(*configs):
        return alike.unlike("sample.tuned", "frozen.base", *configs)

    assert problems(first, first) == problems(third, third) == []
    assert "has another network than frozen.base" in problems(first, second)[0]
    assert "has other conditions than frozen.base" in problems(first, third)[0]
    assert "conditions.label.null = True, but the run in sample.tuned has False" in problems(
        third, fourth
    )[0]
