"""The samplers of the score SDE on Gaussian data, where every step is affine and known by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, few

from genzoo.core import streams
from genzoo.math import continuous, gaussian, schedules
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction
from genzoo.samplers.steps import DDIM, Ancestral
from genzoo.samplers.stochastic import (
    AnnealedLangevin,
    EulerMaruyama,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
)

MEAN, SPREAD = 0.4, 0.6
EVERY = [*continuous.ALL, schedules.cosine(100)]
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(EVERY, (0, 2, 4)), ids=lambda s: type(s).__name__
)
METHODS = pytest.mark.parametrize("method", [EulerMaruyama, ReverseDiffusion])
FLOW = pytest.mark.parametrize("flow", [False, True], ids=["noisy", "flow"])


def keys_of(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def scales(schedule, t):
    """(alpha, sigma, the variance of x_t), as NumPy."""
    alpha, sigma = (np.asarray(f(jnp.asarray(t))) for f in (schedule.alpha, schedule.sigma))
    return alpha, sigma, alpha**2 * SPREAD**2 + sigma**2


def predictor(schedule):
    """The exact predictor of x_0 ~ N(MEAN, SPREAD^2), with score -(x - alpha MEAN) / variance."""

    def predict(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        score = -(x - alpha * MEAN) / (jnp.square(alpha * SPREAD) + jnp.square(sigma))
        gain = alpha * SPREAD**2 / (jnp.square(alpha * SPREAD) + jnp.square(sigma))
        return Prediction(MEAN + gain * (x - alpha * MEAN), -sigma * score)

    return predict


def affine(step, t, s):
    """(slope, mean at x = 0, deviation) of a step x -> slope x + mean + deviation z, for all pairs
    of times: taken apart by two starts with the same key, and two keys with the same start."""
    x, keys = jnp.array([[0.0], [1.0], [0.0]]), keys_of(0, 0, 1)
    predict = predictor(step.schedule)

    def one(t, s):
        return step(predict, predict(x, t), x, t, s, keys, ())[0][:, 0]

    out = np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(t), jnp.asarray(s)))
    z = np.asarray(streams.normal(keys, (1,), out.dtype))[:, 0]
    deviation = (out[:, 0] - out[:, 2]) / (z[0] - z[2])
    return out[:, 1] - out[:, 0], out[:, 0] - deviation * z[0], deviation


T, S = np.array([0.9, 0.5, 0.21, 0.99]), np.array([0.88, 0.4, 0.2, 0.3])


def by_hand(schedule, drift, variance, flow):
    """The result of x - drift x + variance score + sqrt(variance) z."""
    alpha, _, spread = scales(schedule, T)
    pull = variance / spread / (2 if flow else 1)
    return 1 - drift - pull, pull * alpha * MEAN, 0 * T if flow else np.sqrt(variance)


def check(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


# f and g^2 of Song et al. 2021, equations 30 to 32, written out.
BETA, WHOLE = 0.1 + T * 19.9, 0.1 * T + T**2 * 19.9 / 2
SDES = {
    "vp": (continuous.VariancePreserving(), -BETA / 2, BETA),
    "sub_vp": (continuous.SubVariancePreserving(), -BETA / 2, BETA * (1 - np.exp(-2 * WHOLE))),
    "ve": (continuous.VarianceExploding(), 0 * T, (0.01 * 5000**T) ** 2 * 2 * np.log(5000)),
    "edm": (continuous.LinearNoise(), 0 * T, 2 * 80**2 * T),
    "straight": (continuous.Straight(), -1 / (1 - T), 2 * T / (1 - T)),
}


@pytest.mark.parametrize("sde", few(SDES, (1, 2, 4)))
@FLOW
def test_euler_maruyama_is_the_reverse_equation_written_out(float64, sde, flow):
    schedule, drift, diffusion = SDES[sde]
    actual = affine(EulerMaruyama(schedule=schedule, probability_flow=flow), T, S)
    check(actual, by_hand(schedule, drift * (T - S), diffusion * (T - S), flow))


@FLOW
def test_reverse_diffusion_is_songs_for_ve_and_vp(float64, flow):
    # Appendix E: SMLD, x_i = x_{i+1} + (sigma_{i+1}^2 - sigma_i^2) score + ...
    schedule = continuous.VarianceExploding()
    variance = (0.01 * 5000**T) ** 2 - (0.01 * 5000**S) ** 2
    actual = affine(ReverseDiffusion(schedule=schedule, probability_flow=flow), T, S)
    check(actual, by_hand(schedule, 0, variance, flow))
    # DDPM on neighbours: x_i = (2 - sqrt(1 - beta)) x_{i+1} + beta score + sqrt(beta) z.
    table = schedules.linear(100)
    steps = np.rint(T * 100).astype(int)
    beta = table.beta[steps - 1]
    step = ReverseDiffusion(schedule=table, probability_flow=flow)
    actual = affine(step, steps / 100, (steps - 1) / 100)
    check(actual, by_hand(table, np.sqrt(1 - beta) - 1, beta, flow))


def moments(step, *grids):
    """(mean, variance) at the end of each grid of times, from the exact marginal at its start."""
    starts, targets = ([grid[cut] for grid in grids] for cut in (np.s_[:-1], np.s_[1:]))
    parts = affine(step, np.concatenate(starts), np.concatenate(targets))
    ends = np.cumsum([len(grid) - 1 for grid in grids])[:-1]
    marginals = []
    for grid, *affines in zip(grids, *(np.split(part, ends) for part in parts), strict=True):
        alpha, _, variance = scales(step.schedule, grid[0])
        mean = alpha * MEAN
        for a, b, d in zip(*affines, strict=True):
            mean, variance = a * mean + b, a**2 * variance + d**2
        marginals.append((mean, variance))
    return np.array(marginals)


@METHODS
@FLOW
@pytest.mark.parametrize("schedule", few(EVERY[:4:3] + EVERY[5:6]), ids=lambda s: type(s).__name__)
def test_weak_order_one(float64, schedule, method, flow):
    """Measured: 0.99 to 1.02 in all cases, of mean and variance, with errors of 3e-5 to 2e-3 after
    1280 even steps of t over a factor of 40 in sigma / alpha."""
    ends = jnp.log(jnp.array([4.0, 0.1]))
    first, last = np.asarray(schedule.time_of_logsnr(-2 * ends))
    alpha, _, variance = scales(schedule, last)
    step = method(schedule=schedule, probability_flow=flow)
    marginals = moments(step, *(np.linspace(first, last, count + 1) for count in (640, 1280)))
    errors = np.abs(marginals - [alpha * MEAN, variance])
    assert np.all(errors[-1] < 0.01)
    kept = errors[-1] > 1e-12  # the mean is exact where alpha = 1 and it starts from the exact one
    assert kept[1]
    orders = np.log2(errors[0] / errors[1])[kept]
    np.testing.assert_allclose(orders, 1, atol=0.1)


def test_reverse_diffusion_is_ancestral_with_variance_beta_to_first_order(float64):
    # Their difference falls with the square of beta, at a quarter and half of all steps.
    differences = []
    for count in (200, 400):
        table, t = schedules.linear(count), np.array([0.25, 0.5])
        pairs = t, t - 1 / count
        ancestral = Ancestral(schedule=table, variance=gaussian.FIXED_LARGE)
        one, other = affine(ReverseDiffusion(schedule=table), *pairs), affine(ancestral, *pairs)
        np.testing.assert_allclose(one[2], other[2], rtol=1e-9)
        differences.append([a - b for a, b in zip(one[:2], other[:2], strict=True)])
    assert np.all(np.abs(differences[0]) > 1e-6)
    ratio = np.divide(*differences)
    np.testing.assert_allclose(np.log2(ratio), 2, atol=0.1)


# --- correctors -----------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).normal(size=(3, 4, 2))


def score_of(schedule, x, s):
    alpha, _, variance = scales(schedule, s)
    return -(x - alpha * MEAN) / variance


@pytest.mark.parametrize(
    ("corrector", "exploding"),
    [(Langevin, False), (Langevin, True), (AnnealedLangevin, False)],
    ids=["vp", "ve", "annealed"],
)
def test_correctors_are_algorithms_4_and_5(compiled, float64, corrector, exploding):
    # alpha = 1 for VE, 1 - beta for VP; norms over one example; DDIM before it draws nothing.
    if exploding:
        schedule, t, s, alpha = continuous.VarianceExploding(), 0.5, 0.45, 1.0
    else:
        schedule, t, s = schedules.linear(100), 0.5, 0.49
        alpha = 1 - schedule.beta[49]
    keys, predict = keys_of(3, 4, 5), predictor(schedule)
    step = PredictorCorrector(
        predictor=DDIM(schedule=schedule), corrector=corrector(schedule=schedule, snr=0.2, steps=2)
    )
    assert step.evaluations == 3

    def move(x, t, s):
        return step(predict, predict(x, t), x, t, s, keys, ())[0]

    moved = compiled(move)(IMAGES, jnp.float64(t), jnp.float64(s))
    seen = predict(IMAGES, jnp.float64(t))
    x = np.asarray(schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * seen.eps)
    for index in range(2):
        z = streams.normal(streams.fold(streams.fold(keys, 1), index), (4, 2), jnp.float64)
        score = score_of(schedule, x, s)
        if corrector is Langevin:
            ratio = np.linalg.norm(z, axis=(1, 2)) / np.linalg.norm(score, axis=(1, 2))
        else:
            ratio = np.full(3, scales(schedule, s)[1])
        size = (2 * alpha * (0.2 * ratio) ** 2)[:, None, None]
        x = x + size * score + np.sqrt(2 * size) * np.asarray(z)
    np.testing.assert_allclose(moved, x, rtol=1e-9)


@pytest.mark.parametrize("snr", [0.16, 0.6])
def test_langevin_on_an_exact_score_is_stationary_but_for_its_step(snr):
    # x <- (1 - e / V) x + sqrt(2 e) z has the variance V / (1 - e / (2 V)) in the end: too large by
    # e / (2 V) for small e. Started wide and off the mean.
    schedule, s, count = continuous.LinearNoise(sigma_max=4.0), 0.25, 20_000
    steps = {0.16: 160, 0.6: 12}[snr]
    corrector = AnnealedLangevin(schedule=schedule, snr=snr, steps=steps)
    keys = streams.per_example(streams.root(0), jnp.arange(count))
    time = jnp.float32(s)
    x = jax.jit(lambda x: corrector(predictor(schedule), x, time, time, keys))(
        jnp.full((count, 1), 3.0)
    )
    variance, size = scales(schedule, s)[2], 2 * snr**2
    forgotten = (1 - size / variance) ** steps
    assert forgotten * 3 < 0.01
    expected = variance / (1 - size / (2 * variance)) * (1 - forgotten**2)
    assert np.var(x) == pytest.approx(expected, rel=4 * np.sqrt(2 / count))
    mean = MEAN + forgotten * (3 - MEAN)
    assert np.mean(x) == pytest.approx(mean, abs=4 * float(np.sqrt(variance / count)))


def test_a_score_of_zero_is_not_divided_by():
    schedule = continuous.VarianceExploding()
    still = lambda x, t: Prediction(x, jnp.zeros_like(x))  # noqa: E731
    x = jnp.ones((2, 3))
    out = Langevin(schedule=schedule)(still, x, jnp.float32(0.5), jnp.float32(0.4), keys_of(0, 1))
    np.testing.assert_array_equal(out, x)


def test_a_corrector_brings_a_wrong_predictor_back(float64):
    # A predictor that moves nothing, and enough of the corrector: the marginal at s, but for the
    # known widening by the step.
    schedule, t, s = continuous.VariancePreserving(), 0.3, 0.2

    class Stays(DDIM):
        def __call__(self, predict, seen, x, t, s, keys, memory):
            return x, memory

    corrector = AnnealedLangevin(schedule=schedule, snr=0.1, steps=600)
    step = PredictorCorrector(predictor=Stays(schedule=schedule), corrector=corrector)
    keys = streams.per_example(streams.root(0), jnp.arange(3000))
    predict, x = predictor(schedule), jnp.full((3000, 1), 2.0)

    @jax.jit
    def move(t, s):
        return step(predict, predict(x, t), x, t, s, keys, ())[0]

    out = move(t, s)
    alpha, _, variance = scales(schedule, s)
    assert np.mean(out) == pytest.approx(alpha * MEAN, abs=4 * np.sqrt(variance / 3000))
    assert np.var(out) == pytest.approx(variance * 1.01, rel=4 * np.sqrt(2 / 3000))


# --- the ends -------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize("schedule", few([continuous.Straight(), continuous.Cosine()]))
def test_from_no_signal_it_is_the_posteriors_draw(compiled, float64, schedule, method):
    x, t, s = jnp.asarray(IMAGES), jnp.float64(1.0), jnp.float64(0.9)
    predict, keys = predictor(schedule), keys_of(0, 1, 2)
    seen = predict(x, t)

    def move(step):
        return compiled(lambda t, s: step(predict, seen, x, t, s, keys, ())[0])(t, s)

    noisy, flow = (move(method(schedule=schedule, probability_flow=f)) for f in (False, True))
    mean, variance = gaussian.posterior(schedule, seen.x_0, x, t, s)
    z = streams.normal(keys, (4, 2), jnp.float64)
    np.testing.assert_allclose(noisy, mean + jnp.sqrt(variance) * z, rtol=1e-12)
    line = schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * seen.eps
    np.testing.assert_allclose(flow, line, rtol=1e-12)
    corrector = Langevin(schedule=schedule)
    both = PredictorCorrector(predictor=DDIM(schedule=schedule), corrector=corrector)
    np.testing.assert_allclose(move(both), line, rtol=1e-12)


def steps_of(schedule):
    """One of each kind."""
    reverse = ReverseDiffusion(schedule=schedule)
    return [
        EulerMaruyama(schedule=schedule),
        PredictorCorrector(predictor=reverse, corrector=Langevin(schedule=schedule)),
        PredictorCorrector(
            predictor=EulerMaruyama(schedule=schedule, probability_flow=True),
            corrector=AnnealedLangevin(schedule=schedule, steps=2),
        ),
    ]


@SCHEDULES
def test_float32_is_finite_at_both_ends(schedule):
    t = jnp.array([1.0, 1.0, 0.999, 0.98, 0.5, 2 * schedule.nearest])
    s = jnp.array([0.999, 0.1, 0.98, 0.5, 0.1, schedule.nearest])
    x, predict, keys = jnp.asarray(3 * IMAGES, jnp.float32), predictor(schedule), keys_of(0, 1, 2)

    def one(t, s):
        seen = predict(x, t)
        return [step(predict, seen, x, t, s, keys, ())[0] for step in steps_of(schedule)]

    for out in jax.jit(jax.vmap(one))(t, s):
        assert out.dtype == np.float32 and np.all(np.isfinite(out))


def test_every_call_is_counted_and_none_is_at_zero():
    schedule, asked = continuous.VariancePreserving(), []

    def predict(x, t):
        asked.append(float(t))
        return predictor(schedule)(x, t)

    for step, each in zip(steps_of(schedule), (1, 2, 3), strict=True):
        asked.clear()
        with jax.disable_jit():
            sampler = Sampler(step=step, times=np.array([1.0, 0.5, 0.1, 0.0]))
            solution = sampler(predict, jnp.asarray(IMAGES), keys_of(0, 1, 2), trajectory=True)
        # The corrector evaluates where the predictor arrives; there is none at the end.
        arrivals = [[t] + [s] * (each - 1) for t, s in itertools.pairwise((1.0, 0.5, 0.1))]
        np.testing.assert_allclose(asked, [*itertools.chain(*arrivals), 0.1], rtol=1e-6)
        np.testing.assert_array_equal(solution.evaluations, len(asked))
        # It ends in the data predicted at the last time.
        np.testing.assert_allclose(solution.x, solution.predicted[-1])


def test_the_parts_of_the_predictor_are_its_own():
    class Remembers(DDIM):
        evaluations, evaluations_to_start = 2, 3

        def init(self, x, steps):
            return {"left": steps}

        def before(self, x, t, s, keys, memory):
            return x + memory["left"], 2 * t

        def finish(self, seen, x, t, memory):
            return seen.eps

    schedule = continuous.VariancePreserving()
    step = PredictorCorrector(
        predictor=Remembers(schedule=schedule), corrector=Langevin(schedule=schedule, steps=4)
    )
    memory = step.init(jnp.zeros((1, 2)), 7)
    assert (memory, step.evaluations, step.evaluations_to_start) == ({"left": 7}, 6, 3)
    x, t = step.before(jnp.zeros((1, 2)), 0.25, 0.1, keys_of(0), memory)
    np.testing.assert_array_equal(x, np.full((1, 2), 7))
    assert t == 0.5
    seen = Prediction(jnp.ones((1, 2)), jnp.full((1, 2), 2.0))
    np.testing.assert_array_equal(step.finish(seen, x, t, memory), seen.eps)


@pytest.mark.parametrize("index", few([1, 2]))
def test_a_row_depends_on_its_own_key_alone(index):
    schedule = continuous.VariancePreserving()
    step = steps_of(schedule)[index]
    sampler = Sampler(step=step, times=np.array([0.9, 0.5, 0.2, 0.0]))
    # Mixtures in place of a Gaussian, whose predicted data hardly differ.
    predict = Mixture().predictor(schedule)
    run = jax.jit(lambda x, keys: sampler(predict, x, keys).x)
    x = jnp.asarray(IMAGES, jnp.float32)
    together = run(x, keys_of(5, 6, 7))
    other = run(x.at[1].set(0.0), keys_of(5, 60, 7))
    np.testing.assert_array_equal(other[0], together[0])
    np.testing.assert_array_equal(other[2], together[2])
    assert np.any(run(x, keys_of(5, 60, 7))[1] != together[1])
    np.testing.assert_allclose(run(x[1:2], keys_of(6))[0], together[1], rtol=1e-5)
