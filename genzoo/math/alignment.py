"""Distances between maps of features, for representation alignment.

Yu et al. 2024 (REPA): minus the cosine similarity at each place. Jiang et al. 2025 (SRA): a smooth
L1 distance, quadratic up to b and linear beyond it, with b = 0.05 in the authors' code:

    smooth_l1(d) = d^2 / 2b  if |d| < b,  |d| - b/2  otherwise                                  (1)
"""

import jax.numpy as jnp
from jaxtyping import Float

from genzoo.core.types import ArrayLike, PerExample, mean_per_example
from genzoo.math.contrastive import unit

Maps = Float[ArrayLike, "B *grid D"]
"""One vector of features for each place of a grid, [B, *grid, D]."""
THRESHOLD = 0.05
"""b of (1)."""


def minus_cosine(a: Maps, b: Maps) -> PerExample:
    """Minus the cosine of the angle between the vectors at each place, averaged over places: [B],
    between -1 and 1. The gradient at a = 0 is finite."""
    return -mean_per_example((unit(a) * unit(b)).sum(-1))


def smooth_l1(a: Maps, b: Maps) -> PerExample:
    """Equation (1) of every difference, averaged over places and features: [B]."""
    size = jnp.abs(a - b)
    quadratic = jnp.square(size) / (2 * THRESHOLD)
    return mean_per_example(jnp.where(size < THRESHOLD, quadratic, size - THRESHOLD / 2))
