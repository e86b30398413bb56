"""The classifier: published counts, the pooling in plain NumPy, features, mistakes in sentences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from plain_layers import dense, softmax_attention

from genzoo.core import tree
from genzoo.nets.unet.classifier import AttentionPool, ClassifierUNetSettings

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize(
    "side, settings, expected",
    # Counted in openai/guided-diffusion's own EncoderUNetModel, with the flags of its README.
    [
        (64, dict(blocks=4), 65_438_568),
        (128, dict(multipliers=(1, 1, 2, 3, 4)), 42_568_040),
        (256, dict(multipliers=(1, 1, 2, 2, 4, 4)), 54_096_360),
        (512, dict(multipliers=(0.5, 1, 1, 2, 2, 4, 4)), 54_448_360),
    ],
)
def test_parameter_count_is_the_published_one(side, settings, expected):
    settings = ClassifierUNetSettings(**settings)
    assert section_problems(settings, "network", (side, side, 3)) == []
    net = settings.build(num_classes=1000)
    inputs = jnp.zeros((1, side, side, 3)), jnp.zeros(1), {}
    assert tree.count(jax.eval_shape(net.init, jax.random.key(0), *inputs)) == expected


def test_pooling_is_the_attention_of_the_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 2, 8))
    pool = AttentionPool(heads=2)
    shapes = jax.eval_shape(pool.init, jax.random.key(0), jnp.zeros(x.shape))["params"]
    assert shapes["position"].shape == (7, 8)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    tokens = x.reshape(2, 6, 8)
    tokens = np.concatenate([tokens.mean(1, keepdims=True), tokens], 1) + params["position"]
    query, key, value = np.split(dense(tokens, params["query_key_value"]), 3, -1)
    heads = [
        softmax_attention(query[..., own], key[..., own], value[..., own])[:, 0]
        for own in (slice(0, 4), slice(4, 8))
    ]
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    found = pool.apply({"params": single}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, np.concatenate(heads, -1), atol=1e-4)


def test_features_come_from_the_pool_and_logits_from_them():
    small = dict(width=8, multipliers=(1, 2), blocks=1, attention=(), head_width=8)
    net = ClassifierUNetSettings(**small).build(num_classes=5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 1)), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x, jnp.zeros(3), {})
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)
    logits, found = jit(partial(net.features, names=("pool",)))(params, x, jnp.zeros(3), {})
    assert found["pool"].shape == (3, 16)
    np.testing.assert_allclose(logits, dense(found["pool"], params["out"]), atol=1e-4)


def test_all_classes_are_alike_at_the_start():
    small = dict(width=8, multipliers=(1,), blocks=1, attention=(), head_width=8)
    net = ClassifierUNetSettings(**small).build(num_classes=5)
    # Compile only the output that is used.
    last = jit(lambda key: net.init(key, jnp.zeros((1, 4, 1)), jnp.zeros(1), {})["out"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(last(jax.random.key(0))))


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(attention=(16, 7)), ["network.attention contains 7", "64, 32, 16, 8"]),
        (dict(head_width=60), ["network.head_width is 60", "512"]),
        (dict(multipliers=(1,) * 8), ["network.multipliers has 8 levels", "divisible by 128"]),
        (dict(time_embedding="sin"), ["network.time_embedding = 'sin'"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = section_problems(ClassifierUNetSettings(**settings), "network", (64, 64, 3))
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
