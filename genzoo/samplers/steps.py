"""The steps of discrete diffusion: ancestral sampling (DDPM), and DDIM with its inversion.

Each goes from any time t to any other time s on any schedule. Between neighbouring steps of a table
they are the published steps, on a sub-sequence the respaced ones.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Examples, Keys, Scalar, broadcast
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Memoryless
from genzoo.samplers.predictor import Predict, Prediction


@dataclass(frozen=True, kw_only=True)
class Ancestral(Memoryless):
    """x_s ~ p_theta(x_s | x_t), with the posterior mean at the predicted x_0.

    The variance is a choice (Ho et al. 2020, algorithm 2; learned: Nichol & Dhariwal 2021).
    """

    schedule: Schedule
    variance: gaussian.ReverseVariance

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: Any,
    ) -> tuple[Examples, Any]:
        """One draw."""
        del predict
        mean = gaussian.posterior(self.schedule, seen.x_0, x, t, s).mean
        log_variance = self.variance.log_variance(self.schedule, t, s, seen.extra)
        noise = streams.normal(keys, x.shape[1:], x.dtype)
        return mean + jnp.exp(0.5 * log_variance) * noise, memory


@dataclass(frozen=True, kw_only=True)
class DDIM(Memoryless):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z, with d = eta x posterior deviation.

    Song et al. 2020, eq. 12 and 16. eta = 0 is deterministic, eta = 1 has the DDPM posterior.

    With eta = 0 and s > t it is its own inversion (Dhariwal & Nichol 2021, section F): it follows
    the same line through the predicted data and noise, towards the noise.
    """

    schedule: Schedule
    eta: float = 0.0

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: Any,
    ) -> tuple[Examples, Any]:
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
