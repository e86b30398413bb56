"""The critic of pix2pix, which scores overlapping patches of an image.

Isola et al. 2017 (Image-to-image translation with conditional adversarial networks); Esser et al.
2021 use it for VQGAN. With a the leaky ReLU of slope 0.2 and windows of four:

    a(conv / 2),  a(norm(conv / 2)) `layers` - 1 times,  a(norm(conv)),  conv to one score      (1)

The channels double from convolution to convolution, up to eight times the first ones. Three layers
give scores of patches with 70 x 70 pixels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.counts import norm

_WINDOW, _SLOPE = 4, 0.2
_MOST = 8  # the last maps have at most this many times the channels of the first
_START = nn.initializers.normal(0.02)
_EPSILON = 1e-5
SMALLEST = 3
"""The smallest side that an image may have after it was halved `layers` times."""


def _gain(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


class BatchNorm(nn.Module):
    """(x [B, *size, C], mask [B] or None) -> mean 0 and variance 1 for each channel, float32.

    The statistics are over the positions of all examples of the batch, on all devices, except where
    the mask is 0 (padding, which must be finite). There are no running statistics: the scores of a
    critic serve losses only, and those of an image always depend on the rest of its batch.
    """

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        gain = self.param("scale", _gain, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:])
        x = x.astype(jnp.float32)
        real = None if mask is None else (mask > 0).reshape(-1, *(1,) * (x.ndim - 1))
        axes = tuple(range(x.ndim - 1))
        centred = x - x.mean(axes, where=real)
        variance = jnp.square(centred).mean(axes, where=real)
        return centred * jax.lax.rsqrt(variance + _EPSILON) * gain + bias


class PatchCritic(nn.Module):
    """(x [B, *size, C], mask [B] or None) -> scores [B, *patches] float32, higher for data.

    Equation (1). width: channels of the first maps. mask: 0 for padding. size: sides that are at
    least `SMALLEST` after `layers` halvings.
    """

    width: int
    layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, mask: Array | None, train: bool) -> Array:
        del train
        for i in range(self.layers + 1):
            x = self._conv(x, channels_of(self.width, i), 2 if i < self.layers else 1, f"conv_{i}")
            x = BatchNorm(name=f"norm_{i}")(x, mask) if i else x
            x = jax.nn.leaky_relu(x, _SLOPE)
        return self._conv(x, 1, 1, "out")[..., 0].astype(jnp.float32)

    def _conv(self, x: Array, features: int, stride: int, name: str) -> Array:
        axes = x.ndim - 2
        return nn.Conv(
            features, (_WINDOW,) * axes, strides=(stride,) * axes, padding=1, kernel_init=_START,
            use_bias=name in ("conv_0", "out"),  # a norm follows the others
            dtype=self.dtype, name=name,
        )(x)  # fmt: skip


def channels_of(width: int, layer: int) -> int:
    """The channels of a map."""
    return width * min(2**layer, _MOST)


def critic_params(axes: int, channels: int, width: int, layers: int) -> int:
    """The params of a `PatchCritic` of images with `channels`."""
    taps, total = _WINDOW**axes, 0
    for i in range(layers + 1):
        outputs = channels_of(width, i)
        total += taps * channels * outputs + (norm(outputs) if i else outputs)
        channels = outputs
    return total + taps * channels + 1
