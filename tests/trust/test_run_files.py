"""The other files of a run: edited or damaged ones are named, and what is written is valid JSON."""

import ast
import json
import logging
import math
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_architecture import FILES

from genzoo import check, config
from genzoo.core import strict_json
from genzoo.core.errors import UserError
from genzoo.core.files import write_atomically
from genzoo.evaluate import figures, pictures
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.record import read_record
from genzoo.train.writers import JsonLines, read_lines
from genzoo.workdir import Workdir

ROOT = Path(__file__).parents[2]
MANY = [(0, 60), pytest.param((1, 1000), marks=pytest.mark.slow)]  # (seed, number of damages)


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "[Infinity]", '{"a": -Infinity}', "1e999", '{"a": 1, "a": 1}', "[" * 100_000,
     '{"a":' * 200 + "1" + "}" * 200, "1" * 5000, b"\xff", b"\xff\xfe\x00\x00", "{'a': 1}", "[1,]"],
)  # fmt: skip
def test_what_is_not_json_is_refused(text, tried):
    with pytest.raises(ValueError):
        strict_json.loads(text)
    tried("texts that are not JSON", "refused")


def strict(text: str) -> object:
    """As another program reads it."""

    def never(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=never)


def test_numbers_that_json_has_not_are_written_as_words():
    value = {"a": math.nan, "b": [math.inf, (-math.inf, 1.5)], "c": {"d": None, "e": True}}
    expected = {"a": "NaN", "b": ["Infinity", ["-Infinity", 1.5]], "c": {"d": None, "e": True}}
    assert strict(strict_json.dumps(value)) == expected
    assert strict_json.loads(strict_json.dumps(value, indent=2)) == expected


def test_a_report_with_infinite_scores_is_valid(tmp_path):
    Workdir(tmp_path).write("eval.json", {"loss": {"loss": math.inf}, "nats": math.nan})
    report = strict((tmp_path / "eval.json").read_text())
    assert report == {"loss": {"loss": "Infinity"}, "nats": "NaN"}


def test_json_is_written_and_read_in_one_place():
    """Reading data sets is another matter: these are not ours."""
    wrong = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "json":
                wrong += [file.as_posix()] if node.attr.startswith(("dump", "load")) else []
    ours = [name for name in wrong if "/data/" not in name and "strict_json" not in name]
    assert ours == []


# --- config.json ----------------------------------------------------------------------------------


def change(workdir, **changes) -> None:
    stored = json.loads((workdir / "config.json").read_text())
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    (workdir / "config.json").write_text(json.dumps(config.override(stored, changes)))


def checked(workdir):
    return check.check(Workdir(workdir).config())


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 7), ("family__noise_mean", -1.0), ("train__batch_size", 64),
     ("network__width", 32), ("optimizer__warmup", 6), ("train__averages__ema__decay", 0.5)],
)  # fmt: skip
def test_an_edited_config_does_not_go_on(workdir, tried, key, value):
    change(workdir, **{key: value})
    before = (workdir / "config.json").read_bytes()
    name = key.replace("__", ".")
    with pytest.raises(UserError, match=rf"other values of {name}, by its newest checkpoint .*20"):
        Workdir(workdir).check(checked(workdir))
    assert (workdir / "config.json").read_bytes() == before
    tried("edited config.json", "named and refused")


def test_an_edited_learning_rate_is_named(workdir, caplog):
    change(workdir, optimizer__learning_rate=0.5)
    with caplog.at_level(logging.INFO, logger="genzoo"):
        Workdir(workdir).check(checked(workdir))
    assert "optimizer.learning_rate was 0.002 and is now 0.5: this changes the run" in caplog.text


def test_who_reads_is_told_too(workdir, caplog):
    change(workdir, seed=7)
    abstract = Experiment(checked(workdir)).abstract_state
    with caplog.at_level(logging.INFO, logger="genzoo"):
        Workdir(workdir).load(checked(workdir), abstract)
    assert "seed is 7 in config.json, but 0 in " in caplog.text
    change(workdir, family__noise_mean=-1.0)  # the arrays have the same shapes and another meaning
    for read in (
        lambda: Workdir(workdir).load(checked(workdir), abstract),
        lambda: Workdir(workdir).variables(checked(workdir), abstract, "ema"),
    ):
        with pytest.raises(UserError, match=r"other values of family\.noise_mean"):
            read()


def test_data_json_may_be_lost_and_the_data_are_still_the_same(workdir):
    data = json.loads((workdir / "data.json").read_text())
    (workdir / "data.json").unlink()
    place = Workdir(workdir)
    with pytest.raises(UserError, match="The data has changed"):
        place.claim(checked(workdir), {**data, "examples": 11})
    place.claim(checked(workdir), data).close()
    assert json.loads((workdir / "data.json").read_text()) == data


SECTIONS = ("family", "network", "conditions", "frozen", "data", "optimizer", "train", "sample",
            "eval", "mesh", "start")  # fmt: skip
CONTENTS = (
    "", "{", "[]", "null", "3", '"text"', "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900,
    b"\xff\xfe", b"\0" * 100, '{"seed": NaN}', '{"seed": 1e999}', '{"seed": 0, "seed": 0}',
    '{"family": {}}', "{}",
)  # fmt: skip


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_a_spoilt_file_is_named(workdir, tried, name):
    right = checked(workdir)
    for content in CONTENTS if name == "config.json" else CONTENTS[:13]:
        content = content if isinstance(content, bytes) else content.encode()
        (workdir / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            Workdir(workdir).check(right)
            Workdir(workdir).claim(right, {"examples": 1})
        assert (workdir / name).read_bytes() == content
        tried(f"contents of {name}", "named")


@pytest.mark.parametrize("value", [None, 3, "text", [], [1], {"odd": {}}, True, 1.5])
def test_a_section_of_another_type_is_named(run, workdir, tried, value):
    stored = json.loads((run / "config.json").read_text())
    for section in SECTIONS:
        (workdir / "config.json").write_text(json.dumps({**stored, section: value}))
        with pytest.raises(UserError, match=section):
            checked(workdir)
            Workdir(workdir).check(checked(workdir))
            raise UserError(f"{section} accepted") if not value else AssertionError(section)
        tried("sections of another type", "named")


@pytest.mark.parametrize("many", MANY)
def test_flipped_bits_of_config_json_do_not_pass_unnoticed(workdir, tried, caplog, many):
    """A changed value is refused, named, or of a key that any run may change."""
    seed, number = many
    content, generator = (workdir / "config.json").read_bytes(), random.Random(seed)
    right, free = Workdir(workdir).config(), 0
    for _ in range(number):
        bit, spoilt = generator.randrange(8 * len(content)), bytearray(content)
        spoilt[bit // 8] ^= 1 << bit % 8
        (workdir / "config.json").write_bytes(spoilt)
        try:
            found = checked(workdir)
            Workdir(workdir).check(found)
        except UserError:
            continue
        changed = config.differences(right, found.to_dict())
        housekeeping = (
            "sample.", "eval.", "bench.", "tools.", "compile.", "mesh.", "train.", "data.dir",
            "data.hold", "optimizer.learning_rate", "optimizer.clip",
        )  # fmt: skip
        assert all(key.startswith(housekeeping) for key in changed), changed
        free += 1
    tried("flipped bits of config.json", "named and refused", number - free)
    tried("flipped bits of config.json", "white space, or keys that any run may change", free)


def test_the_record_of_a_checkpoint_without_a_config_is_empty(workdir):
    shutil.rmtree(workdir / "checkpoints")
    assert read_record(workdir).config == {} == read_record(workdir).data


# --- metrics.jsonl --------------------------------------------------------------------------------

GOOD = b'{"step": 10, "loss": 1.5}\n{"step": 20, "loss": null}\n'
LINES = (
    b"[1]", b"3", b"null", b"{}", b"\xff\xfe", b"{", b'{"step": "x"}', b'{"step": null}',
    b'{"step": NaN}', b'{"step": 1e999}', b'{"step": [1]}', b"[" * 100_000, b"", b"\0\0\0",
    b'{"step": true}', b'{"step": 10, "step": 20}', b'"' + "\u2028".encode() + b'"',
)  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=lambda line: repr(line[:20]))
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_damaged_curve_is_kept_and_goes_on(tmp_path, caplog, tried, line, place):
    content = line + b"\n" + GOOD if place == "first" else GOOD + line + b"\n"
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(content)
    writer = JsonLines(file, 10)
    writer.write(11, {"loss": math.nan, "bins": [1.0, math.inf]})
    writer.close()
    assert (tmp_path / "damaged-metrics.jsonl").read_bytes() == content
    assert f"cannot read line {1 if place == 'first' else 3}" in caplog.text
    expected = [{"step": 10, "loss": 1.5}, {"step": 11, "loss": None, "bins": [1.0, None]}]
    assert [strict(each) for each in file.read_text().splitlines()] == expected
    tried("lines of metrics.jsonl", "kept aside and named; the curve goes on")


@pytest.mark.parametrize("cut", range(1, 26))
def test_a_line_cut_by_a_kill_is_no_damage(tmp_path, cut):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(GOOD + b'{"step": 30, "loss": 2.5}'[:cut])
    lines, wrong = read_lines(file)
    assert [line["step"] for line in lines] == [10, 20, 30][: 2 + (cut == 25)] and wrong == ""
    JsonLines(file, 20).close()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [10, 20]
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


# --- what is in the way ---------------------------------------------------------------------------

FOLDERS = ("checkpoints", "frozen", "samples", "samples/training", "tensorboard", "wandb")
NAMES = (
    "config.json", "data.json", "metrics.jsonl", "eval.json", "run.json", "report.html", ".lock",
)  # fmt: skip


def put(path: Path, kind: str) -> None:
    if path.is_dir():
        path.rename(path.with_name("away"))
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("nowhere")
    else:
        path.write_text("{}")


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_what_is_in_the_way_is_named_before_anything_is_written(run, tmp_path, tried, kind):
    right = checked(run)
    for name in FOLDERS if kind == "file" else NAMES if kind == "folder" else FOLDERS + NAMES:
        workdir = shutil.copytree(run, tmp_path / name.replace("/", "-"))
        put(workdir / name, kind)
        with pytest.raises(UserError, match=rf"{name} is in the way of a (file|folder): rename it"):
            Workdir(workdir).check(right)
        tried("what is in the way", "named")


def test_the_command_ends_in_a_sentence(workdir, capsys):
    (workdir / "samples").write_text("")
    before = sorted(os.listdir(workdir))
    for mode in ("train", "eval", "sample"):
        assert main([f"--workdir={workdir}", f"--mode={mode}", "--config.train.steps=30"]) == 2
        error = capsys.readouterr().err
        assert "samples" in error and "Traceback" not in error
    assert sorted(os.listdir(workdir)) == before


def test_damaged_settings_of_samples_are_not_overwritten(workdir):
    place, right = Workdir(workdir), checked(workdir)
    for number, content in enumerate((b"{", b"[1]", b'{"sample": 3}', b"\xff", b'{"sample": NaN}')):
        folder = place.sample_folder(right, 20)
        assert folder.name == "step_00000020" + (f"-{number + 1}" if number else "")
        folder.mkdir(parents=True)
        (folder / "settings.json").write_bytes(content)
    with pytest.raises(UserError, match=r"has a damaged settings\.json"):
        into = check.check(config.override(place.config(), {"sample.into": "step_00000020"}))
        place.sample_folder(into, 20)


# --- what is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["/dev/full", "a pipe that nobody reads"])
def test_a_report_that_cannot_be_written_is_a_sentence(output):
    if output == "/dev/full":
        target = os.open(output, os.O_WRONLY)
    else:
        end, target = os.pipe()
        os.close(end)
    done = subprocess.run(
        [sys.executable, "-m", "genzoo.main", "--mode=list"], cwd=ROOT, text=True, stdout=target,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(target)
    assert done.returncode == 2 and not re.search("Traceback|Exception", done.stderr)
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"genzoo: .* report could not be written to standard output \(.+\)\.", last)


def test_a_name_that_is_no_text_is_refused_before_anything_is_written(tmp_path, capsys):
    """The library of the checkpoints cannot write there, as the first save would show."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    assert main(["--config=toy_mixture:smoke", f"--workdir={folder}/run"]) == 2
    assert "are not UTF-8" in capsys.readouterr().err and not folder.exists()


def test_what_a_kill_left_of_samples_is_removed_by_the_next_call(tmp_path):
    files = ("000000.png", ".000001.png.ab1cd_2x", "grid.png", ".grid.png.12345678", "samples.npz")
    for name in (*files, "mine.png", "settings.json"):
        (tmp_path / name).write_text("")
    Workdir(tmp_path.parent).begin_samples(tmp_path, {})
    assert sorted(os.listdir(tmp_path)) == ["mine.png", "settings.json"]


def test_a_picture_is_whole_or_not_there(tmp_path, monkeypatch):
    """Others look at pictures while a run draws, and a resumed run draws what is not there."""
    seen = []
    monkeypatch.setattr(
        Path, "replace", lambda self, to: seen.append((os.listdir(to.parent), to.name))
    )
    image = np.zeros((4, 4, 1), np.uint8)
    pictures.save(tmp_path / "a" / "a.png", image)
    figures.save(figures.blank(40, 40), tmp_path / "b" / "b.png")
    assert [name in listed for listed, name in seen] == [False, False]


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o644), (0o002, 0o644), (0o077, 0o600)])
def test_what_is_written_is_as_private_as_the_umask_says(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode and os.listdir(tmp_path) == ["a"]
