"""Masked autoencoders: what the loss and the pictures depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.core.contract import Context
from genzoo.families.mae import MAE
from genzoo.math import masking
from genzoo.nets.transformer.patches import patchify

SHAPE, PATCH, COUNT = (6, 4, 1), 2, 6
X = np.random.default_rng(0).uniform(-1, 1, (3, *SHAPE)).astype(np.float32)
KEYS = streams.per_example(jax.random.key(1), jnp.arange(3))


class Constant:
    """Predicts the same number everywhere; records what it was shown."""

    patch = PATCH

    def __init__(self, value: float = 0.0):
        self.value, self.shown = value, []

    def init(self, key, x, keep, restore):
        return {}

    def apply(self, params, x, keep, restore, *, train=False, key=None):
        self.shown.append((keep, restore))
        return jnp.full((len(x), COUNT, 4), self.value)


def family(normalised: bool, value: float = 0.0) -> MAE:
    return MAE(network=Constant(value), shape=SHAPE, ratio=0.5, normalised=normalised)


def loss(family, x):
    context = Context(batch={"x": x}, key=jax.random.key(0), step=jnp.int32(0), stats={})
    return family.losses["model"].loss({}, context)[0]


@pytest.mark.parametrize("normalised", [False, True])
def test_the_loss_is_that_of_the_hidden_patches(normalised):
    own = family(normalised, 0.25)
    values = loss(own, X)
    (keep, _), *_ = own.network.shown
    patches = np.asarray(patchify(X, PATCH), np.float64)
    if normalised:
        spread = np.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
        patches = (patches - patches.mean(-1, keepdims=True)) / spread
    for i in range(3):
        hidden = sorted(set(range(COUNT)) - set(np.asarray(keep[i]).tolist()))
        assert len(hidden) == 3
        expected = np.square(patches[i, hidden] - 0.25).mean()
        np.testing.assert_allclose(values[i], expected, rtol=1e-5)


def test_masks_differ_between_examples_and_steps():
    own = family(True)
    context = [
        Context(batch={"x": X}, key=jax.random.key(k), step=jnp.int32(0), stats={})
        for k in range(2)
    ]
    for each in context:
        own.loss({}, each)
    (a, _), (b, _) = own.network.shown
    assert not np.array_equal(a, b) and len({tuple(sorted(row)) for row in a.tolist()}) > 1


@pytest.mark.parametrize("normalised", [False, True])
def test_pictures_show_visible_patches_as_they_are_and_predictions_in_their_colours(normalised):
    own = family(normalised, 0.25)
    batch = {"x": jnp.asarray(X)}
    variables = own.init(jax.random.key(0), batch)
    hidden = np.asarray(own.draw(KEYS).hidden)
    original = np.asarray(patchify(X, PATCH))
    seen = np.asarray(patchify(own.observe(batch, KEYS), PATCH))
    copy = np.asarray(patchify(own.reconstruct(variables, batch, KEYS), PATCH))
    np.testing.assert_array_equal(seen[~hidden], original[~hidden])
    np.testing.assert_array_equal(copy[~hidden], original[~hidden])
    assert (seen[hidden] == 0).all()
    expected = np.full_like(original, 0.25)
    if normalised:
        mean, deviation = masking.moments(jnp.asarray(original))
        expected = expected * np.asarray(deviation) + np.asarray(mean)
    np.testing.assert_allclose(copy[hidden], expected[hidden], atol=1e-6)


def test_a_perfect_prediction_of_normalised_patches_gives_back_the_image():
    own = family(True)
    target = own.target(jnp.asarray(X))
    own.network.apply = lambda params, x, keep, restore: target
    copy = own.reconstruct(own.init(jax.random.key(0), {"x": X}), {"x": jnp.asarray(X)}, KEYS)
    np.testing.assert_allclose(copy, X, atol=1e-6)
