"""The way down and the middle of a U-Net, which diffusion networks and classifiers share.

Ho et al. 2020 (Denoising diffusion probabilistic models), Dhariwal & Nichol 2021 (Diffusion models
beat GANs). Works for images, signals and volumes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.attention import SelfAttention
from genzoo.nets.parts.layers import Conv, fold
from genzoo.nets.unet.residual import BlockStyle, Resample, ResidualBlock


def _save_products(primitive, *_, **__) -> bool:
    """Keep what convolutions and matrix products gave; norms and activations are computed again."""
    return primitive.name in ("conv_general_dilated", "dot_general")


@dataclass(frozen=True)
class Remat:
    """What to compute again in the backward pass, to save memory. `wrap` acts on module classes."""

    wrap: Callable[[type[nn.Module]], type[nn.Module]]


def _remat(policy: Callable | None) -> Remat:
    # Argument 3 of a block, counting self, is `train`: Python's, not the tracer's.
    return Remat(lambda block: nn.remat(block, policy=policy, static_argnums=(3,)))


REMATS: Mapping[str, Remat] = MappingProxyType(
    {
        "none": Remat(lambda block: block),
        "full": _remat(jax.checkpoint_policies.nothing_saveable),
        "dots": _remat(_save_products),
    }
)


def width_of(width: int, multiplier: float) -> int:
    """Channels of a level; multipliers such as 0.5 occur (ADM at 512 pixels)."""
    return int(width * multiplier)


def heads_of(channels: int, heads: int, head_width: int) -> int:
    """How many heads attention over `channels` has: `head_width` wins when it is not 0."""
    return channels // head_width if head_width else heads


class AttentiveBlock(nn.Module):
    """A residual block, followed by self-attention where `heads` is not 0: the unit of remat."""

    features: int
    style: BlockStyle
    heads: int

    @nn.compact
    def __call__(self, x: Array, condition: Array, train: bool) -> Array:
        style = self.style
        x = ResidualBlock(self.features, style, name="residual")(x, condition, train)
        if self.heads:
            x = SelfAttention(
                self.heads, style.groups, style.epsilon, style.dtype, style.scale, name="attention"
            )(x)
        return x


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """The levels of a U-Net. Its methods make modules, so call them inside a compact `__call__`.

    entry: channels behind the first convolution. widths: of each level. blocks: residual blocks of
    a level on the way down. attention: where self-attention follows each block, as the smaller side
    of the feature map (behind the patch entry). middle: whether the middle has it too.
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

    def attends(self, h: Array) -> bool:
        """Whether blocks on feature maps like h [B, *size, C] end in attention."""
        return min(h.shape[1:-1]) in self.attention

    def block(self, name: str, features: int, attentive: bool) -> nn.Module:
        """(h [B, *size, C], condition [B, E], train) -> [B, *size, features]."""
        heads = heads_of(features, self.heads, self.head_width) if attentive else 0
        return self.remat.wrap(AttentiveBlock)(features, self.style, heads, name=name)

    def descend(self, x: Array, condition: Array, train: bool) -> tuple[Array, list[Array]]:
        """x [B, *size, C] -> what the middle gave, and what every step on the way down gave."""
        style = self.style
        h = Conv(self.entry, dtype=style.dtype, name="entry")(fold(x, self.patch))
        skips = [h]
        for level, features in enumerate(self.widths):
            for i in range(self.blocks):
                block = self.block(f"down_{level}_block_{i}", features, self.attends(h))
                h = block(h, condition, train)
                skips.append(h)
            if level < len(self.widths) - 1:
                down = self.resample.down(features, style, name=f"down_{level}_resample")
                h = down(h, condition, train)
                skips.append(h)
        h = self.block("middle_0", self.widths[-1], self.middle)(h, condition, train)
        h = self.block("middle_1", self.widths[-1], False)(h, condition, train)
        return h, skips
