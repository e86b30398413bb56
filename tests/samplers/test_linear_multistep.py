"""Linear multistep methods against their formulas as printed, exact integrals and exact flows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import Polynomial
from oracles import few, perfect
from scipy.integrate import quad
from test_runge_kutta import (
    FOUR,
    LINEAR_NOISE,
    ONE,
    POINTS,
    SCHEDULES,
    TIMES,
    TWO,
    VP,
    denoise,
    even_in_logsnr,
    flow,
    keys_of,
    mixture,
    observed,
    orders_of,
    walk,
    whole,
)

from genzoo.math import continuous, gaussian
from genzoo.samplers.linear_multistep import DEIS, FPNDM, LMS, PLMS, in_logsnr
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction
from genzoo.samplers.runge_kutta import Euler


def even_in_noise(schedule, count, high=4.0, low=0.2):
    """count + 1 times with sigma / alpha even between two values."""
    noise = np.linspace(high, low, count + 1)
    return np.asarray(schedule.time_of_logsnr(jnp.asarray(-2 * np.log(noise))))


class Begun:
    """A step that begins with a given memory, so that the start does not limit the order."""

    def __init__(self, step, memory):
        self.step, self.memory = step, memory

    def init(self, x, steps):
        del x, steps
        return self.memory

    def __call__(self, *arguments):
        return self.step(*arguments)

    def __getattr__(self, name):
        return getattr(self.step, name)


def started_orders(step, data, grid, counts):
    """(observed orders, last error) where the first slopes are those of the exact flow."""
    earlier, predict = step.order - 1, mixture(step.schedule, data)

    def solve(states, times, steps):
        memory = step.init(states[0], 0)
        for x, t, s in zip(states[:earlier], times, times[1:], strict=False):
            memory = step(predict, predict(x, t), x, t, s, FOUR, memory)[1]
        sampler = Sampler(step=Begun(step, memory), times=times[earlier:], steps=steps - earlier)
        return sampler(predict, states[earlier], FOUR).x

    run, z, errors = jax.jit(solve), POINTS[data.means.shape[1]], []
    for count in counts:
        times = grid(count)
        scale, w = whole(step.schedule, times)
        kept = [*range(earlier + 1), count]
        exact = scale[kept, None, None] * flow(data, z, w[kept])
        same_length = np.pad(times, (0, max(counts) - count), mode="edge")
        errors.append(np.abs(run(exact[:-1], same_length, count) - exact[-1]).max())
    return observed(errors), errors[-1]


COUNTS = [160, 320]


@pytest.mark.parametrize(
    ("schedule", "data"), few([(VP, TWO), (LINEAR_NOISE, ONE)]), ids=["vp", "ve"]
)
@pytest.mark.parametrize(("method", "order"), [(LMS, 4), (DEIS, 3), (PLMS, 2)])
def test_order_of_convergence_from_an_exact_start(float64, method, order, schedule, data):
    """Even in logsnr, sigma / alpha from 4 to 0.2, the first slopes those of the exact flow: LMS
    3.94 and 3.95, DEIS 2.98 and 2.97, PLMS 2.00 between 160 and 320 steps."""
    grid = lambda count: even_in_logsnr(schedule, count)  # noqa: E731
    orders, error = started_orders(method(schedule=schedule), data, grid, COUNTS)
    np.testing.assert_allclose(orders, order, atol=0.1)
    assert error < {4: 1e-7, 3: 2e-6, 2: 1e-5}[order]


def test_order_of_deis_in_logsnr(float64):
    """As above with the polynomial of diffusers: 3.00."""
    step = DEIS(schedule=VP, variable=in_logsnr)
    orders, _ = started_orders(step, TWO, lambda n: even_in_logsnr(VP, n), COUNTS)
    np.testing.assert_allclose(orders, 3, atol=0.1)


@pytest.mark.parametrize("method", [LMS, DEIS])
def test_lower_orders_at_the_start_leave_order_two(float64, method):
    """Their own start is one Euler step, whose error is of order h^2: LMS 2.06, DEIS 2.08."""
    orders, _ = orders_of(method(schedule=VP), TWO, lambda n: even_in_logsnr(VP, n), COUNTS)
    np.testing.assert_allclose(orders, 2, atol=0.1)


def test_even_steps_in_noise_give_pseudo_linear_multistep_its_order(float64):
    """Straight paths evenly in t, which is u there, from t = 1, between 320 and 640 steps: 3.96
    from an exact start; 2.96 from its own, of which one step has an error of h^3."""
    step, grid = PLMS(schedule=continuous.Straight()), lambda n: np.linspace(1, 0.2, n + 1)
    orders, _ = started_orders(step, ONE, grid, [320, 640])
    np.testing.assert_allclose(orders, 4, atol=0.1)
    orders, _ = orders_of(step, ONE, grid, [320, 640])
    np.testing.assert_allclose(orders, 3, atol=0.1)


def test_a_start_by_runge_kutta_has_order_4_from_its_own_start(float64):
    """The same, where the middle of time is that of the clock: 4.02."""
    grid = lambda n: np.linspace(1, 0.2, n + 1)  # noqa: E731
    orders, _ = orders_of(FPNDM(schedule=continuous.Straight()), ONE, grid, [80, 160])
    np.testing.assert_allclose(orders, 4, atol=0.1)


# --- the formulas as printed ---

NOISE = np.append(np.geomspace(20.0, 0.02, 7), 0.0)  # a factor of 3 per step


def vp_time(noise):
    """t of sigma / alpha for VariancePreserving: the integral of beta is log(1 + u^2)."""
    low, slope = 0.1, 19.9
    return (np.sqrt(low**2 + 2 * slope * np.log1p(noise**2)) - low) / slope


def basis(places, j):
    """The j-th Lagrange polynomial."""
    others = np.delete(places, j)
    return Polynomial(np.atleast_1d(np.poly(others))[::-1]) / np.prod(places[j] - others)


def with_weights(data, x, weights_of, order, noise):
    """States of y_s = y_t + sum w_j eps_j in x / alpha; weights_of: (sigmas so far from the newest,
    sigma to come) -> w_j."""
    states, slopes, past = [], [], []
    for sigma, after in itertools.pairwise(noise):
        slopes = [(x - denoise(data, x, 1.0, sigma)) / sigma, *slopes][:order]
        past = [sigma, *past][:order]
        if after == 0 and order == 3:  # DEIS ends in the predicted data
            x = x - sigma * slopes[0]
        else:
            x = x + sum(w * d for w, d in zip(weights_of(past, after), slopes, strict=True))
        states.append(x)
    return np.stack(states)


def lms_weights(past, after):
    """As in k-diffusion, the integrals in closed form instead of by quadrature."""
    integrals = [basis(np.array(past), j).integ() for j in range(len(past))]
    return [integral(after) - integral(past[0]) for integral in integrals]


def deis_weights(variable):
    """Zhang & Chen 2023, eq. 15, by an adaptive quadrature over sigma / alpha."""

    def weights_of(past, after):
        polynomials = [basis(variable(np.array(past)), j) for j in range(len(past))]
        return [
            quad(lambda u, p=p: p(variable(u)), past[0], after, epsabs=1e-13, epsrel=1e-13)[0]
            for p in polynomials
        ]

    return weights_of


@pytest.mark.parametrize(
    ("step", "weights_of"),
    few(
        [
            (LMS(schedule=VP), lms_weights),
            (DEIS(schedule=VP), deis_weights(vp_time)),
            (DEIS(schedule=VP, variable=in_logsnr), deis_weights(lambda u: -np.log(u))),
            (LMS(schedule=LINEAR_NOISE), lms_weights),
            (DEIS(schedule=LINEAR_NOISE), deis_weights(lambda u: u / 10)),
        ],
        3,
    ),
    ids=["lms-vp", "deis-vp", "deis-logsnr", "lms-ve", "deis-ve"],
)
def test_trajectories_with_variable_steps(compiled, float64, step, weights_of):
    noise = NOISE if step.schedule is VP else NOISE / 2
    times = np.append(step.schedule.time_of_logsnr(-2 * np.log(noise[:-1])), 0.0)
    alpha = np.asarray(step.schedule.alpha(jnp.asarray(times)))[:, None, None]
    x = noise[0] * np.random.default_rng(3).normal(size=(4, 2))
    predict, sampler = mixture(step.schedule, TWO), Sampler(step=step, times=times)
    states = compiled(lambda x: sampler(predict, x, FOUR, trajectory=True).states)(alpha[0] * x)
    expected = alpha[1:] * with_weights(TWO, x, weights_of, step.order, noise)
    np.testing.assert_allclose(states, expected, rtol=1e-8, atol=1e-10)


def test_sixteen_nodes_suffice_for_deis(float64):
    # Harder than in practice: one step over a factor of 100 in sigma / alpha, three slopes.
    past, after = [1.0, 5.0, 20.0], 0.01
    expected = np.array(deis_weights(vp_time)(past, after))
    step = DEIS(schedule=VP)
    t, s = jnp.asarray(vp_time(1.0)), jnp.asarray(vp_time(after))
    weights = step._weights(t, s, jnp.asarray(vp_time(np.array(past))), jnp.asarray(3))
    np.testing.assert_allclose(weights, expected, rtol=1e-11)


def test_plms_is_equation_9_and_12_of_liu(compiled, float64):
    # Their alpha is alpha_bar; the first step is the pseudo improved Euler, the last goes to 1.
    times = np.array([1.0, 0.8, 0.6, 0.4, 0.25, 0.1, 0.0])
    alpha_bar = np.exp(-times * (0.1 + times * 19.9 / 2))

    def noise_of(x, a):
        return (x - np.sqrt(a) * denoise(TWO, x, np.sqrt(a), np.sqrt(1 - a))) / np.sqrt(1 - a)

    def transfer(x, e, a, b):
        below = np.sqrt(a) * (np.sqrt((1 - b) * a) + np.sqrt((1 - a) * b))
        return np.sqrt(b / a) * x - (b - a) / below * e

    start = x = np.random.default_rng(4).normal(size=(4, 2))
    past, expected = [], []
    for a, b in itertools.pairwise(alpha_bar):
        past = [noise_of(x, a), *past][:4]
        if len(past) == 1:
            e = (past[0] + noise_of(transfer(x, past[0], a, b), b)) / 2
        elif len(past) == 2:
            e = (3 * past[0] - past[1]) / 2
        elif len(past) == 3:
            e = (23 * past[0] - 16 * past[1] + 5 * past[2]) / 12
        else:
            e = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
        x = transfer(x, e, a, b)
        expected.append(x)
    sampler = Sampler(step=PLMS(schedule=VP), times=times)
    run = compiled(lambda x: sampler(mixture(VP, TWO), x, FOUR, trajectory=True))
    np.testing.assert_allclose(run(start).states, expected, rtol=1e-8, atol=1e-10)


# --- properties ---


@pytest.mark.parametrize("schedule", [VP, continuous.Straight()], ids=["noise", "straight"])
def test_lms_integrates_cubics_exactly_to_the_end(float64, schedule):
    # A slope that depends on the clock alone; four of them make a cubic, whatever the steps.
    cubic = Polynomial([0.3, -1.0, 0.7, 0.5])
    falling, rng = cubic.coef[::-1], np.random.default_rng(5)
    places = np.append(np.sort(rng.uniform(0.02, 0.9, 9))[::-1], 0.0)
    straight = schedule is not VP
    noise = places / (1 - places) if straight else places
    times = np.append(schedule.time_of_logsnr(-2 * np.log(noise[:-1])), 0.0)

    def predict(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        if straight:
            k = jnp.polyval(falling, sigma) * jnp.ones_like(x)
            return Prediction(x - sigma * k, x + alpha * k)
        k = jnp.polyval(falling, sigma / alpha) * jnp.ones_like(x)
        return Prediction((x - sigma * k) / alpha, k)

    step, x = LMS(schedule=schedule), jnp.asarray([[0.4, -2.0]])
    memory = step.init(x, 0)
    for t, s in zip(jnp.asarray(times[:3]), jnp.asarray(times[1:4]), strict=True):
        memory = step(predict, predict(x, t), x, t, s, keys_of(0), memory)[1]
    sampler = Sampler(step=Begun(step, memory), times=times[3:])
    scale = whole(schedule, times[3])[0] if straight else schedule.alpha(jnp.asarray(times[3]))
    out = sampler(predict, scale * x, keys_of(0)).x
    np.testing.assert_allclose(out, x - cubic.integ()(places[3]), rtol=1e-10)


METHODS = (LMS, DEIS, PLMS, FPNDM)
STARTING = {PLMS: 1, FPNDM: 9}
"""Evaluations that the first steps take on top."""


@pytest.mark.slow
@SCHEDULES
def test_a_perfect_denoiser_stays_on_the_path(float64, schedule):
    x_0, eps = np.random.default_rng(0).normal(size=(2, 3, 5))
    start = gaussian.q_sample(schedule, x_0, jnp.ones(()), eps)
    alpha, sigma = (
        np.asarray(f(jnp.asarray(TIMES[1:])))[:, None, None]
        for f in (schedule.alpha, schedule.sigma)
    )
    for method in METHODS:
        step = method(schedule=schedule)
        states, asked = walk(step, perfect(schedule, x_0), start, TIMES, keys_of(0, 1, 2))
        np.testing.assert_allclose(states, alpha * x_0 + sigma * eps, rtol=1e-9, atol=1e-9)
        assert asked == len(TIMES) - 1 + STARTING.get(method, 0)


@pytest.mark.slow
@SCHEDULES
def test_float32_is_finite_from_one_end_to_the_other(schedule):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 1)), jnp.float32)
    times = np.array([1.0, 0.999, 0.5, 2 * schedule.nearest, schedule.nearest, 0.0])
    scale = jnp.hypot(schedule.alpha(jnp.ones(())), schedule.sigma(jnp.ones(())))
    for method in METHODS:
        states, _ = walk(method(schedule=schedule), mixture(schedule), scale * x, times, FOUR)
        assert states.dtype == np.float32
        assert np.all(np.isfinite(states))


@pytest.mark.parametrize("schedule", few([continuous.Cosine(), VP]), ids=["cosine", "vp"])
def test_one_slope_alone_is_eulers_method(float64, schedule):
    x = np.random.default_rng(2).normal(size=(4, 1))
    euler = walk(Euler(schedule=schedule), mixture(schedule), x, TIMES, FOUR)[0]
    for method in (LMS, DEIS):
        single = method(schedule=schedule, order=1)
        states, _ = walk(single, mixture(schedule), x, TIMES, FOUR)
        np.testing.assert_allclose(states, euler, rtol=1e-12)
        # The first step of every order, from alpha = 0 too.
        states, _ = walk(method(schedule=schedule), mixture(schedule), x, TIMES[:2], FOUR)
        np.testing.assert_allclose(states[0], euler[0], rtol=1e-12)


@pytest.mark.parametrize("count", [5, 15])
def test_deis_lowers_its_last_orders_if_asked(float64, count):
    # The last two of its steps are then those of orders 2 and 1, of fewer than 15 or always.
    times = np.append(np.geomspace(0.9, 0.05, count), 0.0)
    x = np.random.default_rng(3).normal(size=(4, 1))
    states = {
        final: walk(DEIS(schedule=VP, lower_order_final=final), mixture(VP), x, times, FOUR)[0]
        for final in (False, True, None)
    }
    np.testing.assert_array_equal(states[None], states[count < 15])
    # If the end is the data, that is the step of order 1, and the one before it has order 2.
    np.testing.assert_array_equal(states[True][:-2], states[False][:-2])
    assert np.abs(states[True][-2] - states[False][-2]).min() > 1e-9
