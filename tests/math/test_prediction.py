"""Conversions of prediction kinds: from every kind to every other, and each by its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import every_schedule, few

from genzoo.math import continuous, gaussian, prediction, schedules

# A kind without a name here fails the tests below: they run over prediction.KINDS.
NAMES = {
    prediction.EPS: "eps",
    prediction.X_0: "x_0",
    prediction.V: "v",
    prediction.SCORE: "score",
    prediction.VELOCITY: "velocity",
}
# A table, straight lines to alpha = 0, and alpha = 1.
SCHEDULES = pytest.mark.parametrize(
    "schedule", few(every_schedule(), (0, 4, 5)), ids=lambda s: type(s).__name__
)
# Knots and places between them, one per example.
T = np.array([0.02, 0.3, 0.504, 0.97])


def case(schedule, dtype=np.float64):
    x_0, eps = np.random.default_rng(0).normal(size=(2, len(T), 2, 3)).astype(dtype)
    t = jnp.asarray(T, dtype)
    return jnp.asarray(x_0), jnp.asarray(eps), gaussian.q_sample(schedule, x_0, t, eps), t


def every_kind_there_and_back(schedule, x_0, eps, x_t, t):
    """{name: the pair recovered from each kind's exact target}."""
    pair = prediction.Pair(x_0, eps)
    return {
        NAMES[kind]: kind.to_pair(kind.from_pair(pair, schedule, t), x_t, schedule, t)
        for kind in prediction.KINDS
    }


@SCHEDULES
def test_the_exact_target_gives_back_data_and_noise(compiled, float64, schedule):
    x_0, eps, x_t, t = case(schedule)
    run = compiled(lambda *arrays: every_kind_there_and_back(schedule, *arrays))
    for name, pair in run(x_0, eps, x_t, t).items():
        np.testing.assert_allclose(pair.x_0, x_0, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(pair.eps, eps, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("schedule", few(every_schedule(), (4, 0)), ids=lambda s: type(s).__name__)
def test_every_pair_of_kinds_round_trips(compiled, float64, schedule):
    # Any output at all, not only an exact target: the conversion is a bijection at fixed x_t.
    output, _, x_t, t = case(schedule)

    def there_and_back(output, x_t):
        back = {}
        for one, other in itertools.permutations(prediction.KINDS, 2):
            middle = other.from_pair(one.to_pair(output, x_t, schedule, t), schedule, t)
            pair = other.to_pair(middle, x_t, schedule, t)
            back[NAMES[one], NAMES[other]] = one.from_pair(pair, schedule, t)
        return back

    for names, out in compiled(there_and_back)(output, x_t).items():
        np.testing.assert_allclose(out, output, rtol=1e-9, atol=1e-9, err_msg=str(names))


@SCHEDULES
def test_the_hub_holds_in_float32_in_the_middle(compiled, schedule):
    x_0, eps, x_t, t = case(schedule, np.float32)
    run, middle = compiled(lambda *a: every_kind_there_and_back(schedule, *a)), slice(1, 3)
    for name, pair in run(x_0, eps, x_t, t).items():
        np.testing.assert_allclose(pair.x_0[middle], x_0[middle], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(pair.eps[middle], eps[middle], atol=1e-5, err_msg=name)


@SCHEDULES
def test_v_and_eps_and_x_0_by_definition(float64, schedule):
    x_0, eps, _, t = case(schedule)
    pair = prediction.Pair(x_0, eps)
    alpha, sigma = (np.asarray(f(t))[:, None, None] for f in (schedule.alpha, schedule.sigma))
    expected = {prediction.EPS: eps, prediction.X_0: x_0, prediction.V: alpha * eps - sigma * x_0}
    for kind, value in expected.items():
        np.testing.assert_allclose(kind.from_pair(pair, schedule, t), value, rtol=1e-12)


@SCHEDULES
def test_score_is_the_gradient_of_the_marginal(float64, schedule):
    x_0, eps, x_t, t = case(schedule)

    def log_q(x):
        mean, variance = gaussian.marginal(schedule, x_0, t)
        return gaussian.log_density(x, mean, jnp.log(variance)).sum()

    score = prediction.SCORE.from_pair(prediction.Pair(x_0, eps), schedule, t)
    np.testing.assert_allclose(score, jax.grad(log_q)(x_t), rtol=1e-9)


@SCHEDULES
def test_velocity_is_the_slope_of_the_path(float64, schedule):
    x_0, eps, _, t = case(schedule)
    t, h = t + 0.003, 1e-6  # off the knots, where the path of a table bends
    ahead, behind = (gaussian.q_sample(schedule, x_0, t + d, eps) for d in (h, -h))
    velocity = prediction.VELOCITY.from_pair(prediction.Pair(x_0, eps), schedule, t)
    np.testing.assert_allclose(velocity, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-7)


ON_TABLES = [schedules.linear(50), schedules.rescaled_to_zero_terminal(schedules.linear(50))]


@pytest.mark.parametrize(
    ("table", "dtype"),
    few(itertools.product(ON_TABLES, (np.float32, np.float64)), (1, 2)),
    ids=lambda v: None if isinstance(v, type) else "linear" if v.farthest == 1 else "to zero",
)
def test_the_mean_kind_is_the_posterior_mean_of_the_step_before(compiled, float64, table, dtype):
    n = np.array([1, 2, 25, 49, 50])
    t = jnp.asarray(n / 50, dtype)
    x_0, eps = np.random.default_rng(0).normal(size=(2, 5, 2, 3)).astype(dtype)
    x_t = gaussian.q_sample(table, x_0, t, eps)

    def run(x_0, eps):
        mean = prediction.MEAN.from_pair(prediction.Pair(x_0, eps), table, t)
        return mean, prediction.MEAN.to_pair(mean, x_t, table, t)

    mean, pair = compiled(run)(x_0, eps)
    # Ho et al. 2020, eq. 7, in NumPy.
    now = table.alpha_bar[n - 1][:, None, None]
    before = np.append(1.0, table.alpha_bar)[n - 1][:, None, None]
    beta = table.beta[n - 1][:, None, None]
    expected = np.sqrt(before) * beta / (1 - now) * x_0
    expected += np.sqrt(1 - beta) * (1 - before) / (1 - now) * np.asarray(x_t, np.float64)
    exact = dtype == np.float64
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-12 if exact else 3e-6)
    np.testing.assert_allclose(mean[0], x_0[0], atol=1e-12 if exact else 1e-6)
    # x_0 is the mean less x_t, divided by 0.03 at the least: rounding counts 30 times.
    np.testing.assert_allclose(pair.x_0, x_0, atol=1e-11 if exact else 2e-4)
    alpha, sigma = (np.asarray(f(t))[:, None, None] for f in (table.alpha, table.sigma))
    made_up = alpha * pair.x_0 + sigma * pair.eps
    np.testing.assert_allclose(made_up, x_t, atol=1e-12 if exact else 1e-6)


def test_the_error_of_the_mean_is_that_of_x_0_times_a_known_factor(float64):
    # sqrt(alpha_bar_{n-1}) beta / (1 - alpha_bar_n): Ho et al. 2020, eq. 7.
    table, n = ON_TABLES[0], np.array([1, 2, 25, 50])
    t = jnp.asarray(n / 50)
    x_0, guess, eps = np.random.default_rng(1).normal(size=(3, 4, 6))
    x_t = gaussian.q_sample(table, x_0, t, eps)
    pairs = [prediction.pair_of_x_0(x, x_t, table, t) for x in (x_0, guess)]
    truth, mean = (prediction.MEAN.from_pair(pair, table, t) for pair in pairs)
    factor = np.sqrt(np.append(1.0, table.alpha_bar)[n - 1]) * table.beta[n - 1]
    factor = (factor / (1 - table.alpha_bar[n - 1]))[:, None]
    np.testing.assert_allclose(truth - mean, factor * (x_0 - guess), rtol=1e-9)


@pytest.mark.parametrize("kind", [prediction.EPS, prediction.SCORE], ids=["eps", "score"])
@pytest.mark.parametrize(
    "path", [continuous.Straight(), continuous.Cosine()], ids=["straight", "cosine"]
)
def test_a_bounded_kind_is_plain_until_its_last_time_and_exact_at_all(
    compiled, float64, kind, path
):
    bounded = prediction.bounded(kind, last=0.95)
    x_0, eps, output = (jnp.asarray(v) for v in np.random.default_rng(0).normal(size=(3, 6, 4)))
    t = jnp.asarray([0.01, 0.5, 0.95, 0.96, 0.999, 1.0])
    x_t = gaussian.q_sample(path, x_0, t, eps)
    pair = prediction.Pair(x_0, eps)

    @compiled
    def run(output):
        target = bounded.from_pair(pair, path, t)
        drawn = bounded.to_pair(output, x_t, path, t)
        return (
            target,
            bounded.to_pair(target, x_t, path, t),
            drawn,
            bounded.from_pair(drawn, path, t),
        )

    target, exact, drawn, back = run(output)
    for found, value in zip(exact, pair, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(back, output, rtol=1e-9, atol=1e-9)
    # Any output gives a finite pair that makes up x_t, in pure noise too.
    assert np.isfinite(np.asarray(drawn)).all()
    np.testing.assert_allclose(gaussian.q_sample(path, drawn.x_0, t, drawn.eps), x_t, rtol=1e-9)
    plain = kind.to_pair(output, x_t, path, t)
    for found, value in zip(drawn, plain, strict=True):
        np.testing.assert_allclose(found[:3], value[:3], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(target[:3], kind.from_pair(pair, path, t)[:3], rtol=1e-9)


def test_a_bounded_eps_is_divided_by_at_least_its_bound(float64):
    # Li & He 2025 with their 1 - t as our t: velocity = (eps - x_t) / max(1 - t, 0.05).
    path, t = continuous.Straight(), np.array([0.3, 0.949, 0.951, 1.0])
    x_t, output = np.random.default_rng(0).normal(size=(2, 4, 5))
    pair = prediction.bounded(prediction.EPS, last=0.95).to_pair(output, x_t, path, jnp.asarray(t))
    velocity = (output - x_t) / np.maximum(1 - t, 0.05)[:, None]
    np.testing.assert_allclose(pair.x_0, x_t - t[:, None] * velocity, rtol=1e-9)
    np.testing.assert_allclose(pair.eps, x_t + (1 - t)[:, None] * velocity, rtol=1e-9)
