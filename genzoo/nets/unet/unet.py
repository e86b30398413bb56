"""The U-Net of diffusion models, with settings for DDPM, improved DDPM, ADM and latent diffusion.

Ho et al. 2020 (Denoising diffusion probabilistic models), Nichol & Dhariwal 2021 (Improved DDPM),
Dhariwal & Nichol 2021 (Diffusion models beat GANs), Rombach et al. 2022 (High-resolution image
synthesis with latent diffusion models). Works for images, signals and volumes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.conditions import Conditions, Entries
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import Steerable, steerable
from genzoo.nets.parts.conditioning import check_ways
from genzoo.nets.parts.layers import Conv, GroupNorm, unfold
from genzoo.nets.unet.control import ControlBranch
from genzoo.nets.unet.counts import Count
from genzoo.nets.unet.settings import ADMSettings
from genzoo.nets.unet.trunk import Trunk


class UNet(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions, residuals) -> [B, *size, out_channels].

    The output is float32 and zero at the start. size: any number of axes; each side must be
    divisible by patch 2^(levels - 1). residuals: of a ControlNet, added to the skip connections, in
    the order of the encoder, and to the output of the middle; () for none.
    condition: makes the module (time, conditions, x) -> `Encoded`. The features go to every block,
    the tokens to the spatial transformers, and the maps are concatenated to the input.
    attention_up: whether all blocks of a decoder level have attention if those of the encoder level
    do, or only the last one.
    """

    out_channels: int
    trunk: Trunk
    condition: Callable[..., nn.Module]
    attention_up: bool = True

    @nn.compact
    def __call__(
        self,
        x: Array,
        time: Array,
        conditions: Conditions,
        residuals: Sequence[Array] = (),
        *,
        train: bool,
    ) -> Array:
        trunk, style, axes = self.trunk, self.trunk.style, x.ndim - 2
        time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
        encoded = self.condition(name="condition")(time, conditions, x)
        inputs = encoded.features, encoded.tokens, encoded.mask, train
        if encoded.maps is not None:
            x = jnp.concatenate([x, encoded.maps.astype(x.dtype)], -1)
        h, skips = trunk.descend(x, *inputs)
        if residuals:
            skips = [a + b for a, b in zip(skips, residuals[:-1], strict=True)]
            h = h + residuals[-1]
        for level, channels in reversed(list(enumerate(trunk.widths))):
            for i in range(trunk.blocks + 1):
                attentive = trunk.attends(h) and (self.attention_up or i == trunk.blocks)
                block = trunk.block(f"up_{level}_block_{i}", channels, attentive)
                h = block(jnp.concatenate([h, skips.pop()], -1), *inputs)
            if level:
                up = trunk.resample.up(channels, style, name=f"up_{level}_resample")
                h = up(h, encoded.features, train)

        # In float32, because rounding here would be noise in the output.
        h = nn.silu(GroupNorm(style.groups, style.epsilon, name="out_norm")(h))
        channels = self.out_channels * trunk.patch**axes
        return unfold(Conv(channels, zero=True, name="out")(h), trunk.patch)


@dataclass(frozen=True, kw_only=True)
class UNetSettings(ADMSettings):
    """The U-Net of DDPM, improved DDPM, ADM and latent diffusion.

    tests/nets/test_unet_counts.py lists published networks with their exact parameter counts.
    """

    transformer_depth: Annotated[
        int,
        AtLeast(0),
        Limit(100),
        "0 for self-attention; otherwise the number of blocks in each spatial transformer, which "
        "also attends to conditions (latent diffusion).",
    ] = 0
    context_width: Annotated[
        int,
        AtLeast(0),
        Limit(65_536),
        "Width of the tokens that spatial transformers attend to; 0 for width.",
    ] = 0

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = super().problems(shape)
        if self.context_width and not self.transformer_depth:
            problems.append(
                f"network.context_width = {self.context_width} has no effect with "
                "network.transformer_depth = 0: leave it at 0, or use a depth of at least 1."
            )
        return problems

    def size(self, shape: tuple[int, ...], *, out_channels: int, entries: Entries) -> Size:
        """The size of `build` for inputs of `shape` (*size, C)."""
        return self._count(shape, entries).ascend(out_channels, attention_up=True)

    def _count(self, shape: tuple[int, ...], entries: Entries) -> Count:
        width = self.context_width or self.width
        return self.count(shape, entries, width, self.transformer_depth)

    def build(self, *, out_channels: int, entries: Entries) -> Steerable:
        """A U-Net (x [B, *size, C], time [B], conditions) -> [B, *size, out_channels].

        Times are DDPM steps. out_channels: twice those of the image for a learned variance.
        entries: how each condition enters, by name; conditions without an entry are ignored. The
            class table of ADM has no null. Attending to a condition needs spatial transformers, and
            these need a condition to attend to (UserError).
        """
        attends = self.transformer_depth > 0
        check_ways(
            entries,
            ("add", "concat", "attend") if attends else ("add", "concat"),
            otherwise="set network.transformer_depth = 1",
        )
        if attends and not any(entry.way == "attend" for entry in entries.values()):
            raise UserError(
                f"network.transformer_depth = {self.transformer_depth} attends to conditions, but "
                "none has way = 'attend': give one, or set the depth to 0."
            )
        trunk = self.trunk(self.transformer_depth)
        condition = self.conditioner(entries, self.context_width or self.width)
        return steerable(
            UNet(out_channels=out_channels, trunk=trunk, condition=condition),
            entries,
            partial(ControlBranch, trunk, condition),
            lambda shape, hint, widths: self._count(shape, entries).branch(hint, widths),
            lambda shape: (
                self.size(shape, out_channels=out_channels, entries=entries).params
                - self._count(shape, entries).params
            ),
        )
