"""Configs of families in continuous time: every mistake gets a message with a remedy."""

import pytest

from genzoo import build, check, config
from genzoo.core import tree
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment

EDM, FLOW, TOY = "configs/edm_cifar.py", "configs/fm_cifar.py", "configs/toy_mixture.py"
SDE, VDM = "configs/sde_ve_cifar.py", "configs/vdm_cifar.py"
WAVES = "configs/toy_waves.py"
GUIDED, CLASSES = "configs/ddpm_fashion_cond.py", "configs/classifier_fashion.py"

MISTAKES = [
    (TOY, {"data.name": "mnist"}, "'point_mlp' is for points, but mnist holds images: use networ"),
    (TOY, {"data.name": "waves"}, "but waves holds signals: use network.name = 'unet' or 'song_"),
    (FLOW, {"data.name": "swissroll"}, "'unet' is for images or signals, but swissroll holds "
     "points: use network.name = 'point_mlp', or other data."),
    (GUIDED, {"data.name": "waves"}, "holds signals, not images: use one of the families "
     "score_sde, edm, flow_matching, vdm with network.name = 'dit' or 'jit' or 'mmdit' or "
     "'song_unet' or 'unet', or other "),
    (VDM, {"data.name": "waves"}, "'vdm_unet' is for images, but waves holds signals"),
    (WAVES, {"data.flip": "True"}, "data.flip = True mirrors images, but these are signals"),
    (EDM, {"data.name": "waves", "data.flip": "False"}, "family.augment = 0.12 augments images"),
    (TOY, {"data.flip": "True"}, "data.flip = True mirrors images"),
    (TOY, {"sample.steps": "0"}, "has no table whose steps"),
    (TOY, {"sample.method": "huen"}, "sample.method = 'huen' is unknown: did you mean 'heun'?"),
    (TOY, {"sample.grid": "karas"}, "did you mean 'karras'?"),
    (TOY, {"eval.trace": "hutch"}, "eval.trace = 'hutch' is unknown"),
    (TOY, {"family.noise_deviation": "0"}, "family.noise_deviation = 0.0 must be above 0."),
    (EDM, {"family.augment": "2"}, "family.augment = 2.0 must be between 0 and 1."),
    (EDM, {"family.sigma_min": "90"}, "sigma_min = 90.0 must be below family.sigma_max"),
    (SDE, {"family.process": "vpp"}, "family.process = 'vpp' is unknown"),
    (SDE, {"family.noise_input": "sigma"}, "family.noise_input = 'sigma' is unknown"),
    (SDE, {"family.objective": "elbo"}, "family.objective = 'elbo' is unknown"),
    (VDM, {"family.gamma_max": "-20"}, "must be below family.gamma_max = -20.0."),
    (VDM, {"family.steps": "-1"}, "family.steps = -1 must be at least 0."),
    (VDM, {"family.schedule": "cosine"}, "family.schedule = 'cosine' is unknown"),
    (FLOW, {"family.path": "linear"}, "family.path = 'linear' is unknown"),
    (FLOW, {"family.shift": "0"}, "family.shift = 0.0 must be above 0."),
    (FLOW, {"family.times_drawn": "logit"}, "family.times_drawn = 'logit' is unknown"),
    (FLOW, {"sample.guidance_scale": "2"}, "needs a condition that training sometimes drops"),
    (FLOW, {"sample.guidance_low": "0.9", "sample.guidance_high": "0.2"}, "0 <= low <= high <= 1"),
    (FLOW, {"sample.tolerance": "0"}, "sample.tolerance = 0.0 must be between 1e-12 and 1."),
    (GUIDED, {"family.zero_terminal": "True", "family.prediction": "eps"}, "use 'v' or 'x_0'"),
    (GUIDED, {"conditions.label.dropout": "0"}, "needs a condition that training sometimes drops"),
    (GUIDED, {"sample.guidance": "(('label', 2.0),)"}, "are both set"),
    (GUIDED, {"sample.negative.label": "1", "sample.guidance_scale": "1"}, "without guidance on"),
    (FLOW, {"family.prediction": "eps"}, "says nothing of the data at t = 1"),
    (FLOW, {"family.prediction": "score", "family.path": "cosine"},
     "'velocity', 'v' or 'x_0', or family.weighting = 'bounded_velocity'"),
    (FLOW, {"family.weighting": "bounded_velocity", "family.least_time": "0.1"},
     "family.least_time = 0.1 has no effect with family.prediction = 'velocity'"),
    (FLOW, {"family.paired": "True", "train.accumulate": "2"},
     "train.accumulate = 2: noise and data would be paired within each part of a batch."),
    (FLOW, {"family.paired": "True", "conditions.label.dropout": "0.1"},
     "noise and condition (label) would be correlated in training"),
    (FLOW, {"eval.trace": "exact"}, "a product for each of 3072 dimensions"),
    (FLOW, {"network.time_embedding": "fourier_noise_level"}, "use 'fourier' or 'sinusoidal'"),
    (EDM, {"network.time_embedding": "fourier"}, "use 'fourier_noise_level' or 'sinusoidal'"),
    (CLASSES, {"family.process": "vq"}, "family.process = 'vq' is unknown"),
    (SDE, {"family.process": "vp", "family.sigma_max": "50"}, "family.sigma_max = 50.0 has no"),
    (FLOW, {"family.least_time": "0.1"}, "with family.weighting = 'velocity'"),
    (FLOW, {"family.least_time": "1", "family.weighting": "bounded_velocity"},
     "family.least_time = 1.0 must be above 0 and below 1."),
    (FLOW, {"family.times_scale": "0.5"}, "with family.times_drawn = 'uniform'"),
    (FLOW, {"family.times_scale": "1.8", "family.times_drawn": "mode"},
     "family.times_scale = 1.8 must be between -0.99 and 1.75."),
    (FLOW, {"family.noise_scale": "2", "family.path": "cosine"}, "with family.path = 'cosine'"),
    (FLOW, {"family.times_mean": "0.5"}, "with family.times_drawn = 'uniform'"),
    (TOY, {"eval.probes": "2", "eval.trace": "exact"}, "eval.probes = 2 has no effect"),
    (CLASSES, {"family.process": "straight"}, "no effect with family.noisy = False"),
    (CLASSES, {"sample.method": "ddim"}, "sample.method is not a known key"),
]


@pytest.mark.parametrize(
    ("path", "changes", "message"), MISTAKES, ids=lambda v: str(v) if isinstance(v, dict) else ""
)
def test_a_mistake_is_named_with_its_remedy(path, changes, message):
    with pytest.raises(UserError) as caught:
        check.check(config.override(config.load(path), changes))
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_a_classifier_needs_classes():
    raw = config.override(config.load(CLASSES), {"data.name": "swissroll"})
    with pytest.raises(UserError, match="holds points, not images"):
        check.check(raw)


@pytest.mark.parametrize(
    ("path", "changes", "count"),
    [
        (EDM, {}, 55_733_891),
        (EDM, {"conditions.label.dropout": "0.1"}, 55_735_299),
        (VDM, {}, 30_578_181),
        (FLOW, {}, 35_746_307),
    ],
)
def test_published_counts(path, changes, count):
    settled = build.settled(check.check(config.override(config.load(path), changes)))
    assert tree.count(Experiment(settled).abstract_state.params) == count


def test_a_way_that_the_network_lacks_is_named_before_anything_is_written():
    changes = {"conditions.label.way": "attend"}
    settled = build.settled(check.check(config.override(config.load(GUIDED), changes)))
    with pytest.raises(UserError, match=r"has way = 'attend', .*: use 'add', or set network"):
        build.family(settled)


def test_zero_terminal_tables_are_sampled_to_the_end():
    raw = config.load("configs/ddpm_fashion_cond.py:smoke")
    settled = build.settled(
        check.check(config.override(raw, {"family.zero_terminal": "True"}))
    )
    schedule = build.family(settled).schedule
    assert schedule.farthest < 1 and float(schedule.alpha(1.0)) == 0
