"""Random masking of patches and the loss on the hidden ones (He et al. 2022)."""

import jax
import numpy as np
import pytest

from genzoo.math import masking


def test_the_published_counts():
    # He et al. 2022 with images of 224: patches of 16 and of 14
    assert masking.visible(196, 0.75) == 49
    assert masking.visible(256, 0.75) == 64


def test_the_lowest_noise_stays_visible_and_restore_puts_it_back():
    noise = np.random.default_rng(0).uniform(size=(3, 196)).astype(np.float32)
    drawn = masking.by_order(noise, 49)
    patches = np.random.default_rng(1).normal(size=(3, 196, 2)).astype(np.float32)
    for i in range(3):
        order = np.argsort(noise[i])
        np.testing.assert_array_equal(drawn.keep[i], order[:49])
        assert set(np.flatnonzero(~drawn.hidden[i])) == set(order[:49])
        together = np.concatenate([patches[i][order[:49]], patches[i][order[49:]]])
        np.testing.assert_array_equal(together[drawn.restore[i]], patches[i])
    np.testing.assert_array_equal(drawn.hidden.sum(1), 147)


def test_every_patch_is_hidden_equally_often():
    noise = jax.random.uniform(jax.random.key(0), (4000, 16))
    shares = np.asarray(masking.by_order(noise, 4).hidden).mean(0)
    assert np.abs(shares - 0.75).max() < 4 * np.sqrt(0.75 * 0.25 / 4000)


@pytest.mark.parametrize("norm", [False, True])
def test_the_loss_sees_hidden_patches_only(norm):
    rng = np.random.default_rng(0)
    patches, predicted = rng.normal(size=(2, 2, 6, 4)).astype(np.float32)
    hidden = np.array([[1, 1, 0, 0, 1, 0], [0, 1, 1, 1, 1, 1]], bool)

    def target(patches):
        return masking.normalised(patches) if norm else patches

    expected = []
    for i in range(2):
        own = patches[i][hidden[i]].astype(np.float64)
        if norm:
            spread = np.sqrt(own.var(1, keepdims=True, ddof=1) + 1e-6)
            own = (own - own.mean(1, keepdims=True)) / spread
        expected.append(np.square(predicted[i][hidden[i]] - own).mean())
    loss = masking.hidden_error(predicted, target(patches), hidden)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    changed = np.where(hidden[..., None], patches, patches + 7)
    np.testing.assert_array_equal(masking.hidden_error(predicted, target(changed), hidden), loss)
    changed = np.where(hidden[..., None], patches * np.float32([2, 1, 1, 1]), patches)
    assert np.abs(masking.hidden_error(predicted, target(changed), hidden) - loss).min() > 1e-3
