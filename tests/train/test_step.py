"""The training step against optax by hand, against itself in parts, and against itself sharded."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from train.toy import Line

from genzoo.core import streams
from genzoo.core.contract import Context, Weighted, weighted
from genzoo.train import loop
from genzoo.train.averages import Average
from genzoo.train.optimizer import Optimizer, constant, cosine, for_players, linear
from genzoo.train.state import Faults, initial
from genzoo.train.step import Updater

SIZE = 16


def make(family=None, *, accumulate=1, optimizer=None, averages=None, limit=10):
    family = family or Line(noise=0.1)
    optimizer = optimizer or Optimizer(decay=constant, total_steps=100, learning_rate=0.1, clip=0)
    averages = {"ema": Average(decay=0.9, warmup=False)} if averages is None else averages
    players = for_players(family.losses, optimizer)
    updater = Updater(
        family=family,
        optimizers=players,
        averages=averages,
        prepare=lambda batch, key: {"x": batch["x"] / 255.0},
        root=streams.root(0),
        accumulate=accumulate,
        fault_limit=limit,
    )
    return updater, initial(family, players, tuple(averages), streams.root(0), {})


def batch(seed=0, size=SIZE):
    image = np.random.default_rng(seed).integers(0, 256, (size, 1, 1, 1)).astype(np.float32)
    return {"x": jnp.asarray(image)}


@pytest.mark.parametrize("jit", [True, False])
def test_one_step_is_the_gradient_of_the_mean_through_optax(jit):
    updater, state = make()
    step = jax.jit(updater.update) if jit else updater.update
    after, _ = step(state, batch())

    key = streams.named(streams.at(streams.named(streams.root(0), "train"), 0), "model")
    context = Context(batch={"x": batch()["x"] / 255.0}, key=key, step=0, stats=state.stats)
    gradient = jax.grad(lambda p: updater.family.loss(p, context)[0].mean())(state.params)
    adam = optax.adam(0.1)
    moves, _ = adam.update(gradient, adam.init(state.params))
    chex.assert_trees_all_close(after.params, optax.apply_updates(state.params, moves), rtol=1e-6)
    assert after.step == 1 and after.stats["seen"] == SIZE


def test_ema_is_its_closed_form():
    updater, state = make()
    step, expected = jax.jit(updater.update), dict(state.averages["ema"])
    for i in range(5):
        state, _ = step(state, batch(i))
        expected = {k: 0.9 * v + 0.1 * state.params[k] for k, v in expected.items()}
    chex.assert_trees_all_close(state.averages["ema"], expected, rtol=1e-5)


def test_ema_warms_up():
    average = Average(decay=0.9999)
    found = [float(average.decay_at(jnp.int32(n))) for n in (0, 1, 90, 10**6)]
    np.testing.assert_allclose(found, [0.1, 2 / 11, 0.91, 0.9999], rtol=1e-6)


def test_an_average_starts_as_a_copy():
    updater, state = make()
    chex.assert_trees_all_equal(state.averages["ema"], state.params)
    donated = jax.jit(updater.update, donate_argnums=0)(state, batch())  # no shared buffer
    assert donated[0].step == 1


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_accumulation_equals_the_whole_batch(parts):
    whole, state = make(Line())
    split, _ = make(Line(), accumulate=parts)
    one, measured = jax.jit(whole.update)(state, batch())
    other, measured_in_parts = jax.jit(split.update)(state, batch())
    chex.assert_trees_all_close(one.params, other.params, rtol=1e-5)
    chex.assert_trees_all_close(measured, measured_in_parts, rtol=1e-5)
    assert other.stats["seen"] == SIZE


def test_several_steps_per_call_are_the_same_steps_bit_for_bit():
    updater, state = make()
    data = batch(size=64)
    rows = jnp.asarray(np.random.default_rng(1).integers(0, 64, (6, SIZE)), jnp.int32)
    several, sums = jax.jit(updater.call)(state, data, {"rows": rows})
    losses = 0.0
    for i in range(6):
        state, measured = jax.jit(updater.call)(state, data, {"rows": rows[i : i + 1]})
        losses += measured["loss"][0]
    chex.assert_trees_all_equal(several, state)
    np.testing.assert_allclose(sums["loss"][0], losses, rtol=1e-6)
    assert sums["loss"][1] == 6 * SIZE


def test_the_step_is_traced_once():
    updater, state = make()
    step = jax.jit(chex.assert_max_traces(updater.update, n=1))
    for i in range(3):
        state, _ = step(state, batch(i))


def test_a_non_finite_step_changes_nothing_but_the_count():
    updater, state = make()
    step = jax.jit(updater.update)
    state, _ = step(state, batch())
    broken = {"x": batch()["x"].at[3].set(jnp.nan)}
    after, measured = step(state, broken)
    for name in ("params", "stats", "opt_state", "averages"):
        chex.assert_trees_all_equal(getattr(after, name), getattr(state, name))
    assert after.step == 2
    assert (after.faults.total, after.faults.streak, after.faults.since) == (1, 1, 1)
    assert measured["loss"] == (0, 0)  # does not spoil the mean over the other steps
    healed, _ = step(after, batch())
    assert (healed.faults.total, healed.faults.streak, healed.faults.since) == (1, 0, -1)
    assert healed.params["w"] != after.params["w"]


@pytest.mark.parametrize("stride", [1, 4])
def test_the_logged_learning_rate_is_that_of_the_last_step_that_was_taken(stride):
    optimizer = Optimizer(decay=cosine, total_steps=12, learning_rate=0.1, warmup=3, clip=0)
    updater, state = make(optimizer=optimizer)
    call, sums = jax.jit(updater.call), None
    for start in range(0, 12, stride):
        images = [batch(i)["x"] * (jnp.nan if i in (2, 6, 7) else 1) for i in range(12)]
        state, now = call(state, {}, {"x": jnp.stack(images[start : start + stride])})
        sums = now if sums is None else loop._added(sums, now)
        rate, weight = sums["learning_rate"]
        # Adam counts the steps that it has taken.
        taken = int(optax.tree.get_all_with_path(state.opt_state["model"], "count")[0][1])
        assert rate / weight == pytest.approx(float(optimizer.schedule()(taken - 1)), rel=1e-6)
    assert taken == 9


def test_a_streak_of_faults_is_latched():
    updater, state = make(limit=3)
    step = jax.jit(updater.update)
    state, _ = step(state, batch())
    broken = {"x": batch()["x"] * jnp.nan}
    for _ in range(3):
        state, _ = step(state, broken)
    assert (state.faults.streak, state.faults.since) == (3, 1)
    held, _ = step(state, batch())  # finite, but the host has not checked yet
    assert (held.faults.streak, held.faults.since) == (3, 1)
    chex.assert_trees_all_equal(held.params, state.params)


def test_faults_start_at_none():
    assert Faults.none() == Faults(total=0, streak=0, since=-1)


def test_weighted_metrics_are_exact_under_a_mask():
    values = jnp.asarray([1.0, 2.0, jnp.nan, 4.0])
    metric = Weighted(values=values, weights=jnp.asarray([1.0, 1.0, 0.0, 1.0]))
    assert weighted(metric) == (7.0, 3.0)
    assert weighted(metric, jnp.asarray([1.0, 0.0, 1.0, 1.0])) == (5.0, 2.0)


@pytest.mark.parametrize(
    ("decay", "at", "expected"),
    [
        (constant, [0, 3, 4, 14], [0.25, 1.0, 1.0, 1.0]),
        (linear, [0, 3, 4, 9, 14], [0.25, 1.0, 1.0, 0.5, 0.0]),
        (cosine, [0, 3, 4, 9, 14], [0.25, 1.0, 1.0, 0.5, 0.0]),
    ],
)
def test_learning_rate(decay, at, expected):
    schedule = Optimizer(decay=decay, total_steps=14, learning_rate=1.0, warmup=4).schedule()
    np.testing.assert_allclose([float(schedule(i)) for i in at], expected, atol=1e-6)


def test_clipping_bounds_the_first_moment():
    optimizer = Optimizer(decay=constant, total_steps=1, clip=1.0, b1=0.5)
    tx = optimizer.transformation()
    params = {"a": jnp.zeros(4)}
    _, state = tx.update({"a": jnp.full(4, 100.0)}, tx.init(params), params)
    first = optax.tree.get(state, "mu")["a"]
    np.testing.assert_allclose(first, 0.5 * 0.5 * np.ones(4), rtol=1e-6)  # norm 1 over 4, (1 - b1)
