"""Layers that every convolutional network of the zoo is made of, for any number of spatial axes.

GroupNorm by per-channel sums (Wu & He 2018), convolutions with the initialisation of DDPM (Ho et
al. 2020), resizing by two, and folding patches of pixels into channels (space to depth).
"""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from genzoo.core.types import Array

DTYPES: Mapping[str, jnp.dtype] = MappingProxyType(
    {"float32": jnp.dtype("float32"), "bfloat16": jnp.dtype("bfloat16")}
)

# DDPM draws every weight uniformly with the variance 1 / fan_avg, and starts last layers at zero.
FAN_AVG = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
# A fused map C -> kC holds k maps C -> C: this gives each of them what FAN_AVG would.
FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
ZEROS = nn.initializers.zeros_init()


def groups_of(channels: int, most: int) -> int:
    """The greatest divisor of `channels` that is not above `most`: how many groups are normed."""
    return next(groups for groups in range(min(channels, most), 0, -1) if channels % groups == 0)


def wide_groups(channels: int, most: int) -> int:
    """How many groups, at most `most`, leave each of them four channels, as EDM has it.

    A norm of few channels takes away much of what was added to them all over the map, and one of a
    lone channel all of it: time and conditions, where they are added before a norm.
    """
    return max(1, min(most, channels // 4))


class GroupNorm(nn.Module):
    """x [B, *size, C] -> the same shape, mean 0 and variance 1 per example and group of channels.

    groups: how many, at most; the greatest divisor of C not above it is used. `scale` and `shift`
    [B, C], when given, make the norm adaptive: norm(x) * (1 + scale) + shift (Dhariwal & Nichol
    2021, section 3.4), at no cost, because one multiply-add per number applies everything.
    Statistics and output arithmetic are float32; the result has dtype `dtype`. The variance is
    E[y^2] - E[y]^2 in one pass, which rounds by about 1e-3 of the result where the mean is 30
    standard deviations and by a tenth where it is 300.
    """

    groups: int = 32
    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
        batch, channels = x.shape[0], x.shape[-1]
        groups = groups_of(channels, self.groups)
        gain = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", ZEROS, (channels,))
        y = x.reshape(batch, -1, channels).astype(jnp.float32)
        count = y.shape[1] * (channels // groups)

        # Summing over positions first keeps the channel axis whole; reducing over a split channel
        # axis costs a pass over strided memory (5% of a training step on a CPU).
        def group_mean(z):
            return z.sum(1).reshape(batch, groups, -1).sum(-1) / count

        mean = group_mean(y)
        # Rounding may take a variance of (nearly) nothing below zero, where rsqrt would be nan.
        variance = jnp.maximum(group_mean(y * y) - mean * mean, 0.0)
        per_channel = channels // groups
        factor = jnp.repeat(lax.rsqrt(variance + self.epsilon), per_channel, -1) * gain
        offset = bias - jnp.repeat(mean, per_channel, -1) * factor
        if scale is not None:
            factor, offset = factor * (1 + scale), offset * (1 + scale)
        if shift is not None:
            offset = offset + shift
        out = y * factor[:, None] + offset[:, None]
        return out.reshape(x.shape).astype(self.dtype)


class Conv(nn.Module):
    """x [B, *size, C] -> [B, *ceil(size / stride), features]: as many axes as x has.

    window: the kernel's side. zero: start at zero (last layers). doubled: the convolution of
    double(x), [B, *2 size, features], in fewer operations: for a window of three two thirds of them
    along each axis. Stride one and SAME padding only. padding: "SAME", or how many zeros stand on
    both sides of each axis. Params are float32.
    """

    features: int
    window: int = 3
    stride: int = 1
    padding: str | int = "SAME"
    zero: bool = False
    doubled: bool = False
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        axes = x.ndim - 2
        ours = {"conv_general_dilated": _of_doubled, "promote_dtype": _kernel_as_it_is}
        return nn.Conv(
            self.features,
            (self.window,) * axes,
            strides=(self.stride,) * axes,
            padding=self.padding,
            kernel_init=ZEROS if self.zero else FAN_AVG,
            dtype=self.dtype,
            name="conv",
            **(ours if self.doubled else {}),
        )(x)


def _kernel_as_it_is(
    x: Array, kernel: Array, bias: Array, *, dtype: jnp.dtype
) -> tuple[Array, Array, Array]:
    """What a convolution works on, with the kernel in its own precision: its taps are summed."""
    return x.astype(dtype), kernel, bias.astype(dtype)


def _of_doubled(
    x: Array, kernel: Array, strides, padding, *, dimension_numbers, precision, **_
) -> Array:
    """conv(double(x), kernel) with SAME padding and stride one, without doubling.

    Behind the doubling a window meets each position of x with several taps, the same ones for all
    outputs of one parity (Shi et al. 2016, Is the deconvolution layer the same as a convolutional
    layer?). So each parity is a convolution of x with the sums of those taps: two a side instead of
    three. Axis by axis, the outputs of the two parities are then put in turn.
    """
    if padding != "SAME" or any(stride != 1 for stride in strides):
        raise ValueError("a doubled map is convolved with SAME padding and stride 1 only")

    def in_turn(kernel: Array, padding: list) -> Array:
        if len(padding) == len(strides):
            return lax.conv_general_dilated(
                x, kernel.astype(x.dtype), strides, padding,
                dimension_numbers=dimension_numbers, precision=precision,
            )  # fmt: skip
        axis, parts = len(padding) + 1, []
        for parity in range(2):
            taps, pad = _summed(kernel, axis - 1, parity)
            parts.append(in_turn(taps, [*padding, pad]))
        size = parts[0].shape
        return jnp.stack(parts, axis + 1).reshape(*size[:axis], 2 * size[axis], *size[axis + 1 :])

    return in_turn(kernel, [])


def _summed(kernel: Array, axis: int, parity: int) -> tuple[Array, tuple[int, int]]:
    """The taps that meet one position of x added up along an axis, and the padding of x."""
    window = kernel.shape[axis]
    met = [(parity + tap - (window - 1) // 2) // 2 for tap in range(window)]
    taps = [
        sum(lax.slice_in_dim(kernel, t, t + 1, axis=axis) for t in range(window) if met[t] == place)
        for place in range(met[0], met[-1] + 1)
    ]
    return jnp.concatenate(taps, axis), (-met[0], met[-1])


def halve(x: Array) -> Array:
    """Means over windows of side two: [B, *size, C] -> [B, *size / 2, C]."""
    window = (2,) * (x.ndim - 2)
    return nn.avg_pool(x, window, strides=window)


def double(x: Array) -> Array:
    """Every position twice along each axis (nearest): [B, *size, C] -> [B, *2 size, C]."""
    for axis in range(1, x.ndim - 1):
        x = jnp.repeat(x, 2, axis)
    return x


def fold(x: Array, patch: int) -> Array:
    """Space to depth: [B, *size, C] -> [B, *size / patch, patch^axes C]. `unfold` undoes it."""
    if patch == 1:
        return x
    batch, *size, channels = x.shape
    axes = len(size)
    split = [part for side in size for part in (side // patch, patch)]
    outer, inner = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
    x = x.reshape(batch, *split, channels).transpose(0, *outer, *inner, 2 * axes + 1)
    return x.reshape(batch, *(side // patch for side in size), patch**axes * channels)


def unfold(x: Array, patch: int) -> Array:
    """Depth to space: [B, *size, patch^axes C] -> [B, *size patch, C], the inverse of `fold`."""
    if patch == 1:
        return x
    batch, *size, channels = x.shape
    axes = len(size)
    x = x.reshape(batch, *size, *(patch,) * axes, channels // patch**axes)
    order = [axis for pair in zip(range(1, axes + 1), range(axes + 1, 2 * axes + 1), strict=True)
             for axis in pair]
    x = x.transpose(0, *order, 2 * axes + 1)
    return x.reshape(batch, *(side * patch for side in size), x.shape[-1])
