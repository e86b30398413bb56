"""Schedules in continuous time: published figures, and properties that hold for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import continuous_schedules, few

from genzoo.core.errors import UserError
from genzoo.math import continuous, gaussian, prediction, schedules

SCHEDULES = pytest.mark.parametrize(
    "schedule",
    [*continuous_schedules(), continuous.Straight(scale=2.0)],
    ids=lambda s: type(s).__name__,
)
SOME = pytest.mark.parametrize(  # of what the closed forms and inverses of all imply
    "schedule", few(continuous_schedules(), (0, 4)), ids=lambda s: type(s).__name__
)
PRESERVING = pytest.mark.parametrize(
    "schedule",
    [
        continuous.VariancePreserving(),
        continuous.Cosine(),
        continuous.OfLogsnr(gamma=continuous.linear_gamma()),
    ],
    ids=lambda s: type(s).__name__,
)
VP, SUB_VP = continuous.VariancePreserving(), continuous.SubVariancePreserving()
BASE = schedules.Schedule


COUNT = 49  # of times, everywhere: an operation outside jit is compiled once for each shape


def inner_times(schedule, count=COUNT, dtype=np.float64):
    """Times between the schedule's ends, inclusive, denser towards the data."""
    part = np.linspace(0, 1, count) ** 2
    return jnp.asarray(schedule.nearest + (schedule.farthest - schedule.nearest) * part, dtype)


def every_value(schedule):
    """All functions of a schedule at one time: {name: value}."""

    def values(t):
        alpha_rate, sigma_rate = schedule.rates(t)
        return {
            "alpha": schedule.alpha(t),
            "sigma": schedule.sigma(t),
            "logsnr": schedule.logsnr(t),
            "time": schedule.time_of_logsnr(schedule.logsnr(t)),
            "alpha_rate": alpha_rate,
            "sigma_rate": sigma_rate,
            "drift_rate": schedule.drift_rate(t),
            "diffusion_square": schedule.diffusion_square(t),
        }

    return values


# Computed elsewhere from Song et al. 2021, eq. 33, and rounded to the digits printed.
FIGURES = [
    (VP, 1.0, 0.00657158649, 0.9999784069),
    (SUB_VP, 1.0, 0.00657158649, 0.9999568143),
    (VP, 0.5, 0.2811828808, 0.9596542022),
]


@pytest.mark.parametrize(("schedule", "t", "alpha", "sigma"), FIGURES)
def test_scales_are_the_figures(compiled, float64, schedule, t, alpha, sigma):
    assert compiled(schedule.alpha)(jnp.asarray(t)) == pytest.approx(alpha, rel=8e-10)
    assert compiled(schedule.sigma)(jnp.asarray(t)) == pytest.approx(sigma, rel=5e-10)


@pytest.mark.parametrize(
    ("t", "ratio", "digits"),
    [
        (1.0, 152.1669703, 5e-10),
        (0.5, 3.4129183091, 5e-11),
        (1e-3, 0.010485993, 5e-8),
        (1e-5, 1.0004976e-3, 5e-8),
    ],
)
def test_ratio_of_scales_is_the_figure(compiled, float64, t, ratio, digits):
    actual = compiled(lambda t: VP.sigma(t) / VP.alpha(t))(jnp.asarray(t))
    assert actual == pytest.approx(ratio, rel=digits)
    assert jnp.exp(-VP.logsnr(jnp.asarray(t)) / 2) == pytest.approx(ratio, rel=digits)


def test_the_others_are_their_papers_formulas(float64):
    t = jnp.linspace(0.001, 1.0, COUNT)
    n = np.asarray(t)
    exploding, linear = continuous.VarianceExploding(), continuous.LinearNoise()
    np.testing.assert_allclose(exploding.sigma(t), 0.01 * 5000**n, rtol=1e-13)
    np.testing.assert_allclose(linear.sigma(t), 80 * n, rtol=1e-14)
    assert linear.sigma(jnp.asarray(linear.nearest)) == pytest.approx(0.002, rel=1e-14)
    learned = continuous.OfLogsnr(gamma=continuous.linear_gamma(-13.3, 5.0))
    np.testing.assert_allclose(learned.alpha(t) ** 2, 1 / (1 + np.exp(-13.3 + 18.3 * n)))
    np.testing.assert_allclose(continuous.Straight().sigma(t), n)
    np.testing.assert_allclose(continuous.Straight(scale=2.0).sigma(t), 2 * n)
    np.testing.assert_allclose(continuous.Cosine().sigma(t), np.sin(np.pi * n / 2), rtol=1e-14)
    for schedule in (exploding, linear):
        assert np.all(schedule.alpha(t) == 1)
        assert np.all(schedule.drift_rate(t) == 0)
    # Song et al. 2021, eq. 29: the sub-VP variance is the square of the VP variance.
    np.testing.assert_allclose(SUB_VP.sigma(t), VP.sigma(t) ** 2, rtol=1e-13)


def test_the_table_of_ddpm_tends_to_the_variance_preserving_process(float64):
    # Song et al. 2021, appendix B: betas of 0.1 / T to 20 / T; the error falls as 1 / T.
    t = np.array([0.1, 0.5, 0.9, 1.0])
    errors = [
        np.abs(schedules.linear(steps).alpha(jnp.asarray(t)) - VP.alpha(jnp.asarray(t)))
        for steps in (1000, 10_000)
    ]
    np.testing.assert_allclose(errors[0] / errors[1], 10, rtol=0.05)


@SCHEDULES
def test_data_without_noise_at_zero(compiled, schedule):
    zero = jnp.zeros(())
    assert compiled(schedule.alpha)(zero) == 1
    assert compiled(schedule.sigma)(zero) == 0
    assert compiled(schedule.logsnr)(zero) == jnp.inf
    assert compiled(schedule.time_of_logsnr)(jnp.asarray(jnp.inf)) == pytest.approx(0, abs=1e-15)


@PRESERVING
def test_the_variance_is_preserved(compiled, float64, schedule):
    t = jnp.linspace(0, 1, COUNT)
    total = compiled(lambda t: schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)(t)
    np.testing.assert_allclose(total, 1, rtol=1e-14)
    np.testing.assert_allclose(
        schedule.diffusion_square(t[:-1]), -2 * schedule.drift_rate(t[:-1]), rtol=1e-13
    )


@SOME
@pytest.mark.parametrize("dtype", few([np.float32, np.float64]))
def test_logsnr_falls_strictly(compiled, float64, schedule, dtype):
    logsnr = np.asarray(compiled(schedule.logsnr)(inner_times(schedule, dtype=dtype)))
    assert np.all(np.isfinite(logsnr))
    assert np.all(np.diff(logsnr) < 0)


@SCHEDULES
def test_logsnr_is_its_definition_and_its_inverse_round_trips(compiled, float64, schedule):
    t = inner_times(schedule)
    logsnr = compiled(schedule.logsnr)(t)
    snr = np.square(np.asarray(schedule.alpha(t)) / np.asarray(schedule.sigma(t)))
    np.testing.assert_allclose(logsnr, np.log(snr), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(compiled(schedule.time_of_logsnr)(logsnr), t, rtol=1e-10)
    bisected = jax.jit(lambda logsnr: BASE.time_of_logsnr(schedule, logsnr))(logsnr)
    np.testing.assert_allclose(bisected, t, rtol=1e-10)
    for beyond, end in ((200.0, 0), (-200.0, 1)):
        t = compiled(schedule.time_of_logsnr)(jnp.full(COUNT, beyond))
        assert np.all((t >= 0) & (t <= 1))
        np.testing.assert_allclose(t, end, atol=1e-6)


@SOME
def test_rates_are_finite_differences(compiled, float64, schedule):
    t, h = jnp.linspace(0.02, 0.98, COUNT), 1e-6
    rates = compiled(schedule.rates)(t)
    for scale, rate in zip((schedule.alpha, schedule.sigma), rates, strict=True):
        difference = (scale(t + h) - scale(t - h)) / (2 * h)
        np.testing.assert_allclose(rate, difference, rtol=1e-6, atol=1e-8)


@SOME
def test_drift_and_diffusion_carry_the_marginals(compiled, float64, schedule):
    # alpha' = f alpha and the variance's equation d(sigma^2)/dt = 2 f sigma^2 + g^2.
    t, h = jnp.linspace(0.02, 0.98, COUNT), 1e-6
    f, g_square = compiled(schedule.drift_rate)(t), compiled(schedule.diffusion_square)(t)
    alpha_slope, variance_slope = (
        (value(t + h) - value(t - h)) / (2 * h)
        for value in (schedule.alpha, lambda t: schedule.sigma(t) ** 2)
    )
    np.testing.assert_allclose(f * schedule.alpha(t), alpha_slope, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        2 * f * schedule.sigma(t) ** 2 + g_square, variance_slope, rtol=2e-6, atol=1e-6
    )
    assert np.all(g_square > 0)


@SCHEDULES
def test_closed_forms_are_the_general_ones(compiled, float64, schedule):
    t = inner_times(schedule)
    s = 0.9 * t

    def forms(kind, *own):
        return lambda t, s: (
            kind.drift_rate(*own, t),
            kind.diffusion_square(*own, t),
            kind.rates(*own, t),
            kind.one_minus_ratio(*own, t, s),
        )

    closed, general = compiled(forms(schedule))(t, s), jax.jit(forms(BASE, schedule))(t, s)
    for one, other in zip(jax.tree.leaves(closed), jax.tree.leaves(general), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert np.all(compiled(schedule.one_minus_ratio)(t, jnp.zeros_like(t)) == 1)


@SCHEDULES
def test_float32_is_float64_rounded(compiled, float64, schedule):
    # Each relative to itself, except near its own zeros; slopes of logsnr are not cancelled.
    t = inner_times(schedule, dtype=np.float32)
    low, high = (compiled(every_value(schedule))(t.astype(d)) for d in (np.float32, np.float64))
    for name, value in low.items():
        assert value.dtype == np.float32, name
        slack = 2e-6 if name in ("logsnr", "time") else 0
        np.testing.assert_allclose(value, high[name], rtol=5e-6, atol=slack, err_msg=name)
    assert high["alpha"].dtype == np.float64
    s = t * np.float32(1 - 2**-14)
    ratios = [
        np.asarray(compiled(schedule.one_minus_ratio)(t.astype(d), s.astype(d)))
        for d in (np.float32, np.float64)
    ]
    # Steps of t / 16384; a gamma given as a function cannot be differenced without rounding it.
    if not isinstance(schedule, continuous.OfLogsnr):
        np.testing.assert_allclose(*ratios, rtol=5e-6)
        assert np.all((ratios[0] > 0) & (ratios[0] <= 1))


@SOME
def test_one_time_and_a_batch_of_times_and_forward_derivatives_agree(float64, schedule):
    t, values = inner_times(schedule, 5), jax.jit(every_value(schedule))
    batch, tangents = jax.jvp(values, (t,), (jnp.ones_like(t),))
    for i, single in enumerate(t):
        for name, value in values(single).items():
            assert value.shape == ()
            np.testing.assert_allclose(value, batch[name][i], rtol=1e-13, err_msg=name)
    for name, tangent in tangents.items():
        assert tangent.shape == t.shape, name
        assert np.all(np.isfinite(tangent)), name


@SOME
def test_every_kind_of_prediction_and_the_posterior_hold(compiled, float64, schedule):
    x_0, eps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)))
    t, s = jnp.asarray([0.02, 0.3, 0.504, 0.97]), jnp.asarray([0.01, 0.2, 0.5, 0.1])

    def there_and_back(x_0, eps):
        x_t = gaussian.q_sample(schedule, x_0, t, eps)
        pair = prediction.Pair(x_0, eps)
        back = [
            kind.to_pair(kind.from_pair(pair, schedule, t), x_t, schedule, t)
            for kind in prediction.KINDS
        ]
        return back, gaussian.posterior(schedule, x_0, x_t, t, s)

    back, posterior = compiled(there_and_back)(x_0, eps)
    for pair in back:
        np.testing.assert_allclose(pair.x_0, x_0, atol=1e-10)
        np.testing.assert_allclose(pair.eps, eps, atol=1e-10)
    # Averaged over q(x_t | x_0) the posterior is the marginal at s: its spread adds up.
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (np.asarray(schedule.alpha(u)), np.asarray(schedule.sigma(u))) for u in (t, s)
    )
    carried = alpha_t / alpha_s * sigma_s**2 / sigma_t
    spread = np.square(carried) + np.ravel(posterior.variance)
    np.testing.assert_allclose(spread, np.square(sigma_s), rtol=1e-10)


def test_gradients_reach_a_learned_gamma(compiled, float64):
    # VDM: the variance of the diffusion loss is lowered by the parameters inside gamma.
    t = jnp.asarray([0.1, 0.6])

    def value(params):
        schedule = continuous.OfLogsnr(gamma=lambda t: params["low"] + params["slope"] * t)
        return jnp.sum(schedule.sigma(t) ** 2 + schedule.diffusion_square(t))

    params = {"low": jnp.asarray(-3.0), "slope": jnp.asarray(7.0)}
    actual = compiled(jax.grad(value))(params)
    gate = 1 / (1 + np.exp(3 - 7 * np.asarray(t)))
    slope = gate * (1 - gate)  # of sigma^2 by gamma; g^2 is sigma^2 times the slope parameter
    assert actual["low"] == pytest.approx(np.sum(8 * slope), rel=1e-12)
    expected = np.sum(8 * slope * np.asarray(t) + gate)
    assert actual["slope"] == pytest.approx(expected, rel=1e-12)


def test_a_beta_that_falls_is_inverted_too_and_none_below_zero_is_taken(float64):
    falling = continuous.VariancePreserving(beta_min=20.0, beta_max=0.1)
    t = jnp.linspace(0.001, 1, COUNT)
    np.testing.assert_allclose(falling.time_of_logsnr(falling.logsnr(t)), t, rtol=1e-9)
    assert falling.time_of_logsnr(jnp.asarray(-60.0)) == 1
    with pytest.raises(UserError, match="beta_min = 0 and beta_max = 20 must be above 0"):
        continuous.VariancePreserving(beta_min=0.0)
