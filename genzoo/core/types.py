"""Types of arrays for public signatures, and the three shape helpers that everything uses.

The shapes are jaxtyping's: within one signature an axis of a name has one size. The tests check
them at every call of a room in `tests/shapes.py`; a user's program does not.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jaxtyping
import numpy as np
from jaxtyping import Float, Int

Array = jax.Array  # of any shape and type: where `nets` and above say the shape in words
ArrayLike = jax.Array | np.ndarray | np.number | float | int
"""What JAX takes for an array. Where an axis is required, numbers of Python's are left out."""

Floats = Float[ArrayLike, "..."]
"""Any shape."""
Values = Float[ArrayLike, "*shape"]
"""Any shape, the same for all of one signature: a function of each value."""
Broadcast = Float[ArrayLike, "*#shape"]
"""Any shapes that broadcast against each other within one signature."""
Scalar = Float[ArrayLike, ""]
"""One number: an array of shape [] or a number of Python's or NumPy's."""
PerExample = Float[ArrayLike, " B"]
"""One number for each example, [B]."""
Times = Scalar | PerExample
"""One time for all examples or one for each, [] or [B]; also alpha, sigma and rates at these."""
Examples = Float[ArrayLike, "B *shape"]
"""One array for each example, [B, ...]: data, noise, predictions."""
Images = Float[ArrayLike, "B H W C"]
"""Images with the channels last, in [-1, 1]."""
Labels = Int[ArrayLike, " B"]
"""The index of a class for each example, [B]."""
Count = Int[ArrayLike, ""]
"""One integer, which may be traced."""
Key = jaxtyping.Key[jax.Array, ""]
"""One typed PRNG key, shape []."""
Keys = jaxtyping.Key[jax.Array, " B"]
"""Typed PRNG keys [B], one for each example."""
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
