"""Distances between maps of features, for representation alignment.

Yu et al. 2024 (REPA): minus the cosine similarity at each place. Jiang et al. 2025 (SRA): a smooth
L1 distance, quadratic up to b and linear beyond it, with b = 0.05 in the authors' code:

    huber(d) = d^2 / 2b  if |d| < b,  |d| - b/2  otherwise                                      (1)
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from genzoo.core.types import ArrayLike, PerExample, mean_per_example

Maps = Float[ArrayLike, "B *grid D"]
"""One vector of features for each place of a grid, [B, *grid, D]."""
ROUNDED = 0.05
"""b of (1)."""


def minus_cosine(a: Maps, b: Maps) -> PerExample:
    """Minus the cosine of the angle between the vectors at each place, averaged over places: [B],
    between -1 and 1. The gradient at a = 0 is finite."""
    return -mean_per_example((_unit(a) * _unit(b)).sum(-1))


def smooth_l1(a: Maps, b: Maps) -> PerExample:
    """Equation (1) of every difference, averaged over places and features: [B]."""
    size = jnp.abs(a - b)
    rounded = jnp.square(size) / (2 * ROUNDED)
    return mean_per_example(jnp.where(size < ROUNDED, rounded, size - ROUNDED / 2))


def _unit(x: Maps) -> Maps:
    return x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))
