"""The steps of discrete diffusion: ancestral sampling (DDPM) and DDIM with its inversion.

All go from any time t to any other s of any schedule; on a table with neighbouring steps they are
the published ones, on a sub-sequence they are the respaced ones.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Array, Keys, broadcast
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Memoryless
from genzoo.samplers.predictor import Predict, Prediction


@dataclass(frozen=True, kw_only=True)
class Ancestral(Memoryless):
    """x_s ~ p_theta(x_s | x_t): posterior mean at the predicted x_0, chosen variance (Ho et al.
    2020, algorithm 2; learned variances: Nichol & Dhariwal 2021)."""

    schedule: Schedule
    variance: gaussian.ReverseVariance

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Array,
        t: Array,
        s: Array,
        keys: Keys,
        memory: Any,
    ) -> tuple[Array, Any]:
        """One draw."""
        del predict
        mean = gaussian.posterior(self.schedule, seen.x_0, x, t, s).mean
        log_variance = self.variance.log_variance(self.schedule, t, s, seen.extra)
        noise = streams.normal(keys, x.shape[1:], x.dtype)
        return mean + jnp.exp(0.5 * log_variance) * noise, memory


@dataclass(frozen=True, kw_only=True)
class DDIM(Memoryless):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z, d = eta x posterior deviation
    (Song et al. 2020, eq. 12 and 16). eta = 0 is deterministic, eta = 1 has the DDPM posterior.

    With eta = 0 and s > t it is its own inversion (Dhariwal & Nichol 2021, section F): the same
    line through the predicted data and noise, followed towards the noise.
    """

    schedule: Schedule
    eta: float = 0.0

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Array,
        t: Array,
        s: Array,
        keys: Keys,
        memory: Any,
    ) -> tuple[Array, Any]:
        """One step; deterministic for eta = 0."""
        del predict
        alpha, sigma = (broadcast(v, x) for v in (self.schedule.alpha(s), self.schedule.sigma(s)))
        if self.eta == 0:
            return alpha * seen.x_0 + sigma * seen.eps, memory
        deviation_square = self.eta**2 * gaussian.posterior_variance(self.schedule, t, s)
        direction = jnp.sqrt(jnp.square(sigma) - deviation_square)
        noise = streams.normal(keys, x.shape[1:], x.dtype)
        mean = alpha * seen.x_0 + direction * seen.eps
        return mean + jnp.sqrt(deviation_square) * noise, memory
