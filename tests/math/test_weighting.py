"""Weightings against their papers; the drawing of steps against a Python loop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few

from genzoo.math import continuous, gaussian, likelihood, prediction, schedules, weighting

# The first index whose SNR is below 5, and below 1 (reference figures, section 3.3).
CROSSINGS = [
    (schedules.linear, 130, 259),
    (schedules.cosine, 261, 496),
    (schedules.scaled_linear, 147, 354),
]


@pytest.mark.parametrize(("make", "five", "one"), CROSSINGS)
def test_min_snr_turns_to_one_where_the_snr_passes_gamma(compiled, make, five, one):
    table = make(1000)
    t = jnp.arange(1, 1001) / 1000
    for gamma, first in ((5.0, five), (1.0, one)):
        chosen = weighting.min_snr(gamma)
        weight = compiled(lambda t, c=chosen: c.weight(table, t))(t)
        assert np.argmax(np.asarray(weight) == 1) == first
        snr = table.alpha_bar / (1 - table.alpha_bar)
        # On x_0 the weight is min(SNR, gamma), and |eps error|^2 = SNR |x_0 error|^2.
        np.testing.assert_allclose(weight * snr, np.minimum(snr, gamma), rtol=2e-5)
        assert chosen.kind is prediction.EPS


@pytest.mark.parametrize(
    ("make", "weight"),
    [
        (schedules.linear, 5.0005e-4),
        (schedules.cosine, 2.0643e-4),
        (schedules.scaled_linear, 4.25362e-3),
    ],
)
def test_min_snr_at_the_first_step_is_the_figure(make, weight):
    out = weighting.min_snr(5.0).weight(make(1000), jnp.float32(0.001))
    assert float(out) == pytest.approx(weight, rel=2e-5)


def test_p2_is_its_formula(compiled):
    # Choi et al. 2022, eq. 8, on the eps error.
    table, n = schedules.linear(1000), np.array([1, 130, 500, 999])
    snr = table.alpha_bar[n - 1] / (1 - table.alpha_bar[n - 1])
    for gamma, k in ((1.0, 1.0), (0.5, 1.0), (0.0, 1.0), (1.0, 2.0)):
        chosen = weighting.p2(gamma, k)
        weight = compiled(lambda t, c=chosen: c.weight(table, t))(jnp.asarray(n / 1000))
        np.testing.assert_allclose(weight, 1 / (k + snr) ** gamma, rtol=1e-5)
    assert weighting.p2(1.0, 1.0).kind is prediction.EPS


ZERO = schedules.rescaled_to_zero_terminal(schedules.linear(100))


@pytest.mark.parametrize(
    ("table", "variance"),
    few(
        itertools.product(
            (schedules.cosine(100), ZERO), (gaussian.FIXED_SMALL, gaussian.FIXED_LARGE)
        ),
        (0, 3),
    ),
)
def test_the_vlb_weighting_makes_the_error_a_term_of_the_bound(float64, table, variance):
    # By how much a wrong x_0 raises L_{n-1}, from alpha = 0 too; in nats, summed over 8 dimensions.
    n = np.array([2, 3, 40, 99, 100])
    t, s = jnp.asarray(n / 100), jnp.asarray((n - 1) / 100)
    x_0, eps, guess = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    x_t = gaussian.q_sample(table, x_0, t, eps)
    log_variance = variance.log_variance(table, t, s, None)[:, None, None]
    wrong, right = (
        likelihood.step_kl(table, x_0, x_t, t, s, model, log_variance) for model in (guess, x_0)
    )
    chosen = weighting.vlb(variance)
    assert chosen.kind is prediction.X_0
    actual = chosen.weight(table, t) * np.square(x_0 - guess).sum((1, 2))
    np.testing.assert_allclose(actual, wrong - right, rtol=1e-8)
    # At the first step the mean is x_0 itself, and the variance is that of the step after it.
    first = jnp.asarray(0.01)
    log_first = variance.log_variance(table, first, jnp.zeros(()), None)
    assert chosen.weight(table, first) == pytest.approx(np.exp(-log_first) / 2, rel=1e-9)


def test_uniform_weighting_is_one_on_what_the_network_predicts():
    assert weighting.UNIFORM.kind is None
    np.testing.assert_array_equal(weighting.UNIFORM.weight(schedules.cosine(10), jnp.ones(2)), 1)


@pytest.mark.parametrize(
    "schedule",
    [continuous.Straight(), continuous.Cosine(), continuous.VariancePreserving()],
    ids=["straight", "cosine", "vp"],
)
def test_bounded_velocity_is_the_velocity_error_on_every_path(compiled, float64, schedule):
    bounded = weighting.bounded_velocity(least=0.05)
    rng = np.random.default_rng(0)
    x_0, eps, error = (jnp.asarray(rng.normal(size=(6, 3))) for _ in range(3))
    t = jnp.asarray([0.05, 0.1, 0.3, 0.6, 0.9, 1.0])
    x_t = schedule.alpha(t)[:, None] * x_0 + schedule.sigma(t)[:, None] * eps
    wrong = prediction.X_0.to_pair(x_0 + error, x_t, schedule, t)
    velocities = [
        prediction.VELOCITY.from_pair(pair, schedule, t)
        for pair in (prediction.Pair(x_0, eps), wrong)
    ]
    expected = jnp.square(velocities[1] - velocities[0]).mean(1)
    weights = compiled(lambda t: bounded.weight(schedule, t))(t)
    assert bounded.kind is prediction.X_0
    np.testing.assert_allclose(weights * jnp.square(error).mean(1), expected, rtol=1e-12)
    # Nearer the data it stays what it is at `least`.
    near = bounded.weight(schedule, jnp.asarray([1e-5, 0.02]))
    np.testing.assert_array_equal(near, weights[0])


@pytest.mark.parametrize("least", [0.05, 0.3])
def test_a_bounded_velocity_is_the_velocity_s_error_from_its_least_time_on(float64, least):
    # Li & He 2025: v = (x_t - x_0) / t with t held above `least`, of the data and of the guess.
    t = np.array([1e-3, 0.04, 0.05, 0.3, 0.31, 0.7, 1.0])
    x_0, eps, guess = np.random.default_rng(0).normal(size=(3, 7, 4))
    x_t = (1 - t)[:, None] * x_0 + t[:, None] * eps
    data, model = ((x_t - x) / np.maximum(t, least)[:, None] for x in (x_0, guess))
    chosen = weighting.bounded_velocity(least)
    assert chosen.kind is prediction.X_0
    found = chosen.weight(continuous.Straight(), jnp.asarray(t)) * np.square(x_0 - guess).sum(1)
    np.testing.assert_allclose(found, np.square(data - model).sum(1), rtol=1e-12)


def test_uniform_steps_are_uniform_and_reach_both_ends(compiled):
    steps = weighting.UniformSteps(steps=10)
    n, weights = compiled(lambda key: steps.draw(key, {}, 40_000))(jax.random.key(0))
    counts = np.bincount(n, minlength=11)
    assert counts[0] == 0
    # Standard error of a count of 4000 is 60.
    np.testing.assert_allclose(counts[1:], 4000, atol=4 * 60)
    np.testing.assert_array_equal(weights, 1)


AWARE = weighting.LossAwareSteps(steps=4, history=3, uniform=0.1)


class Rings:
    """The paper's bookkeeping in Python: the last `history` losses of each step."""

    def __init__(self, steps, history):
        self.history = history
        self.losses = [[] for _ in range(steps)]

    def add(self, n, losses):
        for step, loss in zip(n, losses, strict=True):
            self.losses[step - 1] = (self.losses[step - 1] + [loss])[-self.history :]

    def probabilities(self, uniform):
        steps = len(self.losses)
        if any(len(kept) < self.history for kept in self.losses):
            return np.full(steps, 1 / steps)
        root = np.array([np.sqrt(np.mean(np.square(kept))) for kept in self.losses])
        return (1 - uniform) * root / root.sum() + uniform / steps


def test_the_history_is_that_of_a_loop(compiled):
    # Batches of 8 over 4 steps with 3 places each: many steps come more than 3 times in one batch.
    rng, rings, stats = np.random.default_rng(0), Rings(4, 3), AWARE.init()
    update, probabilities = compiled(AWARE.update), compiled(AWARE.probabilities)
    for batch in range(12):
        n = rng.choice([1, 2, 3, 4], size=8, p=[0.7, 0.1, 0.1, 0.1])
        if batch == 1:
            n[:] = 2
        losses = rng.uniform(0, 3, size=8).astype(np.float32)
        stats = update(stats, jnp.asarray(n), jnp.asarray(losses))
        rings.add(n, losses)
        for kept, ring in zip(rings.losses, np.asarray(stats["losses"]), strict=True):
            np.testing.assert_array_equal(sorted(kept), np.sort(ring)[3 - len(kept) :])
        np.testing.assert_allclose(probabilities(stats), rings.probabilities(0.1), rtol=1e-6)
    assert np.ptp(probabilities(stats)) > 0.01


def warm():
    losses = jnp.array([[1.0, 2.0, 2.0], [0.1, 0.1, 0.1], [5.0, 0, 0], [3.0, 3, 1]])
    return {"losses": losses, "seen": jnp.array([3, 7, 3, 4])}


def test_probabilities_are_nichols_equation_18(compiled):
    root = np.sqrt([3.0, 0.01, 25 / 3, 19 / 3])
    expected = 0.9 * root / root.sum() + 0.1 / 4
    np.testing.assert_allclose(compiled(AWARE.probabilities)(warm()), expected, rtol=1e-6)


def test_uniform_until_every_step_has_a_full_history(compiled):
    stats = {**warm(), "seen": jnp.array([3, 7, 2, 4])}
    np.testing.assert_allclose(compiled(AWARE.probabilities)(stats), 0.25)


def test_all_zero_losses_leave_it_uniform(compiled):
    stats = {"losses": jnp.zeros((4, 3)), "seen": jnp.full(4, 3)}
    np.testing.assert_allclose(compiled(AWARE.probabilities)(stats), 0.25)


def test_weighted_draws_keep_the_mean(compiled):
    losses, draws = np.array([0.0, 2.0, 0.1, 5.0, 1.0]), 100_000
    n, weights = compiled(lambda key: AWARE.draw(key, warm(), draws))(jax.random.key(1))
    probabilities = np.asarray(AWARE.probabilities(warm()))
    np.testing.assert_allclose(weights, 0.25 / probabilities[np.asarray(n) - 1], rtol=1e-6)
    estimates = np.asarray(weights) * losses[np.asarray(n)]
    error = estimates.std() / np.sqrt(draws)
    assert abs(estimates.mean() - losses[1:].mean()) < 4 * error
