"""R3GAN: published numbers of params, the ways of the grouped convolution, the start."""

from math import prod

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core.conditions import Entry, Given
from genzoo.nets.gan import networks
from genzoo.nets.gan.settings import R3GANSettings

KEY = jax.random.key(0)
LABEL = {"label": Entry(kind="class", size=10, null=False)}
SMALL = dict(blocks=1, group=16)


def counts(settings, shape, entries):
    built = settings.build(shape=shape, entries=entries, latent=64)
    trees = (
        jax.eval_shape(lambda: built.generator.init(KEY, jnp.zeros((1, 64)), {})),
        jax.eval_shape(lambda: built.critic.init(KEY, jnp.zeros((1, *shape)), {})),
    )
    return tuple(sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for tree in trees)


@pytest.mark.parametrize(
    ("settings", "entries", "expected"),
    [
        (R3GANSettings(), {}, (20_732_160, 20_683_776)),
        (R3GANSettings(), LABEL, (20_781_952, 21_280_512)),
        (R3GANSettings(widths=(96,) * 4, **SMALL), {}, (267_552, 261_504)),
        (R3GANSettings(widths=(128,) * 4, **SMALL), {}, (422_272, 414_208)),
    ],
    ids=["cifar", "cifar of ten classes", "width 96", "width 128"],
)
def test_published_numbers_of_params(settings, entries, expected):
    shape = (32, 32, 3)
    assert counts(settings, shape, entries) == expected
    size = settings.size(shape, shape=shape, latent=64, entries=entries)
    assert size.params >= sum(expected)
    assert size.params == sum(expected) or entries  # a table may have a row for absence


def test_stages_of_different_widths_are_counted():
    settings, shape = R3GANSettings(widths=(24, 16, 8), blocks=2, group=8), (12, 20, 1)
    size = settings.size(shape, shape=shape, latent=64, entries={})
    assert size.params == sum(counts(settings, shape, {}))


@pytest.mark.parametrize("size", [(5,), (5, 6), (3, 4, 5)], ids=str)
def test_products_are_the_grouped_convolution(size):
    axes = len(size)
    h = jax.random.normal(KEY, (2, *size, 12))
    kernel = jax.random.normal(jax.random.key(1), (3,) * axes + (4, 12))
    convolution = networks._grouped(h, kernel)
    np.testing.assert_allclose(networks._grouped_by_products(h, kernel), convolution, atol=2e-5)


def test_a_residual_block_is_the_identity_at_the_start():
    block = networks.Residual(expansion=2, group=8, gain=1.0, dtype=jnp.dtype("float32"))
    h = jax.random.normal(KEY, (2, 6, 5, 8))
    params = block.init(KEY, h)
    np.testing.assert_array_equal(block.apply(params, h), h)


def test_shapes_and_the_condition():
    settings, shape = R3GANSettings(widths=(16, 8), blocks=1, group=8, embedding=4), (8, 12, 1)
    built = settings.build(shape=shape, entries=LABEL, latent=3)
    given = {"label": Given(jnp.arange(2), jnp.ones(2, bool))}
    other = {"label": Given(jnp.arange(2) + 1, jnp.ones(2, bool))}
    z, x = jax.random.normal(KEY, (2, 3)), jax.random.normal(KEY, (2, *shape))
    generator = built.generator.init(KEY, z, given)
    critic = built.critic.init(KEY, x, given)
    made = built.generator.apply(generator, z, given)
    scores = built.critic.apply(critic, x, given)
    chex.assert_shape([made, scores], [(2, *shape), (2,)])
    assert np.abs(made - built.generator.apply(generator, z, other)).max() > 1e-3
    assert np.abs(scores - built.critic.apply(critic, x, other)).min() > 1e-4
    _, inner = built.critic.features(critic, x, given, names=(networks.BASIS,))
    chex.assert_shape(inner[networks.BASIS], (2, built.features))


def test_settings_that_do_not_fit_the_data():
    (problem,) = R3GANSettings().problems((28, 28, 1))
    assert "network.widths has 4 stages, which need sides divisible by 8" in problem
    (problem,) = R3GANSettings(widths=(20,), group=16).problems((28, 28, 1))
    assert "network.group = 16 does not divide the 40 hidden channels" in problem
