"""Token sequences drawn from a Markov chain, whose every frequency is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.math.tokens import Truncation
from genzoo.samplers.autoregressive import generate

START = np.array([0.5, 0.2, 0.3])
MOVES = np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5], [0.25, 0.7, 0.05]])


def chain(cache, token, position):
    """START at position 0, then MOVES; the cache counts the calls and adds up what it was given."""
    logits = jnp.where(position == 0, jnp.log(START), jnp.log(MOVES)[token])
    return logits, {"calls": cache["calls"] + 1, "sum": cache["sum"] + token}


def empty(batch):
    return {"calls": jnp.zeros((), jnp.int32), "sum": jnp.zeros(batch, jnp.int32)}


def keys_of(*indices):
    return streams.per_example(streams.root(0), jnp.array(indices))


def draw(batch, length, truncation, step=chain, first=-1):
    return jax.jit(
        lambda keys: generate(
            step, empty(batch), keys, length, truncation, jnp.full(batch, first)
        )
    )(keys_of(*range(batch)))


def test_frequencies_are_the_chains():
    batch = 20_000
    tokens = np.asarray(draw(batch, 4, Truncation()))
    assert tokens.shape == (batch, 4) and tokens.dtype == np.int32
    share = START
    for position in range(4):
        frequencies = np.bincount(tokens[:, position], minlength=3) / batch
        assert np.all(np.abs(frequencies - share) < 4 * np.sqrt(share * (1 - share) / batch))
        if position < 3:
            pairs = np.zeros((3, 3))
            np.add.at(pairs, (tokens[:, position], tokens[:, position + 1]), 1 / batch)
            exact = share[:, None] * MOVES
            assert np.all(np.abs(pairs - exact) <= 4 * np.sqrt(exact * (1 - exact) / batch))
        share = share @ MOVES


def test_a_token_depends_on_the_past_through_the_one_before_alone():
    # Three positions at once: triples have the product of the moves.
    batch = 20_000
    tokens = np.asarray(draw(batch, 3, Truncation()))
    triples = np.zeros((3, 3, 3))
    np.add.at(triples, tuple(tokens.T), 1 / batch)
    exact = START[:, None, None] * MOVES[:, :, None] * MOVES[None]
    assert np.all(np.abs(triples - exact) <= 4.5 * np.sqrt(exact * (1 - exact) / batch))


def test_greedy_is_the_path_of_the_largest():
    path = [int(START.argmax())]
    for _ in range(5):
        path.append(int(MOVES[path[-1]].argmax()))
    np.testing.assert_array_equal(draw(4, 6, Truncation(temperature=0)), [path] * 4)


def test_truncated_draws_never_leave_the_kept_set():
    tokens = np.asarray(draw(500, 5, Truncation(top_k=2)))
    kept = [set(np.argsort(-row, kind="stable")[:2]) for row in [*MOVES, START]]
    assert set(tokens[:, 0]) == kept[3]
    for before in range(3):
        after = tokens[:, 1:][tokens[:, :-1] == before]
        assert set(after) == kept[before]


def test_a_row_depends_on_its_own_key_alone():
    @jax.jit
    def tokens_of(keys):
        batch = len(keys)
        return generate(chain, empty(batch), keys, 12, Truncation(), jnp.full(batch, -1))

    def run(*indices):
        return tokens_of(keys_of(*indices))

    together = run(5, 6, 7)
    assert len({tuple(row) for row in np.asarray(together).tolist()}) == 3
    for row, index in enumerate((5, 6, 7)):
        np.testing.assert_array_equal(run(index)[0], together[row])
    np.testing.assert_array_equal(run(7, 60, 61)[0], together[2])


@pytest.mark.parametrize("first", [-1, 2])
def test_step_is_given_the_token_before_and_the_position(first):
    # One token alone is possible, and it tells what the step was given.
    def tell(cache, token, position):
        answer = (2 * token + position) % 16
        return jnp.where(jnp.arange(16) == answer[:, None], 0.0, -jnp.inf), cache

    tokens = draw(2, 6, Truncation(), step=tell, first=first)
    expected, token = [], first
    for position in range(6):
        token = (2 * token + position) % 16
        expected.append(token)
    np.testing.assert_array_equal(tokens, [expected] * 2)


def test_the_cache_is_carried():
    # The token is the sum of what came before, plus one, which the cache alone knows.
    def add(cache, token, position):
        total = cache + token
        return jnp.where(jnp.arange(40) == total[:, None] + 1, 0.0, -jnp.inf), total

    tokens = generate(
        add, jnp.zeros(1, jnp.int32), keys_of(0), 6, Truncation(), jnp.zeros(1, jnp.int32)
    )
    np.testing.assert_array_equal(tokens, [[1, 2, 4, 8, 16, 32]])


@pytest.mark.parametrize("length", [3, 40])
def test_one_trace_of_the_step(length):
    seen = []
    chex.clear_trace_counter()

    def step(cache, token, position):
        seen.append(position)
        return chain(cache, token, position)

    run = jax.jit(
        chex.assert_max_traces(
            lambda keys, first: generate(step, empty(2), keys, length, Truncation(), first), n=1
        )
    )
    for first in (-1, 0):
        run(keys_of(0, 1), jnp.full(2, first)).block_until_ready()
    assert len(seen) <= 2  # the scan's body, however long the sequence
