"""Schedules against the papers' formulas in NumPy and against figures computed elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import every_schedule, few, naive_table

from genzoo.core.errors import UserError
from genzoo.math import schedules


def ho(steps):
    return np.linspace(0.1 / steps, 20 / steps, steps)


def rombach(steps):
    return np.linspace((0.85 / steps) ** 0.5, (12 / steps) ** 0.5, steps) ** 2


def nichol(steps):
    def f(n):
        return np.cos((n / steps + 0.008) / 1.008 * np.pi / 2) ** 2

    return np.array([min(1 - f(n + 1) / f(n), 0.999) for n in range(steps)])


def geodiff(steps):
    gate = 1 / (1 + np.exp(-np.linspace(-6, 6, steps)))
    return gate * (20 / steps - 0.1 / steps) + 0.1 / steps


PAPERS = {
    schedules.linear: ho,
    schedules.scaled_linear: rombach,
    schedules.cosine: nichol,
    schedules.sigmoid: geodiff,
}
TABLES = pytest.mark.parametrize(
    "make", few(schedules.TABLES, (0, 2)), ids=lambda make: make.__name__
)
# A table, straight lines to alpha = 0, and alpha = 1.
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(every_schedule(), (0, 4, 5)), ids=lambda s: type(s).__name__
)
STEPS = pytest.mark.parametrize("steps", few([1000, 4000, 100]))


@pytest.mark.parametrize("make", schedules.TABLES, ids=lambda make: make.__name__)
@STEPS
def test_a_table_is_the_product_of_its_papers_betas(make, steps):
    betas = PAPERS[make](steps)
    np.testing.assert_allclose(make(steps).beta, betas, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(make(steps).alpha_bar, naive_table(betas)[0], rtol=1e-10)


def test_cosine_is_its_closed_form_until_the_clipped_last_step():
    # Nichol & Dhariwal 2021, eq. 17.
    u = np.arange(1000) / 1000
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    alpha_bar = schedules.cosine(1000).alpha_bar
    np.testing.assert_allclose(alpha_bar[:-1], (f / f[0])[1:], rtol=1e-10)
    assert alpha_bar[-1] == pytest.approx(alpha_bar[-2] / 1000, rel=1e-12)


# Figures computed in float64 by a separate script from the papers' formulas (reference figures,
# section 3.1); linear's last is the 157.407 that EDM quotes for DDPM's table.
FIGURES = [
    (schedules.linear, 0, 0.9999),
    (schedules.linear, 99, 0.89701814567),
    (schedules.linear, 249, 0.52408537383),
    (schedules.linear, 499, 0.078587242882),
    (schedules.linear, 749, 3.3505504389e-3),
    (schedules.linear, 998, 4.1181936381e-5),
    (schedules.linear, 999, 4.0358297654e-5),
    (schedules.cosine, 0, 0.99995871578),
    (schedules.cosine, 99, 0.97209273711),
    (schedules.cosine, 249, 0.84701216133),
    (schedules.cosine, 499, 0.49384359044),
    (schedules.cosine, 749, 0.14427210239),
    (schedules.cosine, 998, 2.4287669070e-6),
    (schedules.cosine, 999, 2.4287669070e-9),
    (schedules.scaled_linear, 0, 0.99915),
    (schedules.scaled_linear, 99, 0.89546277350),
    (schedules.scaled_linear, 249, 0.67543241373),
    (schedules.scaled_linear, 499, 0.27766965046),
    (schedules.scaled_linear, 749, 0.056623491598),
    (schedules.scaled_linear, 998, 4.7166988999e-3),
    (schedules.scaled_linear, 999, 4.6600985131e-3),
]


@pytest.mark.parametrize(("make", "index", "alpha_bar"), FIGURES)
def test_alpha_bar_is_the_figure(make, index, alpha_bar):
    assert make(1000).alpha_bar[index] == pytest.approx(alpha_bar, rel=5e-11)


LINEAR_LOGSNR = [9.210240, 2.164523, 0.096416, -2.461699, -5.695274, -10.097470, -10.117673]
LINEAR_RATIO = [0.010001, 0.338828, 0.952936, 3.424137, 17.246983, 155.825194, 157.407281]
DIFFUSION_RATIO = [0.029167, 0.341674, 0.693205, 1.612886, 4.081729, 14.526276, 14.614641]
N = jnp.array([1, 100, 250, 500, 750, 999, 1000])


def test_logsnr_and_the_ratio_of_scales_are_the_figures(compiled, float64):
    # Section 3.1 again, rounded there to six decimals.
    linear, diffusion = schedules.linear(1000), schedules.scaled_linear(1000)
    t = jnp.asarray(np.asarray(N) / 1000)
    logsnr = compiled(linear.logsnr)(t)
    np.testing.assert_allclose(logsnr, LINEAR_LOGSNR, atol=6e-7)
    for table, ratio in ((linear, LINEAR_RATIO), (diffusion, DIFFUSION_RATIO)):
        np.testing.assert_allclose(
            compiled(lambda t, s=table: s.sigma(t) / s.alpha(t))(t), ratio, atol=6e-7
        )


@TABLES
@STEPS
def test_float32_meets_every_knot(compiled, make, steps):
    table, n = make(steps), np.arange(steps + 1)
    t = jnp.asarray(n / steps, jnp.float32)
    np.testing.assert_array_equal(compiled(table.step_of)(t), n)
    np.testing.assert_array_equal(compiled(lambda t: table.step_of(t - 1 / steps))(t)[1:], n[:-1])
    log_alpha = np.append(0.0, np.log1p(-PAPERS[make](steps)).cumsum() / 2)
    # Rounding log alpha, which reaches -10, costs alpha ten times float32's 6e-8.
    np.testing.assert_allclose(compiled(table.alpha)(t), np.exp(log_alpha), rtol=1e-6)
    sigma = np.sqrt(-np.expm1(2 * log_alpha))
    np.testing.assert_allclose(compiled(table.sigma)(t), sigma, rtol=3e-7)
    logsnr = 2 * (log_alpha - np.log(sigma, where=n > 0, out=np.full(steps + 1, -np.inf)))
    np.testing.assert_allclose(compiled(table.logsnr)(t), logsnr, rtol=2e-6, atol=1e-6)


@TABLES
def test_tables_preserve_variance_between_knots_too(compiled, float64, make):
    table, t = make(100), jnp.linspace(0, 1, 777)
    total = compiled(lambda t: table.alpha(t) ** 2 + table.sigma(t) ** 2)(t)
    np.testing.assert_allclose(total, 1, atol=1e-15)


@SCHEDULES
def test_data_without_noise_at_zero(compiled, schedule):
    zero = jnp.zeros(())
    assert compiled(schedule.alpha)(zero) == 1
    assert compiled(schedule.sigma)(zero) == 0
    assert compiled(schedule.logsnr)(zero) == jnp.inf


@SCHEDULES
@pytest.mark.parametrize("dtype", few([np.float32, np.float64]))
def test_logsnr_falls_strictly(compiled, float64, schedule, dtype):
    t = jnp.asarray(np.arange(1, 101) / 100, dtype)
    assert np.all(np.diff(compiled(schedule.logsnr)(t)) < 0)


@TABLES
def test_logsnr_falls_strictly_on_a_long_table_in_float32(compiled, make):
    t = jnp.asarray(np.arange(1, 4001) / 4000, jnp.float32)
    assert np.all(np.diff(compiled(make(4000).logsnr)(t)) < 0)


@SCHEDULES
def test_time_of_logsnr_inverts(compiled, float64, schedule):
    t = jnp.asarray(np.append(np.linspace(0.003, 0.99, 101), [0.25, 0.5]))
    back = compiled(lambda t: schedule.time_of_logsnr(schedule.logsnr(t)))(t)
    np.testing.assert_allclose(back, t, rtol=1e-10)
    # Bisection cannot tell a knot from its surroundings, which `step_of` snaps to it.
    bisected = schedules.Schedule.time_of_logsnr(schedule, schedule.logsnr(t[:-2] + 0.00031))
    np.testing.assert_allclose(bisected, t[:-2] + 0.00031, rtol=1e-10)


@SCHEDULES
def test_rates_are_finite_differences_between_knots(compiled, float64, schedule):
    t, h = jnp.asarray(np.arange(3, 97) / 100 + 0.004), 1e-6
    rates = compiled(schedule.rates)(t)
    for scale, rate in zip((schedule.alpha, schedule.sigma), rates, strict=True):
        difference = (scale(t + h) - scale(t - h)) / (2 * h)
        np.testing.assert_allclose(rate, difference, rtol=1e-6, atol=1e-9)


@TABLES
def test_rates_at_a_knot_are_those_of_the_line_that_starts_there(compiled, make):
    # Every discrete sampler stands on knots; float32, as it runs.
    table, n = make(1000), np.arange(1, 1000)
    slope = 1000 * np.log1p(-PAPERS[make](1000))[1:] / 2
    alpha_bar = naive_table(PAPERS[make](1000))[0][:-1]
    alpha_rate, sigma_rate = compiled(table.rates)(jnp.asarray(n / 1000, jnp.float32))
    np.testing.assert_allclose(alpha_rate, slope * np.sqrt(alpha_bar), rtol=2e-6)
    np.testing.assert_allclose(sigma_rate, -slope * alpha_bar / np.sqrt(1 - alpha_bar), rtol=3e-6)


@TABLES
def test_autodiff_of_the_scales_gives_the_rates(compiled, float64, make):
    # Off the knots and on them, where snapping to the knot must not make the slope 0.
    table, t = make(100), jnp.asarray([0.01, 0.25, 0.254, 0.9, 1.0])
    general = compiled(lambda t: schedules.Schedule.rates(table, t))(t)
    for rate, expected in zip(table.rates(t), general, strict=True):
        np.testing.assert_allclose(rate, expected, rtol=1e-9)


@SCHEDULES
def test_one_minus_ratio_is_its_definition(compiled, float64, schedule):
    t, s = jnp.asarray([0.5, 0.93, 0.3]), jnp.asarray([0.49, 0.02, 0.295])
    snr = [np.square(np.asarray(schedule.alpha(u)) / np.asarray(schedule.sigma(u))) for u in (t, s)]
    ratio = compiled(schedule.one_minus_ratio)(t, s)
    np.testing.assert_allclose(ratio, 1 - snr[0] / snr[1], rtol=1e-11)
    assert np.all(compiled(schedule.one_minus_ratio)(t, jnp.zeros(3)) == 1)


@TABLES
def test_one_minus_ratio_never_exceeds_one_in_float32(compiled, make):
    t, s = (v.ravel() for v in jnp.meshgrid(jnp.arange(2, 1001) / 1000, jnp.arange(1, 9) / 1000))
    t, s = t[s < t], s[s < t]
    ratio = compiled(make(1000).one_minus_ratio)(t, s)
    assert ratio.min() > 0
    assert ratio.max() <= 1


@pytest.mark.parametrize("make", [schedules.linear, schedules.sigmoid])
def test_too_short_a_table_is_refused(make):
    with pytest.raises(UserError, match="a noise table of 10 steps"):
        make(10)


@SCHEDULES
def test_drift_and_diffusion_carry_the_marginals(compiled, float64, schedule):
    # alpha' = f alpha and the variance's equation d(sigma^2)/dt = 2 f sigma^2 + g^2.
    t, h = jnp.asarray(np.arange(3, 97) / 100 + 0.004), 1e-6
    f, g_square = compiled(schedule.drift_rate)(t), compiled(schedule.diffusion_square)(t)
    alpha, alpha_ahead, alpha_behind = (schedule.alpha(u) for u in (t, t + h, t - h))
    np.testing.assert_allclose(f * alpha, (alpha_ahead - alpha_behind) / (2 * h), rtol=1e-6)
    sigma, ahead, behind = (schedule.sigma(u) for u in (t, t + h, t - h))
    slope = (ahead**2 - behind**2) / (2 * h)
    np.testing.assert_allclose(2 * f * sigma**2 + g_square, slope, rtol=1e-6, atol=1e-8)


@SCHEDULES
def test_logsnr_is_finite_from_nearest_to_farthest(schedule):
    ends = jnp.asarray([schedule.nearest, schedule.farthest])
    assert np.all(np.isfinite(schedule.logsnr(ends)))
    assert 0 < schedule.nearest < schedule.farthest <= 1


RESCALED = schedules.rescaled_to_zero_terminal(schedules.scaled_linear(1000))


def test_the_rescaled_table_is_the_figure():
    # Lin et al. 2023, algorithm 1, on Stable Diffusion's table: figures computed elsewhere.
    index = [0, 249, 499, 749, 998]
    figures = [0.99957491, 0.808819514, 0.492299875, 0.182130401, 4.43608843e-4]
    np.testing.assert_allclose(np.sqrt(RESCALED.alpha_bar)[index], figures, rtol=5e-9)
    assert RESCALED.alpha_bar[-1] == 0
    assert RESCALED.log_alpha[-1] == -np.inf
    assert (RESCALED.nearest, RESCALED.farthest) == (0.001, 0.999)
    assert schedules.linear(1000).farthest == 1


@pytest.mark.parametrize("make", [schedules.linear, schedules.scaled_linear, schedules.cosine])
def test_the_rescaled_table_is_algorithm_1(make):
    # As printed: sqrt(alpha_bar) shifted and scaled, then back to betas.
    table = make(1000)
    root = np.sqrt(np.cumprod(1 - table.beta))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    rescaled = schedules.rescaled_to_zero_terminal(table)
    np.testing.assert_allclose(np.sqrt(rescaled.alpha_bar), root, rtol=1e-9, atol=1e-15)
    betas = 1 - np.append(root[0] ** 2, root[1:] ** 2 / root[:-1] ** 2)
    np.testing.assert_allclose(rescaled.beta, betas, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_table_that_reaches_zero_is_exact_up_to_its_end(compiled, float64, dtype):
    t = np.append(np.arange(1, 1001) / 1000, [0.0003, 0.5002, 0.9985, 0.9992, 0.9999])
    knots = np.append(1.0, np.sqrt(RESCALED.alpha_bar))
    # Straight lines in log alpha; in the last interval, where that has no end, in alpha.
    line = np.interp(t * 1000, np.arange(1000), np.log(knots[:-1]))
    alpha = np.exp(line) * np.where(t > 0.999, np.round((1 - t) * 1000, 6), 1)
    sigma = np.sqrt(-np.expm1(2 * line) + np.exp(2 * line) - alpha**2)
    with np.errstate(divide="ignore"):
        logsnr = 2 * np.log(alpha) - 2 * np.log(sigma)
    times, exact = jnp.asarray(t, dtype), dtype == np.float64
    # What rounding t itself costs: 1000 (1 - t) is good to 6e-5 of the last interval in float32.
    slack = {"rtol": 1e-9 if exact else 3e-6, "atol": 1e-14 if exact else 6e-5 * knots[-2]}
    np.testing.assert_allclose(compiled(RESCALED.alpha)(times), alpha, **slack)
    np.testing.assert_allclose(compiled(RESCALED.sigma)(times), sigma, rtol=slack["rtol"])
    actual = np.asarray(compiled(RESCALED.logsnr)(times))
    assert actual[999] == -np.inf
    assert np.all(np.diff(actual[:1000]) < 0)
    near = np.isfinite(logsnr)
    rounding = 1e-9 if exact else 2e-3  # 6e-5 of 0.1, the last time's place in its interval
    np.testing.assert_allclose(actual[near], logsnr[near], rtol=1e-5, atol=rounding)
    back = compiled(RESCALED.time_of_logsnr)(jnp.asarray(logsnr, dtype))
    np.testing.assert_allclose(back, t, rtol=1e-9 if exact else 2e-6)


def test_rates_of_a_table_that_reaches_zero(compiled, float64):
    t, h = jnp.asarray([0.3004, 0.7502, 0.9984, 0.9993, 0.9997]), 1e-7
    rates = compiled(RESCALED.rates)(t)
    f, g_square = compiled(RESCALED.drift_rate)(t), compiled(RESCALED.diffusion_square)(t)
    for scale, rate in zip((RESCALED.alpha, RESCALED.sigma), rates, strict=True):
        np.testing.assert_allclose(rate, (scale(t + h) - scale(t - h)) / (2 * h), rtol=2e-6)
    np.testing.assert_allclose(f, rates[0] / RESCALED.alpha(t), rtol=1e-12)
    sigma = RESCALED.sigma(t)
    # Near the end f and g^2 are thousands and their sum is small: 1e-16 of the terms is 1e-12.
    variance_rate = 2 * f * sigma**2 + g_square
    np.testing.assert_allclose(variance_rate, 2 * sigma * rates[1], rtol=1e-9, atol=1e-12)
    at_the_end = compiled(RESCALED.rates)(jnp.ones(()))
    assert at_the_end[0] == pytest.approx(-1000 * np.sqrt(RESCALED.alpha_bar[-2]), rel=1e-12)
    assert at_the_end[1] == 0
    for slope in jax.jvp(lambda t: (RESCALED.alpha(t), RESCALED.sigma(t)), (1.0,), (1.0,))[1]:
        assert np.isfinite(slope)


def test_steps_to_and_from_the_zero_of_a_table(compiled):
    # float32, as samplers run: from pure noise the posterior is the marginal, and back.
    t = jnp.asarray([1.0, 1.0, 0.9995, 0.999, 0.9999])
    s = jnp.asarray([0.999, 0.0, 0.4, 0.998, 0.9991])
    ratio = compiled(RESCALED.one_minus_ratio)(t, s)
    snr = [np.exp(np.asarray(RESCALED.logsnr(u), np.float64)) for u in (t, s)]
    np.testing.assert_allclose(ratio, 1 - snr[0] / snr[1], rtol=2e-5)
    assert np.all(ratio[:2] == 1)
    knots = jnp.asarray(np.arange(1, 1001) / 1000, jnp.float32)
    actual = compiled(RESCALED.one_minus_ratio)(knots[1:], knots[:-1])
    # sigma_t^2 (1 - r) is beta.
    np.testing.assert_allclose(actual * (1 - RESCALED.alpha_bar[1:]), RESCALED.beta[1:], rtol=2e-6)


def test_a_last_beta_of_one_must_be_meant():
    with pytest.raises(UserError, match="which must lie inside"):
        schedules.TableSchedule(beta=np.array([0.5, 1.0]))
    with pytest.raises(UserError, match="which must lie inside"):
        schedules.TableSchedule(beta=np.array([1.0, 1.0]), reaches_zero=True)
