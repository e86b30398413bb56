"""Resampling by two with a FIR filter, as in StyleGAN2 and NCSN++.

Zhang 2019 (Making convolutional networks shift-invariant again), Karras et al. 2020 (Analyzing and
improving the image quality of StyleGAN), Song et al. 2021. Along each axis, with an even number K
of symmetric taps f_k that sum to one, and with x padded by zeros:

    halved_i = sum_k f_k x_(2i + k - K/2 + 1)                                                    (1)
    doubled_j = 2 sum_i f_(j - 2i + K/2 - 1) x_i                                                 (2)
    smoothed_j = sum_k f_k x_(j + k - K/2),   one position more than x                           (3)

(2) is twice the adjoint of (1). The taps (1, 1) give averages and copies. The usual taps
(1, 3, 3, 1) make (2) a linear interpolation. Works for any number of spatial axes.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from genzoo.core.types import Array

Taps = tuple[float, ...]


def filter_fits(taps: Taps) -> bool:
    """Whether the taps are symmetric, even in number and have a sum other than zero."""
    return len(taps) % 2 == 0 and tuple(taps) == tuple(reversed(taps)) and sum(taps) != 0


def fir_halve(x: Array, taps: Taps) -> Array:
    """Equation (1) along each axis: x [B, *size, C] with even sides -> [B, *size / 2, C]."""

    def along(x: Array, axis: int, weights: list[float]) -> Array:
        x = _pad(x, axis, len(weights) // 2 - 1)
        length = x.shape[axis] - len(weights) + 1
        parts = (lax.slice_in_dim(x, k, k + length, 2, axis) for k in range(len(weights)))
        return _weighted(weights, parts)

    return _separably(along, x, taps)


def fir_double(x: Array, taps: Taps) -> Array:
    """Equation (2) along each axis: x [B, *size, C] -> [B, *2 size, C]."""

    def along(x: Array, axis: int, weights: list[float]) -> Array:
        count, length = len(weights), x.shape[axis]
        x = _pad(x, axis, count // 2)
        outputs = []
        for parity in range(2):
            # The taps that contribute to outputs of this parity: tap k of output j multiplies x
            # at (j + K/2 - 1 - k) / 2. In reverse, so that these positions rise.
            ks = [k for k in reversed(range(count)) if (parity + count // 2 - 1 - k) % 2 == 0]
            starts = [(parity + count // 2 - 1 - k) // 2 + count // 2 for k in ks]
            parts = (lax.slice_in_dim(x, start, start + length, axis=axis) for start in starts)
            outputs.append(_weighted([2 * weights[k] for k in ks], parts))
        doubled = jnp.stack(outputs, axis + 1)
        return doubled.reshape(*x.shape[:axis], 2 * length, *x.shape[axis + 1 :])

    return _separably(along, x, taps)


def fir_smooth(x: Array, taps: Taps) -> Array:
    """Equation (3) along each axis: x [B, *size, C] -> [B, *(size + 1), C].

    A convolution with stride two, window three and no padding reduces it to half the size of x.
    """

    def along(x: Array, axis: int, weights: list[float]) -> Array:
        x = _pad(x, axis, len(weights) // 2)
        length = x.shape[axis] - len(weights) + 1
        parts = (lax.slice_in_dim(x, k, k + length, axis=axis) for k in range(len(weights)))
        return _weighted(weights, parts)

    return _separably(along, x, taps)


def _separably(along: Callable[[Array, int, list[float]], Array], x: Array, taps: Taps) -> Array:
    if not filter_fits(taps):
        raise ValueError(f"the taps {tuple(taps)} must be symmetric and even in number")
    weights = (np.asarray(taps, np.float64) / np.sum(taps)).tolist()
    for axis in range(1, x.ndim - 1):
        x = along(x, axis, weights)
    return x


def _pad(x: Array, axis: int, width: int) -> Array:
    return jnp.pad(x, [(width, width) if at == axis else (0, 0) for at in range(x.ndim)])


def _weighted(weights: list[float], parts) -> Array:
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))
