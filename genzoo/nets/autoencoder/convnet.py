"""The convolutional autoencoder of VQ-VAE, as in the authors' example in Sonnet.

van den Oord et al. 2017 (Neural discrete representation learning). The encoder has strided
convolutions to a grid of features and residual blocks, and the decoder residual blocks and
transposed convolutions. Works for images, signals and volumes.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Limit, OneOf
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.autoencoder.pair import (
    ACTIVATIONS,
    Activation,
    ActivationName,
    Pair,
    TopWidths,
    upper_pairs,
    upper_size,
)
from genzoo.nets.interface import network
from genzoo.nets.parts.counts import conv, dense, largest
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, ZEROS, Conv, unfold
from genzoo.nets.parts.problems import indivisible


class ConvUp(nn.Module):
    """x [B, *size, C] -> [B, *2 size, features]: a transposed convolution, window 4, stride 2.

    With one axis, y[2i - 1 + k] += kernel[k] x[i] for k in 0..3. Position 2a - 1 + r, r in 0..1,
    depends on x[a - 1] and x[a] only. A plain convolution with window 2 therefore gives the outputs
    for both r as channels at each a in 0..n, and these are then interleaved. `conv/kernel` is
    stored in the layout of that convolution, [2, .., C, (r, .., features)] with entry (b, r) =
    kernel[2 (1 - b) + r]; its fans are those of the transposed convolution. On a CPU the gradient
    is about ten times faster than that of the input-dilated convolution in `lax.conv_transpose`.
    """

    features: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axes = x.ndim - 2
        # Padding inside the convolution gives the same numbers, but is 15 times slower on a CPU.
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
    """x [B, *size, C] -> features [B, *size / 2^downsamples, width] after the activation."""

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
    """x [B, *size, C] -> [B, *grid, encoded] float32, or [B, encoded] if `flat`."""

    encoded: int
    trunk: ConvTrunk
    flat: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = self.trunk(x, train)
        # In float32, because rounding here would be noise in the latent.
        if self.flat:
            h = h.reshape(h.shape[0], -1)
            return nn.Dense(self.encoded, kernel_init=FAN_AVG, name="out")(h)
        return Conv(self.encoded, window=1, name="out")(h)


class ConvDecoder(nn.Module):
    """z [B, *grid, latent] -> [B, *grid 2^upsamples, decoded] float32.

    start: () if z is a grid. Otherwise z is [B, latent], and a dense layer maps it to the smallest
    feature map, with sides `start`.
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


def residuals_params(axes: int, width: int, block_width: int, blocks: int) -> int:
    """The params of `Residuals`."""
    return blocks * (conv(axes, width, block_width) + conv(axes, block_width, width, 1))


def trunk_params(axes: int, channels: int, width: int, downsamples: int) -> int:
    """The params of a `ConvTrunk` on `channels`, without its residual blocks."""
    total = 0
    for i in range(downsamples):
        outputs = width if i else width // 2
        total, channels = total + conv(axes, channels, outputs, 4), outputs
    return total + conv(axes, channels, width)


def up_params(axes: int, width: int, decoded: int, upsamples: int) -> int:
    """The params of the transposed convolutions of a `ConvDecoder`."""
    total, channels = 0, width
    for i in range(upsamples - 1):
        outputs = width if i < upsamples - 2 else width // 2
        total, channels = total + conv(axes, channels, outputs, 4), outputs
    return total + conv(axes, channels, decoded, 4)


def largest_map(
    sides: tuple[int, ...], width: int, downsamples: int, decoded: int, itemsize: int
) -> int:
    """The bytes of the largest array of a convolutional pair for an image with these sides."""
    halves, grid = ([side >> by for side in sides] for by in (1, downsamples))
    return max(
        largest(halves, width // 2, itemsize),
        largest(grid, width, itemsize),
        largest(sides, decoded, 4),
    )


FeatureWidth = Annotated[
    int,
    AtLeast(2),
    Limit(65_536),
    "Channels of the feature maps; the finest have half as many.",
]
BlockWidth = Annotated[int, AtLeast(1), Limit(65_536), "Channels inside a residual block."]
BlockCount = Annotated[
    int, AtLeast(0), Limit(256), "Residual blocks in the encoder, and in the decoder."
]


@dataclass(frozen=True, kw_only=True)
class ConvSettings:
    """A convolutional encoder to a grid of latents, and the decoder back.

    The Sonnet example on CIFAR-10 (encoded = latent = 64, decoded = 3) has 662,723 params.
    """

    width: FeatureWidth = 128
    block_width: BlockWidth = 32
    blocks: BlockCount = 2
    downsamples: Annotated[
        int,
        AtLeast(1),
        Limit(16),
        "Convolutions with stride two, and transposed convolutions back.",
    ] = 2
    flat: Annotated[bool, "Whether the latent is one vector instead of a grid."] = False
    top_widths: TopWidths = (100, 100)
    activation: ActivationName = "relu"
    dtype: Annotated[str, OneOf(DTYPES), "Type used in layers; params stay float32."] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for examples of `shape`, as sentences."""
        if len(shape) < 2:
            return [
                "network.name is a convolutional network, but the data are vectors without spatial "
                "axes: use a dense network."
            ]
        return indivisible("downsamples", self.downsamples, shape[:-1], 2**self.downsamples)

    def size(
        self,
        x: tuple[int, ...],
        *,
        shape: tuple[int, ...],
        encoded: tuple[int, ...],
        latents: tuple[int, ...],
        decoded: tuple[int, ...],
    ) -> Size:
        """The size of `build` for examples of the shape `x` (*size, C)."""
        del shape
        *sides, channels = x
        axes, width, halvings = len(sides), self.width, self.downsamples
        places = math.prod(side >> halvings for side in sides)
        params = trunk_params(axes, channels, width, halvings)
        params += 2 * residuals_params(axes, width, self.block_width, self.blocks)
        params += up_params(axes, width, decoded[0], halvings)
        if self.flat:
            params += dense(places * width, encoded[0]) + dense(latents[0], places * width)
        else:
            params += conv(axes, width, encoded[0], 1) + conv(axes, latents[0], width)
        layer = largest_map(sides, width, halvings, decoded[0], DTYPES[self.dtype].itemsize)
        return upper_size(
            Size(params=params, layer=layer), 1 if self.flat else places,
            encoded=encoded, latents=latents, decoded=decoded, widths=self.top_widths,
        )  # fmt: skip

    def build(
        self,
        *,
        shape: tuple[int, ...],
        encoded: tuple[int, ...],
        latents: tuple[int, ...],
        decoded: tuple[int, ...],
    ) -> tuple[Pair, ...]:
        """One pair for each layer of latents, for examples of shape (*size, C).

        The first pair is x [B, *size, C] -> [B, *grid, encoded] and z [B, *grid, latent] ->
        [B, *size, decoded], with grid = size / 2^downsamples. The second, if any, is dense.

        encoded, latents: channels of the encoder's output and of the decoder's input, by layer of
            latents. decoded: numbers for each pixel of the output, by layer of latents.
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
