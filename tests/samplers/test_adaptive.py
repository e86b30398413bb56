"""The adaptive solver against scipy's own Dormand-Prince, and its sampler against exact flows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, few
from scipy.integrate import RK45, solve_ivp
from scipy.optimize import brentq

from genzoo.core import streams
from genzoo.math import continuous, prediction, schedules
from genzoo.math.gaussian_mixture import GaussianMixture
from genzoo.samplers import adaptive
from genzoo.samplers.adaptive import AdaptiveSampler, solve
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction
from genzoo.samplers.runge_kutta import Heun


def oscillator(y, t):
    """The driven Van der Pol oscillator: y [..., 2]."""
    y_0, y_1 = y[..., 0], y[..., 1]
    return jnp.stack([y_1, 2 * (1 - y_0**2) * y_1 - y_0 + jnp.cos(t)], -1)


def peer(y, t0, t1, tolerance):
    """scipy's solution: (y at t1, evaluations)."""

    def slope(t, y):
        return np.array([y[1], 2 * (1 - y[0] ** 2) * y[1] - y[0] + np.cos(t)])

    solution = solve_ivp(slope, (t0, t1), y, "RK45", rtol=tolerance, atol=tolerance)
    return solution.y[:, -1], solution.nfev


STARTS = np.array([[1.0, 0.0], [2.0, -1.0], [0.1, 0.3], [0.4, -0.2]])
FROM = np.array([0.0, 0.0, 1.0, 1.5])
TO = np.array([5.0, 0.3, 4.0, -0.5])


def test_the_tableau_is_scipys():
    np.testing.assert_allclose(adaptive._STAGES[:6, :5], RK45.A, rtol=1e-14)
    np.testing.assert_allclose(adaptive._STAGES[6, :6], RK45.B, rtol=1e-14)
    np.testing.assert_allclose(adaptive._TIMES[:6], RK45.C, rtol=1e-14)
    np.testing.assert_allclose(adaptive._ERROR, -RK45.E, rtol=1e-12, atol=1e-16)


def test_every_row_takes_the_steps_that_scipy_takes_for_it(compiled, float64):
    # Each row has its own length, direction and steps: the same evaluations, the same numbers.
    run = compiled(lambda y, size: solve(oscillator, y, FROM, TO, rtol=size, atol=size))
    for tolerance in (1e-3, 1e-5, 1e-8):
        solved = run(STARTS, tolerance)
        assert np.all(solved.reached)
        for row, case in enumerate(zip(STARTS, FROM, TO, strict=True)):
            y, evaluations = peer(*case, tolerance)
            assert solved.evaluations[row] == evaluations
            np.testing.assert_allclose(solved.y[row], y, rtol=1e-9)


def test_the_error_follows_the_tolerance(float64):
    """Measured: error / tolerance between 1.3 and 12, the slope of their logarithms 1.07."""

    def slope(y, t):
        return -2 * jnp.cos(t)[:, None] * jnp.square(y)

    # The solution is y = 1 / (1 / y_0 + 2 sin t).
    y = np.array([[0.1], [-0.2], [0.3]])
    run = jax.jit(lambda y, tolerance: solve(slope, y, 0, 20.0, rtol=tolerance, atol=tolerance).y)
    tolerances = np.logspace(-4, -10, 7)
    errors = [np.abs(run(y, r) - 1 / (1 / y + 2 * np.sin(20.0))).max() for r in tolerances]
    assert np.all(errors < 20 * tolerances)
    assert abs(np.polyfit(np.log(tolerances), np.log(errors), 1)[0] - 1) < 0.15


def test_there_and_back_again(float64):
    # A pendulum, whose errors neither decay nor explode.
    def slope(y, t):
        return jnp.stack([y[:, 1], -jnp.sin(y[:, 0])], -1)

    there = jax.jit(lambda y, a, b: solve(slope, y, a, b, rtol=1e-9, atol=1e-9).y)
    middle = there(STARTS, 0.0, 4.0)
    assert np.all(np.abs(middle - STARTS).max(1) > 0.4)
    np.testing.assert_allclose(there(middle, 4.0, 0.0), STARTS, atol=1e-7)


def test_six_evaluations_per_attempt_and_two_before(float64):
    # Without jit the loops run in Python. Frozen rows are evaluated too, but do not count.
    asked = []

    def counted(y, t):
        asked.append(np.asarray(t))
        return oscillator(y, t)

    with jax.disable_jit():
        solved = solve(counted, STARTS, FROM, TO, rtol=1e-3, atol=1e-3)
    assert len(asked) == solved.evaluations.max()
    assert np.all(solved.evaluations % 6 == 2)
    # The last step lands exactly on the end, and none goes beyond it.
    np.testing.assert_array_equal(asked[-1], TO)
    np.testing.assert_array_equal(np.max(asked, 0), np.maximum(FROM, TO))


def test_a_row_does_not_depend_on_its_batch(float64):
    run = jax.jit(lambda y, a, b: solve(oscillator, y, a, b))
    together = run(STARTS, FROM, TO)
    alone = run(STARTS[2:3], FROM[2:3], TO[2:3])
    assert alone.evaluations[0] == together.evaluations[2]
    np.testing.assert_allclose(alone.y[0], together.y[2], rtol=1e-12)


def test_every_leaf_of_a_tree_is_held_to_the_tolerance(float64):
    # One number beside ten thousand that hardly move: in an rms over all of them its error would be
    # divided by a hundred.
    def slope(y, t):
        state, _ = y
        return 1e-3 * state, 30 * jnp.cos(30 * t)

    y = jnp.ones((2, 100, 100)), jnp.zeros(2)
    solved = jax.jit(lambda y: solve(slope, y, 0.0, 2.0, rtol=1e-6, atol=1e-6))(y)
    np.testing.assert_allclose(solved.y[1], np.sin(60.0), atol=2e-5)
    np.testing.assert_allclose(solved.y[0], np.exp(2e-3), rtol=1e-9)


def test_a_steep_end_takes_small_steps_there(float64):
    # y = sqrt(t), whose slope is infinite at 0.
    ends = jnp.array([1e-2, 1e-6])
    run = jax.jit(
        lambda y: solve(lambda y, t: 0.5 / jnp.sqrt(t), y, 1.0, ends, rtol=1e-8, atol=1e-8)
    )
    solved = run(jnp.ones(2))
    np.testing.assert_allclose(solved.y, [1e-1, 1e-3], atol=1e-6)
    assert 2 * solved.evaluations[0] < solved.evaluations[1] < 1000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_reached_is_nan_and_said(float64, dtype):
    # Row 0 is easy, row 1 explodes before the end (y = 1 / (1 - t)), row 2 has no slope, row 3 is
    # there already, row 4 only takes more evaluations than allowed.
    def slope(y, t):
        wild = jnp.where(y[:, 0] > 0, jnp.square(y[:, 0]), jnp.nan)
        last = jnp.cos(1000 * t) * 1000
        rows = jnp.arange(5)
        return jnp.select([rows == 0, rows < 4], [-y[:, 0], wild], last)[:, None]

    y = jnp.array([[1.0], [1.0], [-1.0], [7.0], [0.0]], dtype)
    ends = jnp.array([2.0, 2.0, 2.0, 0.0, 2.0], dtype)
    solved = jax.jit(lambda y: solve(slope, y, 0.0, ends, largest=500))(y)
    np.testing.assert_array_equal(solved.reached, [True, False, False, True, False])
    assert solved.y.dtype == dtype and np.all(solved.evaluations <= 500)
    np.testing.assert_allclose(solved.y[0], np.exp(-2.0), rtol=1e-4)
    np.testing.assert_array_equal(np.isnan(solved.y[:, 0]), ~np.asarray(solved.reached))
    assert solved.y[3, 0] == 7 and solved.evaluations[3] == 2
    assert solved.evaluations[4] > 490
    assert solved.evaluations[2] == 2


# --- the sampler ----------------------------------------------------------------------------------

DATA = Mixture((0.3, 0.7), (-1.0, 0.5), (0.3, 0.2))
EVERY = [*continuous.ALL, schedules.cosine(100)]
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(EVERY, (0, 4, 7)), ids=lambda s: type(s).__name__
)
PARTS = np.linspace(0.05, 0.95, 6)


def quantiles(alpha, sigma):
    """The quantiles of x_t: [6, 1]."""
    return np.array(
        [[brentq(lambda x, p=p: DATA.cdf(x, alpha, sigma) - p, -400, 400)] for p in PARTS]
    )


def numbers(schedule, t):
    """(alpha, sigma)."""
    return tuple(float(f(jnp.float64(t))) for f in (schedule.alpha, schedule.sigma))


def predictor(schedule):
    means, deviations = np.array(DATA.means)[:, None], np.array(DATA.stds)
    mixture = GaussianMixture(weights=np.array(DATA.weights), means=means, deviations=deviations)
    return mixture.predict(schedule)


def ends(schedule, start):
    """(x at the start, the data that the exact flow ends in): a flow in one dimension carries
    quantiles to quantiles."""
    alpha, sigma = numbers(schedule, schedule.nearest)
    x_0 = DATA.denoise(quantiles(alpha, sigma), alpha, sigma)
    return quantiles(*numbers(schedule, start)), x_0


@SCHEDULES
def test_the_sampler_follows_the_exact_flow(float64, schedule):
    # From t = 1 itself, also where alpha(1) = 0.
    x, x_0 = ends(schedule, 1.0)
    sampler = AdaptiveSampler(schedule=schedule, farthest=1.0, rtol=1e-7, atol=1e-7)
    solution = jax.jit(lambda x: sampler(predictor(schedule), x))(x)
    # The error of a point grows where the flow spreads what lies between the components.
    np.testing.assert_allclose(solution.x, x_0, atol=2e-6)
    assert np.all(solution.evaluations < 400)
    assert np.all(solution.evaluations % 6 == 3)


@pytest.mark.parametrize("schedule", few(EVERY[::3], (0, 1)), ids=lambda s: type(s).__name__)
def test_float32_is_as_exact_as_its_tolerance(schedule):
    with jax.enable_x64(True):
        x, x_0 = ends(schedule, schedule.farthest)
    sampler = AdaptiveSampler(schedule=schedule)
    assert sampler.start == schedule.farthest and sampler.end == schedule.nearest
    solution = jax.jit(lambda x: sampler(predictor(schedule), x))(jnp.asarray(x, jnp.float32))
    assert solution.x.dtype == np.float32
    np.testing.assert_allclose(solution.x, x_0, atol=1e-3)
    assert np.all(solution.evaluations < 150)


@pytest.mark.parametrize("schedule", few(EVERY[2:5], (2,)), ids=lambda s: type(s).__name__)
def test_no_time_outside_is_asked_for_and_every_call_is_counted(schedule):
    times, inner = [], predictor(schedule)

    def predict(x, t):
        times.append(np.asarray(t))
        return inner(x, t)

    sampler = AdaptiveSampler(schedule=schedule, rtol=1e-2, atol=1e-2)
    with jax.disable_jit():
        solution = sampler(predict, jnp.array([[1.0], [-40.0]]), trajectory=True)
    assert len(times) == solution.evaluations.max()
    assert np.min(times) == np.float32(schedule.nearest)
    np.testing.assert_allclose(np.max(times), schedule.farthest, rtol=1e-6)
    assert np.max(times) <= np.float32(schedule.farthest)
    for ends in (solution.states, solution.predicted):
        np.testing.assert_array_equal(ends, solution.x[None])


def test_a_row_that_runs_out_is_nan_whatever_the_predictor_makes_of_it():
    schedule = continuous.LinearNoise()

    def clipped(x, t):
        seen = predictor(schedule)(x, t)
        return seen._replace(x_0=jnp.nan_to_num(seen.x_0))

    sampler = AdaptiveSampler(schedule=schedule, largest=30)
    solution = jax.jit(lambda x: sampler(clipped, x))(jnp.array([[30.0]]))
    assert np.isnan(solution.x[0, 0]) and solution.evaluations[0] <= 30
    assert AdaptiveSampler(schedule=schedule)(clipped, jnp.array([[30.0]])).x[0, 0] > 0.3


def test_the_last_bit_moves_fixed_steps_by_rounding_and_adaptive_ones_by_the_tolerance():
    # Programs for other batch sizes round differently in the last bit; here that bit is changed.
    schedule = continuous.VariancePreserving()
    exact, x = predictor(schedule), jnp.linspace(-2, 2, 9)[:, None]

    def rounded(bit):
        def predict(x, t):
            x_0 = exact(x, t).x_0 * (1 + bit * jnp.where(jnp.sin(1e4 * x) > 0, 1, -1))
            t = jnp.broadcast_to(t, x.shape[:1])
            return Prediction(*prediction.pair_of_x_0(x_0, x, schedule, t))

        return predict

    times = np.append(np.linspace(1, schedule.nearest, 30), 0)
    fixed = Sampler(step=Heun(schedule=schedule), times=times)
    chosen = AdaptiveSampler(schedule=schedule)
    keys, apart = streams.per_example(streams.root(0), jnp.arange(len(x))), []
    for sampler in (fixed, chosen):
        run = jax.jit(lambda x, bit, solve=sampler: solve(rounded(bit), x, keys).x)
        apart.append(np.abs(run(x, 0.0) - run(x, 2.0**-23)).max())
    assert apart[0] < 5e-6
    assert apart[1] < 5 * chosen.rtol
