"""A run in the latent space of a frozen first stage: training, resuming, sampling, scores."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
from runs import final_state

from genzoo import check, config, runs
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.resolve import resolved
from genzoo.workdir import Workdir

MODEL = "configs/ldm_fashion.py:smoke"
FEW = [
    "--config.train.steps=4", "--config.train.save_every=2", "--config.train.log_every=2",
    "--config.train.picture_count=0", "--config.optimizer.learning_rate=0.03",
    "--config.optimizer.warmup=0",
]  # fmt: skip


def first_stage(place, path="configs/vqvae_fashion.py:smoke", **changes):
    """A run that was saved at step 0."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    settled = check.check(config.override(config.load(path), changes))
    config.write_json(place / "config.json", settled.to_dict())
    checkpoints = Workdir(place).checkpoints(keep=2)
    checkpoints.save(Experiment(settled).new_state())
    checkpoints.close()
    return place


def of(place):
    return f"--config.frozen.first.workdir={place}"


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return first_stage(tmp_path_factory.mktemp("first") / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory, first):
    """A run whose first stage is gone afterwards: its own workdir is enough."""
    folder = tmp_path_factory.mktemp("model")
    place, lent = folder / "run", folder / "first"
    shutil.copytree(first, lent)
    assert main([f"--config={MODEL}", *FEW, f"--workdir={place}", of(lent)]) == 0
    shutil.rmtree(lent)
    return place


def test_its_latents_are_standardised_over_the_training_data(run, first):
    state, theirs = final_state(run), final_state(first)
    chex.assert_trees_all_equal(state.frozen["first"]["params"], theirs.params)
    experiment = Experiment(check.check(Workdir(first).config()))
    held = jax.device_put(Variables(params=theirs.params, stats=theirs.stats))
    x = experiment.open("train").arrays["x"][::20]  # space.examples = 500 of 10,000
    z = jax.jit(experiment.family.moments)(held, experiment.prepared({"x": x}))[0]
    rows = np.asarray(z, np.float64).reshape(-1, z.shape[-1])
    np.testing.assert_allclose(state.stats["standard"]["shift"], rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.stats["standard"]["scale"], rows.std(0), rtol=1e-5)


def test_it_resumes_bit_for_bit_without_its_first_stage(run, tmp_path):
    halves = tmp_path / "run"
    shutil.copytree(run, halves)
    shutil.rmtree(halves / "checkpoints" / "4")
    assert final_state(halves).step == 2
    assert main([f"--workdir={halves}"]) == 0
    chex.assert_trees_all_equal(final_state(halves), final_state(run))


def test_samples_are_images(run, capsys):
    quick = ["--config.sample.method=euler", "--config.sample.steps=2"]
    assert main([f"--workdir={run}", "--mode=sample", *quick]) == 0
    assert (run / "samples" / "latest" / "000003.png").is_file()
    capsys.readouterr()
    wrong = "--config.sample.pictures=denoising"
    assert main([f"--workdir={run}", "--mode=sample", wrong]) == 2
    assert "denoising needs noisy data, but the noise is in the latents" in capsys.readouterr().err


def test_scores_are_of_latents(run):
    assert main([f"--workdir={run}", "--mode=eval"]) == 0
    report = json.loads((run / "eval.json").read_text())
    assert report["likelihood_of"].startswith("a density of the latents of the first stage")
    assert np.isfinite(report["nats"]) and "bits_per_dim" not in report


def test_a_weaker_model_of_the_same_space_guides(run, tmp_path, capsys):
    sample = [f"--workdir={run}", "--mode=sample", f"--config.sample.guide={run}"]
    quick = ["--config.sample.method=euler", "--config.sample.steps=2"]
    assert main([*sample, *quick, "--config.sample.guidance_scale=2"]) == 0
    other = first_stage(tmp_path / "other", "configs/fm_fashion.py:smoke")
    capsys.readouterr()
    assert main([*sample, f"--config.sample.guide={other}"]) == 2
    assert "works in another space than this model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "network"),
    [
        (dict(name="ddpm", prediction="v"), {}),
        (dict(name="edm", data_deviation=1.0), {}),
        (dict(name="score_sde"), {}),
        (dict(name="vdm"), {}),
        (dict(name="flow_matching"), dict(name="unet", width=8, multipliers=(1,), blocks=1)),
    ],
    ids=lambda value: value.get("name", ""),
)
def test_every_family_and_network_works_there(family, network, first):
    raw = config.load(MODEL)
    raw["family"], raw["frozen"]["first"]["workdir"] = family, str(first)
    if network:
        raw["network"] = {**network, "attention": (), "norm_groups": 4}
    if family["name"] == "ddpm":
        raw["sample"] = dict(clip="none", steps=2, grid="trailing", method="ddim")
        raw["eval"] = dict(bound_steps=2)
    elif family["name"] == "vdm":
        raw["eval"] = {}
    experiment = Experiment(resolved(raw))
    own, state = experiment.family, experiment.abstract_state
    held = Variables(params=state.params, stats=state.stats, frozen=state.frozen)
    batch = experiment.example(3)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 3))
    draw = jax.eval_shape(lambda v, b, k: own.reconstruct(v, b, k), held, batch, keys)
    assert draw.shape == (3, 28, 28, 1)
    nats = jax.eval_shape(own.likelihood, held, batch, keys)
    assert nats.total.shape == (3,) and nats.dimensions == 7 * 7 * 4 and nats.density


def problems(raw) -> list[str]:
    with pytest.raises(UserError) as caught:
        resolved(raw)
    return list(caught.value.problems)


WRONG = {
    "space.name": (dict(space=dict(name="latents")), "space.name = 'latents'"),
    "moments": (
        dict(space=dict(name="data", moments="mean"), frozen={}),
        "space.moments = 'mean' has no effect with space.name = 'data'",
    ),
    "unused": (
        dict(space=dict(name="data")),
        "frozen.first is used in a latent space only: set space.name = 'latent'",
    ),
    "missing": (dict(frozen={}), "frozen.first.workdir must be given, that of a first stage"),
    "clip": (dict(sample=dict(clip="clip")), "clips the predicted data to [-1, 1], but latents"),
    "classifier": (dict(sample=dict(classifier="x")), "sample.classifier sees noisy data"),
    "align": (
        dict(family=dict(name="flow_matching", align="encoder", align_block=1)),
        "compares with features of the data that the model denoises",
    ),
    "dequantise": (
        dict(family=dict(name="score_sde", dequantise=True)), "but latents have none"
    ),
    "augment": (dict(family=dict(name="edm", augment=0.1)), "the model sees latents: set it to 0"),
    "of x": (
        dict(conditions=dict(low=dict(of="x", transform="downsample2"))),
        "conditions.low is made from x, which space.name = 'latent' replaces",
    ),
    "family": (
        dict(family=dict(name="vae"), network=dict(name="mlp"), sample={}, eval={}, conditions={}),
        "vae models data, not latents; leave it at 'data', or use one of the families ddpm",
    ),
    "network": (
        dict(network=dict(name="point_mlp")),
        "latents of shape (7, 7, 4), but network.name = 'point_mlp' is for points",
    ),
    "patch": (
        dict(network=dict(name="dit", patch=2)),
        "network.patch is 2, so each side of the data must be divisible by 2; 7 x 7 is not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_in_a_sentence(case, first):
    changes, message = WRONG[case]
    raw = config.load(MODEL)
    raw["frozen"]["first"]["workdir"] = str(first)
    for section, values in changes.items():
        keep = section in ("sample",) and values
        raw[section] = {**raw[section], **values} if keep else values
    if "frozen" not in changes and case == "align":
        raw["frozen"]["encoder"] = dict(workdir=str(first))
    assert any(message in problem for problem in problems(raw)), problems(raw)


def test_a_first_stage_must_fit(tmp_path):
    raw = config.load(MODEL)
    raw["frozen"]["first"]["workdir"] = str(tmp_path / "pca")
    other = check.check(config.load("configs/pca_fashion.py:smoke"))
    config.write_json(tmp_path / "pca" / "config.json", other.to_dict())
    (problem,) = problems(raw)
    assert "holds a pca of fashion_mini" in problem and "it must be a first stage" in problem
    raw["frozen"]["first"]["workdir"] = str(tmp_path / "flat")
    flat = check.check(config.load("configs/vae_fashion.py:smoke"))
    config.write_json(tmp_path / "flat" / "config.json", flat.to_dict())
    (problem,) = problems({**raw, "frozen": {"first": {**raw["frozen"]["first"]}}})
    assert "frozen.first has latents of shape (2,), but network.name = 'dit'" in problem
    colour = {**flat.to_dict(), "data": {**flat.to_dict()["data"], "name": "cifar10"}}
    config.write_json(tmp_path / "flat" / "config.json", colour)
    (problem,) = problems(raw)
    assert "was trained on images of shape (32, 32, 3)" in problem


def test_a_config_of_before_there_were_spaces_still_loads(tmp_path):
    raw = check.check(config.load("configs/fm_fashion.py:smoke")).to_dict()
    del raw["space"]
    config.write_json(tmp_path / "config.json", raw)
    settled = check.check(Workdir(tmp_path).config())
    assert settled.space.name == "data" and runs.resolve(settled, None) is settled
