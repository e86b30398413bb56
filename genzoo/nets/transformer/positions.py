"""Where tokens are: sin-cos tables and rotary positions, for grids with any number of axes.

Vaswani et al. 2017 (sinusoids), Dosovitskiy et al. 2021 (patches of images), Su et al. 2021
(RoFormer: rotary positions), Esser et al. 2024 (the middle of a table for the largest grid). All
are computed from coordinates. Those of a grid of another size can be stretched to the extent of the
grid in training, so that one network serves several resolutions.

A rotary position turns pairs of channels of queries and keys by angles proportional to the position
p, so that their product depends on differences of positions alone:

    <R(p) q, R(p') k> = <q, R(p' - p) k>                                                         (1)
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array

LONGEST = 10_000.0  # the longest wavelength divided by 2 pi, in patches


class Rotary(NamedTuple):
    """Rotary positions. cosine, sine: [N, D] for heads of width D, those of the angles of every
    channel; the sine of the first half of the channels is negative."""

    cosine: np.ndarray
    sine: np.ndarray


def coordinates(size: Sequence[int], base: Sequence[int] = (), table: int = 0) -> np.ndarray:
    """The positions [N, axes] of a grid's N patches, in the order of `patchify`, float64.

    base: the size of a grid to whose extent they are stretched; () for its own. table: the side of
    a larger grid that is stretched instead, with the patches in its middle; 0 for none.
    """
    axes = []
    for b, side in zip(base or size, size, strict=True):
        whole = table or side
        axes.append(b / whole * ((whole - side) // 2 + np.arange(side)))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(size))


def sincos(positions: np.ndarray, width: int) -> np.ndarray:
    """Positions [N, axes] -> their sin-cos embedding [N, width] float32.

    Each axis has the same number of frequencies in (1 / 10000, 1]: sines, then cosines. The last
    axis comes first, as in the authors' code of MAE and DiT. Channels left over are zero.
    """
    count = width // (2 * positions.shape[1])
    frequencies = LONGEST ** (-np.arange(count) / max(count, 1))
    table = np.zeros((len(positions), width), np.float32)
    for i, along in enumerate(positions.T[::-1]):
        angles = along[:, None] * frequencies
        table[:, 2 * i * count : (2 * i + 1) * count] = np.sin(angles)
        table[:, (2 * i + 1) * count : (2 * i + 2) * count] = np.cos(angles)
    return table


def rotary(positions: np.ndarray, head_width: int, still: int = 0) -> Rotary:
    """The rotary angles of positions [N, axes], for heads of width `head_width`, even.

    Each axis turns the same number of pairs of channels; pairs left over are not turned. still: the
    number of tokens before the others that are not turned either, such as class tokens.
    """
    count = head_width // (2 * positions.shape[1])
    frequencies = LONGEST ** (-np.arange(count) / max(count, 1))
    angles = np.zeros((still + len(positions), head_width // 2))
    for i, along in enumerate(positions.T):
        angles[still:, i * count : (i + 1) * count] = along[:, None] * frequencies
    cosine, sine = np.cos(angles), np.sin(angles)
    both = np.concatenate([cosine, cosine], -1), np.concatenate([-sine, sine], -1)
    return Rotary(*(part.astype(np.float32) for part in both))


def turned(x: Array, by: Rotary) -> Array:
    """Equation (1): R(p) x for queries or keys x [B, N, H, D].

    Channel i is paired with channel i + D / 2. The authors pair neighbours, which is the same up to
    the order of channels, but slower.
    """
    cosine, sine = (jnp.asarray(part)[:, None] for part in by)  # [N, 1, D]
    return (x * cosine + jnp.roll(x, x.shape[-1] // 2, -1) * sine).astype(x.dtype)
