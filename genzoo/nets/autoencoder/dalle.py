"""The encoder and decoder of DALL-E's discrete VAE: residual blocks, max-pooling, upsampling.

Ramesh et al. 2021 (Zero-shot text-to-image generation), appendix A.1, and the authors' published
encoder and decoder. A block is x -> shortcut(x) + residual path(x) / (number of blocks)^2.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from genzoo.core.bounds import AtLeast, Limit, OneOf
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.counts import conv, largest
from genzoo.nets.parts.layers import DTYPES, ZEROS, double
from genzoo.nets.parts.problems import indivisible

FAN_IN_NORMAL = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


@dataclass(frozen=True, kw_only=True)
class DVAENetworks:
    """The three networks of a discrete VAE.

    encoder: x [B, *size, C] -> logits [B, *grid, vocabulary] float32.
    embed: code weights [B, *grid, vocabulary], one-hot or soft -> [B, *grid, initial] float32.
    decoder: [B, *grid, initial] -> [B, *size, decoded] float32.
    grid: the sides of the grid of codes. `embed` and `decoder` together are the published decoder.
    """

    encoder: Network
    embed: Network
    decoder: Network
    grid: tuple[int, ...]


def _conv(x: Array, features: int, window: int, dtype: jnp.dtype, name: str) -> Array:
    return nn.Conv(
        features,
        (window,) * (x.ndim - 2),
        kernel_init=FAN_IN_NORMAL,
        bias_init=ZEROS,
        dtype=dtype,
        name=name,
    )(x)


class Block(nn.Module):
    """x [B, *size, C] -> shortcut + post_gain * residual path, [B, *size, features].

    The residual path has four convolutions with the given windows, each after a ReLU. All but the
    last have features / 4 channels.
    """

    features: int
    windows: tuple[int, int, int, int]
    post_gain: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = self.features // 4
        h = x
        for i, (features, window) in enumerate(
            zip((hidden, hidden, hidden, self.features), self.windows, strict=True)
        ):
            h = _conv(jax.nn.relu(h), features, window, self.dtype, f"conv_{i}")
        if x.shape[-1] != self.features:
            x = _conv(x, self.features, 1, self.dtype, "shortcut")
        return x + self.post_gain * h


def _block_params(axes: int, inputs: int, features: int, windows: tuple[int, ...]) -> int:
    hidden = features // 4
    widths = (inputs, hidden, hidden, hidden, features)
    total = sum(conv(axes, a, b, w) for (a, b), w in zip(pairwise(widths), windows, strict=True))
    return total + (conv(axes, inputs, features, 1) if inputs != features else 0)


def _pool(x: Array) -> Array:
    """Max-pooling over windows of side two: [B, *size, C] -> [B, *size / 2, C]."""
    # Maxima of two slices, because a windowed maximum has a gradient 25 times slower on a CPU.
    for axis in range(1, x.ndim - 1):
        halves = (lax.slice_in_dim(x, i, None, stride=2, axis=axis) for i in (0, 1))
        x = jnp.maximum(*halves)
    return x


class Encoder(nn.Module):
    """x [B, *size, C] -> logits [B, *size / 2^(groups - 1), vocabulary] float32."""

    vocabulary: int
    width: int
    groups: int
    blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        post_gain = (self.groups * self.blocks) ** -2
        h = _conv(x, self.width, 7, self.dtype, "entry")
        for group in range(self.groups):
            h = _pool(h) if group else h
            for i in range(self.blocks):
                h = Block(
                    self.width << group, (3, 3, 3, 1), post_gain, self.dtype,
                    name=f"group_{group}_block_{i}",
                )(h)  # fmt: skip
        # As published, the layers to and from the vocabulary are always float32.
        return _conv(jax.nn.relu(h), self.vocabulary, 1, jnp.float32, "out")


class Embed(nn.Module):
    """Code weights [B, *grid, vocabulary] -> embedded codes [B, *grid, initial] float32."""

    initial: int

    @nn.compact
    def __call__(self, weights: Array, train: bool) -> Array:
        return _conv(weights, self.initial, 1, jnp.float32, "conv")


class Decoder(nn.Module):
    """h [B, *grid, initial] -> [B, *grid 2^(groups - 1), decoded] float32."""

    decoded: int
    width: int
    groups: int
    blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        post_gain = (self.groups * self.blocks) ** -2
        for group in reversed(range(self.groups)):
            for i in range(self.blocks):
                h = Block(
                    self.width << group, (1, 3, 3, 3), post_gain, self.dtype,
                    name=f"group_{group}_block_{i}",
                )(h)  # fmt: skip
            h = double(h) if group else h
        return _conv(jax.nn.relu(h), self.decoded, 1, jnp.float32, "out")


@dataclass(frozen=True, kw_only=True)
class DalleSettings:
    """The networks of DALL-E's discrete VAE.

    The published networks have 8192 codes and 6 outputs, with 53,786,240 params in the encoder and
    43,829,766 in the decoder.
    """

    width: Annotated[
        int, AtLeast(4), Limit(65_536), "Channels of the finest maps; group g has 2^g as many."
    ] = 256
    initial: Annotated[
        int, AtLeast(1), Limit(65_536), "Channels of the embedded codes."
    ] = 128
    groups: Annotated[
        int,
        AtLeast(1),
        Limit(16),
        "Groups of blocks, each at half the resolution of the last: 4 as published; 3 suit images "
        "of 28 to 64 pixels.",
    ] = 4
    blocks: Annotated[
        int, AtLeast(1), Limit(256), "Blocks in each group, in encoder and decoder."
    ] = 2
    dtype: Annotated[
        str,
        OneOf(DTYPES),
        "Type used in layers; params, outputs and the embedding of codes stay float32.",
    ] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for images of `shape` (*size, C), as sentences."""
        return indivisible("groups", self.groups, shape[:-1], 2 ** (self.groups - 1))

    def size(self, x: tuple[int, ...], *, shape: tuple, vocabulary: int, decoded: int) -> Size:
        """The size of `build` for images of the shape `x` (*size, C)."""
        del shape
        *sides, channels = x
        axes, deepest = len(sides), self.width << self.groups - 1
        encoder, down = conv(axes, channels, self.width, 7), self.width
        decoder, up = 0, self.initial
        for group in range(self.groups):
            for _ in range(self.blocks):
                encoder += _block_params(axes, down, self.width << group, (3, 3, 3, 1))
                down = self.width << group
        for group in reversed(range(self.groups)):
            for _ in range(self.blocks):
                decoder += _block_params(axes, up, self.width << group, (1, 3, 3, 3))
                up = self.width << group
        codes = conv(axes, deepest, vocabulary, 1) + conv(axes, vocabulary, self.initial, 1)
        grid = [side >> self.groups - 1 for side in sides]
        finest = largest(sides, self.width, DTYPES[self.dtype].itemsize)
        return Size(
            params=encoder + codes + decoder + conv(axes, self.width, decoded, 1),
            layer=max(finest, largest(grid, vocabulary, 4)),
        )

    def build(self, *, shape: tuple[int, ...], vocabulary: int, decoded: int) -> DVAENetworks:
        """The networks for images of shape (*size, C), with grid = size / 2^(groups - 1).

        vocabulary: the number of codes. decoded: numbers for each pixel of the output (6 for the
            mean and scale of three colours).
        """
        sizes = dict(
            width=self.width, groups=self.groups, blocks=self.blocks, dtype=DTYPES[self.dtype]
        )
        return DVAENetworks(
            encoder=network(Encoder(vocabulary=vocabulary, **sizes)),
            embed=network(Embed(initial=self.initial)),
            decoder=network(Decoder(decoded=decoded, **sizes)),
            grid=tuple(side >> self.groups - 1 for side in shape[:-1]),
        )
