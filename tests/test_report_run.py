"""The record and the report of a run that was really trained."""

import json

import pytest

from genzoo.main import main


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
