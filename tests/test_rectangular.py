"""A run on images that are wider than high: training, resuming, sampling."""

import json

import chex
import numpy as np
import pytest
from PIL import Image
from runs import final_state, metrics

from genzoo import check, config
from genzoo.core.errors import UserError
from genzoo.data import batches
from genzoo.main import main

FOLDER = "configs/ddpm_folder.py:smoke"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with two classes of images of several sizes."""
    top, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i, (height, width) in enumerate([(20, 40), (30, 30), (8, 16), (16, 8), (9, 33), (40, 41)]):
        file = top / ("day", "night")[i % 2] / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    return top


def arguments(pictures, workdir, steps=20):
    return [
        f"--config={FOLDER}", f"--workdir={workdir}", f"--config.data.name=folder:{pictures}",
        "--config.data.size=(8,16)", "--config.network.attention=(4,)",
        f"--config.train.steps={steps}",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def workdir(pictures, tmp_path_factory):
    place = tmp_path_factory.mktemp("rectangular") / "run"
    assert main(arguments(pictures, place)) == 0
    return place


@pytest.mark.slow
def test_it_is_sampled_and_scored(workdir, capsys):
    assert main([f"--workdir={workdir}", "--mode=sample"]) == 0
    with Image.open(workdir / "samples" / "latest" / "000003.png") as picture:
        assert picture.size == (16, 8)
    assert main([f"--workdir={workdir}", "--mode=eval"]) == 0
    assert json.loads((workdir / "data.json").read_text())["fields"] == {
        "x": "Image (8, 16, 3) of uint8", "label": "2 classes",
    }  # fmt: skip
    capsys.readouterr()
    assert main([f"--workdir={workdir}", "--mode=sample", "--config.data.size=(16,8)"]) == 2
    assert "data.size is (8, 16) there and (16, 8) here" in capsys.readouterr().err


@pytest.mark.slow
def test_it_resumes(pictures, workdir, tmp_path):
    assert main(arguments(pictures, tmp_path / "run", steps=10)) == 0
    assert main(arguments(pictures, tmp_path / "run")) == 0
    chex.assert_trees_all_equal(
        final_state(workdir).params, final_state(tmp_path / "run").params
    )


@pytest.mark.slow
def test_images_read_again_each_time_give_the_same_run(pictures, workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "fits_in_memory", lambda source: False)
    assert main(arguments(pictures, tmp_path / "run")) == 0
    for names in (("loss",), ("gradient_norm",)):
        np.testing.assert_allclose(
            metrics(tmp_path / "run", *names), metrics(workdir, *names), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("0", "data.size must be given for folder: the side of the images in pixels, or (height,"),
        ("-3", "data.size = -3 must be at least 1."),
        ("(8,)", "data.size = (8,) must be one number, or (height, width), of pixels."),
        ("(8,16,3)", "data.size = (8, 16, 3) must be one number"),
        ("(0,16)", "data.size = (0, 16) must be one number"),
        ("8x16", "data.size = '8x16' must be a whole number or a tuple of whole numbers."),
        ("(8,1.5)", "data.size = 1.5 must be a whole number."),
        ("(8,18)", "each side of the data must be divisible by 4; 8 x 18 is not"),
    ],
)
def test_a_wrong_size_is_reported_with_a_remedy(size, words):
    changes = {"data.name": "folder:x", "data.size": size, "network.attention": "()"}
    with pytest.raises(UserError) as caught:
        check.check(config.override(config.load(FOLDER), changes | {"network.patch": "2"}))
    assert words in str(caught.value)


def test_one_number_is_a_square():
    raw = config.override(config.load(FOLDER), {"data.name": "folder:x", "data.size": "16"})
    assert check.check(raw).data.size == 16
