"""The convolutional autoencoder of VQ-VAE, as the authors' example in Sonnet writes it.

van den Oord et al. 2017 (Neural discrete representation learning). Strided convolutions to a grid
of features, residual blocks, and transposed convolutions back. Works for images, signals, volumes.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, OneOf
from genzoo.core.types import Array
from genzoo.nets.autoencoder.pair import (
    ACTIVATIONS,
    Activation,
    ActivationName,
    Pair,
    TopWidths,
    upper_pairs,
)
from genzoo.nets.interface import network
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, ZEROS, Conv, unfold
from genzoo.nets.parts.problems import indivisible


class ConvUp(nn.Module):
    """x [B, *size, C] -> [B, *2 size, features]: a transposed convolution, window 4, stride 2.

    With one axis, y[2i - 1 + k] += kernel[k] x[i] for k in 0..3. Position 2a - 1 + r, r in 0..1,
    sees x[a - 1] and x[a] only: a plain convolution of window 2 gives both r at each a in 0..n as
    channels, which are then laid side by side. `conv/kernel` is kept as that convolution wants it,
    [2, .., C, (r, .., features)] with entry (b, r) = kernel[2 (1 - b) + r], and its fans are the
    true ones. On a CPU its gradient is about ten times faster than that of the input-dilated
    convolution which `lax.conv_transpose` is.
    """

    features: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axes = x.ndim - 2
        # Padding inside the convolution would be the same numbers, and 15 times slower on a CPU.
        x = jnp.pad(x, ((0, 0), *((1, 1),) * axes, (0, 0)))
        y = nn.Conv(
            2**axes * self.features,
            (2,) * axes,
            padding="VALID",
            use_bias=False,
            kernel_init=FAN_AVG,
            dtype=self.dtype,
            name="conv",
        )(x)
        y = unfold(y, 2)[(slice(None), *(slice(1, -1),) * axes)]
        return y + self.param("bias", ZEROS, (self.features,)).astype(y.dtype)


class Residuals(nn.Module):
    """x [B, *size, width] -> the same: x + conv1(act(conv3(act(x)))), `blocks` times; then act."""

    block_width: int
    blocks: int
    activation: Activation
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(self.blocks):
            h = Conv(self.block_width, dtype=self.dtype, name=f"block_{i}_conv_0")(
                self.activation(x)
            )
            x = x + Conv(x.shape[-1], window=1, dtype=self.dtype, name=f"block_{i}_conv_1")(
                self.activation(h)
            )
        return self.activation(x)


class ConvTrunk(nn.Module):
    """x [B, *size, C] -> features [B, *size / 2^downsamples, width], activated, dtype `dtype`."""

    width: int
    block_width: int
    blocks: int
    downsamples: int
    activation: Activation
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in range(self.downsamples):
            width = self.width if i else self.width // 2
            h = Conv(width, window=4, stride=2, dtype=self.dtype, name=f"down_{i}")(x)
            x = self.activation(h)
        x = Conv(self.width, dtype=self.dtype, name="entry")(x)
        return Residuals(
            self.block_width, self.blocks, self.activation, self.dtype, name="residuals"
        )(x)


class ConvEncoder(nn.Module):
    """x [B, *size, C] -> [B, *grid, encoded] float32; `flat`: -> [B, encoded]."""

    encoded: int
    trunk: ConvTrunk
    flat: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = self.trunk(x, train)
        # float32, like every output: rounding here would be noise in the latent.
        if self.flat:
            h = h.reshape(h.shape[0], -1)
            return nn.Dense(self.encoded, kernel_init=FAN_AVG, name="out")(h)
        return Conv(self.encoded, window=1, name="out")(h)


class ConvDecoder(nn.Module):
    """z [B, *grid, latent] -> [B, *grid 2^upsamples, decoded] float32.

    start: () takes z by a convolution; otherwise z is [B, latent], and a dense layer makes the
    smallest feature map of it, whose sides are `start`.
    """

    decoded: int
    width: int
    block_width: int
    blocks: int
    upsamples: int
    activation: Activation
    dtype: jnp.dtype
    start: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, z: Array, train: bool) -> Array:
        if self.start:
            h = nn.Dense(
                math.prod(self.start) * self.width,
                kernel_init=FAN_AVG,
                dtype=self.dtype,
                name="entry",
            )(z)
            h = h.reshape(z.shape[0], *self.start, self.width)
        else:
            h = Conv(self.width, dtype=self.dtype, name="entry")(z)
        h = Residuals(
            self.block_width, self.blocks, self.activation, self.dtype, name="residuals"
        )(h)
        for i in range(self.upsamples - 1):
            width = self.width if i < self.upsamples - 2 else self.width // 2
            h = self.activation(ConvUp(width, self.dtype, name=f"up_{i}")(h))
        return ConvUp(self.decoded, name="out")(h)


FeatureWidth = Annotated[
    int, AtLeast(2), "Of the feature maps; the finest ones have half of it."
]
BlockWidth = Annotated[int, AtLeast(1), "Of the inner convolution of a residual block."]
BlockCount = Annotated[int, AtLeast(0), "Residual blocks in each part."]


@dataclass(frozen=True, kw_only=True)
class ConvSettings:
    """Convolutions to a grid of latents and back.

    The Sonnet example on CIFAR-10 (64 for encoded and latent, 3 for decoded) has 662,723 params.
    """

    width: FeatureWidth = 128
    block_width: BlockWidth = 32
    blocks: BlockCount = 2
    downsamples: Annotated[
        int, AtLeast(1), "Convolutions of stride two, and transposed ones back."
    ] = 2
    flat: Annotated[bool, "Whether there is one latent vector, and no grid of them."] = False
    top_widths: TopWidths = (100, 100)
    activation: ActivationName = "relu"
    dtype: Annotated[str, OneOf(DTYPES), "Of the computation; params stay float32."] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """What does not fit together, on examples of `shape`."""
        if len(shape) < 2:
            return [
                "network.name is a convolutional network, but the data are vectors without "
                "positions: take a dense network."
            ]
        return indivisible("downsamples", self.downsamples, shape[:-1], 2**self.downsamples)

    def build(
        self,
        *,
        shape: tuple[int, ...],
        encoded: tuple[int, ...],
        latents: tuple[int, ...],
        decoded: tuple[int, ...],
    ) -> tuple[Pair, ...]:
        """One pair for each layer of latents. The first is x [B, *size, C] -> [B, *grid, encoded]
        and z [B, *grid, latent] -> [B, *size, decoded], with shape (*size, C), grid = size /
        2^downsamples; a second one is dense.

        encoded: what the encoder gives at a position. latents: of the decoder's input at a
            position. decoded: numbers for each pixel of the output. Each by layer of latents.
        """
        act, dtype = ACTIVATIONS[self.activation], DTYPES[self.dtype]
        grid = tuple(side >> self.downsamples for side in shape[:-1])
        trunk = ConvTrunk(
            width=self.width,
            block_width=self.block_width,
            blocks=self.blocks,
            downsamples=self.downsamples,
            activation=act,
            dtype=dtype,
        )
        decoder = ConvDecoder(
            decoded=decoded[0],
            width=self.width,
            block_width=self.block_width,
            blocks=self.blocks,
            upsamples=self.downsamples,
            activation=act,
            dtype=dtype,
            start=grid if self.flat else (),
        )
        first = Pair(
            encoder=network(ConvEncoder(encoded=encoded[0], trunk=trunk, flat=self.flat)),
            decoder=network(decoder),
            grid=() if self.flat else grid,
        )
        return first, *upper_pairs(
            first, encoded=encoded, latents=latents, decoded=decoded, widths=self.top_widths,
            activation=act,
        )  # fmt: skip
