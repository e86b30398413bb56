"""The text encoder against plain NumPy, and what padding may do to it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_layers import dense, softmax_attention

from genzoo.nets.parts.text_encoder import TextEncoder, pooled

WIDTH, LAYERS = 48, 2  # three heads of 16 channels
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)
TOKENS = np.random.default_rng(0).normal(size=(3, 5, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    """(params that are all nonzero, the compiled encoder)."""
    module = TextEncoder(LAYERS)
    shapes = jax.eval_shape(module.init, jax.random.key(0), TOKENS, MASK)
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: np.float32(0.3 * random.normal(size=leaf.shape)), shapes)
    return params, jax.jit(module.apply)


def layer_norm(x, p):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def plainly(params, h):
    """The encoder for one sequence [L, D] without padding."""
    heads = WIDTH // math.gcd(WIDTH, 32)
    for i in range(LAYERS):
        own, p = layer_norm(h, params[f"norm_{i}_0"]), params[f"attention_{i}"]
        query = dense(own, p["query"])
        key, value = np.split(dense(own, p["key_value"]), 2, -1)
        parts = [
            softmax_attention(*(np.split(x, heads, -1)[n][None] for x in (query, key, value)))[0]
            for n in range(heads)
        ]
        h = h + dense(np.concatenate(parts, -1), p["out"])
        own, p = layer_norm(h, params[f"norm_{i}_1"]), params[f"feedforward_{i}"]
        a, b = np.split(dense(own, p["dense_0"]), 2, -1)
        h = h + dense(a * gelu(b), p["dense_1"])
    return layer_norm(h, params["norm"])


def test_every_sequence_is_encoded_as_if_its_padding_were_not_there(encoder):
    params, apply = encoder
    spoiled = np.where(MASK[..., None], TOKENS, np.nan)
    out = np.asarray(apply(params, spoiled, MASK))
    for row, mask in enumerate(MASK):
        expected = plainly(params["params"], np.float64(TOKENS[row, mask]))
        np.testing.assert_allclose(out[row, mask], expected, rtol=1e-4, atol=1e-4)


def test_the_mean_token_ignores_padding_and_an_empty_text_is_zero():
    mask = np.concatenate([MASK, np.zeros((1, 5), bool)])
    tokens = np.where(mask[..., None], np.concatenate([TOKENS, TOKENS[:1]]), np.nan)
    means = pooled(jnp.asarray(tokens), jnp.asarray(mask))
    for row in range(3):
        np.testing.assert_allclose(means[row], TOKENS[row, MASK[row]].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(means[3], 0)
