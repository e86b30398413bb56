"""Observation models p(x | output) of a decoder's output, for autoencoders of every kind.

An observation model turns the decoder's raw channels into log-probabilities, a mean for display and
samples. Data are in [-1, 1] with the channels last; 8-bit data lie on 256 levels.

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
"""Data of C channels. The leading axes broadcast against those of the output."""
Output = Float[ArrayLike, "*#lead O"]
"""A decoder's output: O channels, by `Observation.outputs`, for the C of the data."""
Outputs = Float[ArrayLike, "B *places O"]
"""A decoder's output for each example, to sample from."""
Samples = Float[ArrayLike, "B *places C"]
"""One sample for each output."""


class Observation(Protocol):
    """The interface of p(x | output).

    `own` holds the model's own params besides the decoder's, {} for most. density: whether
    `log_prob` is of a density rather than a probability. Every array may have any number of leading
    axes, and those of `x` and `output` broadcast.
    """

    density: bool

    def outputs(self, channels: int) -> int:
        """The number of channels that the decoder outputs for data with `channels` channels."""

    def init(self) -> Tree:
        """The initial values of its own params."""

    def observe(self, x: Values, uniform: Values) -> Values:
        """The data as this model observes them; uniform: noise in [0, 1) of the shape of x."""

    def inputs(self, x: Values) -> Values:
        """Observed data in the form that suits an encoder's input."""

    def log_prob(self, own: Tree, output: Output, x: Data) -> Floats:
        """log p(x | output) in nats, per place or per value: the caller sums."""

    def mean(self, own: Tree, output: Output) -> Data:
        """E[x | output], of the shape of the data."""

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """Samples of p(x | output), row i from keys[i] alone."""


@dataclass(frozen=True, kw_only=True)
class Bernoulli:
    """Equation (1), for data in black and white.

    levels: how grey data are binarised, by "stochastic" (white with the grey value as probability,
    drawn again each time: Salakhutdinov & Murray 2008, Burda et al. 2016) or "threshold" (white
    above 1/2).
    """

    levels: str = "stochastic"
    density: ClassVar[bool] = False

    def outputs(self, channels: int) -> int:
        """One logit per value."""
        return channels

    def init(self) -> Tree:
        """No params of its own."""
        return {}

    def observe(self, x: Values, uniform: Values) -> Values:
        """x in [-1, 1], binarised to -1 or 1."""
        white = (uniform if self.levels == "stochastic" else 0.5) < (x + 1) / 2
        return jnp.where(white, 1.0, -1.0).astype(x.dtype)

    def inputs(self, x: Values) -> Values:
        """x as 0 or 1.

        Most of a drawing is background, and a background of -1 would add up over all pixels in
        every unit of a dense layer, which slows learning down: after 39,000 steps of the IWAE
        recipe the bound on MNIST was 124 nats instead of 102.
        """
        return (x + 1) / 2

    def log_prob(self, own: Tree, output: Output, x: Data) -> Data:
        """Equation (1); for x between -1 and 1, the expectation over its binarisations."""
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
    """Equation (2), with a fixed or learned scale.

    scale: "fixed" at `std`; "shared", one learned number that starts at `std` (the optimal-sigma
    VAE of Rybkin et al. 2021); or "pixel", a second output per value.
    """

    scale: str = "fixed"
    std: float = 1.0
    density: ClassVar[bool] = True

    def outputs(self, channels: int) -> int:
        """The mean of each value, and its log variance if the scale is per pixel."""
        return channels * (2 if self.scale == "pixel" else 1)

    def init(self) -> Tree:
        """The log of the shared variance, if it is learned."""
        if self.scale != "shared":
            return {}
        # With an explicit type: a weakly typed param would change its type at the first update.
        return {"log_variance": jnp.asarray(2 * math.log(self.std), jnp.float32)}

    def observe(self, x: Values, uniform: Values) -> Values:
        """The data unchanged."""
        return x

    def inputs(self, x: Values) -> Values:
        """The data unchanged."""
        return x

    def log_prob(self, own: Tree, output: Output, x: Data) -> Data:
        """log N(x; mean, variance), per value."""
        return gaussian.log_density(x, *self._moments(own, output))

    def mean(self, own: Tree, output: Output) -> Data:
        """The mean."""
        return self._moments(own, output)[0]

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """The mean plus noise."""
        mean, log_variance = self._moments(own, output)
        noise = streams.normal(keys, mean.shape[1:])
        return mean + jnp.exp(0.5 * log_variance) * noise

    def _moments(self, own: Tree, output: Output) -> tuple[Data, Floats]:
        if self.scale == "pixel":
            mean, raw = jnp.split(output, 2, axis=-1)
            # The variance stays in (1e-5, 10): a decoder that is certain of a pixel would otherwise
            # gain without bound by becoming more certain.
            return mean, bounded(raw, low=-11.5, high=2.3)
        if self.scale == "shared":
            # A perfect fit would drive it to minus infinity.
            own_log_variance = jnp.asarray(own["log_variance"], output.dtype)
            return output, bounded(own_log_variance, low=-20.0, high=20.0)
        return output, jnp.asarray(2 * math.log(self.std), output.dtype)


def bounded(value: Values, *, low: float, high: float) -> Values:
    """`value` kept between the limits, with a smooth bend near each of them.

    The gradient never vanishes abruptly, as it would with a clip. Well inside the limits the result
    is `value`.
    """
    return high - jax.nn.softplus(high - low - jax.nn.softplus(value - low))
