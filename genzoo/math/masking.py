"""Masked patches: which are hidden, and the loss on them.

He et al. 2022 (Masked autoencoders are scalable vision learners, MAE). Each of N patches draws a
number; those with the K lowest stay visible. Only the hidden ones H count in the loss:

    loss = 1/|H| sum_{i in H} mean over the values of (predicted_i - target_i)^2                (1)
    target_i = (patch_i - mean_i) / sqrt(variance_i + 1e-6)   or   patch_i                      (2)

with the mean and the unbiased variance over the values of patch i, as in the authors' code.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genzoo.core.types import Array, ArrayLike, PerExample

EPSILON = 1e-6
"""Added to the variance in (2)."""

Patches = Float[ArrayLike, "B N P"]
"""N patches of P values per example, [B, N, P]."""

PerPatch = Float[Array, "B N 1"]
"""One value per patch, [B, N, 1]."""


class Masking(NamedTuple):
    """Which patches are hidden. keep: the visible ones, int32 [B, K]. restore: the place of each
    patch among the visible ones followed by the hidden ones, int32 [B, N]. hidden: bool [B, N]."""

    keep: Int[ArrayLike, "B K"]
    restore: Int[ArrayLike, "B N"]
    hidden: Bool[ArrayLike, "B N"]


def visible(patches: int, ratio: float) -> int:
    """The number of visible patches when the share `ratio` is hidden: 49 of 196 for 0.75."""
    return int(patches * (1 - ratio))


def by_order(noise: Float[ArrayLike, "B N"], keep: int) -> Masking:
    """Keeps the `keep` patches with the lowest noise [B, N], in the order of the noise."""
    order = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(order, axis=1)
    return Masking(keep=order[:, :keep], restore=restore, hidden=restore >= keep)


def moments(patches: Patches) -> tuple[PerPatch, PerPatch]:
    """The mean and the deviation in (2) of each patch, [B, N, 1] both."""
    mean = jnp.mean(patches, -1, keepdims=True)
    variance = jnp.square(patches - mean).sum(-1, keepdims=True) / max(patches.shape[-1] - 1, 1)
    return mean, jnp.sqrt(variance + EPSILON)


def normalised(patches: Patches) -> Patches:
    """Equation (2) with the normalisation."""
    mean, deviation = moments(patches)
    return (patches - mean) / deviation


def hidden_error(predicted: Patches, target: Patches, hidden: Bool[ArrayLike, "B N"]) -> PerExample:
    """Equation (1), [B]."""
    errors = jnp.square(predicted - target).mean(-1)
    return jnp.where(hidden, errors, 0).sum(-1) / jnp.maximum(hidden.sum(-1), 1)
