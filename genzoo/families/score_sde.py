"""Score-based models of stochastic differential equations (Song et al. 2021, "Score-based
generative modeling through stochastic differential equations").

    dx = f(t) x dt + g(t) dw,   f = alpha' / alpha,   g^2 = d sigma^2 / dt - 2 f sigma^2        (1)
    dx = (f x - g^2 score) dt + g dw,   backwards in time                                       (2)
    dx = (f x - g^2 score / 2) dt,      with the same marginals: the probability flow           (3)

VP, sub-VP and VE differ in their schedule alone. Trained with the "simple" weighting each noise
level counts alike; with the likelihood weighting g^2 the loss bounds the likelihood of (3), and
drawing t in proportion to g^2 / sigma^2 takes the variance out of that weight (Song et al. 2021b).
"""

from dataclasses import dataclass

import jax.numpy as jnp

from genzoo.core.types import Array
from genzoo.families.continuous import ContinuousDenoising
from genzoo.families.denoising import Noise, thousandths
from genzoo.math.schedules import Schedule

LIKELIHOOD_END = 1e-5
"""The time at which the likelihood takes the data to be, nearer to them than samplers go."""


def log_noise(schedule: Schedule, t: Array) -> Array:
    """1000 log sigma: what NCSN++ of the VE process is told, in its Fourier features' unit."""
    return 1000 * jnp.log(schedule.sigma(t))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreSDE(ContinuousDenoising):
    """The family: (1) by its schedule; its samplers are (2) and (3).

    told: what the network is told of the time.
    """

    told: Noise = thousandths

    def noise_label(self, schedule: Schedule, t: Array) -> Array:
        """As the family was told."""
        return self.told(schedule, t)
