"""Two measures of how similar two images are: PSNR, and SSIM (Wang et al. 2004).

    PSNR = 10 log10(R^2 / MSE)
    SSIM = (2 m_x m_y + c_1) (2 s_xy + c_2) / ((m_x^2 + m_y^2 + c_1) (s_x^2 + s_y^2 + c_2))

with the range R and the mean squared error MSE; means, variances and covariance in a Gaussian
window of 11 x 11 (standard deviation 1.5), and c_i = (k_i R)^2 for k = (0.01, 0.03). SSIM is
averaged over channels and over all positions at which the window fits inside the image.

Variances are E[d^2] - E[d]^2 of differences d from one level, the mean of both images, since the
two terms would otherwise cancel in float32 where an image is bright and even.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from genzoo.core.types import Array, Images

_SIDE, _STD, _K = 11, 1.5, (0.01, 0.03)


def psnr(error: np.ndarray, value_range: float = 2.0, least: float = 1e-20) -> np.ndarray:
    """The PSNR in decibels of images with these mean squared errors: float64, of the same shape.

    value_range: R, 2 for images in [-1, 1]. least: smaller errors count as this one, so that equal
    images have a finite PSNR.
    """
    return 10 * np.log10(value_range**2 / np.maximum(error, least))


def ssim(one: Images, other: Images, value_range: float = 2.0) -> Array:
    """SSIM of each pair of images [B, H, W, C]: [B], 1 for equal images.

    value_range: R, 2 for images in [-1, 1]. If a side is shorter than 11, so is the window.
    """
    channels = one.shape[-1]
    kernels = [_window(side) for side in one.shape[1:3]]

    def local_mean(x: Array) -> Array:
        for axis, kernel in enumerate(kernels):
            shape = [1, 1]
            shape[axis] = len(kernel)
            weights = jnp.tile(jnp.asarray(kernel, x.dtype).reshape(*shape, 1, 1), channels)
            x = lax.conv_general_dilated(
                x,
                weights,
                (1, 1),
                "VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=channels,
                precision="highest",
            )
        return x

    c_1, c_2 = ((k * value_range) ** 2 for k in _K)
    level = ((one + other) / 2).mean((1, 2), keepdims=True)
    above_x, above_y = one - level, other - level
    rise_x, rise_y = local_mean(above_x), local_mean(above_y)
    variance_x = local_mean(above_x * above_x) - rise_x**2
    variance_y = local_mean(above_y * above_y) - rise_y**2
    covariance = local_mean(above_x * above_y) - rise_x * rise_y
    mean_x, mean_y = rise_x + level, rise_y + level
    numerator = (2 * mean_x * mean_y + c_1) * (2 * covariance + c_2)
    denominator = (mean_x**2 + mean_y**2 + c_1) * (variance_x + variance_y + c_2)
    return (numerator / denominator).mean((1, 2, 3))


def _window(side: int) -> np.ndarray:
    length = min(_SIDE, side)
    at = np.arange(length) - (length - 1) / 2
    weights = np.exp(-0.5 * (at / _STD) ** 2)
    return weights / weights.sum()
