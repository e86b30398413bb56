"""Patches of an image, signal or volume as a sequence of tokens, and back."""

from collections.abc import Sequence
from math import prod

from genzoo.core.types import Array
from genzoo.nets.parts.layers import fold, unfold


def grid_of(size: Sequence[int], patch: int) -> tuple[int, ...]:
    """The number of patches along each axis."""
    return tuple(side // patch for side in size)


def patchify(x: Array, patch: int) -> Array:
    """[B, *size, C] -> [B, N, patch^axes C]: patches in row-major order, within them positions in
    row-major order, then channels. Every side must be divisible by patch."""
    folded = fold(x, patch)
    return folded.reshape(x.shape[0], -1, folded.shape[-1])


def unpatchify(tokens: Array, size: Sequence[int], patch: int) -> Array:
    """[B, N, patch^axes C] -> [B, *size, C], the inverse of `patchify`."""
    grid = grid_of(size, patch)
    if tokens.shape[1] != prod(grid):
        raise ValueError(f"{tokens.shape[1]} tokens are not {' x '.join(map(str, grid))} patches")
    return unfold(tokens.reshape(tokens.shape[0], *grid, tokens.shape[-1]), patch)
