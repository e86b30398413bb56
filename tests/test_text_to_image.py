"""Text to image from training to its exact score, on scenes of shapes."""

import json

import numpy as np
import pytest

from genzoo.data import shapes
from genzoo.evaluate.prompts import PromptAccuracy
from genzoo.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("shapes") / "run"
    small = [
        "--config.network.multipliers=(1,)", "--config.network.patch=8", "--config.train.steps=4",
        "--config.train.save_every=4", "--config.train.log_every=4",
        "--config.train.picture_count=0",
    ]  # fmt: skip
    assert main(["--config=configs/fm_shapes.py:smoke", f"--workdir={place}", *small]) == 0
    return place


def test_samples_are_asked_for_in_words_and_scored(run, capsys):
    capsys.readouterr()
    asked = "--config.sample.conditions.text=('a red circle','a red triangle','a cross left of it')"
    sample = [f"--workdir={run}", "--mode=sample", "--config.sample.npz=True"]
    assert main([*sample, asked]) == 2
    assert "no word 'it'" in capsys.readouterr().err
    asked = "--config.sample.conditions.text=('a red circle','a red triangle','red')"
    assert main([*sample, asked, "--config.sample.count=6"]) == 0
    report = json.loads(capsys.readouterr().out)
    # "red" does not follow the grammar, so that its samples cannot be scored.
    assert {k: v["samples"] for k, v in report["prompt_accuracy"].items()} == {
        "one object, seen": 2, "one object, unseen": 2,
    }  # fmt: skip
    folder = run / "samples" / "latest"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["prompt_accuracy"] == report["prompt_accuracy"]
    arrays = np.load(folder / "samples.npz")
    text = shapes.spec(32).fields["text"]
    assert [text.text(ids) for ids in arrays["text"][:4]] == [
        "a red circle", "a red triangle", "red", "a red circle",
    ]  # fmt: skip


def test_without_words_samples_have_the_captions_of_the_test_split(run, capsys):
    capsys.readouterr()
    assert main([f"--workdir={run}", "--mode=sample", "--config.sample.count=8"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {k: v["samples"] for k, v in report["prompt_accuracy"].items()} == dict.fromkeys(
        sorted(shapes.scenes.GROUPS), 2
    )


def test_the_accuracy_is_the_share_of_right_samples_of_each_group():
    source = shapes.open_shapes("test")
    records = source.read(np.arange(40))
    texts = [source.spec.fields["text"].text(ids) for ids in records["text"]]
    wrong = records["x"].copy()
    wrong[:8] = 0  # two of each group
    accuracy = PromptAccuracy(source.spec.judge)
    for part in (slice(0, 13), slice(13, 40)):
        accuracy.add(wrong[part], texts[part])
    expected = {group: {"accuracy": 0.8, "samples": 10} for group in shapes.scenes.GROUPS}
    assert accuracy.report() == expected
    accuracy.add(wrong[:2], ["a dog", "red"])  # not in the grammar
    assert accuracy.report() == expected
