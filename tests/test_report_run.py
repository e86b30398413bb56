"""The record and the report of a run that was really trained."""

import json
from dataclasses import replace

import jax
import pytest

from genzoo import config
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.resolve import resolved
from genzoo.runtime.compilation import counted, flops


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("toy") / "run"
    arguments = ["--config=toy_mixture:smoke", f"--workdir={workdir}", "--config.seed=3"]
    assert main(arguments) == 0
    return workdir, arguments


def test_a_start_is_recorded(trained, capsys):
    workdir, arguments = trained
    (start,) = json.loads((workdir / "run.json").read_text())["starts"]
    assert start["command"] == "python -m genzoo.main " + " ".join(arguments)
    assert start["config"] == "toy_mixture:smoke" and start["changed"] == {"seed": [0, 3]}
    assert (start["from_step"], start["to_step"]) == (0, 20)
    assert {"start", "compile", "data", "steps", "saving"} <= start["seconds"].keys()
    assert main(["--mode=describe", *arguments[::2]]) == 0
    described = json.loads(capsys.readouterr().out)
    assert start["parameters"] == described["parameters"]
    # The whole program also gathers the batch, which needs no operations.
    assert start["flops_per_step"] == pytest.approx(described["train_step_flops"], rel=0.02)


def test_the_report_follows_training_evaluation_and_pictures(trained, capsys):
    workdir, _ = trained
    page = (workdir / "report.html").read_text()
    assert "What differs from toy_mixture:smoke" in page and "Missing or damaged" not in page
    assert "Evaluation" not in page
    assert main([f"--workdir={workdir}", "--mode=eval"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "Protocol" in (workdir / "report.html").read_text()
    asked = "--config.sample.pictures=forward,schedule"
    assert main([f"--workdir={workdir}", "--mode=sample", asked]) == 0
    folder = workdir / "samples" / "latest"
    assert (folder / "forward.png").is_file() and (folder / "schedule.png").is_file()
    named = json.loads((folder / "schedule.json").read_text())["schedules"]
    assert list(named) == ["edm (own)", "linear", "scaled_linear", "cosine", "sigmoid"]
    assert main([f"--workdir={workdir}", "--mode=report"]) == 0
    page = (workdir / "report.html").read_text()
    assert "The forward process" in page and "edm (own)" in page


def test_a_report_that_fails_does_not_undo_the_work(trained, monkeypatch, caplog):
    workdir, _ = trained
    from genzoo.modes import report

    def broken(*_):
        raise RuntimeError("no page")

    monkeypatch.setattr(report, "run_page", broken)
    assert main([f"--workdir={workdir}", "--mode=eval"]) == 0
    assert "report.html was not written: no page" in caplog.text


@pytest.mark.parametrize(
    "accumulate, steps, unrolled", [(1, 1, 1), (2, 4, 8), (2, 4, 1), (16, 1, 8)]
)
def test_operations_of_a_step_are_counted_in_loops_too(accumulate, steps, unrolled):
    experiment = Experiment(resolved(config.load("toy_mixture:smoke")))
    state, size = experiment.abstract_state, 1024  # the optimizer's share is small
    updater = replace(experiment.updater(accumulate), max_unrolled=unrolled)
    program = jax.jit(updater.call).lower(state, {}, experiment.stored(steps, size))
    one = flops(experiment.updater(1).update, state, experiment.stored(size))
    assert updater.flops_of_step(counted(program), steps) == pytest.approx(one, rel=0.1)
