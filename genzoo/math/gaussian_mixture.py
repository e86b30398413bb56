"""Data whose distribution is known: a mixture of isotropic Gaussians under any noise schedule.

With x_t = alpha x_0 + sigma eps, component k of x_t is again Gaussian, Bayes' rule gives the
responsibilities r_k, and the optimal denoiser and the score have closed forms:

    p(x_t)       = sum_k w_k N(alpha m_k, v_k I),   v_k = alpha^2 d_k^2 + sigma^2          (1)
    r_k          = w_k N(x_t; alpha m_k, v_k I) / p(x_t)                                   (2)
    score        = -sum_k r_k (x_t - alpha m_k) / v_k                                      (3)
    E[x_0 | x_t] = sum_k r_k (m_k + alpha d_k^2 / v_k (x_t - alpha m_k))                   (4)
    E[eps | x_t] = -sigma score                                                            (5)

A sampler driven by (4) and (5) makes no errors but its own, and the density (1) measures them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genzoo.core.errors import UserError
from genzoo.core.types import Array, ArrayLike, Floats, Key, PerExample, Times, broadcast
from genzoo.math.prediction import Pair
from genzoo.math.schedules import Schedule

Points = Float[ArrayLike, "B D"]


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianMixture:
    """A mixture of K isotropic Gaussians in D dimensions.

    weights [K] (summing to one), means [K, D], standard deviations [K]; UserError for other shapes.
    Points x are [B, D]; alpha and sigma are [] or [B], by default those of the data. A component of
    deviation 0 is a point, which requires sigma > 0.
    """

    weights: Floats
    means: Floats
    deviations: Floats

    def __post_init__(self):
        shapes = tuple(np.shape(v) for v in (self.weights, self.means, self.deviations))
        if len(shapes[1]) != 2 or shapes[0] != shapes[1][:1] or shapes[2] != shapes[0]:
            raise UserError(
                f"a mixture takes weights [K], means [K, D] and deviations [K], got {shapes}."
            )

    def _offsets(self, x: Points, alpha: Times, sigma: Times) -> tuple[Floats, ...]:
        # weights [K], means [K, D], deviations [K], alpha [B, 1], v [B, K], x - alpha m [B, K, D].
        weights, means, deviations = (
            jnp.asarray(v, x.dtype) for v in (self.weights, self.means, self.deviations)
        )
        alpha, sigma = (broadcast(jnp.asarray(v, x.dtype), x) for v in (alpha, sigma))
        variance = jnp.square(alpha * deviations) + jnp.square(sigma)
        offset = x[:, None, :] - alpha[..., None] * means
        return weights, means, deviations, alpha, jnp.atleast_2d(variance), offset

    def _log_joint(self, weights: Floats, variance: Floats, offset: Floats) -> Floats:
        # log w_k N(x; alpha m_k, v_k I): [B, K].
        squares = jnp.square(offset).sum(-1) / variance
        log_scale = offset.shape[-1] * jnp.log(2 * jnp.pi * variance)
        return jnp.log(weights) - (squares + log_scale) / 2

    def log_density(self, x: Points, alpha: Times = 1.0, sigma: Times = 0.0) -> PerExample:
        """log p(x_t), equation (1), in nats: [B]."""
        weights, _, _, _, variance, offset = self._offsets(x, alpha, sigma)
        return jax.nn.logsumexp(self._log_joint(weights, variance, offset), axis=-1)

    def score(self, x: Points, alpha: Times = 1.0, sigma: Times = 0.0) -> Points:
        """The score, the gradient of `log_density`: equation (3), [B, D]."""
        weights, _, _, _, variance, offset = self._offsets(x, alpha, sigma)
        share = jax.nn.softmax(self._log_joint(weights, variance, offset), axis=-1)
        return -jnp.einsum("bk,bkd->bd", share / variance, offset)

    def posterior_mean(self, x: Points, alpha: Times, sigma: Times) -> Points:
        """E[x_0 | x_t = x], equation (4): [B, D]; the mean of the data at alpha = 0."""
        weights, means, deviations, alpha, variance, offset = self._offsets(x, alpha, sigma)
        share = jax.nn.softmax(self._log_joint(weights, variance, offset), axis=-1)
        gain = alpha * jnp.square(deviations) / variance
        return share @ means + jnp.einsum("bk,bkd->bd", share * gain, offset)

    def predict(self, schedule: Schedule) -> Callable[[Points, Times], Pair]:
        """The exact predictor: (x [B, D], t [] or [B], above 0) -> (E[x_0 | x_t], E[eps | x_t])."""

        def predict(x: Points, t: Times) -> Pair:
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            noise = -broadcast(sigma, x) * self.score(x, alpha, sigma)
            return Pair(self.posterior_mean(x, alpha, sigma), noise)

        return predict

    def sample(self, key: Key, count: int) -> Float[Array, "{count} D"]:
        """Draws of the data [count, D], float32."""
        which_key, noise_key = jax.random.split(key)
        which = jax.random.categorical(
            which_key, jnp.log(jnp.asarray(self.weights)), shape=(count,)
        )
        means, deviations = (jnp.asarray(v, jnp.float32) for v in (self.means, self.deviations))
        noise = jax.random.normal(noise_key, (count, means.shape[-1]), jnp.float32)
        return means[which] + deviations[which, None] * noise

    @property
    def mean(self) -> Float[np.ndarray, " D"]:
        """E[x_0], [D]."""
        return np.asarray(self.weights) @ np.asarray(self.means)

    @property
    def covariance(self) -> Float[np.ndarray, "D D"]:
        """Cov[x_0], [D, D]: the covariance of the means plus the variance within the components."""
        weights, means = np.asarray(self.weights), np.asarray(self.means) - self.mean
        within = weights @ np.square(self.deviations) * np.eye(means.shape[-1])
        return (weights[:, None] * means).T @ means + within
