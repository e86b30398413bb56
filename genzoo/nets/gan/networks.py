"""The generator and the critic of R3GAN: residual networks without normalisation.

Huang et al. 2024 (The GAN is dead; long live the GAN! A modern GAN baseline). A residual block is

    h <- h + contract(a(group(a(expand(h)))))        a(h) = leaky_relu(h + bias, 0.2)            (1)

with 1 x 1, grouped 3 x 3 and 1 x 1 convolutions, the last of which is zero at the start. There are
L blocks in a network, and the first two convolutions start with a gain of L^(-1/4) (Zhang et al.
2019, Fixup), so that what a step changes does not grow with the depth.

The generator begins with a learned basis: a map whose channels are multiplied by a linear function
of the latent. The critic ends with its mirror image, the products of each channel with a learned
map. Between the stages maps are resampled by two with the filter (1, 3, 3, 1); the authors' is
(1, 2, 1), which shifts an image by half a pixel.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from genzoo.core.conditions import Conditions, Entry
from genzoo.core.types import Array
from genzoo.nets.parts.conditioning import feature_embedder, value_of
from genzoo.nets.parts.layers import ZEROS, flat_product
from genzoo.nets.parts.resample import fir_double, fir_halve

_TAPS = (1.0, 3.0, 3.0, 1.0)
_WINDOW = 3
_SLOPE = 0.2
_GAIN = math.sqrt(2 / (1 + _SLOPE**2))  # keeps the variance through a leaky ReLU
BASIS = "basis"
"""The module of the critic whose output are its features."""


def _start(gain: float) -> nn.initializers.Initializer:
    """Normal weights with the deviation gain / sqrt(inputs)."""
    if not gain:
        return ZEROS
    return nn.initializers.variance_scaling(gain**2, "fan_in", "normal")


class BiasedActivation(nn.Module):
    """h [.., C] -> leaky_relu(h + bias), the bias learned."""

    @nn.compact
    def __call__(self, h: Array) -> Array:
        bias = self.param("bias", ZEROS, h.shape[-1:])
        return jax.nn.leaky_relu(h + bias.astype(h.dtype), _SLOPE)


def _across(features: int, name: str, dtype: jnp.dtype, gain: float = 1.0) -> nn.Dense:
    """A 1 x 1 convolution without bias. Call it inside a compact `__call__`."""
    return nn.Dense(
        features, use_bias=False, kernel_init=_start(gain), dtype=dtype,
        dot_general=flat_product, name=name,
    )  # fmt: skip


class GroupedConv(nn.Module):
    """h [B, *size, C] -> the same shape: a convolution of window three within groups of channels.

    A CPU has no fast derivative of a derivative of a grouped convolution, which the penalty on a
    critic's gradient needs; there it is a product of matrices for every group.
    """

    group: int
    gain: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, h: Array) -> Array:
        shape = (*(_WINDOW,) * (h.ndim - 2), self.group, h.shape[-1])
        kernel = self.param("kernel", _start(self.gain), shape).astype(self.dtype)
        return lax.platform_dependent(
            h.astype(self.dtype), kernel, cpu=_grouped_by_products, default=_grouped
        )


def _grouped(h: Array, kernel: Array) -> Array:
    axes = h.ndim - 2
    letters = "DHW"[-axes:]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return lax.conv_general_dilated(
        h, kernel, (1,) * axes, "SAME", dimension_numbers=layout,
        feature_group_count=h.shape[-1] // kernel.shape[-2],
    )  # fmt: skip


def _grouped_by_products(h: Array, kernel: Array) -> Array:
    batch, *size, channels = h.shape
    group = kernel.shape[-2]
    padded = jnp.pad(h, [(0, 0), *[(1, 1)] * len(size), (0, 0)])
    split = padded.reshape(*padded.shape[:-1], channels // group, group)
    split = jnp.moveaxis(split, -2, 0)  # [groups, B, *(size + 2), group]
    windows = [
        split[(slice(None), slice(None), *map(slice, place, np.add(place, size)))]
        for place in np.ndindex(*(_WINDOW,) * len(size))
    ]
    rows = jnp.concatenate(windows, -1).reshape(channels // group, -1, len(windows) * group)
    columns = kernel.reshape(-1, channels // group, group).swapaxes(0, 1)
    out = (rows @ columns).reshape(-1, batch, *size, group)
    return jnp.moveaxis(out, 0, -2).reshape(h.shape)


class Residual(nn.Module):
    """h [B, *size, C] -> the same shape: equation (1).

    expansion: hidden channels for each channel. group: channels in a group of the second
    convolution. gain: of the first two convolutions at the start.
    """

    expansion: int
    group: int
    gain: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, h: Array) -> Array:
        y = _across(self.expansion * h.shape[-1], "expand", self.dtype, self.gain)(h)
        y = BiasedActivation(name="bias_0")(y)
        y = GroupedConv(self.group, self.gain, self.dtype, name="group")(y)
        y = BiasedActivation(name="bias_1")(y)
        return h + _across(h.shape[-1], "contract", self.dtype, gain=0)(y)


def _blocks(
    h: Array, stage: int, blocks: int, expansion: int, group: int, total: int, dtype: jnp.dtype
) -> Array:
    """A stage of residual blocks. total: the number of blocks in the network. Call it inside a
    compact `__call__`."""
    gain = _GAIN * total**-0.25
    for i in range(blocks):
        h = Residual(expansion, group, gain, dtype, name=f"stage_{stage}_block_{i}")(h)
    return h


def _embedded(
    entries: Mapping[str, Entry], conditions: Conditions, like: Array, width: int, std: float
) -> Array:
    """The sum of the embedded conditions [B, width]. std: the deviation of a table of K classes,
    times sqrt(K), at the start. Call it inside a compact `__call__`."""
    embedded = []
    for name, entry in entries.items():
        own = std / math.sqrt(entry.size) if entry.kind == "class" else std
        given = value_of(entry, conditions.get(name), like)
        embedded.append(feature_embedder(entry, width, name, own)(*given))
    return sum(embedded)


class Generator(nn.Module):
    """(z [B, Z], conditions) -> [B, *size, channels] float32.

    size: sides that are divisible by two for each stage but the first. widths: the channels of each
    stage, the coarsest first. Conditions are embedded in `embedding` numbers that join the latent.
    """

    size: tuple[int, ...]
    channels: int
    widths: Sequence[int]
    blocks: int
    expansion: int
    group: int
    entries: Mapping[str, Entry]
    embedding: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z: Array, conditions: Conditions, train: bool) -> Array:
        del train
        axes, stages = len(self.size), len(self.widths)
        base = [side // 2 ** (stages - 1) for side in self.size]
        if self.entries:
            added = _embedded(self.entries, conditions, z, self.embedding, 1.0)
            z = jnp.concatenate([z, added], -1)
        width = self.widths[0]
        basis = self.param("basis", nn.initializers.normal(1.0), (*base, width))
        strength = nn.Dense(width, use_bias=False, kernel_init=_start(1.0), name="entry")(z)
        h = (strength.reshape(len(z), *(1,) * axes, width) * basis).astype(self.dtype)
        for stage, width in enumerate(self.widths):
            if stage:
                if width != self.widths[stage - 1]:
                    h = _across(width, f"stage_{stage}_width", self.dtype)(h)
                h = fir_double(h, _TAPS)
            h = _blocks(
                h, stage, self.blocks, self.expansion, self.group, stages * self.blocks, self.dtype
            )
        return _across(self.channels, "out", jnp.dtype("float32"))(h)


class Basis(nn.Module):
    """h [B, *size, C] -> [B, C]: the products of every channel with a learned map."""

    @nn.compact
    def __call__(self, h: Array) -> Array:
        gain = math.prod(h.shape[1:-1]) ** -0.5
        kernel = self.param("kernel", nn.initializers.normal(gain), h.shape[1:])
        return (h.astype(jnp.float32) * kernel).reshape(h.shape[0], -1, h.shape[-1]).sum(1)


class Critic(nn.Module):
    """(x [B, *size, C], conditions) -> scores [B] float32, higher for data.

    widths: the channels of each stage, the coarsest first, as for the generator. With conditions
    the score is the product of the output and the embedded conditions (Miyato & Koyama 2018), each
    as wide as the coarsest stage.
    """

    widths: Sequence[int]
    blocks: int
    expansion: int
    group: int
    entries: Mapping[str, Entry]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, conditions: Conditions, train: bool) -> Array:
        del train
        stages = len(self.widths)
        h = _across(self.widths[-1], "entry", self.dtype)(x)
        for stage in reversed(range(stages)):
            h = _blocks(
                h, stage, self.blocks, self.expansion, self.group, stages * self.blocks, self.dtype
            )
            if stage:
                h = fir_halve(h, _TAPS)
                if (width := self.widths[stage - 1]) != self.widths[stage]:
                    h = _across(width, f"stage_{stage}_width", self.dtype)(h)
        features = Basis(name=BASIS)(h)
        width = self.widths[0] if self.entries else 1
        out = nn.Dense(width, use_bias=False, kernel_init=_start(1.0), name="out")(features)
        if not self.entries:
            return out[:, 0]
        return (out * _embedded(self.entries, conditions, x, width, width**-0.5)).sum(-1)
