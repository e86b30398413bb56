"""The convolutional autoencoder of VQ-VAE, as the authors' example in Sonnet writes it.

van den Oord et al. 2017 (Neural discrete representation learning). Strided convolutions to a grid
of features, residual blocks, and transposed convolutions back. Works for images, signals, volumes.
"""

import math

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.autoencoder.pair import ACTIVATIONS, Activation, Pair
from genzoo.nets.interface import network
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, ZEROS, Conv, unfold
from genzoo.nets.parts.problems import indivisible, too_low, unknown


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


def conv_pair(
    *,
    shape: tuple[int, ...],
    encoded: int,
    latent: int,
    decoded: int,
    width: int = 128,
    block_width: int = 32,
    blocks: int = 2,
    downsamples: int = 2,
    flat: bool = False,
    activation: str = "relu",
    dtype: str = "float32",
) -> Pair:
    """Convolutions to a grid of latents and back: x [B, *size, C] -> [B, *grid, encoded], and
    z [B, *grid, latent] -> [B, *size, decoded], with shape (*size, C), grid = size / 2^downsamples.

    encoded: what the encoder gives at a position. latent: of the decoder's input at a position.
        decoded: numbers for each pixel of the output.
    width: of the feature maps; the first on the way in and the last on the way out have half.
    block_width, blocks: of the residual blocks at the grid, on both sides.
    downsamples: convolutions of stride 2, and transposed ones back.
    flat: one latent vector for the whole example, through dense layers; grid is ().
    activation: "relu" (the published one), "tanh", "silu" or "gelu".
    dtype: of the computation, "float32" or "bfloat16". Params and outputs are float32.

    The Sonnet example on CIFAR-10 (64 for encoded and latent, 3 for decoded) has 662,723 params.
    """
    act, dtype_ = ACTIVATIONS[activation], DTYPES[dtype]
    grid = tuple(side >> downsamples for side in shape[:-1])
    trunk = ConvTrunk(
        width=width,
        block_width=block_width,
        blocks=blocks,
        downsamples=downsamples,
        activation=act,
        dtype=dtype_,
    )
    decoder = ConvDecoder(
        decoded=decoded,
        width=width,
        block_width=block_width,
        blocks=blocks,
        upsamples=downsamples,
        activation=act,
        dtype=dtype_,
        start=grid if flat else (),
    )
    return Pair(
        encoder=network(ConvEncoder(encoded=encoded, trunk=trunk, flat=flat)),
        decoder=network(decoder),
        grid=() if flat else grid,
    )


def conv_problems(
    shape: tuple[int, ...],
    *,
    width: int = 128,
    block_width: int = 32,
    blocks: int = 2,
    downsamples: int = 2,
    flat: bool = False,
    activation: str = "relu",
    dtype: str = "float32",
) -> list[str]:
    """The problems of `conv_pair` with these settings on inputs of `shape`; [] if none."""
    del flat
    problems = too_low(2, {"width": width})
    problems += too_low(1, {"block_width": block_width, "downsamples": downsamples})
    problems += too_low(0, {"blocks": blocks})
    problems += unknown("activation", activation, ACTIVATIONS)
    problems += unknown("dtype", dtype, DTYPES)
    if len(shape) < 2:
        problems.append(
            "network.name is a convolutional network, but the data are vectors without positions: "
            "take a dense network."
        )
    elif downsamples >= 1:
        problems += indivisible("downsamples", downsamples, shape[:-1], 2**downsamples)
    return problems
