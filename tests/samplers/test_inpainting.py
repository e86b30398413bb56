"""Known parts: projections, exact ends, and the conditional mean of a correlated Gaussian."""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import StraightLine, continuous_schedules, few, perfect
from scipy.stats import ortho_group

from genzoo.core.errors import UserError
from genzoo.math import continuous, gaussian, schedules
from genzoo.samplers import inpainting
from genzoo.samplers.loop import Memoryless, Sampler
from genzoo.samplers.predictor import Prediction, clipped
from genzoo.samplers.steps import DDIM, Ancestral

EVERY = [schedules.cosine(100), *continuous_schedules()]
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(EVERY, (0, 3, 5)), ids=lambda s: type(s).__name__
)
TABLE = schedules.cosine(100)
TIMES = np.array([1.0, 0.9, 0.6, 0.3, 0.1, 0.02, 0.0])
GENERATOR = np.random.default_rng(0)
SHAPE = (2, 3, 2, 3)
X, KNOWN = GENERATOR.normal(size=(2, *SHAPE)).astype(np.float32)
MASK = GENERATOR.integers(0, 2, size=SHAPE[1:]).astype(bool)
STEPS = {
    "ddim": lambda schedule: DDIM(schedule=schedule),
    "ancestral": lambda schedule: Ancestral(schedule=schedule, variance=gaussian.FIXED_LARGE),
}
PROJECTIONS = {
    "mask": (inpainting.masked(MASK), MASK.sum()),
    "grey": (inpainting.grey(3), 6),
    "rotated": (
        inpainting.Decoupled(matrix=ortho_group.rvs(3, random_state=0), mask=MASK),
        MASK.sum(),
    ),
}
EACH_PROJECTION = pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)


def keys_of(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def shrinking(schedule, factor=0.7):
    """x_0 = factor tanh x_t: a wrong predictor."""

    def predict(x, t):
        x_0 = factor * jnp.tanh(x)
        return Prediction(x_0, (x - schedule.alpha(t) * x_0) / schedule.sigma(t), extra=2 * x)

    return predict


# --- projections -------------------------------------------------------------------------------


@EACH_PROJECTION
def test_a_projection_is_orthogonal(compiled, float64, projection):
    project, rank = projection
    size = int(np.prod(SHAPE[1:]))
    columns = compiled(project)(jnp.eye(size).reshape(size, *SHAPE[1:]))
    matrix = np.asarray(columns).reshape(size, size)
    np.testing.assert_allclose(matrix @ matrix, matrix, atol=1e-12)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.trace(matrix) == pytest.approx(rank)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_grey_basis_is_orthonormal_and_begins_with_the_mean(channels):
    basis = inpainting.grey_basis(channels)
    np.testing.assert_allclose(basis @ basis.T, np.eye(channels), atol=1e-14)
    np.testing.assert_allclose(basis[0] * channels**0.5, np.ones(channels), rtol=1e-14)


def test_grey_is_the_mean_over_channels(compiled):
    expected = np.broadcast_to(X.mean(-1, keepdims=True), X.shape)
    np.testing.assert_allclose(compiled(inpainting.grey(3))(X), expected, atol=1e-6)
    # The colours are kept, and the mean becomes the known one.
    seen = compiled(lambda x: inpainting.replaced(x, KNOWN, inpainting.grey(3)))(X)
    wanted = X - expected + KNOWN.mean(-1, keepdims=True)
    np.testing.assert_allclose(seen, wanted, atol=1e-6)


def test_a_mask_keeps_both_parts_bit_for_bit(compiled):
    holes = np.where(MASK, KNOWN, np.nan)  # what is not known may be anything
    seen = compiled(lambda x: inpainting.replaced(x, holes, inpainting.masked(MASK)))(X)
    np.testing.assert_array_equal(seen, np.where(MASK, KNOWN, X))
    pixels = MASK[..., :1]
    seen = compiled(lambda x: inpainting.replaced(x, KNOWN, inpainting.masked(pixels)))(X)
    np.testing.assert_array_equal(seen, np.where(pixels, KNOWN, X))


# --- the known part of the predicted data ------------------------------------------------------


@SCHEDULES
def test_a_known_part_is_known_and_the_rest_is_as_it_was(float64, schedule):
    project, _ = PROJECTIONS["rotated"]
    x, t, known = jnp.asarray(X, float), jnp.float64(0.6), jnp.asarray(KNOWN, float)
    run = inpainting.known_part(shrinking(schedule), known, project, schedule)
    seen, before = jax.jit(run)(x, t), shrinking(schedule)(x, t)
    np.testing.assert_allclose(project(seen.x_0), project(known), atol=1e-12)
    rest = before.x_0 - project(before.x_0)
    np.testing.assert_allclose(seen.x_0 - project(seen.x_0), rest, atol=1e-12)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    np.testing.assert_allclose(alpha * seen.x_0 + sigma * seen.eps, x, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(seen.extra, before.extra)


def test_nothing_known_changes_nothing_and_all_known_is_the_data(compiled):
    schedule, t = StraightLine(), jnp.float32([0.4, 0.9])
    # Powers of two: the same bits in this program and the other, however their compilers fuse.
    predict = lambda x, t: Prediction(x / 2, x / 4)  # noqa: E731
    before = compiled(predict)(X, t)
    for mask, data in ((0, before.x_0), (1, KNOWN)):
        project = inpainting.masked(mask)
        seen = compiled(inpainting.known_part(predict, KNOWN, project, schedule))(X, t)
        np.testing.assert_array_equal(seen.x_0, data)
        if mask == 0:
            np.testing.assert_array_equal(seen.eps, before.eps)


def test_the_known_part_is_around_clipping(compiled):
    schedule, known = StraightLine(), 3 * KNOWN
    inner = clipped(shrinking(schedule, 4.0), schedule)
    run = inpainting.known_part(inner, known, inpainting.masked(MASK), schedule)
    seen = np.asarray(compiled(run)(X, jnp.float32(0.5)).x_0)
    np.testing.assert_array_equal(np.where(MASK, seen, 0), np.where(MASK, known, 0))
    assert np.abs(np.where(MASK, 0, seen)).max() == 1


@pytest.mark.parametrize("name", few(STEPS, (1,)))
def test_with_independent_parts_the_rest_is_sampled_as_if_alone(name):
    schedule, project, make = TABLE, inpainting.masked(MASK), STEPS[name]
    predict = shrinking(schedule)
    predict_known = inpainting.known_part(predict, KNOWN, project, schedule)
    sampler = Sampler(step=make(schedule), times=TIMES)
    run = jax.jit(lambda known: sampler(predict_known if known else predict, X, keys_of(0, 1)).x,
                  static_argnums=0)  # fmt: skip
    seen, alone = run(True), run(False)
    np.testing.assert_allclose(seen, np.where(MASK, KNOWN, alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", few(EVERY[2:6], (3,)), ids=lambda s: type(s).__name__)
def test_who_knows_all_stays_on_the_path_of_the_known(float64, schedule):
    x_0, eps = jnp.asarray(KNOWN, float), jnp.asarray(X, float)
    predict = inpainting.known_part(
        perfect(schedule, x_0), x_0, inpainting.grey(3), schedule
    )
    times = TIMES * schedule.farthest
    x = gaussian.q_sample(schedule, x_0, jnp.asarray(times[0]), eps)
    sampler = Sampler(step=DDIM(schedule=schedule), times=times)
    done = jax.jit(lambda x: sampler(predict, x, keys_of(0, 1), trajectory=True))(x)
    for state, s in zip(done.states, times[1:], strict=True):
        on_path = gaussian.q_sample(schedule, x_0, jnp.asarray(s), eps)
        np.testing.assert_allclose(state, on_path, rtol=1e-9, atol=1e-9)


# --- replacement after every step --------------------------------------------------------------


def repaint(schedule, step, mask, resample=1, known=KNOWN):
    return inpainting.RePaint(
        schedule=schedule, step=step, known=known,
        project=inpainting.masked(mask), resample=resample,
    )  # fmt: skip


@pytest.mark.parametrize("name", few(STEPS, (1,)))
def test_repaint_with_nothing_known_is_the_step_bit_for_bit(name):
    make = STEPS[name]
    run = {
        name: jax.jit(
            lambda x, step=step: Sampler(step=step, times=TIMES)(
                shrinking(TABLE), x, keys_of(0, 1), trajectory=True
            )
        )(X)
        for name, step in (("as it is", make(TABLE)), ("wrapped", repaint(TABLE, make(TABLE), 0)))
    }
    for part in ("x", "states", "predicted", "evaluations"):
        actual, expected = (getattr(run[name], part) for name in ("wrapped", "as it is"))
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("name", "resample"), [("ddim", 1), ("ancestral", 3)])
def test_the_known_part_ends_as_it_is_known(name, resample):
    @jax.jit
    def run(mask, known):
        step = repaint(TABLE, STEPS[name](TABLE), mask, resample, known)
        return Sampler(step=step, times=TIMES)(shrinking(TABLE), X, keys_of(0, 1)).x

    for mask in (MASK, np.ones_like(MASK)):
        end = run(mask, np.where(mask, KNOWN, np.nan))
        np.testing.assert_array_equal(np.where(mask, end, 0), np.where(mask, KNOWN, 0))
        assert np.isfinite(end).all()


def test_colourisation_ends_in_the_known_grey_and_the_predicted_colour():
    image = KNOWN.mean(-1, keepdims=True) * np.ones(3, np.float32)
    step = inpainting.RePaint(
        schedule=TABLE, step=DDIM(schedule=TABLE), known=image,
        project=inpainting.grey(3), resample=2,
    )  # fmt: skip
    sampler = Sampler(step=step, times=TIMES)
    done = jax.jit(lambda x: sampler(shrinking(TABLE), x, keys_of(0, 1), trajectory=True))(X)
    last = np.asarray(done.predicted[-1])
    np.testing.assert_allclose(done.x, image + last - last.mean(-1, keepdims=True), atol=1e-6)
    assert np.abs(done.x - image).max() > 0.1


@pytest.mark.parametrize(
    "schedule", few(EVERY[::2] + EVERY[3:6:2], (0, 5)), ids=lambda s: type(s).__name__
)
def test_after_a_step_the_known_part_is_a_draw_of_its_marginal(schedule):
    # At every s of the trajectory, resampled too; from pure noise, in float32, also where there
    # alpha = 0. 4096 numbers, five deviations.
    size, value = 4096, 0.7
    x = schedule.sigma(jnp.float32(1)) * GENERATOR.normal(size=(2, size)).astype(np.float32)
    step = repaint(schedule, DDIM(schedule=schedule), 1, 2, jnp.full((1, size), value))
    sampler = Sampler(step=step, times=TIMES)
    run = jax.jit(lambda x: sampler(shrinking(schedule), x, keys_of(0, 1), trajectory=True))
    *states, end = np.asarray(run(x).states)
    np.testing.assert_array_equal(end, np.full_like(end, value))
    s = jnp.asarray(sampler.times[1:-1], jnp.float32)
    alpha, sigma = (np.asarray(f(s))[:, None, None] for f in (schedule.alpha, schedule.sigma))
    noise = (np.stack(states) - alpha * value) / sigma
    np.testing.assert_allclose(noise.mean(-1), 0, atol=5 / size**0.5)
    np.testing.assert_allclose(noise.std(-1), 1, atol=5 / (2 * size) ** 0.5)
    # The noise is fresh at every time and in every row.
    flat = np.corrcoef(noise.reshape(-1, size))
    np.testing.assert_allclose(flat, np.eye(len(flat)), atol=5 / size**0.5)


@pytest.mark.parametrize("resample", few([4, 1]))
def test_evaluations_are_calls(resample):
    calls = []

    def noting(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return shrinking(TABLE)(x, t)

    sampler = Sampler(step=repaint(TABLE, DDIM(schedule=TABLE), MASK, resample), times=TIMES)
    done = jax.jit(lambda x: sampler(noting, x, keys_of(0, 1)))(X)
    jax.block_until_ready(done)
    jax.effects_barrier()
    moves = len(TIMES) - 2
    np.testing.assert_array_equal(done.evaluations, [moves * resample + 1] * 2)
    np.testing.assert_array_equal(done.network_rows, done.evaluations)
    expected = np.append(np.repeat(TIMES[:-2], resample), TIMES[-2])
    np.testing.assert_allclose(calls, expected, rtol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Remembering(Memoryless):
    """Counts steps and adds up their times, in units of what it is asked to remember."""

    def init(self, x, steps):
        return {"left": steps, "sum": jnp.zeros((), x.dtype)}

    def __call__(self, predict, seen, x, t, s, keys, memory):
        return x, {"left": memory["left"] - 1, "sum": memory["sum"] + t}

    def finish(self, seen, x, t, memory):
        return jnp.ones_like(x) * memory["sum"] + 1000 * memory["left"]


@pytest.mark.parametrize("resample", few([3, 1]))
def test_a_memory_counts_the_steps_of_the_grid(resample):
    sampler = Sampler(step=repaint(TABLE, Remembering(), 0, resample), times=TIMES)
    end = jax.jit(lambda x: sampler(shrinking(TABLE), x, keys_of(0, 1)).x)(X)
    np.testing.assert_allclose(end, np.full_like(X, 1000 + TIMES[:-2].sum()), rtol=1e-6)


def test_a_row_depends_on_its_own_key_alone():
    step = repaint(TABLE, STEPS["ancestral"](TABLE), MASK, 2, KNOWN[:1])
    run = jax.jit(
        lambda x, keys: Sampler(step=step, times=TIMES)(shrinking(TABLE), x, keys).x
    )
    together = run(X, keys_of(5, 6))
    np.testing.assert_array_equal(run(X[::-1], keys_of(6, 5))[::-1], together)
    np.testing.assert_array_equal(run(X, keys_of(5, 9))[0], together[0])
    assert np.abs(run(X, keys_of(5, 9))[1] - together[1]).max() > 1e-3


@pytest.mark.parametrize("schedule", few([StraightLine(), continuous.VarianceExploding()]))
def test_ancestral_steps_are_finite_from_pure_noise(schedule):
    step = repaint(schedule, STEPS["ancestral"](schedule), MASK, 2)
    run = jax.jit(lambda x: Sampler(step=step, times=TIMES)(shrinking(schedule), x, keys_of(0, 1)))
    end = run(X * schedule.sigma(jnp.float32(1)))
    assert end.x.dtype == np.float32 and np.isfinite(end.x).all()


def test_resampling_no_times_is_refused():
    with pytest.raises(UserError, match="resample = 0"):
        repaint(TABLE, DDIM(schedule=TABLE), MASK, 0)


# --- a correlated Gaussian ---------------------------------------------------------------------

MEAN, COVARIANCE = np.array([0.5, -0.3]), np.array([[1.0, 0.8], [0.8, 1.0]])
VALUE = 2.0  # of x1
CONDITIONAL = MEAN[1] + 0.8 * (VALUE - MEAN[0]), 1 - 0.8**2  # of x2 given x1, by the textbook
FEW = np.linspace(1, 0, 21)


def denoiser(alpha, sigma):
    """(A, b) of E[x_0 | x_t] = A x_t + b, in NumPy."""
    gain = alpha * COVARIANCE @ np.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * np.eye(2))
    return gain, MEAN - gain @ (alpha * MEAN)


def correlated(x, t):
    """The exact predictor in JAX, by eigenvectors: the sum and the difference are independent."""
    alpha, sigma = TABLE.alpha(t), TABLE.sigma(t)
    mean, axes = jnp.asarray(MEAN, x.dtype), jnp.array([[1, 1], [1, -1]], x.dtype) / 2**0.5
    values = jnp.array([1.8, 0.2], x.dtype)
    along = (x - alpha * mean) @ axes * alpha * values / (alpha**2 * values + sigma**2)
    x_0 = mean + along @ axes
    return Prediction(x_0, (x - alpha * x_0) / sigma)


def moments(resample):
    """Mean and covariance at the end of ancestral sampling with replacement, by the recursion of
    Gaussians through affine maps: algorithm 1 of Lugmayr et al. in matrices."""
    alphas = np.append(1, TABLE.alpha_bar**0.5)
    sigmas = np.sqrt(1 - alphas**2)
    n = np.round(FEW * 100).astype(int)
    mean, covariance, rest = np.zeros(2), np.eye(2), np.diag([0.0, 1.0])
    for t, s in itertools.pairwise(n[:-1]):
        scale = alphas[t] / alphas[s]
        added = sigmas[t] ** 2 - scale**2 * sigmas[s] ** 2
        gain, offset = denoiser(alphas[t], sigmas[t])
        share = alphas[s] * added / sigmas[t] ** 2
        move = scale * sigmas[s] ** 2 / sigmas[t] ** 2 * np.eye(2) + share * gain
        for repeat in range(resample):
            if repeat:
                mean, covariance = scale * mean, scale**2 * covariance + added * np.eye(2)
            mean = rest @ (move @ mean + share * offset) + [alphas[s] * VALUE, 0]
            covariance = rest @ (move @ covariance @ move.T + added * np.eye(2)) @ rest
            covariance[0, 0] = sigmas[s] ** 2
    gain, offset = denoiser(alphas[n[-2]], sigmas[n[-2]])
    return (gain @ mean + offset)[1], (gain @ covariance @ gain.T)[1, 1]


@pytest.mark.parametrize("resample", few([2, 1, 4]))
def test_repaint_is_its_algorithm_in_distribution(resample):
    # 40,000 samples, four deviations.
    batch = 40_000
    step = repaint(TABLE, STEPS["ancestral"](TABLE), jnp.array([1, 0]), resample,
                   jnp.array([[VALUE, jnp.nan]]))  # fmt: skip

    @jax.jit
    def run(key):
        keys = jax.random.split(key, batch)
        x = jax.random.normal(jax.random.fold_in(key, 1), (batch, 2))
        return Sampler(step=step, times=FEW)(correlated, x, keys, trajectory=True)

    done = run(jax.random.key(0))
    end = np.asarray(done.x, float)
    mean, variance = moments(resample)
    np.testing.assert_array_equal(end[:, 0], VALUE)
    assert abs(end[:, 1].mean() - mean) < 4 * (variance / batch) ** 0.5
    assert abs(end[:, 1].var() / variance - 1) < 4 * (2 / batch) ** 0.5
    # The known part of every state has noise that is used nowhere else.
    correlations = [np.corrcoef(state.T)[0, 1] for state in done.states[:-1]]
    assert np.abs(correlations).max() < 4 / batch**0.5


def test_resampling_brings_the_rest_closer_to_its_conditional():
    # From the recursion above, which the sampler was shown to follow.
    off = [abs(moments(resample)[0] - CONDITIONAL[0]) for resample in (1, 2, 4, 10)]
    assert np.all(np.diff(off) < 0)
    assert off[0] > 0.02 and off[-1] < off[0] / 3
