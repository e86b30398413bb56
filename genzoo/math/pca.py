"""Principal components, and the Gaussian model that they fit by maximum likelihood.

The fit runs in NumPy float64 on the host, in one pass over the data; the model is jnp.

    S = 1/N sum_i (x_i - mean) (x_i - mean)^T = sum_j lambda_j u_j u_j^T,  lambda decreasing  (1)
    scatter_{ab} = scatter_a + scatter_b + n_a n_b / (n_a + n_b) delta delta^T,
                   delta = mean_b - mean_a                               (Chan et al. 1983)   (2)

Probabilistic PCA (Tipping & Bishop 1999): p(z) = N(0, I_q), p(x | z) = N(mean + W z, sigma^2 I).
Its maximum-likelihood solution, with U = (u_1 .. u_q) and L = diag(lambda_1 .. lambda_q):

    sigma^2 = mean of lambda_{q+1} .. lambda_D,   W = U (L - sigma^2)^{1/2}                   (3)
    p(x) = N(mean, C),   C = W W^T + sigma^2 I = U L U^T + sigma^2 (I - U U^T)                (4)
    C^{-1} = U L^{-1} U^T + (I - U U^T) / sigma^2,
    log det C = sum_j log lambda_j + (D - q) log sigma^2                                      (5)
    p(z | x) = N(L^{-1} (L - sigma^2)^{1/2} U^T (x - mean), sigma^2 L^{-1})                   (6)
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from genzoo.core.types import ArrayLike, Floats, PerExample, Scalar

Vector = Float64[np.ndarray, " D"]
Matrix = Float64[np.ndarray, "D D"]
Data = Float[ArrayLike, "B D"]
Coefficients = Float[ArrayLike, "B q"]


@dataclass(frozen=True)
class Moments:
    """What one pass over the data accumulates: the count, mean [D] and scatter [D, D]."""

    count: int
    mean: Vector
    scatter: Matrix

    @classmethod
    def none(cls, dimensions: int) -> "Moments":
        """The moments of no data."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    def with_batch(self, x: Data) -> "Moments":
        """The moments with the rows of x [B, D] added: equation (2)."""
        if not len(x):
            return self
        x = np.asarray(x, np.float64)
        mean = x.mean(0)
        total = self.count + len(x)
        delta = mean - self.mean
        # The outer product of (2) enters as one more row, which saves a second [D, D] array.
        rows = np.concatenate([x - mean, np.sqrt(self.count * len(x) / total) * delta[None]])
        return Moments(total, self.mean + len(x) / total * delta, self.scatter + rows.T @ rows)

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both data sets together: equation (2)."""
        total = self.count + other.count
        if not total:
            return self
        delta = other.mean - self.mean
        row = np.sqrt(self.count * other.count / total) * delta
        scatter = self.scatter + other.scatter + np.outer(row, row)
        return Moments(total, self.mean + other.count / total * delta, scatter)

    @property
    def covariance(self) -> Matrix:
        """S of equation (1), [D, D]: divided by N, not N - 1."""
        return self.scatter / max(self.count, 1)


RANK_TOLERANCE = 1e-10
"""An eigenvalue below this share of the largest counts as 0: float32 data cannot resolve it."""


class Fit(NamedTuple):
    """The first q principal components, float64, and a summary of the others."""

    mean: Vector
    components: Float64[np.ndarray, "D q"]  # orthonormal; the largest entry of each is positive
    variances: Float64[np.ndarray, " q"]  # decreasing
    total_variance: float  # the sum of all D eigenvalues
    rank: int  # the number of directions in which the data vary

    @property
    def noise_variance(self) -> float:
        """sigma^2 of equation (3); 0 if the q components hold all the variance."""
        dimensions, q = self.components.shape
        if q >= min(self.rank, dimensions):
            return 0.0
        return (self.total_variance - self.variances.sum()) / (dimensions - q)


def principal_components(moments: Moments, q: int) -> Fit:
    """Equation (1) for the q <= D largest eigenvalues."""
    values, vectors = np.linalg.eigh(moments.covariance)
    # Rounding can make zero eigenvalues negative.
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1][:, :q]
    largest = vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])]
    return Fit(
        mean=moments.mean,
        components=vectors * np.where(largest < 0, -1, 1),
        variances=values[:q],
        total_variance=float(values.sum()),
        rank=int((values > RANK_TOLERANCE * values[0]).sum()),
    )


class Probabilistic(NamedTuple):
    """Probabilistic PCA: the model of equation (4)."""

    mean: Float[ArrayLike, " D"]
    components: Float[ArrayLike, "D q"]  # U, orthonormal
    variances: Float[ArrayLike, " q"]  # lambda_1 .. lambda_q
    noise_variance: Scalar  # sigma^2

    def coefficients(self, x: Data) -> Coefficients:
        """U^T (x - mean): [B, D] -> [B, q], in the units of the data."""
        return _product(x - self.mean, self.components)

    def from_coefficients(self, coefficients: Coefficients) -> Data:
        """mean + U c: [B, q] -> [B, D]; of `coefficients(x)`, the orthogonal projection of x."""
        return self.mean + _product(coefficients, self.components.T)

    def mean_given(self, z: Coefficients) -> Data:
        """E[x | z] = mean + W z: [B, q] -> [B, D]."""
        return self.from_coefficients(z * jnp.sqrt(self._excess))

    def posterior(self, x: Data) -> tuple[Coefficients, Float[ArrayLike, " q"]]:
        """Equation (6): the mean [B, q] and the variances [q] of p(z | x), which is diagonal."""
        shrunk = self.coefficients(x) * jnp.sqrt(self._excess) / self.variances
        return shrunk, self.noise_variance / self.variances

    def negative_log_likelihood(self, x: Data) -> tuple[PerExample, Scalar]:
        """-log p(x) in nats as two terms, [B, D] -> ([B], []).

        The terms are half the squared Mahalanobis distance and half of log det (2 pi C). By
        equation (5), without an array of [D, D].
        """
        dimensions, q = self.components.shape
        coefficients = self.coefficients(x)
        rest = x - self.from_coefficients(coefficients)
        inside = (jnp.square(coefficients) / self.variances).sum(-1)
        outside = jnp.square(rest).sum(-1) / self.noise_variance
        log_det = jnp.log(self.variances).sum() + (dimensions - q) * jnp.log(self.noise_variance)
        return (inside + outside) / 2, (log_det + dimensions * jnp.log(2 * jnp.pi)) / 2

    def sample(self, z: Coefficients, noise: Data) -> Data:
        """A sample of p(x | z), from standard normal z [B, q] and noise [B, D]."""
        return self.mean_given(z) + jnp.sqrt(self.noise_variance) * noise

    @property
    def _excess(self) -> Float[ArrayLike, " q"]:
        # lambda_j - sigma^2, which rounding could make negative where they are equal.
        return jnp.maximum(self.variances - self.noise_variance, 0)


def _product(a: Floats, b: Floats) -> Floats:
    # In full float32 precision: accelerators use less by default, and sigma^2 may be small.
    return jnp.matmul(a, b, precision="highest")
