"""Conversion of pixels from bytes to floats and back, and random flips. Pure functions.

Images are uint8 in storage and float in [-1, 1] inside models. All 256 levels survive the round
trip.
"""

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array, Images, Key

_INVERSE = np.float32(1 / 127.5)


def to_float(images: Array | np.ndarray) -> Images:
    """Images of uint8 [...] as float32 in [-1, 1]: x / 127.5 - 1."""
    # The difference is exact and the product rounds once, so that 255 gives 1 on every backend; a
    # compiled division by a constant becomes a product with its inverse and gives 1.0000001.
    return (jnp.asarray(images, jnp.float32) - 127.5) * _INVERSE


def to_uint8(images: Array | np.ndarray) -> Array | np.ndarray:
    """Images of float [...] in [-1, 1] as uint8: rounded to the nearest level, clipped outside.

    A NumPy array gives a NumPy array, a JAX array a JAX array.
    """
    xp = np if isinstance(images, np.ndarray) else jnp
    # bfloat16 cannot tell neighbouring levels apart once it is scaled.
    levels = xp.round((images.astype(xp.float32) + 1.0) * 127.5)
    return xp.clip(levels, 0, 255).astype(xp.uint8)


def coin(key: Key, count: int) -> Array:
    """Whether to mirror each of `count` records, with probability one half: bool [N]."""
    return jax.random.bernoulli(key, shape=(count,))


def mirrored(images: Array, which: Array) -> Array:
    """Images [N, H, W, C], mirrored left to right where `which` bool [N] is true."""
    return jnp.where(which[:, None, None, None], images[:, :, ::-1], images)
