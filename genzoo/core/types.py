"""Types of arrays for public signatures, and the three shape helpers that everything uses.

The shapes are jaxtyping's: within one signature, every axis of the same name has the same size. The
tests check them at every call (`tests/shapes.py` lists the packages); other programs do not.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jaxtyping
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Array = jax.Array  # of any shape and type
ArrayLike = jax.Array | np.ndarray | np.number | float | int
"""An array of JAX or NumPy, or a number, which fits only where no axis is required."""

Floats = Float[ArrayLike, "..."]
"""Any shape."""
Values = Float[ArrayLike, "*same"]
"""Any shape, the same throughout one signature: functions of each value."""
Broadcast = Float[ArrayLike, "*#broadcast"]
"""Any shapes that broadcast against each other within one signature."""
Scalar = Float[ArrayLike, ""]
"""One number: an array of shape [], or a number of Python or NumPy."""
PerExample = Float[ArrayLike, " B"]
"""One number per example, [B]."""
Times = Scalar | PerExample
"""One time for all examples or one per example, [] or [B]; also alpha, sigma and rates at t."""
Factors = Scalar | PerExample
"""One factor for all examples or one per example, [] or [B]: guidance scales, weights."""
Examples = Float[ArrayLike, "B *shape"]
"""One array per example, [B, ...]: data, noise, predictions."""
Stack = Float[ArrayLike, "K B *shape"]
"""K arrays per example, [K, B, ...]: slopes, probes, samples of latents."""
Vectors = Float[ArrayLike, "B D"]
"""One vector per example, [B, D]: representations."""
Logits = Float[ArrayLike, "B K"]
"""One number per example and class, [B, K]."""
Indices = Int[ArrayLike, "B ..."]
"""A grid of code indices per example, [B, ...]; levels have grids of their own."""
Ids = Int[ArrayLike, "B L"]
"""The tokens of one text per example, [B, L]."""
TokenMask = Bool[ArrayLike, "B L"]
"""One truth value per token, [B, L]: False for padding."""
Series = Float[ArrayLike, " S"]
"""A sequence of numbers, [S]: the times of a grid, the nodes of a quadrature."""
Images = Float[ArrayLike, "B H W C"]
"""Images with the channels last, in [-1, 1]."""
Labels = Int[ArrayLike, " B"]
"""The class index of each example, [B]."""
Count = Int[ArrayLike, ""]
"""One integer, which may be traced."""
Counts = Int[ArrayLike, " B"]
"""One integer per example, [B]."""
Flag = Bool[ArrayLike, ""]
"""One truth value, which may be traced."""
Flags = Bool[ArrayLike, " B"]
"""One truth value per example, [B]."""
Key = jaxtyping.Key[jax.Array, ""]
"""One typed PRNG key, shape []."""
Keys = jaxtyping.Key[jax.Array, " B"]
"""Typed PRNG keys [B], one per example."""
Tree = Any  # a nested dict of arrays
Batch = Mapping[str, Shaped[jax.Array | np.ndarray, "B ..."]]
"""The fields of a record, [B, ...] each."""


def broadcast(values: ArrayLike, like: Array) -> ArrayLike:
    """`values` of shape [] or [B] with trailing axes of one, to multiply `like` [B, ...]."""
    if np.ndim(values) == 0 or values.ndim == like.ndim:
        return values
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def sum_per_example(values: Array) -> Array:
    """Sum over all axes but the first: [B, ...] -> [B]."""
    return values.reshape(values.shape[0], -1).sum(-1)


def mean_per_example(values: Array) -> Array:
    """Mean over all axes but the first: [B, ...] -> [B]."""
    return values.reshape(values.shape[0], -1).mean(-1)
