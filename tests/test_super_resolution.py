"""Super-resolution as a user runs it: training, samples of test images and of files, PSNR."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genzoo import check, config
from genzoo.core.errors import UserError
from genzoo.data.embedded import open_fashion_mini
from genzoo.evaluate.restoration import bicubic, psnr
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.modes import illustrate

SHORT = [
    "--config.train.steps=4", "--config.train.save_every=4", "--config.train.log_every=2",
    "--config.train.picture_count=0", "--config.optimizer.warmup=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four steps."""
    place = tmp_path_factory.mktemp("restoration") / "run"
    assert main(["--config=configs/sr_fashion.py:smoke", f"--workdir={place}", *SHORT]) == 0
    return place


def sampled(run, capsys, *settings: str) -> tuple[dict, dict]:
    """The report of --mode=sample, and the arrays that it wrote."""
    capsys.readouterr()
    flags = [f"--config.sample.{setting}" for setting in ("npz=True", *settings)]
    assert main([f"--workdir={run}", "--mode=sample", *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    return report, dict(np.load(Path(report["samples"]) / "samples.npz"))


def test_samples_are_compared_with_the_test_images(run, capsys):
    settings = "count=6", "batch_size=4", "repeat=2", "pictures=restoration"
    report, arrays = sampled(run, capsys, *settings)
    test = open_fashion_mini("test").arrays["x"]
    np.testing.assert_array_equal(arrays["original"], test[[0, 0, 1, 1, 2, 2]])
    assert np.abs(arrays["x"][0].astype(int) - arrays["x"][1]).max() > 0
    each = psnr(arrays["x"], arrays["original"]).mean()
    pairs = arrays["x"].reshape(3, 2, 28, 28, 1).mean(1)
    small = test[:3].reshape(3, 14, 2, 14, 2, 1).mean((2, 4)) / 127.5 - 1
    expected = {
        "samples": each,
        "mean_of_2": psnr(pairs, test[:3]).mean(),
        "bicubic": psnr(bicubic(small, (28, 28)), test[:3]).mean(),
        "images": 3,
    }
    assert report["psnr"] == pytest.approx(expected, abs=1e-3)
    kept = json.loads((Path(report["samples"]) / "settings.json").read_text())
    assert kept["psnr"] == report["psnr"]
    assert (Path(report["samples"]) / "restoration.png").is_file()


def test_a_file_may_be_the_small_image_or_the_whole_one(run, capsys, tmp_path):
    whole = open_fashion_mini("test").arrays["x"][3, ..., 0]
    small = np.random.default_rng(0).integers(0, 256, (14, 14)).astype(np.uint8)
    for name, image in {"whole": whole, "small": small}.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    files = f"('{tmp_path}/whole.png','{tmp_path}/small.png')"
    settings = f"conditions.low={files}", "count=3", "batch_size=3", "pictures=restoration"
    report, arrays = sampled(run, capsys, *settings)
    assert "psnr" not in report
    with Image.open(Path(report["samples"]) / "restoration.png") as picture:
        assert 2 * 84 < picture.width < 5 * 84  # two columns and the labels, not eight
    given = arrays["original"][..., 0]
    np.testing.assert_array_equal(given[[0, 2]], [whole, whole])
    # Every square of two by two is one pixel of the small file, which its mean gives back exactly.
    squares = given[1].reshape(14, 2, 14, 2)
    np.testing.assert_array_equal(squares.mean((1, 3)), small)
    np.testing.assert_array_equal(squares.min((1, 3)), small)
    _, test = sampled(run, capsys, "count=3", "batch_size=3")
    assert np.abs(test["x"][0].astype(int) - arrays["x"][0]).max() > 0


def test_mistakes_are_told(run, capsys, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for size in (1, 14), (20, 27):
        Image.new("L", size[::-1]).save(tmp_path / f"{size[0]}.png")
    for setting, message in {
        f"conditions.low={tmp_path}/none.png": "there is no such file",
        f"conditions.low={tmp_path}/text.png": "cannot be used as an image",
        f"conditions.low={tmp_path}/1.png": "has 1 x 14 pixels: give the smaller copy itself (14 x",
        f"conditions.low={tmp_path}/20.png": "has 20 x 27 pixels",
        "conditions.low=none": "this model never saw it left out",
        "repeat=0": "sample.repeat = 0 must be at least 1",
    }.items():
        capsys.readouterr()
        assert main([f"--workdir={run}", "--mode=sample", f"--config.sample.{setting}"]) == 2
        assert message in capsys.readouterr().err


def test_a_picture_of_restorations_needs_something_to_restore():
    raw = config.override(
        config.load("configs/fm_fashion.py:smoke"), {"sample.pictures": "restoration"}
    )
    with pytest.raises(UserError, match=r"restoration needs a condition that is made from x"):
        illustrate.chosen(Experiment(check.check(raw)))
