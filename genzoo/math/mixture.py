"""A discretised mixture of logistics for 8-bit data (PixelCNN++: Salimans et al. 2017).

Every place of an image has K components, each a distribution over all channels of the place. Within
a component a channel is logistic, around a mean that is linear in the preceding channels:

    p(x) = sum_k w_k prod_c p(x_c | x_1 .. x_{c-1}, k)                                        (1)
    m_c = mean_c + sum_{d < c} tanh(coefficient_{c, d}) x_d       (red -> green -> blue)       (2)
    p(x_c | .., k) = sigmoid(a) - sigmoid(b),   a, b = (x_c - m_c +- 1 / 255) / s_c           (3)
                   = sigmoid(a) sigmoid(-b) (1 - exp(-(a - b)))                               (4)

The first and last bins extend to infinity: b = -inf and a = inf. (4) is (3) as a product, whose
logarithm is accurate wherever the bin lies and however little mass it has.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genzoo.core import streams
from genzoo.core.types import ArrayLike, Broadcast, Floats, Keys, Tree, Values
from genzoo.math.observation import Data, Output, Outputs, Samples, bounded


class Components(NamedTuple):
    """A decoder's output as K components for C channels."""

    log_weights: Float[ArrayLike, "*lead K"]  # their exponentials sum to one
    mean: Float[ArrayLike, "*lead C K"]
    log_scale: Float[ArrayLike, "*lead C K"]
    coefficients: Float[ArrayLike, "*lead C*(C-1)/2 K"]  # in (-1, 1): (2, 1), (3, 1), (3, 2) ..

    def mean_given(self, channel: int, earlier: list[Floats]) -> Float[ArrayLike, "*lead K"]:
        """Equation (2): the mean of a channel [..., K] given those before it, [..., 1 or K]."""
        first = channel * (channel - 1) // 2
        terms = (self.coefficients[..., first + d, :] * x for d, x in enumerate(earlier))
        return self.mean[..., channel, :] + sum(terms)


@dataclass(frozen=True, kw_only=True)
class LogisticMixture:
    """The observation model of equations (1) to (3), with K = `components`.

    Data are on the 256 levels k / 127.5 - 1, with any number of channels: one has no coefficients,
    three have three. The output's channels are K weights, C K means, C K log scales and C (C - 1) /
    2 K coefficients. Log scales are kept above -7, as in the paper, and below 7, with a smooth
    bend.
    """

    components: int = 10
    density: ClassVar[bool] = False

    def outputs(self, channels: int) -> int:
        """K (1 + 2 C + C (C - 1) / 2): 3 K for one channel, 10 K for three."""
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def init(self) -> Tree:
        """No params of its own."""
        return {}

    def observe(self, x: Values, uniform: Values) -> Values:
        """The data unchanged."""
        return x

    def inputs(self, x: Values) -> Values:
        """The data unchanged."""
        return x

    def log_prob(self, own: Tree, output: Output, x: Data) -> Float[ArrayLike, "*#lead"]:
        """Equation (1) in nats, per place: x [..., H, W, C] -> [..., H, W]."""
        parts = self._components(output)
        total = parts.log_weights
        for c in range(x.shape[-1]):
            value = x[..., c, None]
            mean = parts.mean_given(c, [x[..., d, None] for d in range(c)])
            total = total + log_bin(value, mean, parts.log_scale[..., c, :])
        return jax.nn.logsumexp(total, axis=-1)

    def mean(self, own: Tree, output: Output) -> Data:
        """E[x], [..., C]: exact for one channel of logistics that are clipped but not rounded.

        The 256 levels differ from these by half a level at most. With more channels, the mean of a
        channel is taken, within each component, at the means of the channels before it: because (2)
        is linear, this too is exact except for the clipping.
        """
        parts = self._components(output)
        means: list[Floats] = []
        for c in range(parts.mean.shape[-2]):
            means.append(clipped_mean(parts.mean_given(c, means), parts.log_scale[..., c, :]))
        weights = jnp.exp(parts.log_weights)
        return jnp.stack([(weights * mean).sum(-1) for mean in means], axis=-1)

    def sample(self, own: Tree, output: Outputs, keys: Keys) -> Samples:
        """Samples on the 256 levels, [B, .., C], exactly from (1).

        A component is drawn first, then channel by channel.
        """
        parts = self._components(output)
        of_component, of_channels = streams.fold(keys, 0), streams.fold(keys, 1)
        # With Gumbel noise added to the log weights, the largest is at k with probability w_k.
        shape = parts.log_weights.shape[1:]
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, shape))(of_component)
        chosen = jnp.argmax(parts.log_weights + gumbel, axis=-1)[..., None, None]
        of_chosen = (jnp.take_along_axis(part, chosen, axis=-1) for part in parts[1:])
        one = Components(jnp.zeros(()), *of_chosen)
        shape = parts.mean.shape[1:-1]
        noise = jax.vmap(lambda key: jax.random.logistic(key, shape))(of_channels)
        channels: list[Floats] = []
        for c in range(shape[-1]):
            spread = jnp.exp(one.log_scale[..., c, :]) * noise[..., c, None]
            level = jnp.round((one.mean_given(c, channels) + spread + 1) * 127.5)
            channels.append(jnp.clip(level / 127.5 - 1, -1, 1))
        return jnp.concatenate(channels, axis=-1)

    def _components(self, output: Output) -> Components:
        size = output.shape[-1] // self.components
        # The inverse of `outputs`: size = (C + 1) (C + 2) / 2.
        channels = (math.isqrt(8 * size + 1) - 3) // 2
        if self.outputs(channels) != output.shape[-1]:
            raise ValueError(f"{output.shape[-1]} outputs are none of {self}")
        rows = output.reshape(*output.shape[:-1], size, self.components)
        logits, mean, raw, coefficients = jnp.split(
            rows, (1, 1 + channels, 1 + 2 * channels), axis=-2
        )
        return Components(
            jax.nn.log_softmax(logits[..., 0, :], axis=-1),
            mean,
            bounded(raw, low=-7.0, high=7.0),
            jnp.tanh(coefficients),
        )


def log_bin(x: Broadcast, mean: Broadcast, log_scale: Broadcast) -> Broadcast:
    """Equation (4): log of the mass that a logistic gives the bin of x, in nats, elementwise.

    Arguments broadcast. x: on the 256 levels.
    """
    inverse_scale = jnp.exp(-log_scale)
    above = (x - mean + 1 / 255) * inverse_scale
    below = (x - mean - 1 / 255) * inverse_scale
    # With a margin of a quarter of a level: rounding must not decide whether a bin is at an end.
    first, last = x < -1 + 0.5 / 255, x > 1 - 0.5 / 255
    # a - b from the scale alone: far from the mean, the difference of a and b would cancel.
    width = jnp.log(-jnp.expm1(-2 / 255 * inverse_scale))
    return (
        jnp.where(last, 0, jax.nn.log_sigmoid(above))
        + jnp.where(first, 0, jax.nn.log_sigmoid(-below))
        + jnp.where(first | last, 0, width)
    )


def clipped_mean(mean: Broadcast, log_scale: Broadcast) -> Broadcast:
    """E[clip(x, -1, 1)] of a logistic, elementwise: -1 + the integral of P(x > y) over [-1, 1].

    This is -1 + s (softplus((m + 1) / s) - softplus((m - 1) / s)), without what the terms have in
    common.
    """
    scale = jnp.exp(log_scale)

    def tail(y):
        # s softplus(y / s) - max(y, 0), in stable form
        return scale * jnp.log1p(jnp.exp(-jnp.abs(y) / scale))

    return jnp.clip(mean, -1, 1) + tail(mean + 1) - tail(mean - 1)
