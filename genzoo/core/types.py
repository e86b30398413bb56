"""Names of arrays for public signatures, and the three shape helpers that everything uses."""

from collections.abc import Mapping
from typing import Any

import jax

Array = jax.Array
Key = jax.Array  # one typed PRNG key, shape []
Keys = jax.Array  # typed PRNG keys, shape [B]: one per example
Images = jax.Array  # [B, H, W, C] float, in [-1, 1]
Labels = jax.Array  # [B] int32, the index of a class
Tree = Any  # a nested dict of arrays
Batch = Mapping[str, jax.Array]


def broadcast(values: Array, like: Array) -> Array:
    """`values` of shape [] or [B] with trailing axes of one, to multiply `like` [B, ...]."""
    if values.ndim == 0 or values.ndim == like.ndim:
        return values
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def sum_per_example(values: Array) -> Array:
    """Sum over all axes but the first: [B, ...] -> [B]."""
    return values.reshape(values.shape[0], -1).sum(-1)


def mean_per_example(values: Array) -> Array:
    """Mean over all axes but the first: [B, ...] -> [B]."""
    return values.reshape(values.shape[0], -1).mean(-1)
