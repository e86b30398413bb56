"""The U-Net of pixel diffusion models: DDPM, improved DDPM and ADM are settings of this one module.

Ho et al. 2020 (Denoising diffusion probabilistic models), Nichol & Dhariwal 2021 (Improved DDPM),
Dhariwal & Nichol 2021 (Diffusion models beat GANs). Works for images, signals and volumes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions, Entries
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import Conditioner
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS
from genzoo.nets.parts.layers import DTYPES, Conv, GroupNorm, unfold
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
from genzoo.nets.unet.settings import (
    SCALE_SHIFT,
    HeadWidth,
    LevelsSettings,
    ResampleName,
    ScaleShift,
    blind_problems,
    levels_problems,
)
from genzoo.nets.unet.trunk import REMATS, Trunk


class UNet(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions) -> [B, *size, out_channels].

    size: any number of axes; each side must be divisible by patch 2^(levels - 1).
    condition: the module that makes `Encoded` of (time, conditions, x).
    attention_up: whether every block on the way up attends where those on the way down do, or only
    the last of its level. The output is float32, and zero at the start.
    """

    out_channels: int
    trunk: Trunk
    condition: Callable[..., nn.Module]
    attention_up: bool = True

    @nn.compact
    def __call__(
        self, x: Array, time: Array, conditions: Conditions, train: bool
    ) -> Array:
        trunk, style, axes = self.trunk, self.trunk.style, x.ndim - 2
        time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
        encoded = self.condition(name="condition")(time, conditions, x)
        condition = encoded.features
        if encoded.maps is not None:
            x = jnp.concatenate([x, encoded.maps.astype(x.dtype)], -1)
        h, skips = trunk.descend(x, condition, train)
        for level, features in reversed(list(enumerate(trunk.widths))):
            for i in range(trunk.blocks + 1):
                attentive = trunk.attends(h) and (self.attention_up or i == trunk.blocks)
                block = trunk.block(f"up_{level}_block_{i}", features, attentive)
                h = block(jnp.concatenate([h, skips.pop()], -1), condition, train)
            if level:
                up = trunk.resample.up(features, style, name=f"up_{level}_resample")
                h = up(h, condition, train)

        # The last norm and convolution are float32: rounding here would be noise in the output.
        h = nn.silu(GroupNorm(style.groups, style.epsilon, name="out_norm")(h))
        channels = self.out_channels * trunk.patch**axes
        return unfold(Conv(channels, zero=True, name="out")(h), trunk.patch)


@dataclass(frozen=True, kw_only=True)
class UNetSettings(LevelsSettings):
    """The U-Net of DDPM, improved DDPM and ADM. Published members of this family, with their exact
    parameter counts: tests/nets/test_unet_counts.py."""

    head_width: HeadWidth = 0
    scale_shift: ScaleShift = False
    resample: ResampleName = "conv"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """What does not fit together, on inputs of `shape` (*size, C)."""
        problems = levels_problems(shape, self, head_width=self.head_width)
        if not self.scale_shift:
            problems += blind_problems(self.widths, self.norm_groups, or_else=SCALE_SHIFT)
        return problems

    def build(self, *, out_channels: int, entries: Entries) -> Network:
        """A U-Net of x [B, *size, C], time [B] in DDPM steps, and conditions.

        out_channels: of the output (twice the image's for a learned variance).
        entries: how conditions enter, by name; others are ignored. ADM's table of classes has no
            null.
        """
        condition = partial(
            Conditioner,
            embed=TIME_EMBEDDINGS[self.time_embedding],
            width=self.embedding_width or self.width,
            features=4 * (self.embedding_width or self.width),
            entries=entries,
        )
        style = BlockStyle(
            scale_shift=self.scale_shift,
            dropout=self.dropout,
            groups=self.norm_groups,
            epsilon=self.norm_epsilon,
            dtype=DTYPES[self.dtype],
        )
        trunk = Trunk(
            entry=self.widths[0],
            widths=self.widths,
            blocks=self.blocks,
            attention=self.attention,
            middle=True,
            heads=self.heads,
            head_width=self.head_width,
            style=style,
            resample=RESAMPLES[self.resample],
            remat=REMATS[self.remat],
            patch=self.patch,
        )
        return network(UNet(out_channels=out_channels, trunk=trunk, condition=condition))
