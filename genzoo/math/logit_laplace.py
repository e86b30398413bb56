"""The logit-Laplace observation model of the dVAE (Ramesh et al. 2021, appendix A.3).

Data in [-1, 1] are squeezed into the inside of (0, 1), where a Laplace density of the logit lives:

    y = phi(x) = (1 - 2 epsilon) (x + 1) / 2 + epsilon                                        (1)
    f(y) = 1 / (2 b y (1 - y)) exp(-|logit y - mu| / b),  a density of y in (0, 1)            (2)
    p(x) = f(phi(x)) (1 - 2 epsilon) / 2,                 a density of x                      (3)

(3) integrates to one over all x that phi takes to (0, 1): |x| < 1 / (1 - 2 epsilon), a little more
than [-1, 1]. What lies outside [-1, 1] is lost on data, as the tails of a Gaussian are; it is not
divided out. The paper's own figure, a density of y, is (3) less log((1 - 2 epsilon) / 2) per value.
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
    """Equation (3). epsilon: in (0, 1/2), how far from 0 and 1 the data are kept.

    The output's channels are mu for every channel, then log b, kept in (-7, 7), bent smoothly.
    """

    epsilon: float = 0.1
    density: ClassVar[bool] = True

    def outputs(self, channels: int) -> int:
        """mu and log b."""
        return 2 * channels

    def init(self) -> Tree:
        """Nothing."""
        return {}

    def observe(self, x: Values, uniform: Values) -> Values:
        """The data as they are."""
        return x

    def inputs(self, x: Values) -> Values:
        """The data as they are."""
        return x

    def log_prob(self, own: Tree, output: Output, x: Data) -> Data:
        """Equation (3) in nats, by value."""
        mu, log_b = _split(output)
        y = (1 - 2 * self.epsilon) * (x + 1) / 2 + self.epsilon
        log_y, log_rest = jnp.log(y), jnp.log1p(-y)
        distance = jnp.abs(log_y - log_rest - mu) * jnp.exp(-log_b)
        slope = math.log((1 - 2 * self.epsilon) / 2)
        return slope - math.log(2) - log_b - log_y - log_rest - distance

    def mean(self, own: Tree, output: Output) -> Data:
        """The inverse of phi at sigmoid(mu), clipped to [-1, 1]: the median, which is what the
        paper shows; the mean has no closed form."""
        return jnp.clip(self._inverse(_split(output)[0]), -1, 1)

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """x drawn from (3), not clipped: up to 1 / (1 - 2 epsilon) in size."""
        mu, log_b = _split(output)
        noise = jax.vmap(lambda key: jax.random.laplace(key, mu.shape[1:]))(keys)
        return self._inverse(mu + jnp.exp(log_b) * noise)

    def _inverse(self, logit: Values) -> Values:
        # 2 sigmoid(l) - 1 = tanh(l / 2), and phi shrinks [-1, 1] around its middle.
        return jnp.tanh(logit / 2) / (1 - 2 * self.epsilon)


def _split(output: Output) -> tuple[Floats, Floats]:
    mu, raw = jnp.split(output, 2, axis=-1)
    return mu, bounded(raw, low=-7.0, high=7.0)
