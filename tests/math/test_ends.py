"""Both ends of every schedule, in float32 and float64.

At t = 0 are the data, where logsnr is inf; at t = 1 is the noise, where it is -inf in some
schedules. Asking one schedule for the time of another's logsnr may give any value in between.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few

from genzoo.math import continuous, exponential, monotone, schedules

PARAMS = monotone.init_monotone(jax.random.key(0), units=16)
BOTH_WAYS = [
    kind(beta_min=low, beta_max=high)
    for kind in (continuous.VariancePreserving, continuous.SubVariancePreserving)
    for low, high in ((20.0, 0.1), (5.0, 5.0))
][:3]
SCHEDULES = {
    **{type(schedule).__name__: schedule for schedule in continuous.ALL},
    **{f"{type(s).__name__} {s.beta_min:g} to {s.beta_max:g}": s for s in BOTH_WAYS},
    "monotone": continuous.OfLogsnr(gamma=partial(monotone.monotone, PARAMS)),
    **{make.__name__: make(100) for make in schedules.TABLES},
    **{
        f"{make.__name__} to zero": schedules.rescaled_to_zero_terminal(make(100))
        for make in (schedules.linear, schedules.cosine)
    },
}
PRECISIONS = pytest.mark.parametrize("dtype", [np.float32, np.float64])
FAST = {
    np.float32: (
        "VariancePreserving", "VarianceExploding", "Straight", "monotone", "linear",
        "SubVariancePreserving 20 to 0.1", "cosine to zero",
    ),
    np.float64: ("LinearNoise", "Cosine", "VariancePreserving 5 to 5"),
}  # fmt: skip
CASES = [*itertools.product(SCHEDULES, FAST)]
EVERY = pytest.mark.parametrize(
    ("name", "dtype"),
    few(CASES, [place for place, (name, dtype) in enumerate(CASES) if name in FAST[dtype]]),
)
LEVELS = (np.inf, 1e4, 200, 90, 40, 20, 5, 0, -5, -20, -40, -90, -200, -1e4, -np.inf)


def value_and_slope(function, points):
    """A function of one number at each of the points, and its derivative in both modes."""

    def at(point):
        return function(point), jax.jacfwd(function)(point), jax.jacrev(function)(point)

    return [np.asarray(part) for part in jax.jit(jax.vmap(at))(points)]


@EVERY
def test_every_logsnr_has_a_time(float64, name, dtype):
    levels = jnp.asarray(LEVELS, dtype)
    times, *slopes = value_and_slope(SCHEDULES[name].time_of_logsnr, levels)
    assert times.dtype == dtype
    assert times[0] == 0 and times[-1] == 1
    assert np.all((times >= 0) & (times <= 1)) and np.all(np.diff(times) >= 0)
    for slope in slopes:
        assert np.all(np.isfinite(slope)) and np.all(slope <= 0)
        # A time that stands still at an end has no slope either, but for what rounding hides.
        np.testing.assert_allclose(slope[[0, 1, 2, -3, -2, -1]], 0, atol=1e-30)


@EVERY
def test_the_ends_are_inverted(float64, name, dtype):
    schedule = SCHEDULES[name]
    t = jnp.asarray([0, schedule.nearest, schedule.farthest, 1], dtype)
    back = jax.jit(lambda t: schedule.time_of_logsnr(schedule.logsnr(t)))(t)
    assert back[0] == 0
    # Where beta falls, the last tenth of time has next to no noise of its own: B is flat there.
    flat = "to 0.1" in name
    rounding = 1e-9 if dtype == np.float64 else 1e-4 if flat else 4e-6
    np.testing.assert_allclose(back, t, rtol=rounding, atol=2 * np.finfo(dtype).eps)


@EVERY
def test_the_inverse_has_the_inverse_slope(float64, name, dtype):
    schedule = SCHEDULES[name]
    # Off the knots of tables, whose slopes jump there; in float32 near the ends they cancel.
    t = jnp.asarray([0.0171, 0.2543, 0.5037, 0.8952, 0.9823], dtype)
    logsnr, *slopes = value_and_slope(schedule.logsnr, t)
    inverse = value_and_slope(schedule.time_of_logsnr, jnp.asarray(logsnr))[1:]
    rounding = 1e-9 if dtype == np.float64 else 1e-3
    for slope, one in zip(slopes, inverse, strict=True):
        np.testing.assert_allclose(one * slope, 1, rtol=rounding)


@EVERY
def test_what_a_schedule_is_at_its_ends(float64, name, dtype):
    schedule = SCHEDULES[name]

    def seen(ends, t):
        scales = schedule.alpha(ends), schedule.sigma(ends), schedule.logsnr(ends)
        pairs = [(t, jnp.zeros_like(t)), (jnp.ones_like(t[:3]), t[:3])]
        steps = [(schedule.one_minus_ratio(*p), exponential.gap(schedule, *p)) for p in pairs]
        return scales, steps

    t = jnp.asarray([schedule.nearest, 0.5, schedule.farthest, 1], dtype)
    (alpha, sigma, logsnr), (to_data, from_noise) = jax.jit(seen)(jnp.asarray([0, 1], dtype), t)
    assert (alpha[0], sigma[0], logsnr[0]) == (1, 0, jnp.inf)
    ends_in_nothing = alpha[1] == 0
    assert (logsnr[1] == -jnp.inf) == ends_in_nothing == (schedule.farthest < 1)
    # From every time to the data SNR falls by all of itself, and from alpha = 0 to every time.
    for fall, gap in [to_data, from_noise] if ends_in_nothing else [to_data]:
        np.testing.assert_array_equal(fall, 1)
        np.testing.assert_array_equal(gap, np.inf)

    def scales(t):
        return jnp.stack([schedule.alpha(t), schedule.sigma(t), schedule.logsnr(t)])

    for part in value_and_slope(scales, t[np.array([0, 2])]):
        assert part.dtype == dtype and np.all(np.isfinite(part))


@EVERY
def test_rates_at_zero_are_their_limits(float64, name, dtype):
    # Times inside the first interval of a table, but away from where `step_of` snaps to its start.
    schedule = SCHEDULES[name]

    def rates(t):
        return jnp.stack(
            [*schedule.rates(t), schedule.drift_rate(t), schedule.diffusion_square(t)]
        )

    actual = np.asarray(jax.jit(jax.vmap(rates))(jnp.asarray([0, 2e-5, 4e-5], dtype)))
    for limit, near, far in actual.T:
        if np.isinf(limit):  # sigma of variance preserving processes rises as the root of t
            assert near > 10
        else:  # a straight line through two times meets it, but for the bend
            np.testing.assert_allclose(limit, 2 * near - far, rtol=1e-3, atol=2e-5)


@PRECISIONS
@pytest.mark.parametrize("name", ["OfLogsnr", "monotone"])
def test_rates_of_a_path_that_jumps_are_those_after_the_jump(float64, name, dtype):
    schedule = SCHEDULES[name]

    def scales(t):
        gamma = schedule.gamma(t)
        return jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))

    zero, one = jnp.zeros(()), jnp.ones(())
    slopes = jax.jvp(scales, (zero,), (one,))[1]
    actual = schedule.rates(jnp.zeros((), dtype))
    np.testing.assert_allclose(actual, slopes, rtol=1e-10 if dtype == np.float64 else 1e-5)
    assert actual[0] < 0 < actual[1]


def test_the_time_of_a_level_knows_the_parameters_of_gamma(float64):
    # gamma = low + slope t, so t = (-logsnr - low) / slope.
    def time(params, logsnr):
        gamma = continuous.OfLogsnr(gamma=lambda t: params["low"] + params["slope"] * t)
        return gamma.time_of_logsnr(logsnr)

    params = {"low": jnp.asarray(-3.0), "slope": jnp.asarray(7.0)}
    slopes = jax.jit(jax.grad(time, argnums=(0, 1)))(params, jnp.asarray(0.5))
    assert slopes[0]["low"] == pytest.approx(-1 / 7, rel=1e-12)
    assert slopes[0]["slope"] == pytest.approx(-2.5 / 49, rel=1e-12)
    assert slopes[1] == pytest.approx(-1 / 7, rel=1e-12)
