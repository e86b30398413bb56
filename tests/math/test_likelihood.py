"""The discretised decoder and the terms of the bound, against scipy and published figures."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few
from scipy.stats import kstest, norm

from genzoo.core import streams
from genzoo.math import gaussian, likelihood, schedules

LEVELS = np.arange(256) / 127.5 - 1
BIT = math.log(2)


def masses(means, std):
    """The 256 masses in NumPy, each as a difference in the tail where both terms are small."""
    edges = np.concatenate([[-np.inf], (LEVELS[1:] + LEVELS[:-1]) / 2, [np.inf]])
    low, high = (edges[:-1] - means) / std, (edges[1:] - means) / std
    left, right = norm.cdf(high) - norm.cdf(low), norm.sf(low) - norm.sf(high)
    return np.where(low + high > 0, right, left)


MEANS = np.array([0.0, 0.123, -1.0, 1.0, 0.998, -1.7, 3.0])[:, None]
STDS = [1e-4, 1e-3, 0.00738457, 0.05, 0.5, 5.0, 100.0]


def test_masses_sum_to_one_and_are_differences_of_the_normal_cdf(compiled, float64):
    run = compiled(likelihood.discretised_log_likelihood)
    for std in STDS:
        expected = masses(MEANS, std)
        kept = expected > 1e-280
        out = run(jnp.asarray(LEVELS), jnp.asarray(MEANS), jnp.float64(2 * math.log(std)))
        np.testing.assert_allclose(np.exp(out).sum(-1), 1, atol=1e-12)
        np.testing.assert_allclose(out[kept], np.log(expected[kept]), rtol=1e-10, atol=1e-10)


def test_float32_masses(compiled):
    run, means = compiled(likelihood.discretised_log_likelihood), MEANS.astype(np.float32)
    for std in sorted({*STDS, 0.003}):
        out = run(
            jnp.asarray(LEVELS, jnp.float32), jnp.asarray(means), jnp.float32(2 * math.log(std))
        )
        # Far outside, the outermost bin holds everything. A standard deviation of 100 makes bins
        # of 8e-5: both their ends' logarithms are rounded by 6e-8.
        np.testing.assert_allclose(np.exp(np.asarray(out, np.float64)).sum(-1), 1, atol=2e-5)
        if std not in (0.003, 0.00738457, 0.05, 0.5):
            continue
        expected = masses(means.astype(np.float64), std)
        kept = expected > 1e-280
        # The argument (x - mean) / std is right to 6e-8 / std, and the slope of the logarithm is
        # the argument itself: 35 deviations out, that is 35 * 6e-8 / 0.003 = 7e-4 of some 600 nats.
        np.testing.assert_allclose(out[kept], np.log(expected[kept]), rtol=2e-5, atol=2e-5)


def test_gradients_are_finite_in_the_far_tails(compiled):
    def total(mean, log_variance):
        x = jnp.asarray(LEVELS, jnp.float32)
        return likelihood.discretised_log_likelihood(x, mean, log_variance).sum()

    slopes = compiled(jax.grad(total, argnums=(0, 1)))
    means, log_variances = (-100.0, -1.0, 0.0, 0.7, 1.0, 100.0), (-14.0, -9.8, 0.0)
    for mean, log_variance in itertools.product(means, log_variances):
        assert np.all(np.isfinite(slopes(jnp.float32(mean), jnp.float32(log_variance))))


def test_the_slope_pulls_the_mean_to_the_data(compiled):
    # Far out a bin is its nearer edge: d log p / d mean = (edge - mean) / variance.
    slope = compiled(jax.grad(likelihood.discretised_log_likelihood, argnums=1))
    variance = 5.45318766e-5
    out = slope(jnp.float32(LEVELS[128]), jnp.float32(0.9), jnp.float32(math.log(variance)))
    assert float(out) == pytest.approx((LEVELS[128] + 1 / 255 - 0.9) / variance, rel=1e-3)


def test_a_perfect_mean_costs_the_published_bits(compiled, float64):
    # -log2(2 Phi(1 / (255 sigma_1)) - 1), sigma_1 from the clipped log-variance -9.8167...
    out = compiled(likelihood.discretised_log_likelihood)(
        jnp.float64(LEVELS[100]), jnp.float64(LEVELS[100]), jnp.float64(-9.81672513529567)
    )
    assert float(likelihood.bits_per_dim(-out, 1)) == pytest.approx(1.3053776556, abs=1e-10)


# Bits per dimension at a given mean square of x_0, to the digits given (reference figures, 3.2).
PRIORS = [
    (schedules.linear, 0.0, 5.87e-10, 5e-3),
    (schedules.linear, 0.25, 7.27868e-6, 1e-6),
    (schedules.linear, 1 / 3, 9.70471e-6, 1e-6),
    (schedules.linear, 0.4, 1.16455e-5, 5e-6),
    (schedules.linear, 1.0, 2.91129e-5, 2e-6),
    (schedules.cosine, 0.25, 4.38e-10, 2e-3),
    (schedules.scaled_linear, 1.0, 3.3694e-3, 2e-5),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_prior_kl_is_the_figure(compiled, float64, dtype):
    runs = {
        make: compiled(lambda x, make=make: likelihood.prior_kl(make(1000), x))
        for make in (schedules.linear, schedules.cosine, schedules.scaled_linear)
    }
    for make, square, bits, rounding in PRIORS:
        nats = runs[make](jnp.full((2, 4, 1), math.sqrt(square), dtype))
        if dtype == np.float32 and square == 0.0:
            # log(1 - 4e-5) itself is known to 1.5e-3 in float32, and the figure is its square.
            rounding = 1e-2
        np.testing.assert_allclose(likelihood.bits_per_dim(nats, 4), bits, rtol=rounding)


WEIGHTS = [0.50005001, 0.27269208, 0.06822399, 0.00999623, 0.01020449]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_weight_of_the_bound_is_the_figure(compiled, float64, dtype):
    # Ho et al. 2020, eq. 12, on the eps error, fixed-large, at indices 0, 1, 10, 100, 999.
    table, n = schedules.linear(1000), np.array([1, 2, 11, 101, 1000])

    def weight(t):
        s = table.step_before(t)
        variance = gaussian.transition_variance(table, t, s)
        of_eps = jnp.square(table.sigma(t) / table.alpha(t))
        return of_eps * likelihood.bound_weight(table, t, s, variance)

    np.testing.assert_allclose(compiled(weight)(jnp.asarray(n / 1000, dtype)), WEIGHTS, rtol=1e-6)


@pytest.mark.parametrize("make", few(schedules.TABLES, (0, 2)), ids=lambda make: make.__name__)
def test_step_kl_is_the_weighted_error_of_eps(compiled, float64, make):
    table, n = make(1000), np.array([2, 3, 50, 400, 999])
    t, s = jnp.asarray(n / 1000), jnp.asarray((n - 1) / 1000)
    x_0, eps, guess = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    alpha, sigma = (np.asarray(f(t))[:, None, None] for f in (table.alpha, table.sigma))
    x_t = alpha * x_0 + sigma * eps
    variance = table.beta[n - 1]

    def bound(guess):
        log_variance = jnp.log(variance)[:, None, None]
        model_x_0 = (x_t - sigma * guess) / alpha
        return likelihood.step_kl(table, x_0, x_t, t, s, model_x_0, log_variance)

    # The constant: the KL of two Gaussians of one mean, Ho et al.'s two variances.
    before, now = table.alpha_bar[n - 2], table.alpha_bar[n - 1]
    ratio = (1 - before) / (1 - now)
    constant = 8 * 0.5 * (ratio - 1 - np.log(ratio))
    weight = variance**2 / (2 * variance * (1 - variance) * (1 - now))
    expected = weight * np.square(eps - guess).sum((1, 2)) + constant
    np.testing.assert_allclose(compiled(bound)(guess), expected, rtol=1e-9)
    ours = likelihood.bound_weight(table, t, s, jnp.asarray(variance))
    np.testing.assert_allclose(ours * (1 - now) / now, weight, rtol=1e-10)


def test_bits_per_dim():
    assert likelihood.bits_per_dim(3072 * BIT, 3072) == pytest.approx(1)


def test_dequantised_levels_fill_their_bins_evenly(compiled):
    images = jnp.broadcast_to(jnp.asarray(LEVELS, jnp.float32), (400, 256))
    keys = streams.per_example(streams.root(0), jnp.arange(400))
    x = np.asarray(compiled(likelihood.uniform_dequantised)(images, keys), np.float64)
    # Rounding takes every one back to its level; the places in the bin are uniform.
    places = (x + 1) * 127.5 - np.arange(256)
    assert np.all(np.abs(places) <= 0.5 + 2e-5)
    assert kstest(places.ravel() + 0.5, "uniform").pvalue > 1e-3
    alone = likelihood.uniform_dequantised(images[7:8], keys[7:8])
    np.testing.assert_allclose(alone[0], x[7], rtol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_the_constant_makes_levels_of_a_density(dimensions):
    # A density that is constant in every bin: its logarithm gives the masses of the levels exactly,
    # which sum to one over all of them.
    masses = np.random.default_rng(0).dirichlet(np.ones(256))
    density = masses * 127.5  # of bins that are 1 / 127.5 wide
    log_mass = dimensions * np.log(density) - likelihood.log_levels(dimensions)
    np.testing.assert_allclose(np.exp(log_mass / dimensions).sum(), 1, rtol=1e-12)
    # The bound for N(level + 0.01, 0.01^2): E log p is known, and what Jensen's inequality loses is
    # about half the variance of log p within the bin, (0.01 / 0.01^2)^2 / 127.5^2 / 24.
    offset, std, level = 0.01, 0.01, LEVELS[140]
    expected = norm.logpdf(offset, 0, std) - 1 / 127.5**2 / 24 / std**2
    half = 1 / 255
    mass = norm.cdf(half, offset, std) - norm.cdf(-half, offset, std)
    lost = np.log(mass) - (expected * dimensions - likelihood.log_levels(dimensions)) / dimensions
    np.testing.assert_allclose(lost, 1 / 127.5**2 / 24 / std**2, rtol=0.1)
    keys = streams.per_example(streams.root(1), jnp.arange(2000))
    x = likelihood.uniform_dequantised(jnp.full((2000, dimensions), level, jnp.float32), keys)
    drawn = norm.logpdf(np.asarray(x, np.float64), level + offset, std).sum(1)
    assert abs(drawn.mean() - expected * dimensions) < 4 * drawn.std() / np.sqrt(2000)


@pytest.mark.parametrize("log_variance", [-5.0, -13.3, -20.0])
def test_float32_log_of_a_level(compiled, log_variance):
    # Seen some deviations away, or halfway between two levels, at -20 some 87 deviations away.
    draw, deviation = np.random.default_rng(0), math.exp(log_variance / 2)
    number = draw.integers(0, 256, 2000)
    levels = LEVELS.astype(np.float32)
    far = np.where(draw.random(2000) < 0.3, 1 / 255, deviation * draw.normal(size=2000))
    seen = (levels[number] + far).astype(np.float32)
    exponents = -0.5 * math.exp(-log_variance) * (seen.astype(np.float64)[:, None] - LEVELS) ** 2
    expected = exponents[np.arange(2000), number] - np.logaddexp.reduce(exponents, axis=1)
    out = compiled(likelihood.log_level)(levels[number], seen, jnp.float32(log_variance))
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=2e-6)
