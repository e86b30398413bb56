"""The steps of discrete diffusion: ancestral sampling (DDPM) and DDIM.

Both go from any time t to any s < t of any schedule; on a table with neighbouring steps they are
the published ones, on a sub-sequence they are the respaced ones. At s = 0 both end at the
predicted x_0 without noise.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Array, Keys, broadcast
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.predictor import Predict


class OneEvaluation:
    """What steps share that evaluate the predictor once and remember nothing."""

    evaluations = 1

    def init(self, x: Array) -> Any:
        """No memory."""
        del x
        return ()


@dataclass(frozen=True, kw_only=True)
class Ancestral(OneEvaluation):
    """x_s ~ p_theta(x_s | x_t): posterior mean at the predicted x_0, chosen variance (Ho et al.
    2020, algorithm 2; learned variances: Nichol & Dhariwal 2021)."""

    schedule: Schedule
    variance: gaussian.ReverseVariance

    def __call__(
        self, predict: Predict, x: Array, t: Array, s: Array, keys: Keys, memory: Any
    ) -> tuple[Array, Any]:
        """One draw; at s = 0 the mean alone."""
        seen = predict(x, t)
        mean = gaussian.posterior(self.schedule, seen.x_0, x, t, s).mean
        log_variance = self.variance.log_variance(self.schedule, t, s, seen.extra)
        noise = streams.normal(keys, x.shape[1:], x.dtype)
        return mean + jnp.where(s > 0, jnp.exp(0.5 * log_variance), 0) * noise, memory


@dataclass(frozen=True, kw_only=True)
class DDIM(OneEvaluation):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z, d = eta x posterior deviation
    (Song et al. 2020, eq. 12 and 16). eta = 0 is deterministic, eta = 1 has the DDPM posterior."""

    schedule: Schedule
    eta: float = 0.0

    def __call__(
        self, predict: Predict, x: Array, t: Array, s: Array, keys: Keys, memory: Any
    ) -> tuple[Array, Any]:
        """One step; deterministic for eta = 0."""
        seen = predict(x, t)
        deviation_square = self.eta**2 * gaussian.posterior_variance(self.schedule, t, s)
        direction = jnp.sqrt(jnp.square(self.schedule.sigma(s)) - deviation_square)
        x_s = broadcast(self.schedule.alpha(s), x) * seen.x_0 + direction * seen.eps
        if self.eta > 0:
            x_s += jnp.sqrt(deviation_square) * streams.normal(keys, x.shape[1:], x.dtype)
        return x_s, memory
