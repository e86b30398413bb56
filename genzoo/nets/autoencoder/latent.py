"""The autoencoders of latent diffusion: AutoencoderKL and VQGAN.

Esser et al. 2021 (Taming transformers for high-resolution image synthesis), Rombach et al. 2022
(High-resolution image synthesis with latent diffusion models). A residual block is

    h <- shortcut(h) + conv(act(norm(conv(act(norm(h))))))      act = swish                      (1)

The encoder has blocks on every level, halves the sides between levels by convolutions that pad only
after the last position, and ends with a block, attention and a block. The decoder mirrors it with
one block more on each level; it doubles the sides by repetition and a convolution. Convolutions of
one position lead to the latents and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.autoencoder.hierarchy import Head, Hierarchy
from genzoo.nets.autoencoder.pair import Pair
from genzoo.nets.gan.patch import SMALLEST, PatchCritic, critic_params
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.attention import SelfAttention
from genzoo.nets.parts.counts import conv, dense, largest, norm
from genzoo.nets.parts.layers import DTYPES, Conv, GroupNorm
from genzoo.nets.parts.problems import indivisible
from genzoo.nets.unet.settings import (
    Attention,
    Blocks,
    Dtype,
    Multipliers,
    Width,
    attention_problems,
)
from genzoo.nets.unet.trunk import width_of

LAST = "out/conv/kernel"
"""The path of the decoder's last weights among its params."""
_EPSILON = 1e-6


@dataclass(frozen=True)
class Levels:
    """What encoder and decoder share. widths: channels by level, the finest first. attention: sides
    of the maps with attention. groups: of the norms."""

    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    groups: int
    dtype: jnp.dtype

    def norm(self, name: str) -> GroupNorm:
        """A norm."""
        return GroupNorm(self.groups, _EPSILON, self.dtype, name=name)

    def attend(self, h: Array, name: str) -> Array:
        """Attention with one head. Call it inside a compact `__call__`."""
        return SelfAttention(1, self.groups, _EPSILON, self.dtype, name=name)(h)

    def blocks_of(self, h: Array, way: str, level: int, blocks: int) -> Array:
        """The blocks of a level. Call it inside a compact `__call__`."""
        for i in range(blocks):
            h = Block(self.widths[level], self, name=f"{way}_{level}_block_{i}")(h)
            if min(h.shape[1:-1]) in self.attention:
                h = self.attend(h, f"{way}_{level}_attention_{i}")
        return h

    def middle(self, h: Array) -> Array:
        """A block, attention and a block. Call it inside a compact `__call__`."""
        h = Block(self.widths[-1], self, name="middle_0")(h)
        h = self.attend(h, "middle_attention")
        return Block(self.widths[-1], self, name="middle_1")(h)


class Block(nn.Module):
    """h [B, *size, C] -> [B, *size, channels]: equation (1)."""

    channels: int
    levels: Levels

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = x
        for i in range(2):
            h = nn.silu(self.levels.norm(f"norm_{i}")(h))
            h = Conv(self.channels, dtype=self.levels.dtype, name=f"conv_{i}")(h)
        if x.shape[-1] != self.channels:
            x = Conv(self.channels, window=1, dtype=self.levels.dtype, name="shortcut")(x)
        return x + h


class Encoder(nn.Module):
    """x [B, *size, C] -> [B, *grid, encoded] float32, with grid = size / 2^(levels - 1).

    quant: whether a convolution of one position comes last.
    """

    encoded: int
    levels: Levels
    quant: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        del train
        levels = self.levels
        h = Conv(levels.widths[0], dtype=levels.dtype, name="entry")(x)
        for level, width in enumerate(levels.widths):
            h = levels.blocks_of(h, "down", level, levels.blocks)
            if level < len(levels.widths) - 1:
                name = f"down_{level}_resample"
                h = Conv(width, stride=2, dtype=levels.dtype, name=name)(h)
        h = nn.silu(levels.norm("out_norm")(levels.middle(h)))
        # In float32, because rounding here would be noise in the latent.
        h = Conv(self.encoded, name="out")(h)
        return Conv(self.encoded, window=1, name="quant")(h) if self.quant else h


class Decoder(nn.Module):
    """z [B, *grid, latent] -> [B, *size, decoded] float32, with size = grid 2^(levels - 1).

    quant: whether a convolution of one position comes first.
    """

    decoded: int
    levels: Levels
    quant: bool

    @nn.compact
    def __call__(self, z: Array, train: bool) -> Array:
        del train
        levels = self.levels
        h = Conv(z.shape[-1], window=1, name="quant")(z) if self.quant else z
        h = Conv(levels.widths[-1], dtype=levels.dtype, name="entry")(h)
        h = levels.middle(h)
        for level, width in reversed(list(enumerate(levels.widths))):
            h = levels.blocks_of(h, "up", level, levels.blocks + 1)
            if level:
                name = f"up_{level}_resample"
                h = Conv(width, doubled=True, dtype=levels.dtype, name=name)(h)
        h = nn.silu(levels.norm("out_norm")(h))
        return Conv(self.decoded, name="out")(h)


@dataclass(frozen=True, kw_only=True)
class KLNetworks:
    """pair: an encoder to the means and log variances of latents, and the decoder. critic: (x, mask
    [B] or None) -> scores [B, *patches]; None if there is none."""

    pair: Pair
    critic: Network | None


@dataclass(frozen=True, kw_only=True)
class VQNetworks:
    """autoencoder: one grid of vectors. critic: as in `KLNetworks`."""

    autoencoder: Hierarchy
    critic: Network | None


@dataclass(frozen=True, kw_only=True)
class LatentSettings:
    """What the networks of both kinds share."""

    width: Width = 128
    multipliers: Multipliers = (1, 2, 4, 4)
    blocks: Blocks = 2
    attention: Attention = ()
    norm_groups: Annotated[
        int, AtLeast(1), Limit(65_536), "Maximum number of groups in GroupNorm."
    ] = 32
    critic_width: Annotated[
        int, AtLeast(1), Limit(8_192), "Channels of the first maps of the critic."
    ] = 64
    critic_layers: Annotated[
        int,
        AtLeast(1),
        Limit(16),
        "Halvings in the critic; with three it scores patches of 70 x 70 pixels.",
    ] = 3
    dtype: Dtype = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for images of `shape` (*size, C), as sentences."""
        problems = []
        if not all(self._levels().widths):
            problems.append(
                f"network.multipliers = {self.multipliers} with network.width = {self.width} "
                "leaves a level without channels: use larger ones."
            )
        problems += indivisible("multipliers", self.multipliers, shape[:-1], 2**self._halvings)
        sides = [min(shape[:-1]) >> level for level in range(len(self.multipliers))]
        return problems + attention_problems(self.attention, sides)

    @property
    def _halvings(self) -> int:
        return len(self.multipliers) - 1

    def _grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(side >> self._halvings for side in shape[:-1])

    def _levels(self) -> Levels:
        return Levels(
            widths=tuple(width_of(self.width, multiplier) for multiplier in self.multipliers),
            blocks=self.blocks,
            attention=self.attention,
            groups=self.norm_groups,
            dtype=DTYPES[self.dtype],
        )

    def _critic(self, shape: tuple[int, ...], wanted: bool) -> Network | None:
        if not wanted:
            return None
        if min(shape[:-1]) >> self.critic_layers < SMALLEST:
            sides = " x ".join(map(str, shape[:-1]))
            raise UserError(
                f"network.critic_layers = {self.critic_layers} needs sides of at least "
                f"{SMALLEST << self.critic_layers} pixels, but the data has {sides}: lower it."
            )
        return network(PatchCritic(self.critic_width, self.critic_layers, DTYPES[self.dtype]))

    def _size(
        self, x: tuple[int, ...], *, encoded: int, latent: int, decoded: int, critic: bool
    ) -> Size:
        """The size of encoder, decoder and critic, without convolutions of one position."""
        *sides, channels = x
        counted = _Count(self._levels(), tuple(sides))
        params = counted.encoder(channels, encoded) + counted.decoder(latent, decoded)
        if critic:
            params += critic_params(
                len(sides), channels, self.critic_width, self.critic_layers
            )
        return Size(params=params, layer=max(counted.layer, largest(sides, decoded, 4)))


class _Count:
    """The params of both networks. layer: the bytes of the largest array so far."""

    def __init__(self, levels: Levels, sides: tuple[int, ...]):
        self._levels, self._sides, self._axes = levels, sides, len(sides)
        self.layer = 0

    def encoder(self, channels: int, encoded: int) -> int:
        widths = self._levels.widths
        total, width = self._conv(channels, widths[0]), widths[0]
        for level, own in enumerate(widths):
            total += self._level(level, width, self._levels.blocks)
            width = own
            total += self._conv(width, width) if level < len(widths) - 1 else 0
        return total + self._middle() + norm(width) + self._conv(width, encoded)

    def decoder(self, latent: int, decoded: int) -> int:
        widths = self._levels.widths
        total, width = self._conv(latent, widths[-1]) + self._middle(), widths[-1]
        for level, own in reversed(list(enumerate(widths))):
            total += self._level(level, width, self._levels.blocks + 1)
            width = own
            total += self._conv(width, width) if level else 0
        return total + norm(width) + self._conv(width, decoded)

    def _conv(self, inputs: int, outputs: int, window: int = 3) -> int:
        return conv(self._axes, inputs, outputs, window)

    def _level(self, level: int, width: int, blocks: int) -> int:
        own, sides = self._levels.widths[level], [side >> level for side in self._sides]
        self.layer = max(self.layer, largest(sides, own, self._levels.dtype.itemsize))
        total = sum(self._block(own if i else width, own) for i in range(blocks))
        if min(sides) in self._levels.attention:
            total += blocks * self._attention(own, sides)
        return total

    def _middle(self) -> int:
        width = self._levels.widths[-1]
        sides = [side >> len(self._levels.widths) - 1 for side in self._sides]
        return 2 * self._block(width, width) + self._attention(width, sides)

    def _block(self, inputs: int, width: int) -> int:
        total = norm(inputs) + self._conv(inputs, width) + norm(width) + self._conv(width, width)
        return total + (self._conv(inputs, width, 1) if inputs != width else 0)

    def _attention(self, width: int, sides: Sequence[int]) -> int:
        self.layer = max(self.layer, 4 * prod(sides) ** 2)  # the logits are float32
        return norm(width) + dense(width, 3 * width) + dense(width, width)


@dataclass(frozen=True, kw_only=True)
class KLSettings(LatentSettings):
    """AutoencoderKL. With four channels of latents the defaults are those of Stable Diffusion 1
    (f8), which has 83,653,863 params; the critic has 2,765,633 more."""

    quant: Annotated[
        bool, "Whether there are convolutions of one position at the latents (not in SD 3)."
    ] = True

    def size(self, x: tuple[int, ...], *, shape: tuple, latent: int, critic: bool) -> Size:
        """The size of `build`."""
        del shape
        axes = len(x) - 1
        size = self._size(x, encoded=2 * latent, latent=latent, decoded=x[-1], critic=critic)
        quant = conv(axes, 2 * latent, 2 * latent, 1) + conv(axes, latent, latent, 1)
        return Size(params=size.params + self.quant * quant, layer=size.layer)

    def build(self, *, shape: tuple[int, ...], latent: int, critic: bool) -> KLNetworks:
        """The networks for images of `shape` (*size, C), with grid = size / 2^(levels - 1): x ->
        [B, *grid, 2 latent] and [B, *grid, latent] -> [B, *size, C]. critic: whether there is one.
        Raises UserError if the critic does not fit the images."""
        levels = self._levels()
        return KLNetworks(
            pair=Pair(
                encoder=network(Encoder(encoded=2 * latent, levels=levels, quant=self.quant)),
                decoder=network(Decoder(decoded=shape[-1], levels=levels, quant=self.quant)),
                grid=self._grid(shape),
            ),
            critic=self._critic(shape, critic),
        )


@dataclass(frozen=True, kw_only=True)
class VQSettings(LatentSettings):
    """VQGAN. With 256 channels of latents the defaults are those of the authors' model for ImageNet
    (f16), which has 72,141,699 params with its 1,024 codes and without the critic."""

    multipliers: Multipliers = (1, 1, 2, 2, 4)
    attention: Attention = (16,)

    def size(self, x: tuple[int, ...], *, shape: tuple, latent: int, critic: bool) -> Size:
        """The size of `build`."""
        del shape
        size = self._size(x, encoded=latent, latent=latent, decoded=x[-1], critic=critic)
        quant = 2 * conv(len(x) - 1, latent, latent, 1)
        return Size(params=size.params + quant, layer=size.layer)

    def build(self, *, shape: tuple[int, ...], latent: int, critic: bool) -> VQNetworks:
        """The networks for images of `shape` (*size, C), with one grid of vectors of width `latent`
        and sides size / 2^(levels - 1). critic: as for `KLSettings`."""
        levels = self._levels()
        return VQNetworks(
            autoencoder=Hierarchy(
                encoders=(network(Encoder(encoded=latent, levels=levels, quant=False)),),
                heads=(network(Head(latent=latent)),),
                contexts=(),
                upsamples=(),
                decoder=network(Decoder(decoded=shape[-1], levels=levels, quant=True)),
                grids=(self._grid(shape),),
                latent=latent,
            ),
            critic=self._critic(shape, critic),
        )
