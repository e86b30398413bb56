"""Ancestral sampling and DDIM, and the loop they run in, against exact trajectories."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import STANDARD_NORMAL, Mixture, every_schedule, few, perfect

from genzoo.core import streams
from genzoo.math import gaussian, schedules
from genzoo.samplers import grids
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction
from genzoo.samplers.steps import DDIM, Ancestral

# A table, straight lines to alpha = 0, and alpha = 1.
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(every_schedule(), (0, 4, 5)), ids=lambda s: type(s).__name__
)
TABLES = pytest.mark.parametrize("make", few(schedules.TABLES), ids=lambda make: make.__name__)
TIMES = np.array([1.0, 0.9, 0.55, 0.5, 0.21, 0.06, 0.01, 0.0])
# (t, s): neighbours and far apart.
JUMPS = [(0.5, 0.49), (1.0, 0.3), (0.02, 0.01), (0.99, 0.05)]


def ancestral(schedule, variance=gaussian.FIXED_SMALL):
    return Ancestral(schedule=schedule, variance=variance)


KINDS = {
    "small": ancestral,
    "large": lambda s: Ancestral(schedule=s, variance=gaussian.FIXED_LARGE),
    "learned_range": lambda s: Ancestral(schedule=s, variance=gaussian.LEARNED_RANGE),
    "ddim": lambda s: DDIM(schedule=s),
    "ddim_half": lambda s: DDIM(schedule=s, eta=0.5),
    "ddim_one": lambda s: DDIM(schedule=s, eta=1.0),
}
STEPS = pytest.mark.parametrize("kind", few(KINDS, (2, 4)))


def keys_of(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def scales(schedule, t):
    """(alpha, sigma) as numbers."""
    return tuple(float(f(jnp.float64(t))) for f in (schedule.alpha, schedule.sigma))


def mean_and_deviation(step, predict, x, t, s):
    """A step's draw taken apart, by the noise that its keys give."""
    keys = keys_of(*range(len(x)))
    out, _ = step(predict, predict(x, t), x, t, s, keys, ())
    noise = streams.normal(keys, x.shape[1:], x.dtype)
    # The draw is mean + deviation * noise with one deviation for all: least squares of a line
    # is exact where both are constant over an example.
    centred = noise - noise.mean(1, keepdims=True)
    deviation = (out * centred).sum(1, keepdims=True) / (centred**2).sum(1, keepdims=True)
    return out - deviation * noise, deviation


@SCHEDULES
def test_ddim_with_a_perfect_denoiser_stays_on_the_path(compiled, float64, schedule):
    x_0, eps = np.random.default_rng(0).normal(size=(2, 3, 5))
    sampler = Sampler(step=DDIM(schedule=schedule), times=TIMES)
    x = gaussian.q_sample(schedule, x_0, jnp.ones(()), eps)
    run = compiled(lambda x: sampler(perfect(schedule, x_0), x, keys_of(0, 1, 2), trajectory=True))
    result, states = run(x).x, run(x).states
    for state, s in zip(np.asarray(states), TIMES[1:], strict=True):
        alpha, sigma = (float(f(jnp.float64(s))) for f in (schedule.alpha, schedule.sigma))
        np.testing.assert_allclose(state, alpha * x_0 + sigma * eps, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result, x_0, rtol=1e-9)


def repeated(values):
    """[B] -> [B, 64], constant over an example, so that a draw can be taken apart."""
    return jnp.asarray(values)[:, None] * jnp.ones(64)


@SCHEDULES
def test_ddim_with_eta_one_is_the_posterior(compiled, float64, schedule):
    x, x_0 = repeated([0.3, -1.0, 2.0]), repeated([1.0, 0.2, -0.4])
    step = DDIM(schedule=schedule, eta=1.0)
    run = compiled(lambda t, s: mean_and_deviation(step, perfect(schedule, x_0), x, t, s))
    for t, s in jnp.asarray(JUMPS):
        mean, deviation = run(t, s)
        expected = gaussian.posterior(schedule, x_0, x, t, s)
        np.testing.assert_allclose(mean, expected.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(deviation**2, expected.variance, rtol=1e-9)


@SCHEDULES
@pytest.mark.parametrize("eta", [0.3])  # 0 and 1 are the tests above
def test_ddim_is_equation_12_and_16_of_song(compiled, float64, schedule, eta):
    # Written out for alpha^2 + sigma^2 = 1 there; the marginal at s is N(alpha_s x_0, sigma_s^2)
    # for every eta, which fixes the general form.
    x_0, eps = repeated([1.0, -0.2]), repeated([0.7, -1.5])
    known = lambda x, t: Prediction(x_0, eps)  # noqa: E731
    step = DDIM(schedule=schedule, eta=eta)
    run = compiled(lambda x, t, s: mean_and_deviation(step, known, x, t, s))
    for t, s in jnp.asarray(JUMPS):
        mean, deviation = run(gaussian.q_sample(schedule, x_0, t, eps), t, s)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scales(schedule, t), scales(schedule, s)
        share = sigma_s / sigma_t * np.sqrt(1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2)
        expected = eta * share * sigma_t
        np.testing.assert_allclose(deviation, expected, rtol=1e-9, atol=1e-12)
        direction = np.sqrt(sigma_s**2 - expected**2)
        np.testing.assert_allclose(mean, alpha_s * x_0 + direction * eps, rtol=1e-9)


@SCHEDULES
@pytest.mark.parametrize("rule", [gaussian.FIXED_SMALL, gaussian.FIXED_LARGE])
def test_ancestral_is_a_draw_of_p_theta(compiled, float64, schedule, rule):
    x, x_0 = repeated([0.3, -1.0, 2.0]), repeated([1.0, 0.2, -0.4])
    step = ancestral(schedule, rule)
    known = lambda x, t: Prediction(x_0, x)  # noqa: E731
    run = compiled(lambda t, s: mean_and_deviation(step, known, x, t, s))
    small = rule is gaussian.FIXED_SMALL
    variance = gaussian.posterior_variance if small else gaussian.transition_variance
    for t, s in jnp.asarray(JUMPS):
        mean, deviation = run(t, s)
        expected = gaussian.posterior(schedule, x_0, x, t, s).mean
        np.testing.assert_allclose(mean, expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(deviation**2, variance(schedule, t, s), rtol=1e-9)


def scales_of(table, times):
    """(sigma, alpha) over all times."""
    return table.sigma(jnp.asarray(times)), table.alpha(jnp.asarray(times))


def affine_step(step, predict, t, s):
    """(slope, deviation) of a step that is x -> slope x + deviation z."""
    x = repeated([1.0, -1.0])
    mean, deviation = mean_and_deviation(step, predict, x, t, s)
    return (mean[0, 0] - mean[1, 0]) / 2, deviation[0, 0]


@TABLES
@pytest.mark.parametrize("method", ["ancestral", "ddim"])
def test_standard_normal_data_keep_unit_variance(float64, make, method):
    # The exact predictor of x_0 ~ N(0, 1): the transition variance is the true one (Ho et al.
    # 2020, section 3.2) from any t to any s; DDIM's flow becomes the identity in small steps.
    table, predict = make(1000), STANDARD_NORMAL.predictor(make(1000))
    large = ancestral(table, gaussian.FIXED_LARGE)
    step = large if method == "ancestral" else DDIM(schedule=table)
    take = jax.jit(lambda t, s: affine_step(step, predict, t, s))
    for grid in (grids.leading, grids.trailing, grids.linspace):
        times, variance = grids.on_table(grid)(table, 10), 1.0
        for t, s in itertools.pairwise(times[:-1]):
            slope, deviation = take(t, s)
            variance = slope**2 * variance + deviation**2
            if method == "ancestral":
                assert variance == pytest.approx(1, abs=1e-9)
        if method == "ddim":
            # x_s = (alpha_t alpha_s + sigma_t sigma_s) x_t = cos(angle) x_t, a little below 1.
            angles = np.arctan2(*scales_of(table, times))
            assert variance == pytest.approx(np.prod(np.cos(np.diff(angles)[:-1])) ** 2, rel=1e-9)


def order(errors):
    """Observed orders of convergence where the steps double."""
    errors = np.asarray(errors)
    return np.log2(errors[:-1] / errors[1:])


COUNTS = [160, 320]


NOISE = 2.0  # sigma / alpha at the start: 4 to 10 times the data's own deviations


def even_in_noise(schedule, count):
    """Times at which sigma / alpha falls evenly to 0: there DDIM is Euler's method, of order 1.

    (Evenly in t it is log(n) / n on a table, where sigma / alpha is the square root of t at 0.)
    """
    noise = jnp.asarray(NOISE * np.linspace(1, 0, count + 1)[:-1])
    return np.append(schedule.time_of_logsnr(-2 * jnp.log(noise)), 0.0)


def ends_of_ddim(schedule, data, x):
    """Where DDIM takes x in each of COUNTS steps, by one program."""

    @jax.jit
    def run(times, steps):
        sampler = Sampler(step=DDIM(schedule=schedule), times=times, steps=steps)
        return sampler(data.predictor(schedule), jnp.asarray(x), keys_of(*range(len(x)))).x

    grids_of_times = (even_in_noise(schedule, count) for count in COUNTS)
    return [
        np.asarray(run(np.pad(times, (0, max(COUNTS) - count)), count))
        for times, count in zip(grids_of_times, COUNTS, strict=True)
    ]


@SCHEDULES
def test_ddim_on_one_gaussian_converges_to_the_closed_form(float64, schedule):
    # x / alpha = mu + (x_T / alpha_T - mu) sqrt((s^2 + k^2) / (s^2 + k_T^2)), k = sigma / alpha.
    mu, spread = 0.3, 0.5
    data = Mixture((1.0,), (mu,), (spread,))
    x = np.array([[2.0], [-1.0]])
    alpha, sigma = scales(schedule, even_in_noise(schedule, 1)[0])
    exact = mu + (x / alpha - mu) * spread / np.hypot(spread, sigma / alpha)
    errors = [np.abs(out - exact).max() for out in ends_of_ddim(schedule, data, x)]
    assert errors[-1] < 0.02
    np.testing.assert_allclose(order(errors)[-1], 1, atol=0.1)


@SCHEDULES
def test_ddim_on_a_mixture_keeps_the_quantile(float64, schedule):
    # A flow in one dimension is monotone: it carries each quantile of x_t to that of x_0.
    data = Mixture()
    alpha, sigma = scales(schedule, even_in_noise(schedule, 1)[0])
    x = np.linspace(-1.2, 1.2, 8)[:, None] * np.hypot(alpha, sigma)
    expected = data.cdf(x, alpha, sigma)
    errors = [np.abs(data.cdf(out) - expected).max() for out in ends_of_ddim(schedule, data, x)]
    assert errors[-1] < 0.02
    np.testing.assert_allclose(order(errors)[-1], 1, atol=0.1)


def network_like(x, t):
    """Any smooth predictor; never to be asked at t = 0."""
    x_0 = jnp.where(t > 0, jnp.tanh(x), jnp.nan)
    return Prediction(x_0, x - 0.5 * x_0, jnp.clip(x, -1, 1))


@STEPS
def test_the_last_step_ends_at_the_predicted_data(compiled, kind):
    schedule = schedules.cosine(100)
    sampler = Sampler(step=KINDS[kind](schedule), times=np.array([0.01, 0.0]))
    x = jnp.array([[0.3, -2.0]])
    out = compiled(lambda x: sampler(network_like, x, keys_of(0)).x)(x)
    np.testing.assert_array_equal(out, jnp.tanh(x))


@STEPS
@pytest.mark.parametrize("schedule", every_schedule()[2:5:2], ids=lambda s: type(s).__name__)
def test_no_sampler_asks_at_zero_or_ends_in_nan(kind, schedule):
    sampler = Sampler(step=KINDS[kind](schedule), times=TIMES[1:])
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)
    assert np.all(np.isfinite(jax.jit(lambda x: sampler(network_like, x, keys_of(0, 1)).x)(x)))


@STEPS
def test_the_trajectory_comes_on_request_and_ends_in_the_result(kind):
    sampler = Sampler(step=KINDS[kind](schedules.linear(100)), times=TIMES)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)
    alone = jax.jit(lambda x: sampler(network_like, x, keys_of(0, 1)))(x)
    kept = jax.jit(lambda x: sampler(network_like, x, keys_of(0, 1), trajectory=True))(x)
    assert alone.states is None and alone.predicted is None
    chex.assert_shape([kept.states, kept.predicted], (len(TIMES) - 1, 2, 3))
    np.testing.assert_array_equal(kept.states[-1], kept.x)
    np.testing.assert_array_equal(kept.predicted[0], network_like(x, TIMES[0]).x_0)
    np.testing.assert_array_equal(kept.predicted[-1], kept.x)
    np.testing.assert_array_equal(alone.x, kept.x)


@STEPS
def test_a_row_depends_on_its_own_key_alone(kind):
    sampler = Sampler(step=KINDS[kind](schedules.linear(100)), times=TIMES)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 2, 2)), jnp.float32)
    run = jax.jit(lambda x, keys: sampler(network_like, x, keys).x)
    together = run(x, keys_of(5, 6, 7))
    for row, seed in enumerate((5, 6, 7)):
        np.testing.assert_array_equal(run(x[row : row + 1], keys_of(seed))[0], together[row])
    other = run(x, keys_of(5, 60, 7))
    np.testing.assert_array_equal(other[0], together[0])
    np.testing.assert_array_equal(other[2], together[2])


def test_every_step_of_a_noisy_sampler_draws_afresh():
    # With nothing predicted, the states differ by what was drawn.
    step = DDIM(schedule=schedules.linear(100), eta=1.0)
    sampler = Sampler(step=step, times=TIMES)
    nothing = lambda x, t: Prediction(jnp.zeros_like(x), jnp.zeros_like(x))  # noqa: E731
    states = sampler(nothing, jnp.zeros((1, 4)), keys_of(0), trajectory=True).states
    drawn = np.asarray(states[:-1, 0] / np.linalg.norm(states[:-1, 0], axis=-1, keepdims=True))
    assert np.all(np.abs(drawn @ drawn.T - np.eye(len(drawn))).max(1) > 0)
    assert np.abs((drawn @ drawn.T)[~np.eye(len(drawn), dtype=bool)]).max() < 0.9999


@pytest.mark.parametrize("count", [3, 30])
def test_one_compile_and_one_trace_of_the_predictor(count):
    asked = []
    chex.clear_trace_counter()

    def predict(x, t):
        asked.append(t)
        return network_like(x, t)

    step = ancestral(schedules.linear(100))
    sampler = Sampler(step=step, times=np.linspace(1, 0, count + 1))
    run = jax.jit(chex.assert_max_traces(lambda x, keys: sampler(predict, x, keys), n=1))
    for seed in range(3):
        solution = run(jnp.full((2, 3), float(seed)), keys_of(seed, seed + 1))
        np.testing.assert_array_equal(solution.evaluations, [count, count])
    assert len(asked) <= 2  # the scan's body, however many steps


def test_unrolling_changes_nothing():
    step, x = ancestral(schedules.linear(100)), jnp.ones((2, 3))
    outs = [
        Sampler(step=step, times=TIMES, unroll=unroll)(network_like, x, keys_of(0, 1)).x
        for unroll in (1, 3)
    ]
    np.testing.assert_allclose(*outs, rtol=1e-6)


def test_one_program_serves_every_number_of_steps():
    step, x = DDIM(schedule=schedules.linear(100), eta=0.5), jnp.ones((2, 3))
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def upto(times, steps):
        return Sampler(step=step, times=times, steps=steps)(network_like, x, keys_of(0, 1))

    for steps in (1, 7):
        times = np.append(TIMES[:steps], 0.0)
        sampler = Sampler(step=step, times=times)
        alone = jax.jit(lambda x, s=sampler: s(network_like, x, keys_of(0, 1)))(x)
        padded = np.zeros(9)
        padded[: steps + 1] = times
        solution = upto(padded, steps)
        np.testing.assert_allclose(solution.x, alone.x, rtol=1e-6)
        np.testing.assert_array_equal(solution.evaluations, alone.evaluations)
