"""A cascade as a user runs it, of models that are gone afterwards or do not fit each other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from genzoo.main import main

SHORT = [
    "--config.train.save_every=2", "--config.train.log_every=2", "--config.train.steps=2",
    "--config.train.picture_count=0", "--config.optimizer.learning_rate=0.03",
    "--config.optimizer.warmup=0",
]  # fmt: skip
BASE = ["--config=configs/mmdit_shapes.py:smoke"]
SECOND = ["--config=configs/sr_emoji.py:smoke"]
CASCADE = "--config=configs/cascade_emoji.py:smoke"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, own in (("base", BASE), ("second", SECOND)):
        assert main([*own, f"--workdir={folder / name}", *SHORT]) == 0
    return folder


def of(base: Path, second: Path) -> list[str]:
    return [f"--config.frozen.base.workdir={base}", f"--config.frozen.second.workdir={second}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, models):
    """The workdir of a cascade whose models are gone."""
    folder = tmp_path_factory.mktemp("cascade")
    lent = folder / "models"
    shutil.copytree(models, lent)
    place = folder / "run"
    assert main([CASCADE, f"--workdir={place}", *of(lent / "base", lent / "second")]) == 0
    shutil.rmtree(lent)
    return place


def sampled(place: Path, capsys, *settings: str) -> tuple[dict, np.ndarray]:
    capsys.readouterr()
    flags = [f"--config.sample.{setting}" for setting in ("npz=True", *settings)]
    assert main([f"--workdir={place}", "--mode=sample", *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    return report, np.load(Path(report["samples"]) / "samples.npz")["x"]


def test_one_workdir_samples_the_chain(run, capsys):
    report, x = sampled(run, capsys)
    assert x.shape == (4, 64, 64, 3) and x.dtype == np.uint8
    _, again = sampled(run, capsys)
    np.testing.assert_array_equal(x, again)
    _, noisy = sampled(run, capsys, "noise=(0.4,)")
    assert np.abs(noisy.astype(int) - x).max() > 0
    assert report["prompt_accuracy"]


@pytest.mark.slow  # trains one more model
def test_noise_that_training_never_added_is_refused(tmp_path, models, capsys):
    plain = tmp_path / "plain"
    off = "--config.conditions.low.noise=0"
    assert main([*SECOND, f"--workdir={plain}", *SHORT, off]) == 0
    whole = [CASCADE, f"--workdir={tmp_path / 'run'}", *of(models / "base", plain)]
    assert main(whole) == 2
    assert "trained with conditions.low.noise = 0: leave it at 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*whole, "--config.sample.noise=(0.0,)"]) == 0


def test_models_that_do_not_fit_are_refused(tmp_path, models, capsys):
    def refused(words: str, *flags: str) -> None:
        assert main([CASCADE, f"--workdir={tmp_path / 'run'}", *flags]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    base, second = models / "base", models / "second"
    refused("must have one condition besides those of this run", *of(base, base))
    refused("enlarges images of shape (32, 32, 3), but the model before it", *of(second, second))
    refused("sample.noise = (0.1, 0.2) has 2 levels for 1", "--config.sample.noise=0.1,0.2",
            *of(base, second))  # fmt: skip
    refused("set data.size to theirs", "--config.data.size=32", *of(base, second))
    refused("frozen.third is not used with family.models = 2", *of(base, second),
            f"--config.frozen.third.workdir={second}")  # fmt: skip
