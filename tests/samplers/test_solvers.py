"""Properties of every solver that a config can name: its order, its path, its evaluations.

`order_table.py` prints the orders; each solver has further tests of its own.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import order_table
import pytest
from oracles import few, perfect

from genzoo.builders import sampling
from genzoo.builders.sampling import METHODS, ContinuousSampling, DiffusionSampling
from genzoo.core import streams
from genzoo.math import continuous, gaussian, schedules
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction

EXACT = list(order_table.ORDERS)
# Multistep methods begin with a step of lower order, whose error stays: see their tests, where they
# are started from exact values. These are the orders seen from their own start.
STARTED = {
    "lms": (3.5, 4.1), "pndm": (1.9, 2.1), "f_pndm": (1.9, 2.1), "unipc": (1.9, 2.3),
    "deis": (2.8, 3.1),
}  # fmt: skip


def step_of(name, schedule):
    return METHODS[name](schedule, DiffusionSampling(), gaussian.FIXED_SMALL)


def keys_of(count):
    return streams.per_example(streams.root(0), jnp.arange(count))


@pytest.mark.parametrize("name", EXACT)
def test_the_observed_order_is_that_of_the_table(float64, name):
    schedule = order_table.SCHEDULES["VE"]
    errors = order_table.errors(name, schedule, (320, 640))
    low, high = STARTED.get(name, (order_table.ORDERS[name] - 0.1, order_table.ORDERS[name] + 0.1))
    assert low <= order_table.slopes(errors)[0] <= high


def test_the_two_third_order_updates_cross(float64):
    # The published one is of order 2 and the better one at few steps; the other overtakes it.
    counts = (10, 40, 160, 640)
    third, published = (
        order_table.errors(name, order_table.SCHEDULES["VE"], counts)
        for name in ("dpmpp_3m", "dpmpp_3m_published")
    )
    assert published[0] < third[0]
    assert third[-1] < published[-1] / 10
    assert np.all(np.diff(third / published) < 0)


def network_like(x, t):
    """An arbitrary smooth predictor, which must not be evaluated at t = 0."""
    x_0 = jnp.where(t > 0, jnp.tanh(x), jnp.nan)
    return Prediction(x_0, x - 0.5 * x_0)


@pytest.mark.parametrize("name", METHODS)
def test_from_end_to_end_it_is_finite_and_counts_its_evaluations(name):
    # float32, on the path where it is hardest: from t = 1, where alpha = 0.
    schedule, asked = continuous.Straight(), []
    times = sampling.grid(ContinuousSampling(grid="trailing"), table=False)(schedule, 7)

    def predict(x, t):
        jax.debug.callback(lambda t: asked.append(float(t)), t)
        return network_like(x, t)

    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)
    sampler = Sampler(step=step_of(name, schedule), times=times)
    # Guidance from t = 0.47 on takes three rows.
    rows = lambda t: jnp.where(t > 0.47, 3, 1)  # noqa: E731
    run = jax.jit(lambda x, keys: sampler(predict, x, keys, rows=rows))
    solution = run(x, keys_of(2))
    assert np.all(np.isfinite(solution.x))
    jax.effects_barrier()
    assert solution.evaluations.tolist() == [len(asked)] * 2
    assert solution.network_rows.tolist() == [sum(3 if t > 0.47 else 1 for t in asked)] * 2
    assert min(asked) > 0
    # Methods that have no order in the table draw noise.
    others = streams.per_example(streams.root(1), jnp.arange(2))
    assert np.array_equal(run(x, others).x, solution.x) == (name in EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_a_perfect_denoiser_stays_on_the_path_and_stops_at_the_last_sigma(float64, name):
    # With the data known the flow is a straight line, and every move is exact, to the data and to
    # the noisy sample of the last level.
    schedule = continuous.VariancePreserving()
    x_0, eps = np.random.default_rng(0).normal(size=(2, 3, 2))
    settings = ContinuousSampling(method=name, grid="logsnr", steps=6, last_sigma=0.3)
    sampler = sampling.sampler(settings, gaussian.FIXED_SMALL)(schedule)
    ratio = schedule.sigma(sampler.times[-1]) / schedule.alpha(sampler.times[-1])
    assert len(sampler.times) == 7 and ratio == pytest.approx(0.3, rel=1e-9)
    x = gaussian.q_sample(schedule, x_0, jnp.ones(()), eps)

    @jax.jit
    def run(x, times):
        moved = replace(sampler, times=times)
        return moved(perfect(schedule, x_0), x, keys_of(3), trajectory=True)

    for times in (np.asarray(sampler.times), np.array([1.0, 0.8, 0.45, 0.4, 0.1, 0.02, 0.0])):
        solution = run(x, times)
        np.testing.assert_array_equal(solution.x, solution.states[-1])
        for state, s in zip(np.asarray(solution.states), times[1:], strict=True):
            alpha, sigma = (float(f(jnp.float64(s))) for f in (schedule.alpha, schedule.sigma))
            np.testing.assert_allclose(state, alpha * x_0 + sigma * eps, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("grid", sorted(sampling.GRIDS))
@pytest.mark.parametrize("table", [True, False])
def test_grids_fall_from_the_noise_to_the_data(grid, table):
    schedule = schedules.linear(1000) if table else continuous.Cosine()
    for steps in (1, 2, 10, 50):
        if steps == 1 and table and grid in ("uniform", "quadratic", "linspace"):
            continue  # refused: it would start far from pure noise
        make = sampling.grid(ContinuousSampling(grid=grid), table=table)
        times = np.asarray(make(schedule, steps))
        assert times.shape == (steps + 1,) and times[-1] == 0
        assert np.all(np.diff(times) < 0) and times[0] <= 1
        assert times[-2] >= schedule.nearest * (1 - 1e-6)
        if not table or (grid not in ("uniform", "uniform_open", "quadratic") and steps > 1):
            assert times[0] >= schedule.farthest - 1e-6


def test_the_edm_grid_is_the_papers():
    # Karras et al. 2022, eq. 5, with 18 steps from 80 to 0.002 and rho 7.
    schedule = continuous.LinearNoise()
    times = sampling.grid(ContinuousSampling(grid="karras"), table=False)(schedule, 18)
    expected = [
        80, 57.585985, 40.785574, 28.374585, 19.352453, 12.910082, 8.400935, 5.315195, 3.256822,
        1.92334, 1.088171, 0.585348, 0.296442, 0.139516, 0.059947, 0.022935, 0.007528, 0.002, 0,
    ]  # fmt: skip
    np.testing.assert_allclose(schedule.sigma(jnp.asarray(times)), expected, rtol=2e-4)


def test_a_shift_moves_times_towards_the_noise():
    schedule = continuous.Straight()
    makers = (
        sampling.grid(ContinuousSampling(grid="trailing", shift=shift), table=False)
        for shift in (1.0, 3.0)
    )
    plain, moved = (np.asarray(make(schedule, 4)) for make in makers)
    np.testing.assert_allclose(plain, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(moved, [1, 0.9, 0.75, 0.5, 0])


@pytest.mark.parametrize("name", few(["heun", "rk4", "dpm2", "edm", "lms", "pndm"], (0, 2, 4)))
def test_a_table_that_ends_in_noise_is_no_trouble(name):
    # sigma / alpha begins at 20,000 on the cosine table: in that variable the slopes' small change
    # over the first step would be magnified as much. A mixture with one narrow and one wide part.
    table = schedules.cosine(1000)
    times = sampling.grid(DiffusionSampling(grid="trailing"), table=True)(table, 20)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 1)), jnp.float32)
    data = order_table.DATA
    sampler = Sampler(step=step_of(name, table), times=times)
    samples = jax.jit(lambda x: sampler(data.predictor(table), x, keys_of(64)).x)(x)
    alpha, sigma = (float(f(jnp.float32(1.0))) for f in (table.alpha, table.sigma))
    off = np.abs(data.cdf(np.asarray(samples)) - data.cdf(np.asarray(x), alpha, sigma))
    assert off.max() < 0.1
