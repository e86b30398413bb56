"""The comparison of two images by maps of their features, as in LPIPS (Zhang et al. 2018)."""

import jax.numpy as jnp

from genzoo.core.types import Array

_TINY = 1e-10


def differences(one: Array, other: Array) -> Array:
    """Mean squared differences of maps [B, *size, C] over positions, by channel: [B, C].

    The features of every position are first divided by their norm. The gradient is finite where all
    of them are 0, as after a ReLU.
    """
    squares = jnp.square(_unit(one) - _unit(other))
    return squares.mean(tuple(range(1, one.ndim - 1)))


def _unit(h: Array) -> Array:
    squared = jnp.square(h).sum(-1, keepdims=True)
    nothing = squared == 0  # the square root has no derivative there
    return h / jnp.where(nothing, 1, jnp.sqrt(jnp.where(nothing, 1, squared)) + _TINY)
