"""Precision, recall, density and coverage: two sets of features, compared by nearest neighbours.

The ball B_k(x_i) around a feature of a set X reaches to its k-th nearest neighbour in X, not
counting itself; the union of the balls stands for where the distribution has mass. For real
features X [N, D] and generated ones Y [M, D]:

    precision = 1/M #{j: y_j in some B_k(x_i)},   recall = 1/N #{i: x_i in some B_k(y_j)}     (1)
                                                              (Kynkäänniemi et al. 2019, k = 3)
    density = 1/(kM) #{(i, j): y_j in B_k(x_i)},  coverage = 1/N #{i: some y_j in B_k(x_i)}   (2)
                                                              (Naeem et al. 2020, k = 5)

For two large samples of one distribution, precision and recall depend on k and D, density is 1 and
coverage is 1 - (N / (N + M))^k: 0.97 for N = M, 0.60 for 10,000 real features and 2,000 generated
ones. Balls are closed. Everything is float64 and brute force; a block of distances is held at a
time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from genzoo.core.types import ArrayLike, Vectors

PRECISION_K, DENSITY_K = 3, 5
_BLOCK = 2048  # features of either set whose distances are held at a time: 32 MiB
_CLOSE = 1e-9
"""A distance is computed again from the difference if it is below this share of the norms, both
squared: the product that gives all distances at once resolves only that. It is also the share by
which a ball is enlarged, so that the neighbour that defines it lies inside."""

Others = Float[ArrayLike, "M _"]
"""Of the same dimensions as the first set, which a ValueError says."""
Centre = Float64[np.ndarray, " D"] | float


class Neighbourhoods(NamedTuple):
    """Equations (1) and (2). All but the density are in [0, 1]."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(
    real: Vectors,
    generated: Others,
    *,
    precision_k: int = PRECISION_K,
    density_k: int = DENSITY_K,
) -> Neighbourhoods:
    """Equations (1) with k = precision_k and (2) with k = density_k.

    real: [B, D]. generated: [M, D]. Raises ValueError if a set has no k-th neighbour.
    """
    real, generated = np.asarray(real), np.asarray(generated)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and of {generated.shape[1]} dimensions")
    centre = real.mean(0, dtype=np.float64)  # distances of features far from 0 would lose digits
    of_real = squared_radii(real, (precision_k, density_k), centre)
    (of_generated,) = squared_radii(generated, (precision_k,), centre)
    precise, recalled = np.zeros(len(generated), bool), np.zeros(len(real), bool)
    covered, pairs = np.zeros(len(real), bool), 0
    for rows, columns, squared in _blocks(real, generated, centre):
        precise[columns] |= (squared <= of_real[0][rows, None]).any(0)
        recalled[rows] |= (squared <= of_generated[columns]).any(1)
        inside = squared <= of_real[1][rows, None]
        covered[rows] |= inside.any(1)
        pairs += int(inside.sum())
    return Neighbourhoods(
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        density=pairs / (density_k * len(generated)),
        coverage=float(covered.mean()),
    )


def squared_radii(
    x: Vectors, each_k: tuple[int, ...], centre: Centre = 0.0
) -> list[Float64[np.ndarray, " B"]]:
    """The squared radius of B_k around each row of x [B, D], for each k: float64 [B] each.

    centre: subtracted from x first, against rounding. Raises ValueError unless 1 <= k < B.
    """
    most = max(each_k)
    if min(each_k) < 1 or most >= len(x):
        raise ValueError(f"{len(x)} features have no neighbour number {most}")
    nearest = np.full((len(x), most + 1), np.inf)  # with itself, at distance 0
    for rows, _, squared in _blocks(x, x, centre):
        both = np.concatenate([nearest[rows], squared], 1)
        nearest[rows] = np.partition(both, most, 1)[:, : most + 1]
    nearest.sort(1)
    return [nearest[:, k] * (1 + _CLOSE) for k in each_k]


def _blocks(
    x: np.ndarray, y: np.ndarray, centre: Centre
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """(rows, columns, squared distances of x[rows] from y[columns]) until all pairs are done."""
    for first in range(0, len(x), _BLOCK):
        rows = slice(first, first + _BLOCK)
        a = x[rows].astype(np.float64) - centre
        for second in range(0, len(y), _BLOCK):
            columns = slice(second, second + _BLOCK)
            yield rows, columns, _squared_distances(a, y[columns].astype(np.float64) - centre)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.square(a).sum(1)[:, None] + np.square(b).sum(1)
    squared = norms - 2 * a @ b.T
    rows, columns = np.nonzero(squared <= _CLOSE * norms)
    for start in range(0, len(rows), _BLOCK):
        i, j = rows[start : start + _BLOCK], columns[start : start + _BLOCK]
        squared[i, j] = np.square(a[i] - b[j]).sum(1)
    return squared
