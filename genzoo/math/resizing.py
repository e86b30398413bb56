"""Resizing as a product of matrices, one for rows and one for columns, by the kind of filter.

    legacy    linear; output i reads position i n/m of n inputs and m outputs     (TensorFlow 1)
    pytorch   linear; output i reads position (i + 1/2) n/m - 1/2                 (torch)
    clean     Keys' cubic at the same positions, a = -1/2, and widened by n/m where the image
              becomes smaller                                                     (Pillow)

The first two read two neighbours even where the image becomes much smaller, so that fine patterns
alias (Parmar et al. 2022, On aliased resizing and surprising subtleties in GAN evaluation). FID was
defined with the first.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64


def matrix(kind: str, inputs: int, outputs: int) -> Float64[np.ndarray, "outputs inputs"]:
    """The weights [outputs, inputs] of one axis, float64; every row adds up to 1. kind: a key of
    `KINDS`."""
    weights = KINDS[kind](inputs, outputs)
    return weights / weights.sum(1, keepdims=True)


def _linear(position: np.ndarray, inputs: int) -> np.ndarray:
    position = np.clip(position, 0, inputs - 1)  # beyond the border lies a copy of it
    return np.maximum(1 - np.abs(position[:, None] - np.arange(inputs)), 0)


def _legacy(inputs: int, outputs: int) -> np.ndarray:
    return _linear(np.arange(outputs) * inputs / outputs, inputs)


def _pytorch(inputs: int, outputs: int) -> np.ndarray:
    return _linear((np.arange(outputs) + 0.5) * inputs / outputs - 0.5, inputs)


def _clean(inputs: int, outputs: int) -> np.ndarray:
    widened = max(inputs / outputs, 1.0)
    position = (np.arange(outputs) + 0.5) * inputs / outputs - 0.5
    # Beyond the border lies nothing: the weights inside are normalised.
    return _cubic((np.arange(inputs) - position[:, None]) / widened)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """The kernel of Keys (1981)."""
    x = np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


KINDS: Mapping[str, Callable[[int, int], np.ndarray]] = {
    "legacy": _legacy,
    "pytorch": _pytorch,
    "clean": _clean,
}
