"""Likelihoods by the flow against densities in closed form; traces against whole Jacobians."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few
from scipy.stats import multivariate_normal

from genzoo.core import streams
from genzoo.math import continuous, schedules
from genzoo.math.gaussian_mixture import GaussianMixture
from genzoo.math.schedules import Schedule
from genzoo.samplers import ode_likelihood
from genzoo.samplers.ode_likelihood import (
    TRACES,
    OdeLikelihood,
    divergence_exact,
    divergence_hutchinson,
    hutchinson,
    log_likelihood,
    rademacher,
)
from genzoo.samplers.predictor import Prediction

EVERY = [*continuous.ALL, schedules.linear(100)]
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(EVERY, (2, 4, 7)), ids=lambda s: type(s).__name__
)


def keys_of(count, seed=0):
    return streams.per_example(streams.root(seed), jnp.arange(count))


# --- traces ---------------------------------------------------------------------------------------

POINTS = np.random.default_rng(0).normal(size=(3, 2, 1, 2))
MATRIX = np.random.default_rng(1).normal(size=(4, 4))


def field(x):
    """Rows [2, 1, 2] mixed by a matrix and bent."""
    flat = x.reshape(-1, 4)
    return (jnp.sin(flat @ MATRIX) * flat).reshape(x.shape)


def jacobian_traces():
    """By the chain rule: d(sin(Mx)_i x_i)/dx_i, in NumPy."""
    flat = POINTS.reshape(-1, 4)
    inner = flat @ MATRIX
    return (np.cos(inner) * np.diag(MATRIX) * flat + np.sin(inner)).sum(1)


def test_the_exact_divergence_is_the_trace(compiled, float64):
    asked = []

    def counted(x):
        asked.append(x.shape)
        return field(x)

    value, divergence = compiled(lambda x: divergence_exact(counted, x))(POINTS)
    np.testing.assert_allclose(value, field(POINTS), rtol=1e-12)
    np.testing.assert_allclose(divergence, jacobian_traces(), rtol=1e-12)
    assert asked == [POINTS.shape]  # the value and all derivatives in one call


def test_hutchinson_is_the_trace_on_average(compiled, float64):
    # Over all 16 sign vectors the average is the expectation itself.
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(16, 1, 2, 1, 2)
    probes = np.broadcast_to(signs, (16, *POINTS.shape))
    run = compiled(lambda x, v: divergence_hutchinson(field, x, v))
    value, divergence = run(POINTS, probes)
    np.testing.assert_allclose(value, field(POINTS), rtol=1e-12)
    np.testing.assert_allclose(divergence, jacobian_traces(), rtol=1e-10, atol=1e-12)
    single = run(POINTS, probes[:1])[1]
    assert np.all(np.abs(single - jacobian_traces()) > 1e-3)


def test_probes_are_unbiased_and_of_their_own_key(float64):
    probes = rademacher(keys_of(3), POINTS.shape[1:], 20_000, jnp.float64)
    _, each = ode_likelihood._contracted(field, POINTS, probes)
    error = 4 * np.std(each, axis=0) / np.sqrt(20_000)
    assert np.all(np.abs(np.mean(each, axis=0) - jacobian_traces()) < error)
    together, alone = (rademacher(keys, (2,), 5) for keys in (keys_of(3), keys_of(3)[1:2]))
    np.testing.assert_array_equal(alone[:, 0], together[:, 1])
    flat = np.asarray(probes).reshape(-1, 4)
    error = 4 * np.sqrt(1 / len(flat))
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(4), atol=error)


def test_signs_are_exact_for_a_diagonal_jacobian(float64):
    probes = rademacher(keys_of(3), (4,), 1, jnp.float64)
    x = POINTS.reshape(3, 4)
    _, divergence = divergence_hutchinson(lambda x: x**3, x, probes)
    np.testing.assert_allclose(divergence, (3 * x**2).sum(1), rtol=1e-12)
    probes = 1.1 * probes
    _, divergence = divergence_hutchinson(lambda x: x**3, x, probes)
    assert np.all(np.abs(divergence / (3 * x**2).sum(1) - 1) > 1e-3)


# --- one Gaussian ---------------------------------------------------------------------------------

SPREAD = 0.6


def one_gaussian(schedule, mean):
    """The exact predictor of x_0 ~ N(mean, SPREAD^2 I)."""

    def predict(x, t):
        alpha, sigma = (f(t)[:, None] for f in (schedule.alpha, schedule.sigma))
        offset = x - alpha * mean
        variance = jnp.square(alpha * SPREAD) + jnp.square(sigma)
        return Prediction(mean + alpha * SPREAD**2 / variance * offset, sigma / variance * offset)

    return predict


def numbers(schedule, t):
    """(alpha, sigma)."""
    return tuple(float(f(jnp.float64(t))) for f in (schedule.alpha, schedule.sigma))


def log_normal(x, mean, variance):
    return multivariate_normal(mean, variance * np.eye(len(mean))).logpdf(x)


def check_gaussian(schedule, dimensions, **how):
    """The density, the latent and the terms of the flow, for data with and without a mean."""
    rng = np.random.default_rng(dimensions)
    centre = rng.normal(size=dimensions) / 2
    alpha, sigma = numbers(schedule, schedule.nearest)
    far_alpha, far_sigma = numbers(schedule, schedule.farthest)
    variance = (alpha * SPREAD) ** 2 + sigma**2
    far_variance = (far_alpha * SPREAD) ** 2 + far_sigma**2

    @jax.jit
    def run(x, mean):
        predict = one_gaussian(schedule, mean)
        return log_likelihood(
            predict, schedule, x, divergence_exact, prior_variance=SPREAD**2, **how
        )

    for mean in (np.zeros(dimensions), centre):
        x = alpha * mean + np.sqrt(variance) * rng.normal(size=(4, dimensions))
        result = run(x, mean)
        exact = np.reshape(log_normal(x, alpha * mean, variance), 4)
        # x / alpha = mean + (x_T / alpha_T - mean) sqrt((s^2 + k^2) / (s^2 + k_T^2)).
        factor = np.hypot(SPREAD, far_sigma / far_alpha) / np.hypot(SPREAD, sigma / alpha)
        latent = far_alpha * (mean + (x / alpha - mean) * factor)
        np.testing.assert_allclose(result.latent, latent, rtol=1e-4, atol=1e-4)
        far = np.reshape(log_normal(latent, far_alpha * mean, far_variance), 4)
        np.testing.assert_allclose(result.change, exact - far, atol=1e-4)
        assert np.all(result.evaluations < 200)
        if not mean.any():
            # Then the prior is the exact marginal.
            np.testing.assert_allclose(result.log_prob, exact, atol=1e-4)
        prior = np.reshape(log_normal(result.latent, 0 * mean, far_variance), 4)
        np.testing.assert_allclose(result.prior, prior, rtol=1e-10)
    return result


@SCHEDULES
def test_the_density_of_a_gaussian(float64, schedule):
    result = check_gaussian(schedule, 2, rtol=1e-6, atol=1e-6)
    assert np.all(result.evaluations % 6 == 2)


@pytest.mark.parametrize(
    ("schedule", "dimensions"),
    few(zip(EVERY[:6], [1, 5, 5, 1, 5, 1], strict=True), (0, 4)),
    ids=lambda value: type(value).__name__ if isinstance(value, Schedule) else None,
)
def test_the_density_of_a_gaussian_at_known_cost(float64, schedule, dimensions):
    result = check_gaussian(schedule, dimensions, steps=40)
    np.testing.assert_array_equal(result.evaluations, 160)


# --- a mixture ------------------------------------------------------------------------------------

MIXTURE = GaussianMixture(
    weights=np.array([0.5, 0.2, 0.3]),
    means=np.array([[-1.0, 0.2], [0.8, 0.9], [0.3, -0.7]]),
    deviations=np.array([0.5, 0.4, 0.1]),
)


def error_of_change(schedule, x, end, result):
    """The error of the change along the flow, as the density is known at both ends."""
    here, there = numbers(schedule, end), numbers(schedule, schedule.farthest)
    change = MIXTURE.log_density(x, *here) - MIXTURE.log_density(result.latent, *there)
    return np.abs(result.change - change).max()


POINTS_2D = np.array([[0.3, -0.65], [-1.2, 0.4], [0.1, 0.2], [1.5, 1.1], [0.3, -0.9]])


@pytest.mark.parametrize("schedule", few(EVERY[:5:2]), ids=lambda s: type(s).__name__)
def test_the_density_of_a_mixture_at_the_end_asked_for(float64, schedule):
    # The density includes the noise at the end.
    @jax.jit
    def run(x, end):
        predict = MIXTURE.predict(schedule)
        return log_likelihood(
            predict, schedule, x, divergence_exact, end=end, rtol=1e-6, atol=1e-6
        )

    exact = []
    for end in (schedule.nearest, 0.05):
        result = run(POINTS_2D, end)
        assert error_of_change(schedule, POINTS_2D, end, result) < 1e-4
        exact.append(MIXTURE.log_density(POINTS_2D, *numbers(schedule, end)))
        # The whole, except that the prior is not the exact marginal at the far end.
        np.testing.assert_allclose(result.log_prob, exact[-1], atol=0.02)
    assert np.abs(exact[0] - exact[1]).max() > 5e-3


def test_fixed_steps_have_order_four(float64):
    """Measured: 4.12 and 3.95, with an error of 5e-10 nats in the end."""
    schedule = continuous.Straight()

    @jax.jit
    def run(x, steps):
        predict = MIXTURE.predict(schedule)
        return log_likelihood(predict, schedule, x, divergence_exact, steps=steps)

    errors = [
        error_of_change(schedule, POINTS_2D, schedule.nearest, run(POINTS_2D, steps))
        for steps in (160, 320, 640)
    ]
    assert errors[0] < 1e-6
    np.testing.assert_allclose(np.log2(errors[1] / errors[2]), 4, atol=0.1)


@pytest.mark.parametrize("steps", [None, 2])
def test_every_evaluation_is_counted(steps):
    schedule, asked = continuous.VarianceExploding(), []

    def predict(x, t):
        asked.append(np.asarray(t))
        return one_gaussian(schedule, 0.0)(x, t)

    x = jnp.array([[0.3], [4.0]])
    with jax.disable_jit():
        result = log_likelihood(
            predict, schedule, x, divergence_exact, steps=steps, rtol=1e-2, atol=1e-2
        )
    assert len(asked) == result.evaluations.max()
    assert np.float32(schedule.nearest) <= np.min(asked) < 1.01 * schedule.nearest
    assert np.max(asked) == 1


def test_float32_is_as_exact_as_its_tolerance():
    schedule = continuous.LinearNoise()
    x = jnp.asarray(POINTS_2D, jnp.float32)
    result = jax.jit(
        lambda x: log_likelihood(MIXTURE.predict(schedule), schedule, x, divergence_exact)
    )(x)
    assert result.log_prob.dtype == np.float32
    with jax.enable_x64(True):
        assert error_of_change(schedule, x, schedule.nearest, result) < 1e-3


def test_what_does_not_arrive_is_nan():
    schedule = continuous.VariancePreserving()
    predict = MIXTURE.predict(schedule)
    x = jnp.asarray(POINTS_2D, jnp.float32)
    result = jax.jit(
        lambda x: log_likelihood(predict, schedule, x, divergence_exact, largest=40)
    )(x)
    assert np.all(np.isnan(result.log_prob)) and np.all(result.evaluations == 38)


# --- as a family uses it --------------------------------------------------------------------------


def test_random_traces_scatter_about_the_exact_one():
    # Each example has its own probes, which are the same along its whole path.
    schedule, count = continuous.VariancePreserving(), 400
    x = jnp.broadcast_to(jnp.asarray(POINTS_2D[2], jnp.float32), (count, 2))
    predict = MIXTURE.predict(schedule)

    def run(name, probes, x):
        ode = OdeLikelihood(trace=TRACES[name](probes), steps=25)
        return jax.jit(lambda x, keys: ode(predict, schedule, x, keys))(x, keys_of(len(x), 3))

    exact, one, many = (run(*a, x) for a in (("exact", 1), ("hutchinson", 1), ("hutchinson", 8)))
    assert np.ptp(exact.log_prob) == 0
    np.testing.assert_allclose(one.latent, exact.latent, rtol=1e-5)
    errors = [np.asarray(noisy.log_prob - exact.log_prob, np.float64) for noisy in (one, many)]
    for error in errors:
        assert error.std() > 0.01
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(count)
    np.testing.assert_allclose(errors[0].std() / errors[1].std(), np.sqrt(8), rtol=0.2)


def test_adaptive_rows_do_not_depend_on_their_batch(float64):
    schedule = continuous.Cosine()
    keys, ode = keys_of(5), OdeLikelihood(trace=TRACES["hutchinson"](2))
    run = jax.jit(lambda x, keys: ode(MIXTURE.predict(schedule), schedule, x, keys))
    together, alone = run(POINTS_2D, keys), run(POINTS_2D[3:4], keys[3:4])
    np.testing.assert_allclose(alone.log_prob[0], together.log_prob[3], rtol=1e-9)
    assert alone.evaluations[0] == together.evaluations[3]
    assert len(set(np.asarray(together.evaluations).tolist())) > 1


def test_a_given_trace_is_used(float64):
    # In one dimension a sign squared is 1: random and exact are the same.
    schedule, x = continuous.Straight(), np.array([[0.2], [1.0]])
    probes = rademacher(keys_of(2), (1,), 1, jnp.float64)
    log_probs = [
        log_likelihood(one_gaussian(schedule, 0.2), schedule, x, trace, steps=10).log_prob
        for trace in (hutchinson(probes), divergence_exact)
    ]
    np.testing.assert_allclose(*log_probs, rtol=1e-12)
