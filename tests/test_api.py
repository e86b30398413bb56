"""The Python interface: numbers and messages as on the command line, and the lines of its page."""

import ast
import json
import pkgutil
import re
from pathlib import Path
from types import SimpleNamespace

import nbclient
import nbformat
import numpy as np
import PIL.Image
import pytest

import genzoo
from genzoo import api
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.modes.reconstruct import reconstructed

ROOT = Path(__file__).parent.parent
SMALL = {
    "train.steps": 10, "train.save_every": 10, "sample.steps": 2, "sample.count": 3,
    "sample.batch_size": 3, "train.picture_first": 10, "train.log_every": 2,
}  # fmt: skip


def small(name: str, **without) -> object:
    changes = {key: value for key, value in SMALL.items() if key not in without.values()}
    return genzoo.read_config(f"configs/{name}.py:smoke", changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return genzoo.fit(small("ddpm_fashion_cond"), tmp_path_factory.mktemp("door") / "run")


def printed(capsys, *arguments) -> dict:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def test_samples_are_those_of_the_command_line_bit_for_bit(run, capsys):
    flags = ["--config.sample.conditions.label=sneaker", "--config.sample.seed=3"]
    place = f"--workdir={run.place.path}"
    report = printed(capsys, place, "--mode=sample", "--config.sample.npz=True", *flags)
    expected = np.load(Path(report["samples"]) / "samples.npz")
    images = run.sample(label="sneaker", seed=3)
    assert images.dtype == np.uint8 and (expected["label"] == 7).all()
    np.testing.assert_array_equal(images, expected["x"])
    np.testing.assert_array_equal(run.sample(2, label=7, seed=3), images[:2])
    assert (run.sample(label="bag", seed=3) != images).any()


def test_reconstructions_and_likelihoods_are_those_of_the_command_line(run, capsys):
    test = run._experiment.open("test").read(np.arange(4))
    place = f"--workdir={run.place.path}"
    report = printed(capsys, place, "--mode=eval", "--config.eval.count=4")
    nats = run.likelihood(test["x"], label=test["label"].tolist())
    assert nats.mean() == pytest.approx(report["nats"], rel=1e-6)
    copies = run.reconstruct(test["x"][:3], label=test["label"][:3].tolist())
    printed(capsys, place, "--mode=reconstruct")
    errors = json.loads((run.place.path / "reconstruct.json").read_text())["mean_squared_errors"]
    ours = np.square((copies.astype(float) - test["x"][:3]) / 127.5).mean((1, 2, 3))
    np.testing.assert_allclose(ours, errors, atol=0.02)  # our copies are rounded to pixel levels


def test_data_of_every_kind_go_in_as_the_fields_say():
    waves = np.random.default_rng(0).normal(size=(3, 64, 2))
    run = SimpleNamespace(_experiment=Experiment(small("toy_waves")))
    np.testing.assert_array_equal(api.Run._stored(run, waves), waves.astype(np.float32))
    np.testing.assert_array_equal(api.Run._stored(run, waves[0]), waves[:1].astype(np.float32))
    np.testing.assert_array_equal(api.Run._stored(run, list(waves)), waves.astype(np.float32))
    with pytest.raises(UserError, match=r"not signals for this model: its shape is \(2, 64\)"):
        api.Run._stored(run, waves[0].T)
    with pytest.raises(UserError, match="compares images, but waves holds signals"):
        reconstructed(run._experiment, None, {}, None, 3)
    run = SimpleNamespace(_experiment=Experiment(small("ddpm_fashion")))
    assert api.Run._stored(run, np.zeros((40, 30, 3), np.uint8)).shape == (1, 28, 28, 1)
    with pytest.raises(UserError, match="These are not images for this model: pixels are float64"):
        api.Run._stored(run, np.zeros((28, 28, 1)))


def test_a_predictor_is_that_of_the_samples(run):
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 1)).astype(np.float32)
    one = run.predictor(label="bag", clip="none")(x, 0.4)
    other = run.predictor(label="coat", clip="none")(x, 0.4)
    assert one.x_0.shape == x.shape and np.abs(one.x_0 - other.x_0).max() > 1e-4
    schedule = run.family.schedule_of(run.params)
    back = schedule.alpha(0.4) * one.x_0 + schedule.sigma(0.4) * one.eps
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_codes_go_in_and_out_as_pictures_of_any_size(tmp_path):
    run = genzoo.fit(small("vae_fashion", has_no="sample.steps"), tmp_path / "run")
    photo = PIL.Image.new("RGB", (60, 40), "white")
    square = np.zeros((28, 28, 1), np.uint8)
    codes = run.encode([photo, square])
    assert codes.shape[0] == 2 and codes.dtype == np.float32
    # A program for one image may sum in another order than a program for two.
    np.testing.assert_allclose(run.encode(photo), codes[:1], rtol=2e-6, atol=1e-6)
    between = run.interpolate(photo, square, count=3)
    assert between.shape == (5, 28, 28, 1) and between.dtype == np.uint8
    np.testing.assert_array_equal(between[[0, -1]], run.decode(codes))
    with pytest.raises(UserError, match="vae has no predictor"):
        run.predictor()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.sample(label="boat"), "'boat' is not a class: give a number from 0 to 9"),
        (lambda run: run.sample(stps=3), "sample.stps is not a known key: did you mean 'steps'?"),
        (lambda run: run.sample(eta=0.5, method="heun"), "sample.eta = 0.5 has no effect"),
        (lambda run: run.encode(np.zeros((1, 28, 28, 1), np.uint8)), "ddpm can: sample,"),
        (lambda run: run.reconstruct(np.zeros((28, 28), np.uint8), depth=1), "depth is not a "),
        (lambda run: genzoo.open(run.place.path / "none"), "holds no run"),
        (lambda run: genzoo.open(run.place.path, {"network.width": 32}), "another config"),
        (lambda run: genzoo.read_config("ddpm_fashoin"), "Did you mean 'ddpm_fashion'?"),
    ],
)
def test_a_mistake_is_the_sentence_of_the_command_line(run, call, message):
    with pytest.raises(UserError, match=re.escape(message)):
        call(run)


def test_a_notebook_shows_samples_and_the_loss(run):
    shown = run._repr_html_()
    assert shown.count("data:image/png;base64,") == 2 and "step 10" in shown
    assert [line["step"] for line in run.history()][-1] == 10


def test_no_public_function_has_the_name_of_a_module():
    modules = {module.name for module in pkgutil.iter_modules(genzoo.__path__)}
    assert not modules & set(genzoo.__all__)
    assert all(hasattr(genzoo, name) for name in genzoo.__all__)
    assert {genzoo.open, genzoo.fit, genzoo.read_config} == {api.open, api.fit, api.read_config}
    with pytest.raises(AttributeError, match="no attribute 'train_'"):
        genzoo.train_  # noqa: B018


def lines_of_the_readme() -> str:
    """The ten lines of genzoo/README.md, on a run of a few steps."""
    text = (ROOT / "genzoo" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(import genzoo\n.*?)```", text, re.S)
    assert len(code.strip().splitlines()) == 10
    return code.replace('"ddpm_fashion_cond:laptop"', '"configs/ddpm_fashion_cond.py:smoke"')


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the lines of the README train: what has been trained is not trained again."""
    return tmp_path_factory.mktemp("runs")


def test_the_lines_of_the_readme_run(runs, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = lines_of_the_readme().replace('"runs/', f'"{runs}/')
    exec(compile(ast.parse(code), "README.md", "exec"), {})


def test_they_run_in_a_notebook_too(runs, surroundings):
    code = lines_of_the_readme().replace('"runs/', f'"{runs}/')
    *lines, last = code.strip().splitlines()
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("\n".join(lines)), nbformat.v4.new_code_cell("run")]
    )
    nbclient.NotebookClient(
        book, timeout=300, resources={"metadata": {"path": str(ROOT)}}, env=surroundings(haste=True)
    ).execute()
    (output,) = book.cells[1].outputs
    assert "data:image/png;base64," in output["data"]["text/html"] and last
