"""Tokens and maps in the U-Net: masks, order, precision.

test_unet_peer.py compares its output with diffusers, and test_unet_counts.py its size with
published models. test_every_network.py checks its derivatives, also with remat.
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.nets.parts.attention import MultiHeadAttention
from genzoo.nets.unet.spatial_transformer import SpatialTransformer
from genzoo.nets.unet.unet import UNetSettings

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

FLOAT32 = jnp.dtype("float32")
BATCH, LENGTH, WIDTH = 3, 5, 6
MASK = jnp.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], bool)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def text(tokens, mask=None):
    """A condition with these tokens, present in every row; without a mask none is padding."""
    mask = jnp.ones(tokens.shape[:2], bool) if mask is None else mask
    return {"text": Given(Tokens(tokens, mask), jnp.ones(len(tokens), bool))}


class Made:
    """A small U-Net that attends to tokens, a batch for it, and params that are all nonzero."""

    def __init__(self, size=(4, 6), **changes):
        settings = dict(
            width=8, multipliers=(1,), blocks=1, attention=(4,), heads=2, transformer_depth=1,
            context_width=WIDTH, norm_groups=2,
        )  # fmt: skip
        entry = Entry(kind="tokens", size=WIDTH, length=LENGTH, way="attend", null=False)
        self.settings = UNetSettings(**settings | changes)
        self.net = self.settings.build(out_channels=2, entries={"text": entry})
        self.x, self.time = normal(0, BATCH, *size, 3), jnp.array([0.0, 10.0, 999.0])
        self.tokens = normal(1, BATCH, LENGTH, WIDTH)
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        rng = np.random.default_rng(2)
        self.params = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), shapes
        )
        self.apply = jit(self.traced)

    def init(self, key):
        return self.net.init(key, self.x, self.time, text(self.tokens))

    def traced(self, params, x, time, tokens, mask=None):
        return self.net.apply(params, x, time, text(tokens, mask))

    @property
    def inputs(self):
        return self.params, self.x, self.time, self.tokens


@pytest.fixture(scope="module")
def made():
    return Made()


@pytest.fixture(scope="module")
def masked(made):
    return made.apply(*made.inputs, MASK)


def test_masked_tokens_contribute_nothing_whatever_they_hold(made, masked):
    spoiled = jnp.where(MASK[..., None], made.tokens, jnp.nan)
    np.testing.assert_array_equal(made.apply(*made.inputs[:3], spoiled, MASK), masked)

    def loss(params, x, tokens):
        return (made.traced(params, x, made.time, tokens, MASK) ** 2).sum()

    grads = jit(jax.grad(loss, argnums=(0, 1, 2)))(made.params, made.x, spoiled)
    chex.assert_tree_all_finite(grads)
    reached = np.abs(grads[2]).max(-1) > 0
    np.testing.assert_array_equal(reached, MASK)


def test_masked_tokens_may_as_well_be_cut_off(made, masked):
    short = made.apply(made.params, made.x[1:2], made.time[1:2], made.tokens[1:2, ::2][:, :2])
    np.testing.assert_allclose(masked[1:2], short, atol=2e-5)
    whole = made.apply(*made.inputs)
    np.testing.assert_allclose(masked[0], whole[0], atol=2e-5)
    assert np.abs(masked[1:] - whole[1:]).max((1, 2, 3)).min() > 1e-3


def test_without_any_token_attention_gives_its_bias():
    attention = MultiHeadAttention(2, FLOAT32)
    x, tokens = normal(3, BATCH, 4, 8), normal(4, BATCH, LENGTH, WIDTH)
    params = attention.init(jax.random.key(0), x, tokens)["params"]
    params["out"]["bias"] = normal(5, 8)
    out = attention.apply({"params": params}, x, tokens, MASK)
    np.testing.assert_array_equal(out[2], np.broadcast_to(params["out"]["bias"], (4, 8)))
    assert np.abs(out[:2] - params["out"]["bias"]).max() > 1e-3


def test_the_order_of_the_tokens_says_nothing(made, masked):
    turned = made.apply(*made.inputs[:3], jnp.roll(made.tokens, 2, 1), jnp.roll(MASK, 2, 1))
    np.testing.assert_allclose(turned, masked, atol=2e-5)


def test_rows_do_not_see_each_other(made, masked):
    turned = (jnp.roll(value, 1, 0) for value in (made.x, made.time, made.tokens, MASK))
    np.testing.assert_allclose(
        made.apply(made.params, *turned), np.roll(masked, 1, 0), atol=2e-5
    )


def test_it_starts_as_the_identity(made):
    transformer = SpatialTransformer(2, 1, 4, FLOAT32)
    x, tokens = normal(6, BATCH, 2, 3, 8), made.tokens
    variables = jit(transformer.init)(jax.random.key(0), x, tokens)
    np.testing.assert_array_equal(jit(transformer.apply)(variables, x, tokens), x)


@pytest.mark.slow
def test_bfloat16_keeps_params_and_output_float32_and_comes_close(made, masked):
    half = Made(dtype="bfloat16")
    chex.assert_trees_all_equal_dtypes(half.params, made.params)
    output = half.apply(*made.inputs, MASK)
    assert output.dtype == jnp.float32
    error = np.sqrt(np.mean((output - masked) ** 2) / np.mean(masked**2))
    assert 0 < error < 0.03


def test_dropout_reaches_blocks_with_tokens():
    m = Made(dropout=0.3)
    train = jit(
        lambda key: m.net.apply(m.params, m.x, m.time, text(m.tokens), train=True, key=key)
    )
    assert np.abs(train(jax.random.key(1)) - train(jax.random.key(2))).max() > 1e-3


def test_signals_attend_to_tokens_too():
    m = Made(size=(8,), multipliers=(1, 2), resample="block")
    shapes = jax.eval_shape(m.traced, *m.inputs, MASK)
    assert shapes.shape == (BATCH, 8, 2)


def test_maps_are_more_channels_of_the_input():
    settings = UNetSettings(width=8, multipliers=(1, 1), blocks=1, attention=(), patch=2)
    entry = Entry(kind="map", size=2, way="concat", null=False)
    net, whole = (
        settings.build(out_channels=2, entries=entries) for entries in ({"low": entry}, {})
    )
    x, maps, time = normal(7, BATCH, 8, 12, 3), normal(8, BATCH, 8, 12, 2), jnp.zeros(BATCH)
    present = jnp.array([True, True, False])
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, time, {})
    params = jax.tree.map(lambda leaf: normal(9, *leaf.shape), shapes)
    output = jit(net.apply)(params, x, time, {"low": Given(maps, present)})
    # An absent map is zero.
    given = jnp.where(present[:, None, None, None], maps, 0)
    expected = jit(whole.apply)(params, jnp.concatenate([x, given], -1), time, {})
    np.testing.assert_array_equal(output, expected)
    assert output.shape == (BATCH, 8, 12, 2)
