"""Flow matching with larger noise (JiT's noise scale) on Gaussian data, where all is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture

from genzoo.builders import sampling
from genzoo.builders.flow_matching import FlowMatchingSettings
from genzoo.core import streams
from genzoo.math import gaussian, prediction
from genzoo.samplers import ode_likelihood
from genzoo.samplers.solver import start

SCALE, SPREAD = 2.0, 0.5
PATH = FlowMatchingSettings(noise_scale=SCALE).schedule
DATA = Mixture((1.0,), (0.0,), (SPREAD,))


def test_the_path_and_its_velocity_are_jit_s(float64):
    # e = scale eps, x_t = (1 - t) x_0 + t e, velocity = e - x_0.
    x_0, eps = np.random.default_rng(0).normal(size=(2, 4, 3))
    t = np.array([0.1, 0.5, 0.9, 1.0])
    x_t = (1 - t)[:, None] * x_0 + t[:, None] * SCALE * eps
    np.testing.assert_allclose(gaussian.q_sample(PATH, x_0, jnp.asarray(t), eps), x_t)
    velocity = prediction.VELOCITY.from_pair(prediction.Pair(x_0, eps), PATH, jnp.asarray(t))
    np.testing.assert_allclose(velocity, SCALE * eps - x_0)


def predict(x, t):
    """The exact prediction for x [B, 1]."""
    seen = jax.vmap(DATA.predictor(PATH))(x[:, 0], jnp.broadcast_to(t, x.shape[:1]))
    return jax.tree.map(lambda v: v[:, None], seen)


@pytest.mark.parametrize("method", ["heun", "dpmpp_2m", "rk45"])
def test_samples_start_from_the_larger_noise_and_end_in_the_data(float64, method):
    # On a line the flow is the quantile map: x(0) = spread / scale times the noise.
    grid = {} if method == "rk45" else {"grid": "trailing", "steps": 200}
    settings = sampling.ContinuousSampling(method=method, **grid)
    sampler = sampling.sampler(settings, gaussian.FIXED_SMALL)(PATH)
    keys = streams.per_example(streams.root(0), jnp.arange(500))
    noise = start(PATH, sampler.start, streams.fold(keys, 0), (1,)).astype(jnp.float64)
    assert np.std(noise) == pytest.approx(SCALE, rel=0.1)
    samples = jax.jit(lambda noise: sampler(predict, noise, keys).x)(noise)
    np.testing.assert_allclose(samples, noise * SPREAD / SCALE, rtol=5e-3, atol=1e-3)


def test_the_likelihood_is_that_of_the_data(float64):
    x = jnp.linspace(-1, 1, 5)[:, None]
    found = jax.jit(
        lambda x: (
            ode_likelihood.log_likelihood(
                predict, PATH, x, ode_likelihood.divergence_exact, prior_variance=SPREAD**2
            ).log_prob
        )
    )(x)
    end = PATH.nearest
    variance = ((1 - end) * SPREAD) ** 2 + (SCALE * end) ** 2
    expected = -0.5 * (x[:, 0] ** 2 / variance + np.log(2 * np.pi * variance))
    np.testing.assert_allclose(found, expected, atol=1e-4)
