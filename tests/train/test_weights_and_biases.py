"""Weights & Biases: the same numbers, one run over resumptions, nothing outside the workdir, and no
failure that ends a training."""

import importlib.util
import json
import os
import struct
import sys
import types

import pytest

from genzoo.main import main
from genzoo.train import weights_and_biases
from genzoo.train.weights_and_biases import WeightsAndBiases

needs_it = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is missing: pip install wandb"
)


def records(content: bytes):
    """The records of a log of LevelDB, the format of these files, after a header of seven bytes:
    blocks of 32 KiB, in which each piece has a checksum, a length and a kind (1: whole, 2 to 4:
    first, middle, last)."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


@needs_it
def test_a_training_offline_stays_in_its_workdir_and_goes_on_in_one_run(
    tmp_path, monkeypatch, capsys
):
    from wandb.proto.wandb_internal_pb2 import Record

    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    workdir = tmp_path / "run"
    common = [f"--workdir={workdir}", "--config.train.wandb=offline", "--no_compile_cache"]
    config = os.path.abspath("configs/toy_mixture.py") + ":smoke"
    monkeypatch.chdir(tmp_path / "here")
    assert main([f"--config={config}", *common]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 20
    assert main([f"--config={config}", *common, "--config.train.steps=30"]) == 0
    capsys.readouterr()
    assert list((tmp_path / "here").iterdir()) == []
    assert [p for p in (tmp_path / "home").rglob("*") if "wandb" in p.name] == []
    first, second = sorted(workdir.glob("wandb/offline-run-*/run-*.wandb"))
    name = (workdir / "wandb" / "run-id").read_text().strip()
    assert first.name == second.name == f"run-{name}.wandb"
    logged = []
    for file in (first, second):
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
                logged.append({k: json.loads(v) for k, v in items.items()})
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [line["step"] for line in lines]
    for entry, line in zip(logged, lines, strict=True):
        assert entry["loss"] == line["loss"] and entry["learning_rate"] == line["learning_rate"]


def test_a_missing_library_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys):
    missing = importlib.util.find_spec
    monkeypatch.setattr(
        weights_and_biases.importlib.util, "find_spec",
        lambda name, *rest: None if name == "wandb" else missing(name, *rest),
    )  # fmt: skip
    flags = ["--config=toy_mixture:smoke", f"--workdir={tmp_path}/run"]
    assert main([*flags, "--config.train.wandb=offline"]) == 2
    said = capsys.readouterr().err
    assert "train.wandb" in said and "pip install 'genzoo[wandb]'" in said
    assert not (tmp_path / "run" / "config.json").exists()
    assert main([*flags, "--config.train.wandb=always"]) == 2
    assert "off, offline, online" in capsys.readouterr().err


class Broken:
    """A library whose network fails at one place."""

    def __init__(self, where: str):
        self.where, self.modes, self.logged = where, [], []

    def fail(self, where: str) -> None:
        if where == self.where:
            raise ConnectionError("no route to host")

    def Settings(self, **given):
        self.modes.append(given["mode"])
        return given

    def init(self, settings, **_):
        if settings["mode"] == "online":
            self.fail("init")
        return self

    def define_metric(self, *_, **__):
        pass

    def log(self, values):
        self.fail("log")
        self.logged.append(values)

    def finish(self):
        self.fail("finish")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_network_that_fails_costs_a_warning(tmp_path, monkeypatch, caplog, where):
    library = Broken(where)
    module = types.ModuleType("wandb")
    module.Settings, module.init = library.Settings, library.init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_CACHE_DIR", "/theirs")
    writer = WeightsAndBiases(tmp_path, "online", "genzoo", {})
    for step in (1, 2, 3):
        writer.write(step, {"loss": 0.5, "rate": float("nan"), "norms": [1.0]})
    writer.close()
    assert library.modes == (["online", "offline"] if where == "init" else ["online"])
    kept = [{"loss": 0.5, "step": step} for step in (1, 2, 3)]
    assert library.logged == ([] if where == "log" else kept)
    assert caplog.text.count("no route to host") == 1
    assert os.environ["WANDB_CACHE_DIR"] == "/theirs" and "WANDB_DATA_DIR" not in os.environ


def test_the_run_keeps_its_name_and_a_damaged_one_is_replaced(tmp_path):
    file = tmp_path / "run-id"
    name = weights_and_biases._identity(file)
    assert len(name) == 16 and weights_and_biases._identity(file) == name
    file.write_bytes(b"\xff../../x")
    assert weights_and_biases._identity(file) != name
