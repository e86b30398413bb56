"""The U-Net of pixel diffusion models: DDPM, improved DDPM and ADM are settings of this one module.

Ho et al. 2020 (Denoising diffusion probabilistic models), Nichol & Dhariwal 2021 (Improved DDPM),
Dhariwal & Nichol 2021 (Diffusion models beat GANs). Works for images, signals and volumes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array, Labels
from genzoo.nets.attention import SelfAttention
from genzoo.nets.embeddings import TIME_EMBEDDINGS, Condition
from genzoo.nets.interface import Network, network
from genzoo.nets.layers import DTYPES, Conv, GroupNorm, fold, unfold
from genzoo.nets.residual import RESAMPLES, BlockStyle, Resample, ResidualBlock


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
        x = ResidualBlock(self.features, self.style, name="residual")(x, condition, train)
        if self.heads:
            style = self.style
            x = SelfAttention(
                self.heads, style.groups, style.epsilon, style.dtype, name="attention"
            )(x)
        return x


class UNet(nn.Module):
    """(x [B, *size, C], time [B] or [], label [B] or None) -> [B, *size, out_channels] float32.

    size: any number of axes; each side must be divisible by patch 2^(levels - 1).
    attention: where self-attention follows each block, as the smaller side of the feature map
    (behind the patch entry); the middle always has it. The output is zero at the start.
    """

    out_channels: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    heads: int
    head_width: int
    style: BlockStyle
    resample: Resample
    condition: Callable[..., Condition]
    remat: Remat
    patch: int

    @nn.compact
    def __call__(self, x: Array, time: Array, label: Labels | None, train: bool) -> Array:
        style, levels = self.style, len(self.widths)
        axes = x.ndim - 2
        time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
        condition = self.condition(name="condition")(time, label)
        block_type = self.remat.wrap(AttentiveBlock)

        def block(name: str, h: Array, features: int, attentive: bool) -> Array:
            heads = heads_of(features, self.heads, self.head_width) if attentive else 0
            return block_type(features, style, heads, name=name)(h, condition, train)

        def attentive(h: Array) -> bool:
            return min(h.shape[1:-1]) in self.attention

        def resize(name: str, make: Callable, h: Array) -> Array:
            return make(features=h.shape[-1], style=style, name=name)(h, condition, train)

        h = Conv(self.widths[0], dtype=style.dtype, name="entry")(fold(x, self.patch))
        skips = [h]
        for level, features in enumerate(self.widths):
            for i in range(self.blocks):
                h = block(f"down_{level}_block_{i}", h, features, attentive(h))
                skips.append(h)
            if level < levels - 1:
                h = resize(f"down_{level}_resample", self.resample.down, h)
                skips.append(h)

        h = block("middle_0", h, self.widths[-1], True)
        h = block("middle_1", h, self.widths[-1], False)

        for level, features in reversed(list(enumerate(self.widths))):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = block(f"up_{level}_block_{i}", h, features, attentive(h))
            if level:
                h = resize(f"up_{level}_resample", self.resample.up, h)

        # The last norm and convolution are float32: rounding here would be noise in the output.
        h = nn.silu(GroupNorm(style.groups, style.epsilon, name="out_norm")(h))
        channels = self.out_channels * self.patch**axes
        return unfold(Conv(channels, zero=True, name="out")(h), self.patch)


def unet(
    *,
    out_channels: int,
    num_classes: int,
    width: int = 128,
    multipliers: tuple[float, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    head_width: int = 0,
    scale_shift: bool = False,
    resample: str = "conv",
    time_embedding: str = "sinusoidal",
    embedding_width: int = 0,
    null_class: bool = True,
    dropout: float = 0.0,
    norm_groups: int = 32,
    norm_epsilon: float = 1e-6,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> Network:
    """A U-Net of x [B, *size, C], time [B] in DDPM steps, label [B] int32 or None.

    out_channels: of the output (twice the image's for a learned variance).
    num_classes: 0 is unconditional: the label is then ignored.

    width, multipliers: level l has int(width * multipliers[l]) channels, at size / 2^l.
    blocks: residual blocks per level on the way down; one more on the way up.
    attention: smaller sides of the feature maps at which each block ends in self-attention.
    heads, head_width: attention heads by number, or by their width when `head_width` is not 0.
    scale_shift: time features scale and shift the norms (iDDPM, ADM) instead of being added.
    resample: "conv" (DDPM, iDDPM), "block" (ADM) or "plain" (means and copies).
    time_embedding: "sinusoidal" (DDPM), "sinusoidal_adm" (iDDPM, ADM) or "fourier" (NCSN++).
    embedding_width: of the sinusoids; 0 is `width`. The features have four times as many.
    null_class: whether a class `num_classes` stands for "no label", as label dropping and
        guidance need; None then means it too. Published ADM counts are without.
    dropout: inside residual blocks, in training.
    norm_groups, norm_epsilon: of GroupNorm (DDPM 1e-6, ADM 1e-5). Channels that 32 does not
        divide are normed in their greatest divisor below.
    patch: squares of patch x patch pixels become channels before the first convolution and pixels
        again after the last: the cheap entry for small networks on a CPU.
    remat: "none", "full" (keep block inputs only) or "dots" (keep what convolutions and products
        gave): memory against time.
    dtype: of convolutions and attention, "float32" or "bfloat16". Params, norms, softmax, time
        features and the output are float32 in any case.

    Published members, with their exact parameter counts: tests/nets/test_unet_counts.py.
    """
    style = BlockStyle(
        scale_shift=scale_shift,
        dropout=dropout,
        groups=norm_groups,
        epsilon=norm_epsilon,
        dtype=DTYPES[dtype],
    )
    has_null = num_classes > 0 and null_class
    condition = partial(
        Condition,
        embed=TIME_EMBEDDINGS[time_embedding],
        width=embedding_width or width,
        features=4 * (embedding_width or width),
        classes=num_classes + has_null,
        null=num_classes if has_null else None,
    )
    module = UNet(
        out_channels=out_channels,
        widths=tuple(width_of(width, multiplier) for multiplier in multipliers),
        blocks=blocks,
        attention=tuple(attention),
        heads=heads,
        head_width=head_width,
        style=style,
        resample=RESAMPLES[resample],
        condition=condition,
        remat=REMATS[remat],
        patch=patch,
    )
    return network(module)
