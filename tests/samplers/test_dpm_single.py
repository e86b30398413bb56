"""DPM-Solver and DPM-Solver++, single-step, against exact flows and the algorithms as printed.

The helpers at the top are those of the multistep, SDE and UniPC tests too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, continuous_schedules, few
from scipy.integrate import quad

from genzoo.core import streams
from genzoo.math import continuous, exponential, schedules
from genzoo.samplers.dpm_single import SingleStep
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction
from genzoo.samplers.steps import DDIM

EVERY = [*continuous_schedules(), schedules.linear(100), schedules.cosine(100)]
# For what hardly depends on the schedule: two ends at lambda = -inf or not, a jump, a table.
SOME = [
    continuous.VariancePreserving(),
    continuous.VarianceExploding(),
    continuous.Straight(),
    schedules.linear(100),
]
ZERO_TERMINAL = schedules.rescaled_to_zero_terminal(schedules.linear(100))
FROM_NOTHING = [continuous.Straight(), continuous.Cosine(), ZERO_TERMINAL]
FORMS = {"data": exponential.DATA, "noise": exponential.NOISE}
VP, LINEAR_NOISE = continuous.VariancePreserving(), continuous.LinearNoise()

# --- an exact flow in one dimension and in two ---------------------------------------------------

# x[:, 0] is a mixture by itself; x[:, 1:] is a mixture in two dimensions, of four parts, which is
# two independent ones after a rotation, so that quantiles give its flow too.
PARTS = (Mixture(stds=(0.5, 0.4)),) * 2 + (Mixture((0.5, 0.5), (-0.6, 0.8), (0.4, 0.5)),)
ROTATION = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
POINTS = np.random.default_rng(0).uniform(-1.5, 1.5, size=(4, 3))


def predictor(schedule):
    """The exact predictor of that data, x [B, 3]."""

    def predict(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        rotation = jnp.asarray(ROTATION, x.dtype)
        columns = (x @ rotation).T
        parts = [part.denoise(u, alpha, sigma) for part, u in zip(PARTS, columns, strict=True)]
        x_0 = jnp.stack(parts, 1) @ rotation.T
        return Prediction(x_0, (x - alpha * x_0) / sigma)

    return predict


def scales(schedule, t):
    """(alpha, sigma) as numbers."""
    return tuple(float(f(jnp.float64(t))) for f in (schedule.alpha, schedule.sigma))


def exact_flow(schedule, x, t, s):
    """x at time s: a flow in one dimension keeps every quantile. By bisection."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    turned, moved = x @ ROTATION, []
    for part, u in zip(PARTS, turned.T, strict=True):
        quantile = part.cdf(u, alpha_t, sigma_t)
        low = np.full_like(u, -10 * np.hypot(alpha_s, sigma_s))
        high = -low
        for _ in range(80):
            middle = (low + high) / 2
            below = part.cdf(middle, alpha_s, sigma_s) < quantile
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        moved.append((low + high) / 2)
    return np.stack(moved, 1) @ ROTATION.T


def at_noise(schedule, noise):
    """The times at which sigma / alpha has these values."""
    return np.asarray(schedule.time_of_logsnr(-2 * jnp.log(jnp.asarray(noise))))


def karras(schedule, count, high=50.0, low=0.2):
    """count + 1 times from one sigma / alpha to another, even in its seventh root."""
    return at_noise(schedule, np.linspace(high ** (1 / 7), low ** (1 / 7), count + 1) ** 7)


def keys_of(count):
    return jnp.stack([jax.random.key(seed) for seed in range(count)])


def errors_of(step, counts, grid=karras):
    """Largest errors at the end of grids with so many moves; one program serves all."""
    schedule, most = step.schedule, max(counts)
    x = POINTS * np.hypot(*scales(schedule, grid(schedule, 1)[0]))

    @jax.jit
    def solve(times, steps):
        sampler = Sampler(step=step, times=times, steps=steps)
        return sampler(predictor(schedule), jnp.asarray(x), keys_of(len(x))).x

    exact, errors = exact_flow(schedule, x, *grid(schedule, 1)), []
    for count in counts:
        times = np.pad(grid(schedule, count), (0, most - count), mode="edge")
        errors.append(np.abs(solve(jnp.asarray(times), count) - exact).max())
    return np.array(errors)


def observed_order(step, counts=(320, 640), grid=karras):
    """The slope of log error over log steps, where the steps double last."""
    errors = errors_of(step, counts, grid)
    return np.log2(errors[-2] / errors[-1])


# --- walking by hand -----------------------------------------------------------------------------


def derivatives_pass(step):
    """Forwards and backwards, from pure noise on, where unused branches meet infinities."""
    sampler = Sampler(step=step, times=np.array([1.0, 0.7, 0.4, 0.1, 0.0]))
    slow = lambda x, t: Prediction(jnp.tanh(x), x)  # noqa: E731
    run = lambda x: sampler(slow, x, keys_of(4)).x  # noqa: E731

    @jax.jit
    def both(x):
        return jax.jvp(run, (x,), (jnp.ones_like(x),))[1], jax.grad(lambda x: run(x).sum())(x)

    slope, gradient = both(jnp.asarray(POINTS))
    assert np.all(np.isfinite(slope))
    np.testing.assert_allclose(gradient, slope, rtol=1e-9)


def walk(step, predict, x, times):
    """(states after each move, times asked), without the loop and without jit."""
    asked, states = [], []

    def noted(x, t):
        asked.append(float(t))
        return predict(x, t)

    x = jnp.asarray(x)
    times, memory = jnp.asarray(times, x.dtype), step.init(x, jnp.asarray(len(times) - 1))
    for index in range(len(times) - 1):
        t, s, keys = times[index], times[index + 1], streams.fold(keys_of(len(x)), index)
        seen = noted(x, t)
        if s > 0:
            x, memory = step(noted, seen, x, t, s, keys, memory)
        else:
            x = step.finish(seen, x, t, memory)
        states.append(np.asarray(x))
    return states, asked


def stays_on_the_path(step, schedule):
    """Whether a perfect denoiser is followed: x_s = alpha_s x_0 + sigma_s eps at every s."""
    x_0, eps = np.random.default_rng(0).normal(size=(2, 3, 5))
    known = lambda x, t: Prediction(jnp.asarray(x_0), jnp.asarray(eps))  # noqa: E731
    times = [0.97, 0.9, 0.5, 0.21, 0.01, 0.0]
    alpha, sigma = scales(schedule, times[0])
    states, _ = walk(step, known, alpha * x_0 + sigma * eps, times)
    for state, s in zip(states, times[1:], strict=True):
        alpha, sigma = scales(schedule, s)
        np.testing.assert_allclose(state, alpha * x_0 + sigma * eps, rtol=1e-9, atol=1e-9)


def scaled_states(step, noise):
    """x_s / alpha_s along values of sigma / alpha: the same for every schedule."""
    schedule = step.schedule
    times = at_noise(schedule, noise)
    states, _ = walk(step, predictor(schedule), POINTS * scales(schedule, times[0])[0] * 2, times)
    return [x / scales(schedule, s)[0] for x, s in zip(states, times[1:], strict=True)]


def same_on_every_schedule(make_step):
    """x / alpha as a function of sigma / alpha does not depend on the schedule."""
    noise = [3.0, 1.4, 0.8, 0.5, 0.2]
    expected = scaled_states(make_step(LINEAR_NOISE), noise)
    for schedule in continuous_schedules():
        np.testing.assert_allclose(scaled_states(make_step(schedule), noise), expected, rtol=1e-8)


def float32_follows_float64(make_step, schedule):
    """From one end to the other, with few and unequal moves; t = 1 is pure noise for some."""
    times = np.array([1.0, 0.98, 0.7, 0.4, 0.1, 2 * schedule.nearest, schedule.nearest, 0.0])
    ends = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype is np.float64):
            # What float32 calls t is what is meant: lambda may be steep in it at the ends.
            exact_times = times.astype(np.float32).astype(dtype)
            alpha, sigma = (float(f(jnp.asarray(1.0))) for f in (schedule.alpha, schedule.sigma))
            x = (np.hypot(alpha, sigma) * POINTS).astype(np.float32).astype(dtype)
            states, _ = walk(make_step(schedule), predictor(schedule), x, exact_times)
            assert states[-1].dtype == dtype
            ends.append(states[-1])
    assert np.all(np.isfinite(ends))
    np.testing.assert_allclose(*ends, atol=2e-3)


def of_lambda(schedule, form, polynomial):
    """A predictor whose x_0 (or eps) depends on lambda alone."""

    def predict(x, t):
        value = polynomial(schedule.logsnr(t) / 2) + 0 * x
        return Prediction(*FORMS[form].complete(value, x, schedule, t))

    return predict


def exact_move(schedule, form, x, t, s, polynomial, eta=0.0):
    """Where a prediction that is a polynomial of lambda takes x, without noise: quadrature of the
    integrals over lambda as Lu et al. write them, with exp((1 + eta) lambda) for the SDE."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    begin, end = np.log(alpha_t / sigma_t), np.log(alpha_s / sigma_s)
    rate = -1.0 if form == "noise" else 1 + eta
    integral, _ = quad(lambda v: np.exp(rate * v) * polynomial(v), begin, end, epsabs=1e-13)
    if form == "noise":
        return alpha_s / alpha_t * x - alpha_s * integral
    kept = np.exp(eta * (begin - end))
    return sigma_s / sigma_t * kept * x + rate * sigma_s * np.exp(-eta * end) * integral


def pure_noise_follows_the_line(step, schedule):
    """From alpha = 0 the first move is that of DDIM, and the next is finite."""
    times = [1.0, 0.8, 0.5, 0.2, 0.0]
    states, _ = walk(step, predictor(schedule), POINTS, times)
    ddim, _ = walk(DDIM(schedule=schedule), predictor(schedule), POINTS, times)
    np.testing.assert_allclose(states[0], ddim[0], rtol=1e-12)
    assert np.all(np.isfinite(states))


# --- the tests -----------------------------------------------------------------------------------

METHODS = [("data", 1), ("data", 2), ("data", 3), ("noise", 1), ("noise", 2), ("noise", 3)]
EVERY_METHOD = pytest.mark.parametrize(("form", "order"), METHODS)
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(EVERY, (0, 4, 7)), ids=lambda s: type(s).__name__
)


def single(schedule, form="data", order=2):
    return SingleStep(schedule=schedule, form=FORMS[form], order=order)


@pytest.mark.parametrize(  # of all methods the order is in test_solvers.py too
    ("form", "order"), few([m for m in METHODS if m != ("noise", 1)], (2, 3))
)
def test_observed_order(float64, form, order):
    """Measured from 320 to 640 moves: data 1.00, 2.00, 2.99; noise 2.00, 3.00."""
    schedule = LINEAR_NOISE if form == "data" else VP
    assert abs(observed_order(single(schedule, form, order)) - order) < 0.1


def as_published(schedule, form, order, predict, x, t, s):
    """Lu et al. 2022a, algorithms 1-2 and eq. 3.7; 2022b, algorithm 1 and appendix B, for NumPy."""
    half_logsnr = lambda t: float(schedule.logsnr(jnp.float64(t))) / 2  # noqa: E731
    h = half_logsnr(s) - half_logsnr(t)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
    seen = lambda x, t: np.asarray(getattr(predict(x, t), kind))  # noqa: E731
    if form == "data":
        kind, linear, scale = "x_0", lambda a, sigma: sigma / sigma_t, lambda a, sigma: -a
        growth = lambda h: np.exp(-h) - 1  # noqa: E731
        second = lambda h: -(growth(h) / h + 1)  # noqa: E731
    else:
        kind, linear, scale = "eps", lambda a, sigma: a / alpha_t, lambda a, sigma: -sigma
        growth = lambda h: np.exp(h) - 1  # noqa: E731
        second = lambda h: growth(h) / h - 1  # noqa: E731

    def inside(part):
        u = schedule.time_of_logsnr(jnp.float64(2 * (half_logsnr(t) + part * h)))
        return u, *scales(schedule, u)

    begun = seen(x, t)
    whole = linear(alpha_s, sigma_s) * x + scale(alpha_s, sigma_s) * growth(h) * begun
    if order == 1:
        return whole
    u, *there = inside(1 / 2 if order == 2 else 1 / 3)
    part = h / 2 if order == 2 else h / 3
    difference = seen(linear(*there) * x + scale(*there) * growth(part) * begun, u) - begun
    if order == 2:
        return whole + scale(alpha_s, sigma_s) * growth(h) * difference
    u, *there = inside(2 / 3)
    x_2 = linear(*there) * x + scale(*there) * growth(2 * h / 3) * begun
    x_2 = x_2 + scale(*there) * 2 * second(2 * h / 3) * difference
    return whole + scale(alpha_s, sigma_s) * 1.5 * second(h) * (seen(x_2, u) - begun)


@EVERY_METHOD
@pytest.mark.parametrize("schedule", few([VP, continuous.Straight()]))
def test_the_algorithms_as_published(float64, schedule, form, order):
    times = at_noise(schedule, [4.0, 1.3, 0.3])
    predict = predictor(schedule)
    x = POINTS * np.hypot(*scales(schedule, times[0]))
    states, _ = walk(single(schedule, form, order), predict, x, times)
    for state, t, s in zip(states, times, times[1:], strict=False):
        x = as_published(schedule, form, order, predict, x, t, s)
        np.testing.assert_allclose(state, x, rtol=1e-9)


@SCHEDULES
def test_order_one_is_ddim(float64, schedule):
    times, predict = np.array([0.95, 0.4, 0.13, 0.0]), predictor(schedule)
    expected, _ = walk(DDIM(schedule=schedule), predict, POINTS, times)
    for form in FORMS:
        states, _ = walk(single(schedule, form, 1), predict, POINTS, times)
        np.testing.assert_array_equal(states, expected)


@SCHEDULES
def test_a_perfect_denoiser_stays_on_the_path(float64, schedule):
    for form, order in METHODS[1:3] + METHODS[4:]:
        stays_on_the_path(single(schedule, form, order), schedule)


@pytest.mark.parametrize(("form", "order"), few(METHODS[1:3] + METHODS[4:], (1,)))
def test_the_path_is_the_same_on_every_schedule(float64, form, order):
    same_on_every_schedule(lambda schedule: single(schedule, form, order))


@pytest.mark.parametrize("schedule", few(FROM_NOTHING), ids=lambda s: type(s).__name__)
def test_from_pure_noise_the_first_move_is_ddim(float64, schedule):
    for form, order in METHODS:
        pure_noise_follows_the_line(single(schedule, form, order), schedule)


@SCHEDULES
def test_float32_follows_float64(schedule):
    float32_follows_float64(lambda schedule: single(schedule, order=3), schedule)


@pytest.mark.parametrize("schedule", few([continuous.Straight(), VP]))
def test_float32_follows_float64_in_noise(schedule):
    float32_follows_float64(lambda schedule: single(schedule, "noise", 3), schedule)


@pytest.mark.parametrize(("form", "order"), few(METHODS, (1, 5)))
def test_evaluations_are_the_calls_made(form, order):
    step, times = single(VP, form, order), np.array([0.9, 0.5, 0.3, 0.1, 0.0])
    _, asked = walk(step, predictor(VP), POINTS, times)
    assert len(asked) == 3 * order + 1
    assert min(asked) > 0
    solution = Sampler(step=step, times=times)(predictor(VP), jnp.asarray(POINTS), keys_of(4))
    assert solution.evaluations.tolist() == [len(asked)] * 4


@pytest.mark.parametrize("form", FORMS)
def test_the_third_order_is_exact_for_predictions_straight_in_lambda(float64, form):
    # It has two phi functions; the second order has one, and is exact for constants only.
    t, s = at_noise(VP, [2.0, 0.4])
    for degree, exact_orders in ((0, {1, 2, 3}), (1, {3})):
        polynomial = np.polynomial.Polynomial([0.7, -1.3][: degree + 1])
        expected = exact_move(VP, form, POINTS, t, s, polynomial)
        predict = of_lambda(VP, form, polynomial)
        for order in (1, 2, 3):
            states, _ = walk(single(VP, form, order), predict, POINTS, [t, s])
            is_exact = np.abs(states[-1] - expected).max() < 1e-9
            assert is_exact == (order in exact_orders)
