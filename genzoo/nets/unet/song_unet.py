"""The U-Net of NCSN++ and DDPM++ as trained in EDM: the U-Net of the zoo in another style.

Song et al. 2021 (Score-based generative modeling through SDEs), Karras et al. 2022 (Elucidating the
design space of diffusion-based generative models, appendix F). It differs from Ho et al. 2020 in:

    h = sqrt(1/2) (shortcut(x) + residual(x)) after every block and every attention             (1)
    features = silu(W1 silu(W0 (embed(noise) + L onehot(label) sqrt(K) + A augment)))            (2)

The resolution changes inside residual blocks, whose shortcut is then a convolution. In the decoder
only the last block of a level has attention. This is DDPM++. NCSN++ resamples by a FIR filter
instead of averages and copies, and adds the input at every level l of the encoder, with x_0 = x:

    h_l = x_l = sqrt(1/2) (down(h_(l-1)) + W * filter(x_(l-1)))                                  (3)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions, Entries
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import Steerable, steerable
from genzoo.nets.parts import counts
from genzoo.nets.parts.conditioning import (
    Encoded,
    Scalar,
    Vector,
    check_ways,
    concatenated,
    value_of,
)
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS, TimeEmbedding
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, wide_groups
from genzoo.nets.unet.control import ControlBranch
from genzoo.nets.unet.counts import Count
from genzoo.nets.unet.residual import BlockStyle, filtered_blocks
from genzoo.nets.unet.settings import (
    Blocks,
    Dropout,
    LevelsSettings,
    Multipliers,
    ProgressiveInput,
    ResampleFilter,
    filter_problems,
    levels_problems,
)
from genzoo.nets.unet.trunk import REMATS, Trunk
from genzoo.nets.unet.unet import UNet


class NoiseConditioner(nn.Module):
    """Equation (2) without the last silu: (noise level [B], conditions, x) -> Encoded.

    The blocks apply the last silu. Conditions enter before the dense layers. An absent class is a
    row of zeros, and absent augmentation labels mean "not augmented". Neither has anything to
    learn, so their entries need no null.
    """

    embed: TimeEmbedding
    width: int
    features: int
    entries: Entries

    @nn.compact
    def __call__(self, noise: Array, conditions: Conditions, x: Array) -> Encoded:
        dense: Callable[..., nn.Module] = partial(nn.Dense, kernel_init=FAN_AVG)
        h = self.embed(noise, self.width)
        for name, entry in self.entries.items():
            if entry.way != "add":
                continue
            value, present = value_of(entry, conditions.get(name), x)
            if entry.kind == "class":
                rows = jax.nn.one_hot(value, entry.size) * sqrt(entry.size)
                h = h + dense(self.width, name=name)(jnp.where(present[:, None], rows, 0))
            elif entry.kind == "vector":
                h = h + Vector(self.width, entry.null, bias=entry.null, name=name)(value, present)
            else:
                h = h + Scalar(self.width, entry.null, name=name)(value, present)
        h = nn.silu(dense(self.features, name="dense_0")(h))
        h = dense(self.features, name="dense_1")(h)
        return Encoded(h, maps=concatenated(self.entries, conditions, x))


@dataclass(frozen=True, kw_only=True)
class SongUNetSettings(LevelsSettings):
    """The U-Net of DDPM++ and NCSN++. The defaults are EDM's DDPM++ for CIFAR-10.

    With nine augmentation labels this network has 55,733,891 params, and with 10 classes as well
    55,735,299. EDM's NCSN++ has 56,397,827 without classes.
    """

    multipliers: Multipliers = (2, 2, 2)
    blocks: Blocks = 4
    dropout: Dropout = 0.13
    resample_filter: ResampleFilter = (1, 1)
    progressive_input: ProgressiveInput = "none"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        return levels_problems(shape, self) + filter_problems(self.resample_filter)

    def size(self, shape: tuple[int, ...], *, out_channels: int, entries: Entries) -> Size:
        """The size of `build` for inputs of `shape` (*size, C)."""
        return self._count(shape, entries).ascend(out_channels, attention_up=False)

    def _count(self, shape: tuple[int, ...], entries: Entries) -> Count:
        width, features = self.embedding_width or self.width, 4 * self.width
        channels = shape[-1] + counts.mapped(entries)
        count = Count(self._trunk(), shape[:-1], channels, features=features)
        count.params += counts.conditioner(entries, width, features, add_to=width)
        return count

    def _trunk(self) -> Trunk:
        style = BlockStyle(
            scale_shift=False,
            dropout=self.dropout,
            groups=wide_groups(min(self.width, *self.widths), self.norm_groups),
            epsilon=self.norm_epsilon,
            dtype=DTYPES[self.dtype],
            scale=sqrt(0.5),
            project=True,
            fused=self.fused,
        )
        return Trunk(
            entry=self.width,
            widths=self.widths,
            blocks=self.blocks,
            attention=self.attention,
            middle=True,
            heads=self.heads,
            head_width=0,
            style=style,
            resample=filtered_blocks(self.resample_filter),
            remat=REMATS[self.remat],
            patch=self.patch,
            pyramid=self.resample_filter if self.progressive_input == "residual" else (),
        )

    def build(self, *, out_channels: int, entries: Entries) -> Steerable:
        """A U-Net (x [B, *size, C], noise level [B], conditions) -> [B, *size, out_channels].

        The noise level is any real number, in EDM log(sigma) / 4. out_channels, entries: as for the
        U-Net, by way = "add" or "concat" (UserError); no entry needs a null. The features have
        width 4 width, whatever embedding_width is. If norm_groups would leave fewer than 4 channels
        in a group at any level, all levels have fewer groups.
        """
        check_ways(entries, ("add", "concat"))
        condition = partial(
            NoiseConditioner,
            embed=TIME_EMBEDDINGS[self.time_embedding],
            width=self.embedding_width or self.width,
            features=4 * self.width,
            entries=entries,
        )
        trunk = self._trunk()
        return steerable(
            UNet(
                out_channels=out_channels, trunk=trunk, condition=condition, attention_up=False
            ),
            entries,
            partial(ControlBranch, trunk, condition),
            lambda shape, hint, widths: self._count(shape, entries).branch(hint, widths),
            lambda shape: (
                self.size(shape, out_channels=out_channels, entries=entries).params
                - self._count(shape, entries).params
            ),
        )
