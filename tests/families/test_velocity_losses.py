"""Flow matching with x_0, eps and velocity prediction: the losses by hand, sampling from noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, few

from genzoo.builders import sampling
from genzoo.builders.flow_matching import PATHS, WEIGHTINGS, FlowMatchingSettings
from genzoo.core import streams
from genzoo.families.denoiser import Seen, weighted_error
from genzoo.math import gaussian, prediction
from genzoo.samplers.predictor import Prediction

T = np.array([0.001, 0.049, 0.051, 0.4, 0.949, 0.951, 0.9999, 1.0])
BOUNDED = {"weighting": "bounded_velocity", "least_time": 0.05}


def loss(output, x_0, eps, **settings):
    """The loss of a network with this output, by the family's own functions."""
    chosen = FlowMatchingSettings(**settings)
    path, t = PATHS[chosen.path](), jnp.asarray(T)
    x_t = gaussian.q_sample(path, x_0, t, eps)
    predicted = Prediction(*chosen.kind.to_pair(output, x_t, path, t))
    weighting = WEIGHTINGS[chosen.weighting](chosen.least_time, chosen.prediction)
    return weighted_error(weighting, chosen.kind, path, Seen(x_0, eps, x_t, t, predicted))


def test_the_loss_of_every_kind_is_the_error_of_the_velocity_with_bounded_divisions(float64):
    # Li & He 2025, table 1, where 1 - t is our t and every denominator is at least 0.05.
    x_0, eps, output = np.random.default_rng(0).normal(size=(3, len(T), 5))
    t = T[:, None]
    x_t = (1 - t) * x_0 + t * eps
    from_x, from_eps = (np.maximum(v, 0.05) for v in (t, 1 - t))
    expected = {
        "x_0": (x_t - output) / from_x - (x_t - x_0) / from_x,
        "eps": (output - x_t) / from_eps - (eps - x_0),
        "velocity": output - (eps - x_0),
    }
    for name, error in expected.items():
        found = loss(output, x_0, eps, prediction=name, **BOUNDED)
        np.testing.assert_allclose(found, np.square(error).mean(1), rtol=1e-9, err_msg=name)
    # Between the bounds, dividing the target of eps as well changes nothing.
    inside = slice(0, 5)
    both = np.square((output - eps) / (1 - t)).mean(1)
    found = loss(output, x_0, eps, prediction="eps", **BOUNDED)
    np.testing.assert_allclose(found[inside], both[inside], rtol=1e-9)


def test_the_kinds_agree_where_nothing_is_bounded(float64):
    # One velocity, written as the output of each kind.
    x_0, eps, output = np.random.default_rng(1).normal(size=(3, len(T), 5))
    path, t = PATHS["straight"](), jnp.asarray(T)
    x_t = gaussian.q_sample(path, x_0, t, eps)
    pair = prediction.VELOCITY.to_pair(output, x_t, path, t)
    expected = np.square(output - (eps - x_0)).mean(1)[2:5]
    for name in ("x_0", "eps", "v", "score", "velocity"):
        kind = FlowMatchingSettings(prediction=name, **BOUNDED).kind
        found = loss(kind.from_pair(pair, path, t), x_0, eps, prediction=name, **BOUNDED)
        np.testing.assert_allclose(found[2:5], expected, rtol=1e-9, err_msg=name)


METHODS = [*sampling.METHODS, sampling.ADAPTIVE]
QUICK = tuple(METHODS.index(n) for n in ("heun", "dpmpp_2m", "ddim", "unipc", "ancestral"))


@pytest.mark.parametrize("method", few(METHODS, QUICK))
def test_eps_samples_from_pure_noise_as_the_velocity_does(float64, method):
    # The network is exact, so that only the conversion of its output could make a difference.
    schedule, data = PATHS["straight"](), Mixture()
    settings = sampling.ContinuousSampling(method=method, grid="trailing", steps=12)
    sampler = sampling.sampler(settings, gaussian.FIXED_SMALL)(schedule)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 1)))
    keys = streams.per_example(streams.root(0), jnp.arange(16))
    exact = jax.vmap(data.predictor(schedule))

    @jax.jit
    def samples(x):
        ends = []
        for name in ("eps", "velocity"):
            kind = FlowMatchingSettings(prediction=name, **BOUNDED).kind

            def predict(x, t, kind=kind):
                seen = exact(x, jnp.broadcast_to(t, x.shape[:1]))
                output = kind.from_pair(seen.pair, schedule, t)
                return Prediction(*kind.to_pair(output, x, schedule, t))

            ends.append(sampler(predict, x, keys).x)
        return ends

    found, expected = samples(x)
    assert np.isfinite(np.asarray(found)).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.std(found) > 0.5  # the spread of the mixture is 0.73
