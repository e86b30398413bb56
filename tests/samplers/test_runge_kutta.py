"""Runge-Kutta steps and Euler's ancestral one, against exact flows and the formulas as printed.

The exact flow is solved here independently by scipy, for z = x / (alpha + sigma) over w = sigma /
(alpha + sigma), in which every schedule has the same flow.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few, perfect
from scipy.integrate import solve_ivp

from genzoo.core import streams
from genzoo.math import continuous, gaussian, schedules
from genzoo.math.gaussian_mixture import GaussianMixture
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction
from genzoo.samplers.runge_kutta import (
    DPM2,
    NOISE_RATIO,
    RK4,
    STRAIGHT,
    Euler,
    EulerAncestral,
    Heun,
    Midpoint,
    coordinate_of,
    line,
)
from genzoo.samplers.steps import DDIM

ORDERS = {Euler: 1, Heun: 2, Midpoint: 2, DPM2: 2, RK4: 4}
EVERY = [*continuous.ALL, schedules.linear(100), schedules.cosine(100)]
# Both coordinates, and a table.
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(EVERY, (0, 4, 7)), ids=lambda s: type(s).__name__
)
METHODS = pytest.mark.parametrize("method", ORDERS)
VP, LINEAR_NOISE = continuous.VariancePreserving(), continuous.LinearNoise(sigma_max=10.0)

ONE = GaussianMixture(
    weights=np.array([0.3, 0.7]), means=np.array([[-1.0], [0.5]]), deviations=np.array([0.5, 0.3])
)
TWO = GaussianMixture(
    weights=np.array([0.5, 0.2, 0.3]),
    means=np.array([[-1.0, 0.2], [0.8, 0.9], [0.3, -0.7]]),
    deviations=np.array([0.5, 0.4, 0.3]),
)
DATA = pytest.mark.parametrize("data", [ONE, TWO], ids=["1-D", "2-D"])
POINTS = {
    1: np.linspace(-1.5, 1.3, 4)[:, None],
    2: np.array([[0.3, -1.0], [-1.2, 0.4], [0.1, 0.2], [1.5, 1.1]]),
}


def keys_of(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


FOUR = keys_of(0, 1, 2, 3)


def mixture(schedule, data=ONE):
    """The exact predictor."""
    return lambda x, t: Prediction(*data.predict(schedule)(x, t))


def denoise(data, x, alpha, sigma):
    """E[x_0 | x_t = x] in NumPy: x [..., D]."""
    offset = x[..., None, :] - alpha * data.means
    variance = (alpha * data.deviations) ** 2 + sigma**2
    joint = data.weights * variance ** (-x.shape[-1] / 2)
    joint = joint * np.exp(-((offset**2).sum(-1)) / 2 / variance)
    share = (joint / joint.sum(-1, keepdims=True))[..., None]
    gain = (alpha * data.deviations**2 / variance)[:, None]
    return (share * (data.means + gain * offset)).sum(-2)


def flow(data, z, w):
    """z at every w [N], falling, from z [B, D] at w[0]: [N, B, D]."""

    def slope(w, z):
        z = z.reshape(shape)
        x_0 = denoise(data, z, 1 - w, w)
        return ((z - x_0) / w).ravel()

    shape = z.shape
    solved = solve_ivp(slope, (w[0], w[-1]), z.ravel(), "DOP853", t_eval=w, rtol=1e-13, atol=1e-14)
    return solved.y.T.reshape(-1, *shape)


def whole(schedule, t):
    """(alpha + sigma, w) of times [N], as numbers."""
    alpha, sigma = (np.asarray(f(jnp.asarray(t))) for f in (schedule.alpha, schedule.sigma))
    return alpha + sigma, sigma / (alpha + sigma)


def even_in_logsnr(schedule, count, high=4.0, low=0.2):
    """count + 1 times between two values of sigma / alpha, even in its logarithm."""
    noise = np.geomspace(high, low, count + 1)
    return np.asarray(schedule.time_of_logsnr(jnp.asarray(-2 * np.log(noise))))


def observed(errors):
    """Orders of convergence where the steps double."""
    errors = np.asarray(errors)
    return np.log2(errors[:-1] / errors[1:])


def solver(step, data):
    """(x, times [N], steps) -> x at times[steps]: one program for every number of steps."""

    def solve(x, times, steps):
        sampler = Sampler(step=step, times=times, steps=steps)
        return sampler(mixture(step.schedule, data), x, FOUR).x

    return jax.jit(solve)


def orders_of(step, data, grid, counts):
    """(observed orders, last error) at the end of grid(count), for every count."""
    run, z, errors = solver(step, data), POINTS[data.means.shape[1]], []
    for count in counts:
        times = grid(count)
        scale, w = whole(step.schedule, times)
        exact = scale[-1] * flow(data, z, w[[0, -1]])[-1]
        same_length = np.pad(times, (0, max(counts) - count), mode="edge")
        errors.append(np.abs(run(scale[0] * z, same_length, count) - exact).max())
    return observed(errors), errors[-1]


def walk(step, predict, x, times, keys):
    """(every state [S, B, ...], evaluations of the predictor), step by step in Python."""
    asked = []

    def counted(x, t):
        asked.append(t)
        return predict(x, t)

    with jax.disable_jit():
        solution = Sampler(step=step, times=times)(counted, x, keys, trajectory=True)
    np.testing.assert_array_equal(solution.evaluations, len(asked))
    assert min(float(t) for t in asked) > 0
    return np.asarray(solution.states), len(asked)


@pytest.mark.parametrize("method", ORDERS)
def test_tableaus_meet_the_conditions_of_their_order(method):
    # Hairer, Norsett & Wanner, II.1: one sum for each tree of up to four nodes.
    b, c = (np.array(v, float) for v in (method.tableau.weights, method.tableau.nodes))
    a = np.zeros((len(c), len(c)))
    for i, row in enumerate(method.tableau.rows):
        assert len(row) == i  # explicit
        a[i, :i] = row
    np.testing.assert_allclose(a.sum(1), c)
    trees = {
        1: [(b.sum(), 1)],
        2: [(b @ c, 1 / 2)],
        3: [(b @ c**2, 1 / 3), (b @ a @ c, 1 / 6)],
        4: [
            (b @ c**3, 1 / 4),
            ((b * c) @ a @ c, 1 / 8),
            (b @ a @ c**2, 1 / 12),
            (b @ a @ a @ c, 1 / 24),
        ],
    }
    for order in range(1, ORDERS[method] + 1):
        for value, expected in trees[order]:
            assert value == pytest.approx(expected, rel=1e-14)


FROM_NOISE = lambda count: np.linspace(1, 0.1, count + 1)  # noqa: E731


@METHODS
@pytest.mark.parametrize(
    ("schedule", "data"), few([(VP, TWO), (LINEAR_NOISE, ONE)]), ids=["vp", "ve"]
)
def test_order_of_convergence(float64, method, schedule, data):
    """Even in logsnr, sigma / alpha from 4 to 0.2, between 80 and 160 steps: Euler 0.99 and 1.00,
    Heun 2.01, Midpoint 1.99 and 2.00, DPM2 2.01, RK4 4.01."""
    grid = lambda count: even_in_logsnr(schedule, count)  # noqa: E731
    orders, error = orders_of(method(schedule=schedule), data, grid, [80, 160])
    np.testing.assert_allclose(orders, ORDERS[method], atol=0.05)
    assert error < {1: 1e-2, 2: 1e-4, 4: 2e-9}[ORDERS[method]]


@pytest.mark.parametrize("method", few([Heun, DPM2, RK4], (1, 2)))
def test_order_of_convergence_from_pure_noise(float64, method):
    """Where alpha(1) = 0, from t = 1 itself: Heun 1.99, DPM2, which is Midpoint there, 1.97, RK4
    3.99 between 80 and 160 steps."""
    step = method(schedule=continuous.Straight())
    grid = lambda count: np.linspace(1, 0.1, count + 1)  # noqa: E731
    orders, error = orders_of(step, ONE, grid, [80, 160])
    np.testing.assert_allclose(orders, ORDERS[method], atol=0.05)
    assert error < {2: 2e-5, 4: 1e-9}[ORDERS[method]]


TIMES = np.array([1.0, 0.7, 0.21, 0.05, 0.0])


@SCHEDULES
def test_a_perfect_denoiser_stays_on_the_path(float64, schedule):
    x_0, eps = np.random.default_rng(0).normal(size=(2, 3, 5))
    start = gaussian.q_sample(schedule, x_0, jnp.ones(()), eps)
    alpha, sigma = (
        np.asarray(f(jnp.asarray(TIMES[1:])))[:, None, None]
        for f in (schedule.alpha, schedule.sigma)
    )
    for method in (Heun, DPM2, RK4):
        step = method(schedule=schedule)
        states, asked = walk(step, perfect(schedule, x_0), start, TIMES, keys_of(0, 1, 2))
        np.testing.assert_allclose(states, alpha * x_0 + sigma * eps, rtol=1e-9, atol=1e-9)
        assert asked == ORDERS[method] * (len(TIMES) - 2) + 1


@pytest.mark.slow
@SCHEDULES
def test_float32_is_finite_from_one_end_to_the_other(schedule):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 1)), jnp.float32)
    times = np.array([1.0, 0.999, 0.5, 2 * schedule.nearest, schedule.nearest, 0.0])
    scale = jnp.hypot(schedule.alpha(jnp.ones(())), schedule.sigma(jnp.ones(())))
    for method in (DPM2, RK4, EulerAncestral):
        states, _ = walk(method(schedule=schedule), mixture(schedule), scale * x, times, FOUR)
        assert states.dtype == np.float32
        assert np.all(np.isfinite(states))


@SCHEDULES
def test_euler_is_ddim_to_the_last_bit(schedule):
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 1)), jnp.float32)
    ours, theirs = (
        walk(method(schedule=schedule), mixture(schedule), x, TIMES, FOUR)[0]
        for method in (Euler, DDIM)
    )
    np.testing.assert_array_equal(ours, theirs)


def published(name, data, x, sigmas):
    """Every state of a sampler of k-diffusion, in its own x and sigma, as printed there."""
    slope = lambda x, sigma: (x - denoise(data, x, 1.0, sigma)) / sigma  # noqa: E731
    states = []
    for sigma, after in itertools.pairwise(sigmas):
        d = slope(x, sigma)
        if after == 0:
            x = x + d * (after - sigma)
        elif name == "heun":
            d_2 = slope(x + d * (after - sigma), after)
            x = x + (d + d_2) / 2 * (after - sigma)
        else:
            middle = np.exp((np.log(sigma) + np.log(after)) / 2)
            d_2 = slope(x + d * (middle - sigma), middle)
            x = x + d_2 * (after - sigma)
        states.append(x)
    return np.stack(states)


@pytest.mark.parametrize(
    ("name", "schedule"), [("heun", VP), ("dpm_2", VP), ("dpm_2", LINEAR_NOISE)]
)
def test_trajectories_are_those_of_k_diffusion(compiled, float64, name, schedule):
    method = {"heun": Heun, "dpm_2": DPM2}[name]
    sigmas = np.append(np.geomspace(8.0, 0.05, 6), 0.0)
    times = np.append(schedule.time_of_logsnr(-2 * np.log(sigmas[:-1])), 0.0)
    alpha = np.asarray(schedule.alpha(jnp.asarray(times)))[:, None, None]
    x = 8 * np.random.default_rng(3).normal(size=(3, 2))
    sampler = Sampler(step=method(schedule=schedule), times=times)
    run = compiled(lambda x: sampler(mixture(schedule, TWO), x, keys_of(0, 1, 2), trajectory=True))
    states = run(alpha[0] * x).states
    expected = alpha[1:] * published(name, TWO, x, sigmas)
    np.testing.assert_allclose(states, expected, rtol=1e-9, atol=1e-11)


def test_straight_paths_are_solved_as_their_velocity_in_t(float64):
    # dx/dt = eps - x_0, the classical method in t as in any textbook, from pure noise.
    schedule, times = continuous.Straight(), np.array([1.0, 0.7, 0.4, 0.3])
    velocity = lambda x, t: (x - denoise(TWO, x, 1 - t, t)) / t  # noqa: E731
    x = np.random.default_rng(4).normal(size=(3, 2))
    states, _ = walk(RK4(schedule=schedule), mixture(schedule, TWO), x, times, keys_of(0, 1, 2))
    for (t, s), state in zip(itertools.pairwise(times), states, strict=True):
        h = s - t
        k_1 = velocity(x, t)
        k_2 = velocity(x + h / 2 * k_1, t + h / 2)
        k_3 = velocity(x + h / 2 * k_2, t + h / 2)
        k_4 = velocity(x + h * k_3, s)
        x = x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
        np.testing.assert_allclose(state, x, rtol=1e-10)


@SCHEDULES
def test_coordinates_move_along_the_line_of_ddim(float64, schedule):
    x_0, eps = np.random.default_rng(5).normal(size=(2, 3))
    t, s = jnp.asarray(0.7), jnp.asarray(0.2)
    seen = Prediction(x_0, eps)
    for coordinate in (NOISE_RATIO, STRAIGHT):
        (c_t, u_t), (c_s, u_s) = (
            (coordinate.scale(schedule, v), coordinate.clock(schedule, v)) for v in (t, s)
        )
        x_t = gaussian.q_sample(schedule, x_0, t, eps)
        x_s = c_s * (x_t / c_t + (u_s - u_t) * coordinate.slope(seen))
        np.testing.assert_allclose(x_s, line(schedule, seen, s), rtol=1e-9, atol=1e-12)
        again = coordinate.time(schedule, coordinate.clock(schedule, t))
        np.testing.assert_allclose(again, t, rtol=1e-9)
        assert coordinate.clock(schedule, jnp.zeros(())) == 0
        assert coordinate.scale(schedule, jnp.zeros(())) == 1
    alpha = float(schedule.alpha(jnp.ones(())))
    assert coordinate_of(schedule) is (STRAIGHT if alpha < 1e-3 else NOISE_RATIO)


# --- Euler's method with fresh noise ---


def draw_of(step, seen, t, s, keys):
    """One draw from a given prediction; the predictor is not asked again."""

    def predict(x, t):
        raise AssertionError(f"asked at {t}")

    return step(predict, seen, jnp.zeros_like(seen.x_0), t, s, keys, step.init(seen.x_0, 1))[0]


@SCHEDULES
def test_ancestral_is_k_diffusion_in_x_over_alpha(float64, schedule):
    x_0, eps = jnp.asarray(np.random.default_rng(6).normal(size=(2, 2, 3)))
    keys = keys_of(3, 4)
    noise = np.asarray(streams.normal(keys, (3,), jnp.float64))
    t, s = jnp.asarray(0.6), jnp.asarray(0.35)
    sigma, after = (float(schedule.sigma(v) / schedule.alpha(v)) for v in (t, s))
    for eta in (0.4, 1.0, 1.5):
        up = min(after, eta * (after**2 * (sigma**2 - after**2) / sigma**2) ** 0.5)
        down = (after**2 - up**2) ** 0.5
        y = (x_0 + sigma * eps) + eps * (down - sigma) + noise * up
        step = EulerAncestral(schedule=schedule, eta=eta)
        out = draw_of(step, Prediction(x_0, eps), t, s, keys)
        np.testing.assert_allclose(out, schedule.alpha(s) * y, rtol=1e-9, atol=1e-12)
        if eta <= 1:
            ddim = draw_of(DDIM(schedule=schedule, eta=eta), Prediction(x_0, eps), t, s, keys)
            np.testing.assert_allclose(out, ddim, rtol=1e-12)


@pytest.mark.parametrize("schedule", [continuous.Straight(), continuous.Cosine()])
def test_from_pure_noise_all_of_it_is_fresh(schedule):
    # At alpha_t = 0 the prediction says nothing of the noise: x_s ~ N(alpha_s x_0, sigma_s^2).
    x_0, eps = jnp.ones((2, 3)), jnp.full((2, 3), 100.0)
    keys, s = keys_of(3, 4), jnp.asarray(0.7)
    step = EulerAncestral(schedule=schedule)
    out = draw_of(step, Prediction(x_0, eps), jnp.ones(()), s, keys)
    expected = schedule.alpha(s) + schedule.sigma(s) * streams.normal(keys, (3,))
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_a_row_depends_on_its_own_key_alone():
    step = EulerAncestral(schedule=VP)
    x, sampler = jnp.asarray([[-1.0], [0.0], [1.0]]), Sampler(step=step, times=TIMES)
    run = jax.jit(lambda x, keys: sampler(mixture(VP), x, keys).x)
    together, other = run(x, keys_of(5, 6, 7)), run(x, keys_of(5, 60, 7))
    np.testing.assert_array_equal(other[::2], together[::2])
    assert other[1] != together[1]
    np.testing.assert_allclose(run(x[1:2], keys_of(6))[0], together[1], rtol=1e-6)
