"""Training times against closed-form distributions: quantiles exactly, draws by their CDF."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import kstest, norm

from genzoo.math import continuous, schedules, times

EDM = continuous.LinearNoise()
VP = continuous.VariancePreserving()
STRAIGHT = continuous.Straight()


def logit(t):
    return np.log(t) - np.log1p(-t)


def noise_cdf(t):
    return norm.cdf((np.log(80 * t) + 1.2) / 1.2)


def likelihood_cdf(t):
    # Integral of g^2 / sigma^2 = beta / (1 - exp(-B)) from 1e-5 to t, by quadrature in log t.
    def rate(log_t):
        t = np.exp(log_t)
        return t * (0.1 + 19.9 * t) / -np.expm1(-0.1 * t - 9.95 * t**2)

    whole = quad(rate, np.log(1e-5), 0)[0]
    return np.array([quad(rate, np.log(1e-5), np.log(each))[0] for each in t]) / whole


def cosine_map_cdf(t):
    # The integral of Esser et al. 2024, eq. 21: 2 / (pi - 2 pi t + 2 pi t^2).
    def density(t):
        return 2 / (np.pi - 2 * np.pi * t + 2 * np.pi * t**2)

    return np.array([quad(density, 0, each)[0] for each in t])


def mode_time(u, scale):
    # Esser et al. 2024, eq. 20, which falls from 1 to 0.
    return 1 - u - scale * (np.cos(np.pi * u / 2) ** 2 - 1 + u)


def mode_cdf(t):
    return np.array(
        [1 - brentq(lambda u, t: mode_time(u, 1.29) - t, 0, 1, args=(each,)) for each in t]
    )


def shifted_cdf(t):
    # P(3 U / (1 + 2 U) <= t) for a logit-normal U: the shift adds log 3 to the logit.
    return norm.cdf(logit(t) - np.log(3))


CASES = {
    "uniform": (times.UniformTimes(), VP, lambda t: (t - 1e-5) / (1 - 1e-5)),
    "log-normal noise": (times.LogNormalNoise(), EDM, noise_cdf),
    "logit-normal": (times.LogitNormalTimes(), STRAIGHT, lambda t: norm.cdf(logit(t))),
    "jit": (
        times.LogitNormalTimes(mean=0.8, deviation=0.8),
        STRAIGHT,
        # In JiT's time 1 - t: mean -0.8, deviation 0.8.
        lambda t: 1 - norm.cdf((logit(1 - t) + 0.8) / 0.8),
    ),
    "mode": (times.ModeTimes(scale=1.29), STRAIGHT, mode_cdf),
    "cosine map": (times.CosineMapTimes(), STRAIGHT, cosine_map_cdf),
    "shifted": (times.Shifted(inner=times.LogitNormalTimes(), shift=3.0), STRAIGHT, shifted_cdf),
    "likelihood": (times.LikelihoodWeighted(), VP, likelihood_cdf),
}
ALL = pytest.mark.parametrize(("distribution", "schedule", "cdf"), CASES.values(), ids=CASES)


@ALL
def test_the_cdf_undoes_the_quantile(compiled, float64, distribution, schedule, cdf):
    u = jnp.linspace(0.001, 0.999, 41)
    t = np.asarray(compiled(lambda u: distribution.quantile(u, schedule))(u))
    assert np.all(np.diff(t) > 0)
    np.testing.assert_allclose(cdf(t), u, rtol=1e-8, atol=1e-9)


@ALL
def test_draws_follow_the_cdf(compiled, distribution, schedule, cdf):
    draw = compiled(lambda key: distribution.draw(key, 2000, schedule))
    t = np.asarray(draw(jax.random.key(0)))
    assert t.shape == (2000,)
    assert t.dtype == np.float32
    assert np.all((t > 0) & (t <= 1))
    assert kstest(t.astype(np.float64), cdf).pvalue > 0.01
    assert not np.array_equal(t, draw(jax.random.key(1)))


@pytest.mark.parametrize(("distribution", "schedule", "cdf"), few(CASES.values(), (0, 6)))
def test_antithetic_draws_are_evenly_spread(distribution, schedule, cdf):
    spread = times.AntitheticTimes(inner=distribution)
    t = np.asarray(jax.jit(lambda key: spread.draw(key, 64, schedule))(jax.random.key(3)))
    places = np.sort(cdf(t.astype(np.float64)))
    np.testing.assert_allclose(np.diff(places), 1 / 64, atol=2e-4)
    # Each time alone is distributed as before: the first of many draws.
    firsts = jax.jit(jax.vmap(lambda key: spread.draw(key, 64, schedule)[0]))(
        jax.random.split(jax.random.key(4), 500)
    )
    assert kstest(np.asarray(firsts, np.float64), cdf).pvalue > 0.01


def test_shifting_keeps_an_even_spread():
    inner = times.AntitheticTimes(inner=times.UniformTimes(low=0.0))
    t = times.Shifted(inner=inner, shift=3.0).draw(jax.random.key(0), 64, STRAIGHT)
    back = np.sort(np.asarray(times.shift_time(t, 1 / 3)))
    np.testing.assert_allclose(np.diff(back), 1 / 64, atol=1e-6)


def test_the_noise_of_edm_has_its_median_and_mean(float64):
    u = (jnp.arange(200_000) + 0.5) / 200_000
    sigma = jax.jit(lambda u: EDM.sigma(times.LogNormalNoise().quantile(u, EDM)))(u)
    assert np.median(sigma) == pytest.approx(0.3011942, rel=1e-7)
    # The mean of a log-normal, exp(-1.2 + 1.44 / 2), but for what the end at 80 cuts off.
    assert sigma.mean() == pytest.approx(0.6187834, rel=2e-4)


@pytest.mark.parametrize("schedule", few([continuous.Cosine(), VP, continuous.VarianceExploding()]))
def test_log_normal_noise_means_the_same_noise_in_every_schedule(float64, schedule):
    u = jnp.linspace(0.15, 0.85, 15)
    t = jax.jit(lambda u: times.LogNormalNoise().quantile(u, schedule))(u)
    ratio = np.asarray(schedule.sigma(t) / schedule.alpha(t))
    np.testing.assert_allclose(ratio, np.exp(-1.2 + 1.2 * norm.ppf(u)), rtol=1e-8)


@pytest.mark.parametrize("schedule", few([*continuous.ALL, schedules.linear(100)], (4, 7)))
def test_noise_that_a_schedule_does_not_have_is_clipped(schedule):
    wide = times.LogNormalNoise(mean=0.0, deviation=8.0)
    t = jax.jit(lambda key: wide.draw(key, 4000, schedule))(jax.random.key(0))
    assert t.min() == pytest.approx(schedule.nearest)
    assert t.max() == pytest.approx(schedule.farthest)


@pytest.mark.parametrize("schedule", few([*continuous.ALL, schedules.linear(100)], (4, 7)))
def test_likelihood_weighting_samples_the_integral(float64, schedule):
    # Equation (1): for L = t^2, against the trapezoid rule in log t.
    weighted = times.LikelihoodWeighted(low=1e-3)
    u = (jnp.arange(20_000) + 0.5) / 20_000
    grid = jnp.exp(jnp.linspace(np.log(1e-3), np.log(schedule.farthest), 40_001))

    @jax.jit
    def values(u, grid):
        t = weighted.quantile(u, schedule)
        rate = schedule.diffusion_square(grid) / schedule.sigma(grid) ** 2
        return weighted.span(schedule) * jnp.mean(t**2), rate * grid**3

    sampled, integrand = values(u, grid)
    expected = np.trapezoid(np.asarray(integrand), np.log(np.asarray(grid)))
    assert sampled == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("t", "moved"), [(0.25, 0.5), (0.5, 0.75), (0.75, 0.9), (0, 0), (1, 1)])
def test_shift_of_three_is_the_figure(float64, t, moved):
    assert times.shift_time(jnp.asarray(float(t)), 3.0) == pytest.approx(moved, rel=1e-14)
    ratio = STRAIGHT.logsnr(jnp.asarray(0.4)) - STRAIGHT.logsnr(times.shift_time(0.4, 3.0))
    assert ratio == pytest.approx(2 * np.log(3), rel=1e-13)


def test_no_shift_moves_a_time_beyond_the_noise():
    # Not even by rounding: there logsnr is NaN where alpha(1) = 0.
    for shift in np.arange(0.01, 30, 0.01):
        assert times.shift_time(jnp.float32(1), float(shift)) == 1


@ALL
def test_the_edges_of_u_give_finite_times(distribution, schedule, cdf):
    del cdf
    edges = jnp.asarray([2.0**-24, 1 - 2.0**-24], jnp.float32)
    t = jax.jit(lambda u: distribution.quantile(u, schedule))(edges)
    assert jnp.all(jnp.isfinite(t))
    assert jnp.all((t >= 0) & (t <= 1))


@pytest.mark.parametrize("scale", [-0.99, 0.5, 1.75])
def test_mode_times_have_the_density_of_the_derivative(float64, scale):
    # p(t) = |du / dt| of the paper's function, here by differences; 1 - t for 1 - u by symmetry.
    u = jnp.linspace(0.02, 0.98, 25)
    distribution, h = times.ModeTimes(scale=scale), 1e-6
    t, later, earlier = (np.asarray(distribution.quantile(v, STRAIGHT)) for v in (u, u + h, u - h))
    density = 2 * h / (later - earlier)
    v = 1 - np.asarray(u)
    np.testing.assert_allclose(t, mode_time(v, scale), rtol=1e-12)
    expected = 2 * h / np.abs(mode_time(v + h, scale) - mode_time(v - h, scale))
    np.testing.assert_allclose(density, expected, rtol=1e-6)
    assert np.all(np.diff(t) > 0)
    assert (density[12] > density[0]) == (scale > 0)  # the middle, for positive scales
