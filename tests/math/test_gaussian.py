"""The Gaussian process against Bayes' rule, Ho et al.'s equations, scipy and Monte Carlo."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import every_schedule, few, naive_table
from scipy.integrate import quad
from scipy.stats import norm

from genzoo.math import gaussian, schedules

# A table, straight lines to alpha = 0, and alpha = 1.
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(every_schedule(), (0, 4, 5)), ids=lambda s: type(s).__name__
)
TABLES = pytest.mark.parametrize(
    "make", few(schedules.TABLES, (0, 2)), ids=lambda make: make.__name__
)
# Neighbours, far apart, on knots and between them.
T = np.array([0.02, 0.5, 0.99, 0.98, 0.333, 0.71])
S = np.array([0.01, 0.49, 0.98, 0.02, 0.012, 0.17])


def scales(schedule, t):
    """(alpha, sigma) as NumPy columns."""
    t = jnp.asarray(t)
    return np.asarray(schedule.alpha(t))[:, None], np.asarray(schedule.sigma(t))[:, None]


@SCHEDULES
def test_marginal_is_signal_plus_noise(compiled, float64, schedule):
    x_0, eps = np.random.default_rng(0).normal(size=(2, len(T), 3))
    alpha, sigma = scales(schedule, T)
    x_t = compiled(lambda x, t, e: gaussian.q_sample(schedule, x, t, e))(x_0, jnp.asarray(T), eps)
    np.testing.assert_allclose(x_t, alpha * x_0 + sigma * eps, rtol=1e-12)
    mean, variance = compiled(lambda x, t: gaussian.marginal(schedule, x, t))(x_0, jnp.asarray(T))
    np.testing.assert_allclose(mean, alpha * x_0, rtol=1e-12)
    np.testing.assert_allclose(variance, sigma**2, rtol=1e-12)


@SCHEDULES
def test_one_time_may_be_a_number_of_python(schedule):
    x_0, eps = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    found = gaussian.q_sample(schedule, x_0, 0.3, eps)
    expected = gaussian.q_sample(schedule, x_0, jnp.full(4, 0.3), eps)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@SCHEDULES
def test_a_step_from_s_to_t_composes_to_the_marginal(compiled, float64, schedule):
    x_0 = np.random.default_rng(1).normal(size=(len(T), 3))
    (alpha_s, sigma_s), (alpha_t, sigma_t) = scales(schedule, S), scales(schedule, T)
    run = compiled(lambda x, t, s: gaussian.transition(schedule, x, t, s))
    mean, variance = run(alpha_s * x_0, jnp.asarray(T), jnp.asarray(S))
    np.testing.assert_allclose(mean, alpha_t * x_0, rtol=1e-11)
    slope = run(jnp.ones_like(x_0), jnp.asarray(T), jnp.asarray(S)).mean
    np.testing.assert_allclose(slope**2 * sigma_s**2 + variance, sigma_t**2 + 0 * x_0, rtol=1e-11)


@SCHEDULES
def test_posterior_is_bayes_rule(compiled, float64, schedule):
    x_0, x_t = np.random.default_rng(2).normal(size=(2, len(T), 3))
    (alpha_s, sigma_s), (alpha_t, sigma_t) = scales(schedule, S), scales(schedule, T)
    slope = alpha_t / alpha_s
    noise = sigma_t**2 - slope**2 * sigma_s**2
    precision = 1 / sigma_s**2 + slope**2 / noise
    expected = (alpha_s * x_0 / sigma_s**2 + slope * x_t / noise) / precision
    run = compiled(lambda x_0, x_t, t, s: gaussian.posterior(schedule, x_0, x_t, t, s))
    mean, variance = run(x_0, x_t, jnp.asarray(T), jnp.asarray(S))
    np.testing.assert_allclose(mean, expected, rtol=1e-10)
    np.testing.assert_allclose(variance, 1 / precision, rtol=1e-10)


@SCHEDULES
def test_posterior_at_zero_is_the_data(compiled, schedule):
    x_0, x_t = jnp.array([[0.3, -0.7]]), jnp.array([[2.0, 1.0]])
    mean, variance = compiled(
        lambda t, s: gaussian.posterior(schedule, x_0, x_t, t, s)
    )(jnp.float32(0.01), jnp.float32(0))
    np.testing.assert_array_equal(mean, x_0)
    np.testing.assert_array_equal(variance, 0)


@TABLES
@pytest.mark.parametrize("steps", few([4000, 1000]))
def test_float32_neighbours_are_equations_6_and_7_of_ho(compiled, make, steps):
    table = make(steps)
    beta = table.beta[1:]
    alpha_bar, variance = naive_table(table.beta)
    now, before = alpha_bar[1:], alpha_bar[:-1]
    t = jnp.asarray(np.arange(2, steps + 1) / steps, jnp.float32)
    one, zero = jnp.ones(steps - 1), jnp.zeros(steps - 1)
    run = compiled(lambda a, b, t: gaussian.posterior(table, a, b, t, t - 1 / steps))
    of_data, of_noisy = run(one, zero, t), run(zero, one, t).mean
    tolerance = {"rtol": 2e-6}
    np.testing.assert_allclose(of_data.mean, np.sqrt(before) * beta / (1 - now), **tolerance)
    np.testing.assert_allclose(of_noisy, np.sqrt(1 - beta) * (1 - before) / (1 - now), **tolerance)
    np.testing.assert_allclose(of_data.variance, variance[1:], **tolerance)
    added = compiled(lambda t: gaussian.transition_variance(table, t, t - 1 / steps))(t)
    np.testing.assert_allclose(added, beta, **tolerance)


def log_variance(rule, table, n, extra=None):
    t = jnp.asarray(n, jnp.float32) / table.steps
    s = jnp.asarray(np.asarray(n) - 1, jnp.float32) / table.steps
    return rule.log_variance(table, t, s, extra)


def test_first_step_takes_the_second_steps_variance():
    # Published code's "posterior_log_variance_clipped" at index 0: log 5.45318766e-5.
    table = schedules.linear(1000)
    for rule in (gaussian.FIXED_SMALL, gaussian.FIXED_LARGE):
        first = log_variance(rule, table, np.array([1]))
        np.testing.assert_allclose(first, -9.81672513529567, rtol=3e-7)


@TABLES
def test_fixed_variances_are_the_two_of_ho(compiled, make):
    table, n = make(1000), np.arange(2, 1001)
    small = compiled(lambda n: gaussian.FIXED_SMALL.log_variance(table, n, n - 0.001, None))
    large = compiled(lambda n: gaussian.FIXED_LARGE.log_variance(table, n, n - 0.001, None))
    t = jnp.asarray(n / 1000, jnp.float32)
    np.testing.assert_allclose(small(t), np.log(naive_table(table.beta)[1][1:]), atol=3e-6)
    np.testing.assert_allclose(large(t), np.log(table.beta[1:]), atol=3e-6)


@TABLES
def test_learned_range_runs_from_small_to_large(compiled, make):
    # Nichol & Dhariwal 2021, eq. 15; at the first step their code's range is (clipped, log beta_1).
    table, n = make(1000), np.array([1, 2, 500, 1000])
    variance = naive_table(table.beta)[1]
    small = np.log(np.append(variance[1], variance[1:]))[n - 1]
    large = np.log(table.beta)[n - 1]
    for v in (-1.0, 0.2, 1.0):
        extra = jnp.full((len(n), 2, 3), v)
        run = compiled(lambda extra: log_variance(gaussian.LEARNED_RANGE, table, n, extra))
        expected = (v + 1) / 2 * large + (1 - v) / 2 * small
        np.testing.assert_allclose(run(extra), expected[:, None, None] + 0 * extra, atol=5e-6)


def test_learned_variance_is_the_networks_own():
    extra = jnp.array([[0.3, -2.0]])
    table = schedules.linear(100)
    np.testing.assert_array_equal(log_variance(gaussian.LEARNED, table, [7], extra), extra)


@SCHEDULES
def test_every_reverse_variance_is_finite_down_to_the_end(compiled, schedule):
    t = jnp.asarray(np.array([1, 2, 50, 100]) / 100, jnp.float32)
    s = jnp.asarray(np.array([0, 1, 49, 99]) / 100, jnp.float32)
    extra = jnp.zeros((4, 2))

    def every_rule(t, s):
        return [
            rule.log_variance(schedule, t, s, extra if rule.learned else None)
            for rule in gaussian.REVERSE_VARIANCES
        ]

    for out in compiled(every_rule)(t, s):
        assert np.all(np.isfinite(out))


PAIRS = [(0.0, 0.0, 0.0, 0.0), (0.3, -1.0, -0.2, 0.5), (2.0, 0.7, -1.0, -0.4), (0, -3, 0, -3.001)]


def test_kl_is_the_integral(compiled, float64):
    run = compiled(gaussian.kl)
    for pair in PAIRS:
        mean_q, log_q, mean_p, log_p = pair
        q, p = norm(mean_q, np.exp(log_q / 2)), norm(mean_p, np.exp(log_p / 2))
        reach = 12 * q.std()
        expected, _ = quad(
            lambda x, q=q, p=p: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)),
            mean_q - reach, mean_q + reach, epsabs=1e-13,
        )  # fmt: skip
        value = run(*(jnp.float64(v) for v in pair))
        assert float(value) == pytest.approx(expected, abs=1e-11)
        assert value >= 0


@pytest.mark.parametrize("pair", PAIRS[1:3])
def test_kl_is_monte_carlo(float64, pair):
    mean_q, log_q, mean_p, log_p = pair
    x = np.random.default_rng(3).normal(mean_q, np.exp(log_q / 2), 200_000)
    ratio = gaussian.log_density(x, mean_q, log_q) - gaussian.log_density(x, mean_p, log_p)
    error = np.std(ratio) / np.sqrt(len(x))
    assert abs(np.mean(ratio) - gaussian.kl(*pair)) < 4 * error


def test_log_density_is_scipys(compiled, float64):
    x = np.linspace(-5, 5, 11)
    out = compiled(gaussian.log_density)(x, jnp.float64(0.3), jnp.float64(-1.2))
    np.testing.assert_allclose(out, norm.logpdf(x, 0.3, np.exp(-0.6)), rtol=1e-12)
