"""What a decoder's output says about the data: p(x | output), for autoencoders of every kind.

An observation model turns the decoder's raw channels into log-probabilities, a mean to look at and
samples. Data are in [-1, 1], with the channels last; what is of 8 bits lies on 256 levels.

    Bernoulli:  p(x = 1) = sigmoid(l), p(x = -1) = sigmoid(-l)                                (1)
    Gaussian:   p(x) = N(x; output, s^2), a density                                           (2)
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genzoo.core import streams
from genzoo.core.types import ArrayLike, Floats, Keys, Tree, Values
from genzoo.math import gaussian

Data = Float[ArrayLike, "*#lead C"]
Output = Float[ArrayLike, "*#lead O"]
"""O channels for the C of the data. The axes before broadcast."""
Outputs = Float[ArrayLike, "B *places O"]
Samples = Float[ArrayLike, "B *places C"]


class Observation(Protocol):
    """p(x | output). `own` are params of its own beside the decoder's, {} for most.

    density: whether log_prob is of a density and not of a probability. Every array may have any
    number of leading axes, and those of `x` and `output` broadcast.
    """

    density: bool

    def outputs(self, channels: int) -> int:
        """How many channels the decoder gives for data with so many."""

    def init(self) -> Tree:
        """Its own params at the start."""

    def observe(self, x: Values, uniform: Values) -> Values:
        """The data as this model takes them; uniform: noise in [0, 1) of the shape of x."""

    def inputs(self, x: Values) -> Values:
        """Observed data as an encoder is best given them."""

    def log_prob(self, own: Tree, output: Output, x: Data) -> Floats:
        """log p(x | output) in nats, by place or by value: the caller sums."""

    def mean(self, own: Tree, output: Output) -> Data:
        """E[x | output], of the shape of the data."""

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """x drawn from p(x | output), row i by keys[i] alone."""


@dataclass(frozen=True, kw_only=True)
class Bernoulli:
    """Equation (1). levels: grey data are made black and white, "stochastic" (white with the grey
    as probability, anew each time: Salakhutdinov & Murray 2008, Burda et al. 2016) or "threshold"
    (white above 1/2)."""

    levels: str = "stochastic"
    density: ClassVar[bool] = False

    def outputs(self, channels: int) -> int:
        """One logit per value."""
        return channels

    def init(self) -> Tree:
        """Nothing."""
        return {}

    def observe(self, x: Values, uniform: Values) -> Values:
        """x in [-1, 1] as -1 or 1."""
        white = (uniform if self.levels == "stochastic" else 0.5) < (x + 1) / 2
        return jnp.where(white, 1.0, -1.0).astype(x.dtype)

    def inputs(self, x: Values) -> Values:
        """0 or 1: most of a drawing is background, and a background of -1 adds up over all pixels
        in every unit of a dense layer. Learning is far slower then: after 39,000 steps of the IWAE
        recipe the bound on MNIST was 124 nats instead of 102."""
        return (x + 1) / 2

    def log_prob(self, own: Tree, output: Output, x: Data) -> Data:
        """Equation (1); of x between -1 and 1 the expectation over its binarisations."""
        return (x + 1) / 2 * output - jax.nn.softplus(output)

    def mean(self, own: Tree, output: Output) -> Data:
        """2 sigmoid(l) - 1."""
        return jnp.tanh(output / 2)

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """-1 or 1."""
        white = streams.uniform(keys, output.shape[1:]) < jax.nn.sigmoid(output)
        return jnp.where(white, 1.0, -1.0)


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Equation (2). scale: "fixed" at `std`, "shared" (one learned number that starts there: the
    optimal-sigma VAE of Rybkin et al. 2021) or "pixel" (a second output per value)."""

    scale: str = "fixed"
    std: float = 1.0
    density: ClassVar[bool] = True

    def outputs(self, channels: int) -> int:
        """The mean, and the log variance where it is of each pixel."""
        return channels * (2 if self.scale == "pixel" else 1)

    def init(self) -> Tree:
        """The logarithm of the shared variance, where it is learned."""
        if self.scale != "shared":
            return {}
        # Of a fixed type: a weakly typed param would change it at the first update.
        return {"log_variance": jnp.asarray(2 * math.log(self.std), jnp.float32)}

    def observe(self, x: Values, uniform: Values) -> Values:
        """The data as they are."""
        return x

    def inputs(self, x: Values) -> Values:
        """The data as they are."""
        return x

    def log_prob(self, own: Tree, output: Output, x: Data) -> Data:
        """log N(x; mean, variance), by value."""
        return gaussian.log_density(x, *self._moments(own, output))

    def mean(self, own: Tree, output: Output) -> Data:
        """The mean."""
        return self._moments(own, output)[0]

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """The mean and noise."""
        mean, log_variance = self._moments(own, output)
        noise = streams.normal(keys, mean.shape[1:])
        return mean + jnp.exp(0.5 * log_variance) * noise

    def _moments(self, own: Tree, output: Output) -> tuple[Data, Floats]:
        if self.scale == "pixel":
            mean, raw = jnp.split(output, 2, axis=-1)
            # Smoothly kept in (1e-5, 10): a decoder that is sure of a pixel has an unbounded reward
            # for being surer.
            return mean, bounded(raw, low=-11.5, high=2.3)
        if self.scale == "shared":
            # Data that are fitted to perfection would drive it to minus infinity.
            own_log_variance = jnp.asarray(own["log_variance"], output.dtype)
            return output, bounded(own_log_variance, low=-20.0, high=20.0)
        return output, jnp.asarray(2 * math.log(self.std), output.dtype)


def bounded(value: Values, *, low: float, high: float) -> Values:
    """`value` between the limits, bent smoothly where it comes near one: the gradient never dies
    at once, as it would with a clip. Well inside it is `value`."""
    return high - jax.nn.softplus(high - low - jax.nn.softplus(value - low))
