"""SSIM against its definition in float64, PSNR against a hand calculation."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from genzoo.evaluate.similarity import psnr, ssim


def by_definition(one: np.ndarray, other: np.ndarray, side: int = 11) -> np.ndarray:
    """SSIM [B] of images [B, H, W, C] in float64, from moments about the local means."""
    at = np.arange(side) - side // 2
    window = np.exp(-(at**2) / (2 * 1.5**2))
    window /= window.sum()

    def local(x: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            x = correlate1d(x, window, axis=axis, mode="constant")
        half = side // 2
        return x[:, half:-half, half:-half]

    x, y = one.astype(np.float64), other.astype(np.float64)
    mean_x, mean_y = local(x), local(y)
    xx, yy, xy = local(x * x) - mean_x**2, local(y * y) - mean_y**2, local(x * y) - mean_x * mean_y
    c_1, c_2 = (2 * 0.01) ** 2, (2 * 0.03) ** 2
    found = (2 * mean_x * mean_y + c_1) * (2 * xy + c_2)
    return (found / ((mean_x**2 + mean_y**2 + c_1) * (xx + yy + c_2))).mean((1, 2, 3))


@pytest.mark.parametrize("contrast", [1.0, 1e-3])
def test_ssim_is_that_of_its_definition_also_where_images_are_bright_and_even(contrast):
    random = np.random.default_rng(0)
    one = 1 - contrast * random.uniform(0, 1, (3, 20, 24, 2)).astype(np.float32)
    other = one + contrast * random.normal(0, 0.3, one.shape).astype(np.float32)
    np.testing.assert_allclose(ssim(jnp.asarray(one), jnp.asarray(other)),
                               by_definition(one, other), rtol=2e-5)  # fmt: skip
    np.testing.assert_allclose(ssim(jnp.asarray(one), jnp.asarray(one)), 1, rtol=1e-6)


def test_psnr_is_in_decibels_of_the_range():
    assert psnr(np.array([4.0, 0.04])) == pytest.approx([0, 20])
    assert np.isfinite(psnr(np.zeros(1)))
