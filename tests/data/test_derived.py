"""What is made of images on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import sobel

from genzoo.data.derived import downsampled, edges

IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 8, 12, 3)).astype(np.float32)


def test_downsampling_takes_the_means_of_squares():
    small = np.asarray(jax.jit(downsampled(4))(IMAGES))
    assert small.shape == (5, 2, 3, 3)
    for i in range(2):
        for j in range(3):
            square = IMAGES[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].astype(np.float64)
            np.testing.assert_allclose(small[:, i, j], square.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(downsampled(1)(IMAGES), IMAGES)
    with pytest.raises(ValueError, match="8 x 12 pixels do not divide into squares of 3"):
        downsampled(3)(IMAGES)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_edges_are_the_gradient_of_the_luma(channels):
    images = IMAGES[..., :channels]
    weights = np.array([0.299, 0.587, 0.114]) if channels == 3 else np.full(channels, 1 / channels)
    luma = images.astype(np.float64) @ weights
    for one, found in zip(luma, edges(images)[..., 0], strict=True):
        both = [sobel(one, axis=axis, mode="nearest") / 8 for axis in (0, 1)]
        np.testing.assert_allclose(found, np.hypot(*both), atol=1e-6)


def test_a_ramp_has_its_slope_for_its_edges():
    ramp = 0.1 * jnp.arange(8)[None, None, :, None] * jnp.ones((1, 6, 8, 1))
    np.testing.assert_allclose(edges(ramp)[:, :, 1:-1], 0.1, atol=1e-6)


@pytest.mark.parametrize("function", [downsampled(2), edges], ids=["downsampled", "edges"])
@pytest.mark.parametrize("axis", [1, 2])
def test_mirroring_before_is_mirroring_after(function, axis):
    mirrored = np.flip(IMAGES, axis)
    np.testing.assert_allclose(function(mirrored), np.flip(function(IMAGES), axis), atol=1e-6)
