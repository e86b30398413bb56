"""How every embedder treats a condition that is present, absent or missing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.nets.parts.conditioning import Conditioner, Encoded, TokenSequence
from genzoo.nets.parts.embeddings import sinusoidal

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

ROWS, SIZE, WIDTH, CONTEXT = 3, (4, 6), 8, 5
X = jnp.zeros((ROWS, *SIZE, 2))
RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


MASK = jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
# name: (entry, values of three examples)
ENTRIES = {
    "class": (Entry(kind="class", size=4), jnp.array([0, 3, 1])),
    "scalar": (Entry(kind="scalar"), numbers(ROWS)),
    "vector": (Entry(kind="vector", size=3), numbers(ROWS, 3)),
    "class_attended": (Entry(kind="class", size=4, way="attend"), jnp.array([0, 3, 1])),
    "vector_attended": (Entry(kind="vector", size=3, way="attend"), numbers(ROWS, 3)),
    "ids": (
        Entry(kind="ids", size=9, length=4, way="attend"),
        Tokens(jnp.asarray(RANDOM.integers(0, 9, (ROWS, 4))), MASK),
    ),
    "encoded": (
        Entry(kind="ids", size=9, length=4, way="attend", layers=1),
        Tokens(jnp.asarray(RANDOM.integers(0, 8, (ROWS, 4))), MASK),
    ),
    "tokens": (
        Entry(kind="tokens", size=7, length=4, way="attend"), Tokens(numbers(ROWS, 4, 7), MASK),
    ),
    "map": (Entry(kind="map", size=2, way="concat"), numbers(ROWS, *SIZE, 2)),
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", ENTRIES)
NULLS = pytest.mark.parametrize("null", [True, False], ids=["null", "zeros"])


class Made:
    """A conditioner with one condition, and params that are all nonzero."""

    def __init__(self, name, null):
        entry, self.value = ENTRIES[name]
        entry = Entry(**{**vars(entry), "null": null})
        self.module = Conditioner(sinusoidal, WIDTH, WIDTH, {"it": entry}, CONTEXT)
        self.time = jnp.array([1.0, 50.0, 900.0])
        shapes = jax.eval_shape(self.module.init, jax.random.key(0), self.time, {}, X)
        draw = np.random.default_rng(1)
        self.variables = jax.tree.map(
            lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype), shapes
        )
        self.apply = jit(self.module.apply)

    def __call__(self, present=None, value=None):
        if present is None:
            return self.apply(self.variables, self.time, {}, X)
        given = Given(self.value if value is None else value, jnp.broadcast_to(present, ROWS))
        return self.apply(self.variables, self.time, {"it": given}, X)


def valid(encoded: Encoded) -> Encoded:
    """The encoded conditions with zeros in place of masked tokens, whose content is arbitrary."""
    if encoded.tokens is None:
        return encoded
    tokens = jnp.where(encoded.mask[..., None], encoded.tokens, 0)
    return encoded._replace(tokens=tokens)


def distance(one: Encoded, other: Encoded) -> float:
    pairs = zip(jax.tree.leaves(valid(one)), jax.tree.leaves(valid(other)), strict=True)
    return max(float(np.abs(np.float32(a) - np.float32(b)).max()) for a, b in pairs)


@NAMES
@NULLS
def test_a_missing_condition_is_absent_and_an_absent_value_is_not_looked_at(name, null):
    made = Made(name, null)
    other = jax.tree.map(lambda v: v if v.dtype == bool else jnp.roll(v, 1, 0) + 1, made.value)
    absent = made(present=False)
    missing = made()
    if absent.tokens is not None:  # a missing sequence may be shorter; its first token is the null
        length = missing.tokens.shape[1]
        assert not np.any(absent.mask[:, length:])
        absent = absent._replace(
            tokens=absent.tokens[:, :length], mask=absent.mask[:, :length]
        )
    assert distance(absent, missing) < 1e-5
    assert distance(made(present=False), made(present=False, value=other)) == 0
    assert distance(made(present=True), made(present=True, value=other)) > 1e-3


@NAMES
@NULLS
def test_each_row_is_present_or_absent_for_itself(name, null):
    made = Made(name, null)
    mixed = valid(made(present=jnp.array([True, False, True])))
    present, absent = valid(made(present=True)), valid(made(present=False))
    for part, on, off in zip(*map(jax.tree.leaves, (mixed, present, absent)), strict=True):
        np.testing.assert_allclose(part[::2], on[::2], atol=1e-5)
        np.testing.assert_allclose(part[1], off[1], atol=1e-5)


@NAMES
def test_a_null_has_params_of_its_own_and_zeros_have_none(name):
    def size(null):
        return sum(leaf.size for leaf in jax.tree.leaves(Made(name, null).variables))

    entry = ENTRIES[name][0]
    of_null = {"add": WIDTH, "attend": CONTEXT, "concat": entry.size}[entry.way]
    assert size(True) - size(False) == of_null


def test_without_a_null_an_absent_condition_is_zeros():
    for name, (entry, _) in ENTRIES.items():
        absent = Made(name, null=False)(present=False)
        if entry.way == "attend":
            np.testing.assert_array_equal(valid(absent).tokens, 0)
        elif entry.way == "concat":
            np.testing.assert_array_equal(absent.maps, 0)
        else:
            nothing = Made(name, null=False)
            nothing.module = Conditioner(sinusoidal, WIDTH, WIDTH, {}, CONTEXT)
            plain = nothing.module.apply(nothing.variables, nothing.time, {}, X)
            np.testing.assert_allclose(absent.features, plain.features, atol=1e-5)


def test_ids_and_their_positions_are_looked_up():
    module = TokenSequence(width=5, null=False, vocabulary=9, length=4)
    given = ENTRIES["ids"][1]
    variables = module.init(jax.random.key(0), given, jnp.ones(ROWS, bool))
    tokens, mask = module.apply(variables, given, jnp.ones(ROWS, bool))
    params = variables["params"]
    expected = params["embed"]["embedding"][given.tokens] + params["position"]
    np.testing.assert_allclose(tokens, expected, rtol=1e-6)
    np.testing.assert_array_equal(mask, MASK)


def test_several_conditions_come_one_after_the_other():
    entries = {name: entry for name, (entry, _) in ENTRIES.items()}
    given = {name: Given(value, jnp.ones(ROWS, bool)) for name, (_, value) in ENTRIES.items()}
    module = Conditioner(sinusoidal, WIDTH, WIDTH, entries, CONTEXT)
    time = jnp.zeros(ROWS)
    variables = jax.eval_shape(module.init, jax.random.key(0), time, given, X)
    encoded = jax.eval_shape(module.apply, variables, time, given, X)
    assert encoded.features.shape == (ROWS, WIDTH)
    assert encoded.tokens.shape == (ROWS, 1 + 1 + 4 + 4 + 4, CONTEXT)
    assert encoded.mask.shape == (ROWS, 14) and encoded.mask.dtype == bool
    assert encoded.maps.shape == (ROWS, *SIZE, 2)
