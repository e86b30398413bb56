"""Folders whose files come with captions, classes and numbers: a model of them is trained, resumed
and sampled by words and by numbers. Every mistake in the files ends a run before it begins."""

import json

import numpy as np
import pytest
from PIL import Image
from runs import metrics

from genzoo.main import main

SHORT = ["--config.train.save_every=2", "--config.train.log_every=2", "--config.train.batch_size=4",
         "--config.train.picture_count=0", "--config.train.steps_per_call=1"]  # fmt: skip


def columns(count):
    """For each file: caption, class, porosity, grain."""
    colours, kinds = ("red", "blue", "green"), ("cats", "dogs")
    return [
        (f"a {colours[i % 3]} {kinds[i % 2]}, asleep", kinds[i % 2], 0.1 + i / 20, i % 4)
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images with a metadata.csv."""
    top, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    lines = ["file_name,text,label,porosity,grain"]
    for i, (text, label, porosity, grain) in enumerate(columns(12)):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(top / f"{i}.png")
        lines.append(f'{i}.png,"{text}",{label},{porosity},{grain}')
    (top / "metadata.csv").write_text("\n".join(lines) + "\n")
    return top


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    """A folder of .npz files, each of which holds all that is known of its signal."""
    top, random = tmp_path_factory.mktemp("signals"), np.random.default_rng(0)
    for i, (text, label, porosity, grain) in enumerate(columns(12)):
        np.savez(
            top / f"{i}.npz",
            x=random.normal(size=16), text=text, label=label, porosity=porosity, grain=grain,
        )  # fmt: skip
    return top


def of_images(folder, workdir, steps, *more):
    """Text by cross-attention, class and numbers with the time."""
    return [
        "--config=configs/fm_fashion.py:smoke", f"--config.data.name=folder:{folder}",
        "--config.data.size=8", "--config.data.channels=1", "--config.network.patch=2",
        "--config.network.attention=()", "--config.network.transformer_depth=1",
        "--config.network.width=8", "--config.sample.steps=2", "--config.sample.method=euler",
        "--config.conditions.text.layers=1", "--config.conditions.text.dropout=0.1",
        "--config.conditions.label.dropout=0.1",
        "--config.conditions.properties.dropout=0.1", f"--workdir={workdir}",
        f"--config.train.steps={steps}", *SHORT, *more,
    ]  # fmt: skip


def of_signals(folder, workdir, steps, *more):
    """Class and numbers."""
    return [
        "--config=configs/toy_waves.py:smoke", f"--config.data.name=signals:{folder}",
        "--config.data.size=16", "--config.data.channels=1",
        "--config.conditions.properties.dropout=0.1", f"--workdir={workdir}",
        f"--config.train.steps={steps}", *SHORT, *more,
    ]  # fmt: skip


def sampled(workdir, capsys, **conditions):
    """The arrays of two samples with these conditions."""
    asked = [f"--config.sample.conditions.{name}={value}" for name, value in conditions.items()]
    capsys.readouterr()
    more = ["--mode=sample", "--config.sample.npz=True", "--config.sample.count=2"]
    assert main([f"--workdir={workdir}", *more, *asked]) == 0
    return dict(np.load(workdir / "samples" / "latest" / "samples.npz"))


def refused(workdir, capsys, **conditions) -> str:
    """The message that ends a call with these conditions."""
    asked = [f"--config.sample.conditions.{name}={value}" for name, value in conditions.items()]
    capsys.readouterr()
    assert main([f"--workdir={workdir}", "--mode=sample", *asked]) == 2
    return capsys.readouterr().err


def test_images_train_resume_and_are_sampled_by_words_and_by_numbers(
    images, tmp_path, capsys, caplog
):
    assert main(of_images(images, tmp_path / "run", 2)) == 0
    data = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert data["classes"] == ["cats", "dogs"] and data["tokens"] == 5 and "red" in data["words"]
    assert [name for name, _, _ in data["columns"]] == ["porosity", "grain"]
    assert main(of_images(images, tmp_path / "run", 4)) == 0
    assert "Resuming from the checkpoint of step 2." in caplog.text
    assert metrics(tmp_path / "run", "step") == [[2], [4]]

    asked = dict(text="['a red cats','none']", label="dogs", properties="porosity=0.4, grain=2")
    drawn = sampled(tmp_path / "run", capsys, **asked)
    assert drawn["x"].shape == (2, 8, 8, 1) and drawn["x"].dtype == np.uint8
    np.testing.assert_array_equal(drawn["label"], [1, 1])
    np.testing.assert_array_equal(drawn["properties"], np.float32([[0.4, 2], [0.4, 2]]))
    words = [data["words"].index(word) + 2 for word in ("a", "red", "cats")]
    np.testing.assert_array_equal(drawn["text"], [[*words, 0, 0], [0] * 5])
    for conditions, message in (
        (dict(text="a rad cats"), "the vocabulary has no word 'rad'"),
        (dict(label="horses"), "is not a class: give a number from 0 to 1 or a name"),
        (dict(properties="porosity=0.4"), "lacks grain"),
    ):
        assert message in refused(tmp_path / "run", capsys, **conditions)


def test_signals_train_resume_and_are_sampled_by_words_and_by_numbers(signals, tmp_path, capsys):
    assert main(of_signals(signals, tmp_path / "run", 2)) == 0
    assert main(of_signals(signals, tmp_path / "run", 4)) == 0
    assert metrics(tmp_path / "run", "step") == [[2], [4]]
    drawn = sampled(tmp_path / "run", capsys, label="dogs", properties="'0.4, 2'")
    assert drawn["x"].shape == (2, 16, 1) and drawn["x"].dtype == np.float32
    np.testing.assert_array_equal(drawn["label"], [1, 1])
    np.testing.assert_array_equal(drawn["properties"], np.float32([[0.4, 2], [0.4, 2]]))
    assert (tmp_path / "run" / "samples" / "latest" / "grid.png").stat().st_size > 1000


def test_a_mistake_ends_a_run_before_it_begins(images, signals, tmp_path, capsys):
    table = images / "metadata.csv"
    right = table.read_text()
    try:
        table.write_text(right.replace("0.2,2", "0;2,2"))
        assert main(of_images(images, tmp_path / "run", 2)) == 2
        wrong = f"genzoo: {table}, line 4, column 'porosity': '0;2' is not a finite number; "
        message = capsys.readouterr().err
        assert message.startswith(wrong) and message.count("\n") == 1
        assert main(of_signals(signals, tmp_path / "run", 2, "--config.data.size=15")) == 2
        assert "0.npz: it has 16 samples, but data.size = 15" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    finally:
        table.write_text(right)
