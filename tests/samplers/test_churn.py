"""EDM's stochastic sampler against algorithm 2 as printed; what its noise, and that of Euler's
ancestral method, does to moments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few
from test_runge_kutta import (
    FOUR,
    LINEAR_NOISE,
    SCHEDULES,
    TIMES,
    TWO,
    VP,
    denoise,
    even_in_logsnr,
    keys_of,
    mixture,
    observed,
    walk,
)

from genzoo.core import streams
from genzoo.math import continuous
from genzoo.math.gaussian_mixture import GaussianMixture
from genzoo.samplers.churn import EDM, ChurnedDPM2, ChurnedEuler
from genzoo.samplers.loop import Sampler
from genzoo.samplers.runge_kutta import DPM2, Euler, EulerAncestral, Heun

NOISE = np.array([8.0, 5.0, 2.0, 0.7, 0.2, 0.05, 0.0])
WITHIN = {"s_min": 0.1, "s_max": 6.0}


def algorithm_2(method, x, sigmas, noises, s_churn, s_min, s_max, s_noise):
    """Karras et al. 2022, algorithm 2 line by line, sigma(t) = t; and with what k-diffusion's
    sample_euler and sample_dpm_2 do from x_hat on."""
    steps, states = len(sigmas) - 1, []
    for (t, after), noise in zip(itertools.pairwise(sigmas), noises, strict=True):
        gamma = min(s_churn / steps, np.sqrt(2) - 1) if s_min <= t <= s_max else 0
        t_hat = t + gamma * t
        x_hat = x + np.sqrt(t_hat**2 - t**2) * s_noise * noise
        d = (x_hat - denoise(TWO, x_hat, 1.0, t_hat)) / t_hat
        x = x_hat + (after - t_hat) * d
        if method is ChurnedDPM2 and after != 0:
            middle = np.exp((np.log(t_hat) + np.log(after)) / 2)
            x = x_hat + (middle - t_hat) * d
            x = x_hat + (after - t_hat) * (x - denoise(TWO, x, 1.0, middle)) / middle
        elif method is EDM and after != 0:
            d_2 = (x - denoise(TWO, x, 1.0, after)) / after
            x = x_hat + (after - t_hat) * (d + d_2) / 2
        states.append(x)
    return np.stack(states)


FEW_AND_MUCH = 1.5, 40.0  # gamma from the first argument of min, and from the second


@pytest.mark.parametrize(
    ("method", "schedule", "s_churn"),
    few(
        itertools.product((EDM, ChurnedEuler, ChurnedDPM2), (VP, LINEAR_NOISE), FEW_AND_MUCH),
        (1, 2, 4, 11),
    ),
)
def test_trajectories_are_those_of_algorithm_2(float64, method, schedule, s_churn):
    times = np.append(schedule.time_of_logsnr(-2 * np.log(NOISE[:-1])), 0.0)
    alpha = np.asarray(schedule.alpha(jnp.asarray(times)))[:, None, None]
    x = 8 * np.random.default_rng(0).normal(size=(4, 2))
    noises = [
        np.asarray(streams.normal(streams.fold(FOUR, i), (2,), jnp.float64))
        for i in range(len(times) - 1)
    ]
    step = method(schedule=schedule, s_churn=s_churn, s_noise=1.007, **WITHIN)
    sampler = Sampler(step=step, times=times)
    run = jax.jit(lambda x: sampler(mixture(schedule, TWO), x, FOUR, trajectory=True).states)
    expected = algorithm_2(method, x, NOISE, noises, s_churn, **WITHIN, s_noise=1.007)
    np.testing.assert_allclose(run(alpha[0] * x), alpha[1:] * expected, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@SCHEDULES
def test_without_churn_it_is_the_method_to_the_last_bit(schedule):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 1)), jnp.float32)
    moves = len(TIMES) - 1
    for methods, asked in (
        ((EDM, Heun), 2 * moves - 1),
        ((ChurnedEuler, Euler), moves),
        ((ChurnedDPM2, DPM2), 2 * moves - 1),
    ):
        ours, theirs = (
            walk(method(schedule=schedule), mixture(schedule), x, TIMES, FOUR) for method in methods
        )
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1] == asked


@SCHEDULES
def test_outside_its_range_nothing_is_added(schedule):
    step = EDM(schedule=schedule, s_churn=5.0, s_min=1e9)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 1)), jnp.float32)
    memory = step.init(x, jnp.asarray(10))
    for t in jnp.asarray([1.0, 0.999, 0.5, schedule.nearest]):
        x_hat, t_hat = step.before(x, t, t / 2, FOUR, memory)
        np.testing.assert_array_equal(t_hat, t)
        np.testing.assert_array_equal(x_hat, x)


@SCHEDULES
def test_float32_is_finite_from_one_end_to_the_other(schedule):
    x = jnp.asarray(np.random.default_rng(3).normal(size=(4, 1)), jnp.float32)
    times = np.array([1.0, 0.999, 0.5, 2 * schedule.nearest, schedule.nearest, 0.0])
    scale = jnp.hypot(schedule.alpha(jnp.ones(())), schedule.sigma(jnp.ones(())))
    step = EDM(schedule=schedule, s_churn=5.0)
    states, asked = walk(step, mixture(schedule), scale * x, times, FOUR)
    assert states.dtype == np.float32
    assert np.all(np.isfinite(states))
    assert asked == 2 * (len(times) - 1) - 1


def test_noise_is_not_raised_beyond_the_schedule(float64):
    x = jnp.ones((4, 1))
    for schedule in (VP, continuous.Straight()):
        step = EDM(schedule=schedule, s_churn=40.0)
        memory = step.init(x, jnp.asarray(10))
        farthest = jnp.asarray(schedule.farthest)
        x_hat, t_hat = step.before(x, farthest, farthest / 2, FOUR, memory)
        np.testing.assert_allclose(t_hat, farthest, rtol=1e-14)
        np.testing.assert_allclose(x_hat, x, rtol=1e-12)
        assert step.before(x, farthest - 1e-4, farthest / 2, FOUR, memory)[1] <= farthest
        # At alpha = 0 all is noise already.
        x_hat, t_hat = step.before(x, jnp.ones(()), farthest / 2, FOUR, memory)
        np.testing.assert_allclose(x_hat, x, rtol=1e-12)
        assert t_hat == 1


# --- moments, composed of affine steps: no Monte Carlo ---


def affine_steps(step, data, t, s, memory):
    """(slope, intercept, deviation) [N] of steps t -> s [N] as x -> slope x + intercept + d z, on
    data of one Gaussian in one dimension; memory: [N] or none."""
    x, keys = jnp.asarray([[0.0], [1.0], [0.0]]), keys_of(0, 0, 1)
    z = streams.normal(keys, (1,), x.dtype)[:, 0]
    predict = mixture(step.schedule, data)

    def move(t, s, memory):
        x_hat, t_hat = step.before(x, t, s, keys, memory)
        return step(predict, predict(x_hat, t_hat), x_hat, t_hat, s, keys, memory)[0][:, 0]

    out = np.asarray(jax.jit(jax.vmap(move))(t, s, memory))
    deviation = (out[:, 0] - out[:, 2]) / (z[0] - z[2])
    return np.stack([out[:, 1] - out[:, 0], out[:, 0] - deviation * z[0], deviation])


GAUSSIAN = GaussianMixture(
    weights=np.array([1.0]), means=np.array([[0.4]]), deviations=np.array([0.5])
)


def moment_errors(step, grids, memories=None):
    """For every grid the errors of mean and variance at its end, from the right ones at its start,
    by composing affine steps. memories: one for each grid, or None."""
    t, s = (np.concatenate(v) for v in zip(*((g[:-1], g[1:]) for g in grids), strict=True))
    lengths = [len(grid) - 1 for grid in grids]
    memory = () if memories is None else np.repeat(memories, lengths)
    coefficients = affine_steps(step, GAUSSIAN, t, s, memory)
    errors = []
    for grid, part in zip(grids, np.split(coefficients, np.cumsum(lengths)[:-1], 1), strict=True):
        alpha, sigma = (
            np.asarray(f(jnp.asarray(grid[[0, -1]])))
            for f in (step.schedule.alpha, step.schedule.sigma)
        )
        means, variances = 0.4 * alpha, 0.25 * alpha**2 + sigma**2
        mean, variance = means[0], variances[0]
        for slope, intercept, deviation in part.T:
            mean, variance = slope * mean + intercept, slope**2 * variance + deviation**2
        errors.append((abs(mean - means[1]), abs(variance - variances[1])))
    return np.array(errors)


@pytest.mark.parametrize(
    ("schedule", "eta"), few([(VP, 0.5), (LINEAR_NOISE, 1.0), (continuous.Straight(), 1.0)], (0, 2))
)
def test_ancestral_keeps_mean_and_variance_of_gaussian_data(float64, schedule, eta):
    # The mean exactly, the variance in the limit of small steps, with the order of Euler's method.
    step = EulerAncestral(schedule=schedule, eta=eta)
    grids = [even_in_logsnr(schedule, count) for count in (200, 400)]
    means, variances = moment_errors(step, grids).T
    np.testing.assert_allclose(means, 0, atol=1e-12)
    np.testing.assert_allclose(observed(variances), 1, atol=0.05)
    assert variances[-1] < 0.01


CHURNS = {EDM: (2, (100, 200)), ChurnedEuler: (1, (400, 800)), ChurnedDPM2: (2, (200, 400))}


@pytest.mark.parametrize(
    ("schedule", "method"),
    few(itertools.product((VP, LINEAR_NOISE, continuous.Straight()), CHURNS), (0, 4, 5, 6)),
)
def test_churn_keeps_mean_and_variance_of_gaussian_data(float64, method, schedule):
    """The mean exactly, the variance with the order of the method, with as much noise in all
    (S_churn = 20) whatever the number of steps: EDM 2.0, Euler 0.97, DPM2 1.96 (on straight paths,
    where its error changes sign, 3)."""
    step, (order, counts) = method(schedule=schedule, s_churn=20.0), CHURNS[method]
    grids = [even_in_logsnr(schedule, count) for count in counts]
    means, variances = moment_errors(step, grids, [20 / count for count in counts]).T
    np.testing.assert_allclose(means, 0, atol=1e-12)
    assert variances[-1] < (1e-3 if order == 2 else 5e-3)
    if method is not ChurnedDPM2 or schedule in (VP, LINEAR_NOISE):
        np.testing.assert_allclose(observed(variances), order, atol=0.1)


def test_a_row_depends_on_its_own_key_alone():
    x = jnp.asarray([[-1.0], [0.0], [1.0]])
    sampler = Sampler(step=EDM(schedule=VP, s_churn=1.0), times=TIMES)
    run = jax.jit(lambda x, keys: sampler(mixture(VP), x, keys).x)
    together, other = run(x, keys_of(5, 6, 7)), run(x, keys_of(5, 60, 7))
    np.testing.assert_array_equal(other[::2], together[::2])
    assert other[1] != together[1]
    np.testing.assert_allclose(run(x[1:2], keys_of(6))[0], together[1], rtol=1e-5)
