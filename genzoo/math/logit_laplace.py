"""The logit-Laplace observation model of the dVAE (Ramesh et al. 2021, appendix A.3).

Data in [-1, 1] are mapped into the interior of (0, 1), where the logit has a Laplace density:

    y = phi(x) = (1 - 2 epsilon) (x + 1) / 2 + epsilon                                        (1)
    f(y) = 1 / (2 b y (1 - y)) exp(-|logit y - mu| / b),  a density of y in (0, 1)            (2)
    p(x) = f(phi(x)) (1 - 2 epsilon) / 2,                 a density of x                      (3)

(3) integrates to one over all x that phi maps to (0, 1): |x| < 1 / (1 - 2 epsilon), slightly more
than [-1, 1]. The mass outside [-1, 1] is wasted on data, like the tails of a Gaussian, and is not
divided out. The paper's own figure, a density of y, is the log of (3) less log((1 - 2 epsilon) / 2)
per value.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from genzoo.core.types import Floats, Keys, Tree, Values
from genzoo.math.observation import Data, Output, Outputs, Samples, bounded


@dataclass(frozen=True, kw_only=True)
class LogitLaplace:
    """Equation (3). epsilon: the distance that the data keep from 0 and 1, in (0, 1/2).

    The output's channels are mu for every channel, then log b, kept in (-7, 7) with a smooth bend.
    """

    epsilon: float = 0.1
    density: ClassVar[bool] = True

    def outputs(self, channels: int) -> int:
        """mu and log b."""
        return 2 * channels

    def init(self) -> Tree:
        """No params of its own."""
        return {}

    def observe(self, x: Values, uniform: Values) -> Values:
        """The data unchanged."""
        return x

    def inputs(self, x: Values) -> Values:
        """The data unchanged."""
        return x

    def log_prob(self, own: Tree, output: Output, x: Data) -> Data:
        """Equation (3) in nats, per value."""
        mu, log_b = _split(output)
        y = (1 - 2 * self.epsilon) * (x + 1) / 2 + self.epsilon
        log_y, log_rest = jnp.log(y), jnp.log1p(-y)
        distance = jnp.abs(log_y - log_rest - mu) * jnp.exp(-log_b)
        slope = math.log((1 - 2 * self.epsilon) / 2)
        return slope - math.log(2) - log_b - log_y - log_rest - distance

    def mean(self, own: Tree, output: Output) -> Data:
        """The median: the inverse of phi at sigmoid(mu), clipped to [-1, 1].

        This is what the paper shows; the mean has no closed form.
        """
        return jnp.clip(self._inverse(_split(output)[0]), -1, 1)

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """Samples of (3), not clipped: up to 1 / (1 - 2 epsilon) in magnitude."""
        mu, log_b = _split(output)
        noise = jax.vmap(lambda key: jax.random.laplace(key, mu.shape[1:]))(keys)
        return self._inverse(mu + jnp.exp(log_b) * noise)

    def _inverse(self, logit: Values) -> Values:
        # 2 sigmoid(l) - 1 = tanh(l / 2), and phi shrinks [-1, 1] about its centre.
        return jnp.tanh(logit / 2) / (1 - 2 * self.epsilon)


def _split(output: Output) -> tuple[Floats, Floats]:
    mu, raw = jnp.split(output, 2, axis=-1)
    return mu, bounded(raw, low=-7.0, high=7.0)
