"""SDE-DPM-Solver++ against the ODE methods, quadrature, ancestral sampling and exact Gaussians.

On Gaussian data a whole run is an affine map of the start and the noises. With more pixels than
unknowns, all of them independent, one run and a linear solve give its coefficients exactly.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, few
from test_dpm_single import (
    FROM_NOTHING,
    LINEAR_NOISE,
    POINTS,
    SOME,
    VP,
    at_noise,
    exact_move,
    keys_of,
    of_lambda,
    predictor,
    scales,
    walk,
)

from genzoo.core import streams
from genzoo.math import gaussian
from genzoo.math.exponential import NOISE
from genzoo.samplers.dpm_multistep import Multistep
from genzoo.samplers.dpm_sde import MultistepSDE, NoiseMultistepSDE, SingleStepSDE
from genzoo.samplers.dpm_single import SingleStep
from genzoo.samplers.loop import Sampler
from genzoo.samplers.steps import Ancestral

SCHEDULES = pytest.mark.parametrize("schedule", few(SOME, (0, 2)), ids=lambda s: type(s).__name__)
METHODS = {
    "1": lambda schedule, eta: MultistepSDE(schedule=schedule, order=1, eta=eta),
    "2M": lambda schedule, eta: MultistepSDE(schedule=schedule, order=2, eta=eta),
    "3M": lambda schedule, eta: MultistepSDE(schedule=schedule, order=3, eta=eta),
    "single": lambda schedule, eta: SingleStepSDE(schedule=schedule, eta=eta),
}
EVERY_METHOD = pytest.mark.parametrize("name", list(METHODS))
METHODS |= {
    "noise 1": lambda schedule, eta: NoiseMultistepSDE(schedule=schedule, order=1, eta=eta),
    "noise 2M": lambda schedule, eta: NoiseMultistepSDE(schedule=schedule, order=2, eta=eta),
}
MEAN, DEVIATION = 0.3, 0.5
DATA = Mixture((1.0,), (MEAN,), (DEVIATION,))


@pytest.mark.parametrize(
    ("name", "ode"),
    [
        ("2M", Multistep(schedule=VP, order=2)),
        ("3M", Multistep(schedule=VP, order=3)),
        ("single", SingleStep(schedule=VP, order=2)),
        ("noise 2M", Multistep(schedule=VP, form=NOISE, order=2)),
    ],
)
def test_without_noise_they_are_the_ode_methods(float64, name, ode):
    times = np.append(at_noise(VP, np.geomspace(8, 0.1, 6)), 0.0)
    states, _ = walk(METHODS[name](VP, 0.0), predictor(VP), POINTS, times)
    expected, _ = walk(ode, predictor(VP), POINTS, times)
    np.testing.assert_allclose(states, expected, rtol=1e-12)


@pytest.mark.parametrize("schedule", FROM_NOTHING, ids=lambda s: type(s).__name__)
def test_with_eps_expanded_the_move_from_pure_noise_is_that_with_x_0(float64, schedule):
    moves = [
        walk(METHODS[name](schedule, 1.0), predictor(schedule), POINTS, [1.0, 0.9])[0]
        for name in ("1", "noise 2M")
    ]
    np.testing.assert_allclose(*moves, rtol=1e-12)
    step = METHODS["noise 2M"](schedule, 1.0)
    states, _ = walk(step, predictor(schedule), POINTS, [1.0, 0.9, 0.7])
    assert np.all(np.isfinite(states))


def draws(name, index, width):
    """The normal numbers of the first example in that step, [parts, width]."""
    keys = streams.fold(keys_of(1), index)
    parts = [streams.fold(keys, part) for part in (0, 1)] if name == "single" else [keys]
    return jnp.concatenate([streams.normal(key, (width,), jnp.float64) for key in parts])


def coefficients_of(name, schedule, eta, grids):
    """For each grid of times the end as (slope of the start, constant, *slopes of the noises)."""
    most = max(len(times) for times in grids) - 1
    parts = 2 if name == "single" else 1
    width = parts * most + 40
    step, start = METHODS[name](schedule, eta), np.random.default_rng(0).normal(size=(1, width))

    @jax.jit
    def solve(times, steps):
        sampler = Sampler(step=step, times=times, steps=steps)
        return sampler(DATA.predictor(schedule), jnp.asarray(start), keys_of(1)).x

    every = jax.jit(jax.vmap(lambda index: draws(name, index, width)))(jnp.arange(most))
    noises = np.asarray(every).reshape(-1, width)
    maps = []
    for times in grids:
        count = len(times) - 1
        out = solve(jnp.asarray(np.pad(times, (0, most - count), mode="edge")), count)[0]
        columns = np.vstack([start, np.ones_like(start), noises[: parts * count]])
        solved, *_ = np.linalg.lstsq(columns.T, out, rcond=None)
        np.testing.assert_allclose(solved @ columns, out, atol=1e-9)
        maps.append(solved)
    return maps


def errors_on_gaussian_data(name, schedule, eta, counts, ends):
    """Errors of the slope of the mean and of the variance, [2, counts], evenly in lambda."""
    grids = [at_noise(schedule, np.geomspace(*np.exp(ends), count + 1)) for count in counts]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (scales(schedule, grids[0][i]) for i in (0, -1))
    before, after = (alpha_t * DEVIATION) ** 2 + sigma_t**2, (alpha_s * DEVIATION) ** 2 + sigma_s**2
    # The score is linear: d log|mean - alpha MEAN| = (f + (1 + eta) / 2 g^2 / variance) dt, where
    # the variance of x_t itself has d log variance = (2 f + g^2 / variance) dt.
    spread = after / alpha_s**2 / (before / alpha_t**2)
    slope = alpha_s / alpha_t * spread ** ((1 + eta) / 2)
    errors = []
    for kept, constant, *noises in coefficients_of(name, schedule, eta, grids):
        # The mean of the data, right at the start, is right at the end with any number of moves.
        np.testing.assert_allclose(kept * alpha_t * MEAN + constant, alpha_s * MEAN, rtol=1e-9)
        variance = kept**2 * before + np.square(noises).sum()
        errors.append((abs(kept / slope - 1), abs(variance - after)))
    return np.array(errors).T


@pytest.mark.parametrize(
    ("name", "eta", "order"),
    few(
        [("1", 0.5, 1), ("2M", 0.5, 2), ("3M", 0.5, 3), ("single", 0.5, 2)]
        + [("noise 1", 0.5, 1), ("noise 2M", 0.5, 2)],
        (2, 3, 5),
    ),
)
def test_order_of_the_mean_on_gaussian_data(float64, name, eta, order):
    """Measured from 160 to 320 moves: 1.00, 2.01, 3.04, 1.99; with eps expanded 0.98, 2.00."""
    ends = (4.9, -1.0 if name == "3M" else -2.5)
    of_mean, _ = errors_on_gaussian_data(name, VP, eta, (160, 320), ends)
    assert abs(np.log2(of_mean[0] / of_mean[1]) - order) < 0.1


@pytest.mark.parametrize(
    ("name", "eta", "order"),
    few(
        [("3M", 0.0, 3), ("1", 1.0, 1), ("2M", 1.0, 2), ("3M", 1.0, 2), ("single", 1.0, 2)]
        + [("noise 1", 1.0, 1), ("noise 2M", 1.0, 2)],
        (1, 2, 3, 5),
    ),
)
def test_order_of_the_variance_on_gaussian_data(float64, name, eta, order):
    """Measured: 3.02, 0.99, 2.01, 2.04, 1.99; with eps expanded 1.02, 2.0; from 320 to 640 moves
    for 3M with noise, else 160 to 320."""
    late = name == "3M" and eta > 0
    counts, ends = ((320, 640), (4.3, -2.5)) if late else ((160, 320), (4.3, -1.0))
    of_mean, of_variance = errors_on_gaussian_data(name, LINEAR_NOISE, eta, counts, ends)
    assert abs(np.log2(of_variance[0] / of_variance[1]) - order) < 0.1
    if eta == 1 and "noise" not in name:  # the predicted x_0 is a martingale
        assert np.all(of_mean < 1e-9)


@pytest.mark.parametrize("eta", few([0.5, 1.0]))
def test_which_polynomials_of_lambda_the_drift_integrates(float64, eta):
    methods = {
        "2M": ({"order": 2}, 0),
        "2M with phi_2": ({"order": 2, "midpoint": False}, 1),
        "3M": ({"order": 3}, 2),
    }
    times = jnp.asarray(at_noise(VP, [3.0, 2.2, 1.0, 0.4]))
    for name, (options, highest) in methods.items():
        step = MultistepSDE(schedule=VP, eta=eta, lower_order_final=False, **options)
        for degree in range(4):
            polynomial = np.polynomial.Polynomial([0.7, -1.3, 0.8, 0.5][: degree + 1])
            predict, x = of_lambda(VP, "data", polynomial), jnp.asarray(POINTS)
            memory = step.init(x, jnp.asarray(9))
            for t, s in itertools.pairwise(times[:3]):
                _, memory = step(predict, predict(x, t), x, t, s, keys_of(4), memory)
            t, s = times[2:]
            moved, _ = step(predict, predict(x, t), x, t, s, keys_of(4), memory)
            # The noise is known, and what is left of the move is its drift.
            deviation = scales(VP, s)[1] * np.sqrt(1 - (0.4 / 1.0) ** (2 * eta))
            drift = moved - deviation * streams.normal(keys_of(4), (3,), jnp.float64)
            expected = exact_move(VP, "data", POINTS, t, s, polynomial, eta)
            is_exact = np.abs(drift - expected).max() < 1e-9
            assert is_exact == (degree <= highest), (name, degree)


@SCHEDULES
def test_order_one_with_all_noise_is_ancestral_sampling(float64, schedule):
    times = np.array([0.95, 0.4, 0.13, 0.0])
    states, _ = walk(METHODS["1"](schedule, 1.0), predictor(schedule), POINTS, times)
    ancestral = Ancestral(schedule=schedule, variance=gaussian.FIXED_SMALL)
    expected, _ = walk(ancestral, predictor(schedule), POINTS, times)
    np.testing.assert_allclose(states, expected, rtol=1e-9, atol=1e-9)


@EVERY_METHOD
def test_a_perfect_denoiser_leaves_the_marginal(float64, name):
    # x_0 known: x_s = alpha_s x_0 + sigma_s (unit noise), whatever the method and eta. As an affine
    # map of the eps at the start and the noises, its coefficients have squares that sum to sigma^2.
    t, s, width = *at_noise(VP, [3.0, 0.4]), 60
    for eta in (0.3, 1.0, 2.0):
        step, eps = METHODS[name](VP, eta), np.random.default_rng(0).normal(size=(1, width))
        known = lambda x, t: gaussian_pair(x, t, 0.7)  # noqa: E731
        x = jnp.asarray(scales(VP, t)[0] * 0.7 + scales(VP, t)[1] * eps)
        out, _ = step(
            known, known(x, t), x, jnp.asarray(t), jnp.asarray(s),
            streams.fold(keys_of(1), 0), step.init(x, jnp.asarray(9)),
        )  # fmt: skip
        columns = np.vstack([eps, np.ones_like(eps), draws(name, 0, width)])
        kept, constant, *noises = np.linalg.lstsq(columns.T, out[0], rcond=None)[0]
        alpha, sigma = scales(VP, s)
        np.testing.assert_allclose(constant, alpha * 0.7, rtol=1e-9)
        np.testing.assert_allclose(kept**2 + np.square(noises).sum(), sigma**2, rtol=1e-9)
        np.testing.assert_allclose(kept, sigma * (0.4 / 3.0) ** eta, rtol=1e-9)


def gaussian_pair(x, t, value):
    """The prediction of a known x_0."""
    return of_lambda(VP, "data", np.polynomial.Polynomial([value]))(x, t)


@EVERY_METHOD
@pytest.mark.parametrize("schedule", few(FROM_NOTHING), ids=lambda s: type(s).__name__)
def test_from_pure_noise_the_noise_is_all_new(float64, schedule, name):
    # alpha_s x_0 + sigma_s z, or the line of DDIM if there is no noise.
    width, s = 50, 0.7
    step, x = METHODS[name](schedule, 1.0), np.random.default_rng(0).normal(size=(1, width))
    predict = Mixture((1.0,), (0.0,), (0.0,)).predictor(schedule)
    out, _ = step(
        predict, predict(jnp.asarray(x), jnp.ones(())), jnp.asarray(x), jnp.ones(()),
        jnp.asarray(s), streams.fold(keys_of(1), 0), step.init(jnp.asarray(x), jnp.asarray(9)),
    )  # fmt: skip
    noises = np.linalg.lstsq(draws(name, 0, width).T, out[0], rcond=None)[0]
    np.testing.assert_allclose(noises @ draws(name, 0, width), out[0], atol=1e-9)
    np.testing.assert_allclose(np.square(noises).sum(), scales(schedule, s)[1] ** 2, rtol=1e-9)
    states, _ = walk(step, predictor(schedule), POINTS, [1.0, 0.8, 0.5, 0.2, 0.0])
    assert np.all(np.isfinite(states))


@EVERY_METHOD
@pytest.mark.parametrize("schedule", few(SOME, (2,)), ids=lambda s: type(s).__name__)
def test_float32_is_finite_at_both_ends(schedule, name):
    times = [1.0, 0.98, 0.5, 2 * schedule.nearest, schedule.nearest, 0.0]
    x = POINTS.astype(np.float32) * float(jnp.hypot(schedule.alpha(1.0), schedule.sigma(1.0)))
    states, asked = walk(METHODS[name](schedule, 1.0), predictor(schedule), x, times)
    assert np.all(np.isfinite(states))
    assert states[-1].dtype == np.float32
    assert len(asked) == (9 if name == "single" else 5)
    assert min(asked) > 0


@pytest.mark.parametrize("name", few(["single", "3M", "2M", "1"], 2))
def test_a_row_depends_on_its_own_key_alone(name):
    sampler = Sampler(step=METHODS[name](VP, 1.0), times=np.linspace(0.9, 0, 6))
    run = jax.jit(lambda x, keys: sampler(predictor(VP), x, keys))
    x, keys = jnp.asarray(POINTS[:3], jnp.float32), keys_of(4)
    together = run(x, keys[:3])
    assert together.evaluations.tolist() == [9 if name == "single" else 5] * 3
    other = run(x, keys[jnp.array([0, 3, 2])]).x
    np.testing.assert_array_equal(other[jnp.array([0, 2])], together.x[jnp.array([0, 2])])
    assert np.abs(other[1] - together.x[1]).max() > 1e-3
    np.testing.assert_allclose(run(x[1:2], keys[1:2]).x[0], together.x[1], rtol=1e-5, atol=1e-6)
