"""The Fréchet distance between two sets of features, each summarised by a Gaussian.

Heusel et al. 2017; Dowson & Landau 1982. With means m and covariances S (divided by N - 1),

    d^2 = |m_1 - m_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^{1/2}                              (1)

which is the squared 2-Wasserstein distance of the two Gaussians. "FID" is d^2, of the features of
one particular network. With factors S_i = F_i F_i^T, from the eigenvalues and eigenvectors of S_i,

    tr (S_1 S_2)^{1/2} = sum of the singular values of F_1^T F_2                              (2)

A factor has one column for each eigenvalue that rounding can resolve. Covariances of N <= D
features are therefore no special case: F_i has at most N - 1 columns, and nothing is added to S_i.
Such a distance is still far too large, because a set of few features seems to vary in few
directions; `Frechet.singular` says so.
"""

from typing import NamedTuple

import numpy as np

from genzoo.math.pca import Matrix, Moments, Vector


class Gaussian(NamedTuple):
    """What (1) needs of a set of features. count: their number N; 0 if it is not known."""

    mean: Vector
    covariance: Matrix
    count: int = 0

    @classmethod
    def of(cls, moments: Moments) -> "Gaussian":
        """The mean and unbiased covariance of features that were added to `Moments`, whose memory
        does not depend on their number. Raises ValueError for fewer than two features."""
        if moments.count < 2:
            raise ValueError(f"a covariance needs two features, and there are {moments.count}")
        return cls(moments.mean, moments.scatter / (moments.count - 1), moments.count)


class Frechet(NamedTuple):
    """d^2 of equation (1) in two parts: |m_1 - m_2|^2, and what the covariances contribute.

    singular: whether a set is known to have no more features than dimensions, or its covariance has
    less than full rank. The distance is then no estimate of that of the distributions.
    """

    distance: float
    means: float
    covariances: float
    singular: bool


def frechet(one: Gaussian, other: Gaussian) -> Frechet:
    """Equation (1) by (2), in float64. Raises ValueError if the dimensions differ, or if a number
    is not finite."""
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"features of {one.mean.size} and of {other.mean.size} dimensions")
    factors = [_factor(each.covariance) for each in (one, other)]
    means = float(np.square(one.mean - other.mean).sum())
    traces = float(np.trace(one.covariance) + np.trace(other.covariance))
    cross = float(np.linalg.svd(factors[0].T @ factors[1], compute_uv=False).sum())
    covariances = max(traces - 2 * cross, 0.0)  # rounding can make it negative
    if not np.isfinite(means + covariances):
        raise ValueError("the mean or the covariance is not finite")
    dimensions = one.mean.size
    few = any(0 < each.count <= dimensions for each in (one, other))
    rank = min(factor.shape[1] for factor in factors)
    return Frechet(means + covariances, means, covariances, few or rank < dimensions)


def _factor(covariance: Matrix) -> np.ndarray:
    """F [D, rank] with F F^T = covariance [D, D], without directions that are only rounding."""
    if not np.isfinite(covariance).all():
        raise ValueError("the mean or the covariance is not finite")
    values, vectors = np.linalg.eigh(covariance)
    resolved = values > len(values) * np.finfo(np.float64).eps * np.abs(values).max()
    return vectors[:, resolved] * np.sqrt(values[resolved])
