"""The encoder and the middle of a U-Net, which diffusion networks and classifiers share.

Ho et al. 2020 (Denoising diffusion probabilistic models), Dhariwal & Nichol 2021 (Diffusion models
beat GANs), Song et al. 2021 (the input at every resolution), Rombach et al. 2022 (cross-attention).
Works for images, signals and volumes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.errors import UserError
from genzoo.core.types import Array
from genzoo.nets.interface import InnerMap
from genzoo.nets.parts.attention import SelfAttention
from genzoo.nets.parts.layers import Conv, fold
from genzoo.nets.parts.remat import POLICIES
from genzoo.nets.parts.resample import Taps, fir_smooth
from genzoo.nets.unet.residual import BlockStyle, Resample, ResidualBlock
from genzoo.nets.unet.spatial_transformer import SpatialTransformer


@dataclass(frozen=True)
class Remat:
    """What the backward pass recomputes to save memory. `wrap` acts on module classes."""

    wrap: Callable[[type[nn.Module]], type[nn.Module]]


def _remat(policy: Callable | None) -> Remat:
    if policy is None:
        return Remat(lambda block: block)
    # Argument 5 of a block, counting self, is `train`: a Python bool, not traced.
    return Remat(lambda block: nn.remat(block, policy=policy, static_argnums=(5,)))


REMATS: Mapping[str, Remat] = MappingProxyType(
    {name: _remat(policy) for name, policy in POLICIES.items()}
)


def width_of(width: int, multiplier: float) -> int:
    """Channels of a level. Multipliers may be fractions such as 0.5 (ADM at 512 pixels)."""
    return int(width * multiplier)


def heads_of(channels: int, heads: int, head_width: int) -> int:
    """The number of attention heads for `channels`; `head_width` decides unless it is 0."""
    return channels // head_width if head_width else heads


def middle(width: int, block: int, key: str, within: str = "") -> InnerMap:
    """The map after the middle of a U-Net at the path `within`. key: the config key of `block`.
    Raises UserError unless that is 0, since the blocks of a U-Net are not numbered."""
    if block:
        raise UserError(
            f"{key} = {block} is for transformers: set it to 0 for the map after the middle."
        )
    return InnerMap(path=f"{within}middle_1", width=width)


class AttentiveBlock(nn.Module):
    """A residual block followed by attention: the unit of rematerialisation.

    (x [B, *size, C], features [B, E], tokens [B, L, D] or None, token_mask [B, L] bool or None,
    train) -> [B, *size, channels]. heads: 0 for no attention. depth: 0 for self-attention, or the
    number of blocks of a spatial transformer, which needs tokens (ValueError).
    """

    channels: int
    style: BlockStyle
    heads: int
    depth: int

    @nn.compact
    def __call__(
        self,
        x: Array,
        features: Array,
        tokens: Array | None,
        token_mask: Array | None,
        train: bool,
    ) -> Array:
        style = self.style
        x = ResidualBlock(self.channels, style, name="residual")(x, features, train)
        if self.heads and self.depth:
            if tokens is None:
                raise ValueError("this network attends to tokens: give tokens [B, L, D]")
            transformer = SpatialTransformer(
                self.heads, self.depth, style.groups, style.dtype, style.fused, name="transformer"
            )
            return transformer(x, tokens, token_mask)
        if self.heads:
            attention = SelfAttention(
                self.heads, style.groups, style.epsilon, style.dtype, style.scale, style.fused,
                name="attention",
            )  # fmt: skip
            return attention(x)
        return x


class InputStep(nn.Module):
    """One step of NCSN++'s input pyramid: [B, *size, C] -> [B, *size / 2, channels].

    A FIR filter, then a convolution with stride two. x is padded with zeros once, for both.
    """

    channels: int
    taps: Taps
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = Conv(self.channels, stride=2, padding=0, dtype=self.dtype, name="conv")
        return conv(fir_smooth(x, self.taps))


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """The levels of a U-Net. Its methods make modules, so call them inside a compact `__call__`.

    entry: channels after the first convolution. widths: channels of each level. blocks: residual
    blocks of a level in the encoder. attention: the sides of the feature maps with attention after
    each block (after folding patches; the smaller side of a rectangle). middle: whether the middle
    has attention. heads, head_width: see `heads_of`. patch: the side of the patches folded into
    channels. depth: blocks of each spatial transformer, which attends to tokens; 0 for
    self-attention. pyramid: the filter taps of the input pyramid, which adds the resampled input at
    each level (NCSN++); () for no pyramid.
    """

    entry: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    middle: bool
    heads: int
    head_width: int
    style: BlockStyle
    resample: Resample
    remat: Remat
    patch: int
    depth: int = 0
    pyramid: Taps = ()

    def attends(self, h: Array) -> bool:
        """Whether blocks on feature maps of the size of h [B, *size, C] have attention."""
        return min(h.shape[1:-1]) in self.attention

    def block(self, name: str, channels: int, attentive: bool) -> nn.Module:
        """An AttentiveBlock, with attention only if `attentive`."""
        heads = heads_of(channels, self.heads, self.head_width) if attentive else 0
        return self.remat.wrap(AttentiveBlock)(channels, self.style, heads, self.depth, name=name)

    def descend(
        self,
        x: Array,
        features: Array,
        tokens: Array | None,
        token_mask: Array | None,
        train: bool,
        hint: Array | None = None,
    ) -> tuple[Array, list[Array]]:
        """Runs the encoder and the middle on x [B, *size, C].

        hint: added after the first convolution, [B, *size / patch, entry].

        Returns the output of the middle [B, *size / (patch 2^(levels - 1)), last width] and the
        skip connections, the outputs of all steps of the encoder in order.
        """
        style, inputs = self.style, (features, tokens, token_mask, train)
        source = fold(x, self.patch)
        h = Conv(self.entry, dtype=style.dtype, name="entry")(source)
        h = h if hint is None else h + hint
        skips = [h]
        for level, channels in enumerate(self.widths):
            for i in range(self.blocks):
                h = self.block(f"down_{level}_block_{i}", channels, self.attends(h))(h, *inputs)
                skips.append(h)
            if level < len(self.widths) - 1:
                down = self.resample.down(channels, style, name=f"down_{level}_resample")
                h = down(h, features, train)
                if self.pyramid:
                    step = InputStep(
                        channels, self.pyramid, style.dtype, name=f"down_{level}_input"
                    )
                    h = source = style.scale * (h + step(source))
                skips.append(h)
        h = self.block("middle_0", self.widths[-1], self.middle)(h, *inputs)
        h = self.block("middle_1", self.widths[-1], False)(h, *inputs)
        return h, skips
