"""The conditioned residual block of diffusion U-Nets, and ways to change the resolution.

Ho et al. 2020 (additive features), Nichol & Dhariwal 2021 (adaptive norm), Dhariwal & Nichol 2021
(residual blocks that halve and double), Song et al. 2021 (halving and doubling by a FIR filter).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.layers import FAN_AVG, Conv, GroupNorm, double, halve
from genzoo.nets.parts.resample import Taps, fir_double, fir_halve


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """What all blocks of one U-Net share.

    scale_shift: whether time features scale and shift the second norm instead of being added.
    dropout: the dropout rate before the last convolution. groups, epsilon: those of every norm.
    dtype: the type of the convolutions and of the stream between blocks; params stay float32.
    scale: multiplies every sum with a shortcut; NCSN++ preserves the variance with sqrt(1/2).
    project: whether the shortcut of a block that resamples has a convolution (NCSN++).
    condition_bias: whether the dense layer on the time features has a bias (not in VDM).
    fused: of the attention, see `attend`.
    """

    scale_shift: bool
    dropout: float
    groups: int
    epsilon: float
    dtype: jnp.dtype
    scale: float = 1.0
    project: bool = False
    condition_bias: bool = True
    fused: bool = False


class ResidualBlock(nn.Module):
    """(x [B, *size, C], features [B, E], train) -> [B, *size', channels].

    features: those of the time and the conditions. resize: halves or doubles the map, plainly or by
    a FIR filter, both after the first norm and on the shortcut. The second convolution starts at
    zero, so that the block starts as its shortcut.
    """

    channels: int
    style: BlockStyle
    resize: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Array, features: Array, train: bool) -> Array:
        style = self.style
        norm = partial(GroupNorm, style.groups, style.epsilon, style.dtype)
        h = nn.silu(norm(name="norm_0")(x))
        doubled = self.resize is double  # the convolution below then includes the doubling
        if self.resize is not None:
            h, x = h if doubled else self.resize(h), self.resize(x)
        h = Conv(self.channels, doubled=doubled, dtype=style.dtype, name="conv_0")(h)
        # In float32: it is cheap, and the whole block depends on it.
        width = 2 * self.channels if style.scale_shift else self.channels
        condition = nn.Dense(
            width, use_bias=style.condition_bias, kernel_init=FAN_AVG, name="condition"
        )(nn.silu(features))
        if style.scale_shift:
            h = norm(name="norm_1")(h, *jnp.split(condition, 2, -1))
        else:
            condition = condition.reshape(len(condition), *(1,) * (h.ndim - 2), -1)
            h = norm(name="norm_1")(h + condition.astype(h.dtype))
        h = nn.Dropout(style.dropout, deterministic=not train)(nn.silu(h))
        h = Conv(self.channels, zero=True, dtype=style.dtype, name="conv_1")(h)
        if x.shape[-1] != self.channels or (style.project and self.resize is not None):
            x = Conv(self.channels, window=1, dtype=style.dtype, name="shortcut")(x)
        return style.scale * (x + h)


class Resize(nn.Module):
    """`resize` without params, with the signature of a block."""

    channels: int
    style: BlockStyle
    resize: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array, features: Array, train: bool) -> Array:
        return self.resize(x)


class ConvDown(nn.Module):
    """A convolution with stride two.

    padding: "SAME" pads only after the last position (DDPM); 1 pads on both sides (improved DDPM,
    latent diffusion).
    """

    channels: int
    style: BlockStyle
    padding: str | int = "SAME"

    @nn.compact
    def __call__(self, x: Array, features: Array, train: bool) -> Array:
        conv = partial(Conv, stride=2, padding=self.padding, dtype=self.style.dtype, name="conv")
        return conv(self.channels)(x)


class ConvUp(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    channels: int
    style: BlockStyle

    @nn.compact
    def __call__(self, x: Array, features: Array, train: bool) -> Array:
        return Conv(self.channels, doubled=True, dtype=self.style.dtype, name="conv")(x)


@dataclass(frozen=True)
class Resample:
    """How a U-Net halves and doubles its maps: `down(channels, style)(x, features, train)`.

    kind: a convolution, a residual block, or layers without params.
    """

    down: Callable[..., nn.Module]
    up: Callable[..., nn.Module]
    kind: Literal["conv", "block", "plain"]


RESAMPLES: Mapping[str, Resample] = MappingProxyType(
    {
        "conv": Resample(ConvDown, ConvUp, "conv"),
        "conv_centred": Resample(partial(ConvDown, padding=1), ConvUp, "conv"),
        "block": Resample(
            partial(ResidualBlock, resize=halve), partial(ResidualBlock, resize=double), "block"
        ),
        "plain": Resample(partial(Resize, resize=halve), partial(Resize, resize=double), "plain"),
    }
)


def filtered_blocks(taps: Taps) -> Resample:
    """Residual blocks that halve and double by a FIR filter; the same as "block" for two taps."""
    if len(taps) == 2:
        return RESAMPLES["block"]
    return Resample(
        partial(ResidualBlock, resize=partial(fir_halve, taps=taps)),
        partial(ResidualBlock, resize=partial(fir_double, taps=taps)),
        "block",
    )
