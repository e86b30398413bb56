"""EDM's stochastic sampler (Karras et al. 2022, algorithm 2): Heun steps with churn.

Each step begins by adding a little fresh noise ("churn"). The same is available with the steps of
Euler and DPM2: `s_churn` of k-diffusion's `sample_euler` and `sample_dpm_2`.

With u = sigma / alpha for their sigma and y = x / alpha for their x, before each of N steps:

    gamma  = min(S_churn / N, sqrt(2) - 1) where S_min <= u <= S_max, else 0                   (1)
    u_hat  = (1 + gamma) u
    y_hat  = y + S_noise sqrt(u_hat^2 - u^2) z                                                 (2)

For S_noise = 1, equation (2) is a step of the forward process, q(x_t_hat | x_t), so the marginals
are preserved. S_noise slightly above 1 compensates for a network that removes too much noise.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Count, Examples, Keys, Scalar
from genzoo.math import gaussian
from genzoo.samplers.runge_kutta import DPM2, Euler, Heun, RungeKutta


@dataclass(frozen=True, kw_only=True)
class Churned(RungeKutta):
    """A method whose steps start from the point of equation (2); unchanged for s_churn = 0.

    The noise is raised at most to that of the schedule's farthest time, so a step that begins there
    adds none. (EDM's code evaluates the network beyond sigma_max if S_max allows it; their own
    settings do not.) Where alpha_t = 0, x is pure noise already and stays unchanged.

    s_churn: the total amount of noise. s_min, s_max: the range of u = sigma / alpha in which noise
    is added. s_noise: S_noise of (2).
    """

    s_churn: float = 0.0
    s_min: float = 0.0
    s_max: float = float("inf")
    s_noise: float = 1.0

    def init(self, x: Examples, steps: Count) -> Scalar:
        """Gamma of equation (1) without the condition on u: a scalar."""
        return jnp.minimum(self.s_churn / steps, jnp.sqrt(2) - 1).astype(x.dtype)

    def before(
        self, x: Examples, t: Scalar, s: Scalar, keys: Keys, memory: Scalar
    ) -> tuple[Examples, Scalar]:
        """(x_hat, t_hat) of equation (2)."""
        del s
        if self.s_churn == 0:
            return x, t
        schedule, farthest = self.schedule, self.schedule.farthest
        finite = jnp.minimum(t, farthest)
        logsnr = schedule.logsnr(finite)
        u = jnp.exp(-logsnr / 2)
        gamma = jnp.where((self.s_min <= u) & (u <= self.s_max), memory, 0)
        raised = schedule.time_of_logsnr(logsnr - 2 * jnp.log1p(gamma))
        # Rounding must not move the start of a step that adds no noise.
        t_hat = jnp.where(gamma > 0, jnp.clip(raised, finite, farthest), finite)
        forward = gaussian.transition(schedule, x, t_hat, finite)
        noise = streams.normal(keys, x.shape[1:], x.dtype)
        x_hat = forward.mean + self.s_noise * jnp.sqrt(forward.variance) * noise
        return jnp.where(t > farthest, x, x_hat), jnp.where(t > farthest, t, t_hat)


class ChurnedEuler(Churned, Euler):
    """Euler's method with churn: one evaluation per step, at the raised noise level.

    (The Euler scheduler of diffusers, with the same s_churn, evaluates before the noise is raised.)
    """


class ChurnedDPM2(Churned, DPM2):
    """DPM2 with churn."""


class EDM(Churned, Heun):
    """Heun's method with churn: algorithm 2."""
