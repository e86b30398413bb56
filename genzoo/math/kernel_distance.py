"""The kernel distance (KID) between two sets of features, and its standard error.

Bińkowski et al. 2018, Demystifying MMD GANs. The squared maximum mean discrepancy of the kernel

    k(x, y) = (gamma x . y + coefficient)^degree,   gamma = 1/D, coefficient = 1, degree = 3  (1)

is estimated without bias from m features of either set:

    MMD^2 = 1/(m(m-1)) sum_{i != j} [k(x_i, x_j) + k(y_i, y_j)] - 2/m^2 sum_{ij} k(x_i, y_j)  (2)

KID is the mean of (2) over S random subsets of m features. It may be negative, and is 0 on average
if the distributions are equal, however few the features. Its variance has a part from the choice of
the subsets and one from that of the features, to first order

    v_x / n_x + v_y / n_y + s^2 / S,    v_x = Var_i 2 [mean_j k(x_i, x_j) - mean_j k(x_i, y_j)]  (3)

with the deviation s over subsets and v_y likewise. Where the distributions are equal the first
order vanishes, and (3) is too large.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genzoo.core.types import ArrayLike, Vectors

SUBSETS, SUBSET = 100, 1000
"""The number of subsets and the features in each (Bińkowski et al. 2018)."""
SEED = 2020
"""Of the subsets, that of torch-fidelity."""
DEGREE, COEFFICIENT = 3, 1.0

Others = Float[ArrayLike, "M _"]
"""Of the same dimensions as the first set, which a ValueError says."""


class KernelDistance(NamedTuple):
    """value: the mean of (2) over subsets. deviation: over subsets, which papers print after "+-".
    error: the standard error of the value, the root of (3)."""

    value: float
    deviation: float
    error: float


def kernel_distance(
    one: Vectors, other: Others, *, subsets: int = SUBSETS, size: int = SUBSET, seed: int = SEED
) -> KernelDistance:
    """KID between features [B, D] and [M, D], in float64.

    size: the features in a subset, m; memory is O(m^2 + m D). The subsets are a function of the
    seed and of the numbers of features. Raises ValueError if a set has fewer than m features.
    """
    one, other = np.asarray(one), np.asarray(other)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"features of {one.shape[1]} and of {other.shape[1]} dimensions")
    if not 2 <= size <= min(len(one), len(other)) or subsets < 1:
        raise ValueError(
            f"{subsets} subsets of {size} features from sets of {len(one)} and {len(other)}"
        )
    random = np.random.RandomState(seed)  # a stream that will never change
    values, spread = np.empty(subsets), np.empty((subsets, 2))
    for i in range(subsets):
        x = one[random.choice(len(one), size, replace=False)].astype(np.float64)
        y = other[random.choice(len(other), size, replace=False)].astype(np.float64)
        values[i], spread[i] = _discrepancy(x, y)
    deviation = values.std()
    sizes = np.array([len(one), len(other)])
    variance = (spread.mean(0) / sizes).sum() + deviation**2 / subsets
    return KernelDistance(float(values.mean()), float(deviation), float(np.sqrt(variance)))


def kernel(x: Vectors, y: Others) -> Float[np.ndarray, "B M"]:
    """Equation (1) for all pairs of rows of x [B, D] and y [M, D]: [B, M]."""
    return (x @ y.T / x.shape[1] + COEFFICIENT) ** DEGREE


def _discrepancy(x: np.ndarray, y: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Equation (2), and v_x and v_y of (3), of x and y [m, D]."""
    own_x, own_y = _mean_others(kernel(x, x)), _mean_others(kernel(y, y))
    cross = kernel(x, y)
    value = own_x.mean() + own_y.mean() - 2 * cross.mean()
    return value, ((2 * (own_x - cross.mean(1))).var(), (2 * (own_y - cross.mean(0))).var())


def _mean_others(matrix: np.ndarray) -> np.ndarray:
    """The mean of each row of [m, m] without its entry on the diagonal: [m]."""
    return (matrix.sum(1) - matrix.diagonal()) / (len(matrix) - 1)
