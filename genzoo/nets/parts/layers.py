"""Layers of convolutional networks, for any number of spatial axes.

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

# DDPM draws weights uniformly with variance 1 / fan_avg and starts last layers at zero.
FAN_AVG = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
# For a fused map C -> kC: each of its k maps C -> C then starts as FAN_AVG would start it.
FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
ZEROS = nn.initializers.zeros_init()


def flat_product(x: Array, kernel: Array, *_, **options) -> Array:
    """x [.., C] times kernel [C, D] -> [.., D], as a product of two matrices: for `nn.Dense`.

    The weight gradient is then such a product too. That of more axes would first be transposed in
    memory, which took 40 % of a training step of a small transformer on a CPU.
    """
    rows = x.reshape(-1, x.shape[-1])
    product = lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())), **options)
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


def groups_of(channels: int, most: int) -> int:
    """The number of groups in a GroupNorm: the greatest divisor of `channels` up to `most`."""
    return next(groups for groups in range(min(channels, most), 0, -1) if channels % groups == 0)


def wide_groups(channels: int, most: int) -> int:
    """The number of groups, at most `most`, with at least four channels each (as in EDM).

    Time and conditions add a constant to each channel of a map. A GroupNorm with few channels in a
    group removes much of these constants, and with one channel in each group all of them.
    """
    return max(1, min(most, channels // 4))


class GroupNorm(nn.Module):
    """x [B, *size, C] -> the same shape, mean 0 and variance 1 per example and group of channels.

    groups: the most groups; the greatest divisor of C up to it is used. `scale` and `shift` [B, C],
    if given, make the norm adaptive: norm(x) * (1 + scale) + shift (Dhariwal & Nichol 2021, section
    3.4). They cost nothing extra, because everything is applied by one multiply-add per number.
    Statistics and output are computed in float32; the result has type `dtype`. The variance is
    E[y^2] - E[y]^2 in one pass, whose rounding error is about 1e-3 of the result where the mean is
    30 standard deviations and a tenth of it where the mean is 300.
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

        # Sum over positions first, with the channel axis unsplit. Reducing over a split channel
        # axis would cost a pass over strided memory (5% of a training step on a CPU).
        def group_mean(z):
            return z.sum(1).reshape(batch, groups, -1).sum(-1) / count

        mean = group_mean(y)
        # Rounding can make a variance close to zero negative, for which rsqrt would be NaN.
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
    """x [B, *size, C] -> [B, *ceil(size / stride), features]: a convolution with SAME padding.

    window: the side of the kernel. padding: "SAME", or the number of zeros on either side of every
    axis. zero: whether the kernel starts at zero (last layers). doubled: whether to convolve
    double(x), which gives [B, *2 size, features] in fewer operations: two thirds as many along each
    axis for a window of three. It needs stride one and SAME padding (ValueError). Params are
    float32.
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
        ours = {"conv_general_dilated": _conv_doubled, "promote_dtype": _promote_all_but_kernel}
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


def _promote_all_but_kernel(
    x: Array, kernel: Array, bias: Array, *, dtype: jnp.dtype
) -> tuple[Array, Array, Array]:
    """Promotes the arguments of a convolution. The kernel stays float32, to add up its taps."""
    return x.astype(dtype), kernel, bias.astype(dtype)


def _conv_doubled(
    x: Array, kernel: Array, strides, padding, *, dimension_numbers, precision, **_
) -> Array:
    """conv(double(x), kernel) with SAME padding and stride one, without doubling x.

    After doubling, several taps of a window fall on copies of the same position of x, and on the
    same taps for all outputs of one parity (Shi et al. 2016, Is the deconvolution layer the same as
    a convolutional layer?). The outputs of one parity are therefore a convolution of x with the
    sums of these taps: two along each axis instead of three. Along each axis, the outputs of the
    two parities are then interleaved.
    """
    if padding != "SAME" or any(stride != 1 for stride in strides):
        raise ValueError("doubled=True needs SAME padding and stride 1")

    def interleaved(kernel: Array, padding: list) -> Array:
        if len(padding) == len(strides):
            return lax.conv_general_dilated(
                x, kernel.astype(x.dtype), strides, padding,
                dimension_numbers=dimension_numbers, precision=precision,
            )  # fmt: skip
        axis, parts = len(padding) + 1, []
        for parity in range(2):
            taps, pad = _summed(kernel, axis - 1, parity)
            parts.append(interleaved(taps, [*padding, pad]))
        size = parts[0].shape
        return jnp.stack(parts, axis + 1).reshape(*size[:axis], 2 * size[axis], *size[axis + 1 :])

    return interleaved(kernel, [])


def _summed(kernel: Array, axis: int, parity: int) -> tuple[Array, tuple[int, int]]:
    """The kernel with taps on one position of x added up along an axis, and the padding of x."""
    window = kernel.shape[axis]
    places = [(parity + tap - (window - 1) // 2) // 2 for tap in range(window)]
    taps = [
        sum(lax.slice_in_dim(kernel, t, t + 1, axis=axis) for t in range(window) if places[t] == i)
        for i in range(places[0], places[-1] + 1)
    ]
    return jnp.concatenate(taps, axis), (-places[0], places[-1])


def halve(x: Array) -> Array:
    """Averages over windows of side two: [B, *size, C] -> [B, *size / 2, C]."""
    window = (2,) * (x.ndim - 2)
    return nn.avg_pool(x, window, strides=window)


def double(x: Array) -> Array:
    """Nearest-neighbour upsampling by two: [B, *size, C] -> [B, *2 size, C]."""
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
