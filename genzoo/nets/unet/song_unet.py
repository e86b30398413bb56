"""The U-Net of NCSN++ and DDPM++ as EDM trains it, which is the U-Net of the zoo in another style.

Song et al. 2021 (Score-based generative modeling through SDEs), Karras et al. 2022 (Elucidating the
design space of diffusion-based generative models, appendix F). Against Ho et al. 2020:

    h = sqrt(1/2) (shortcut(x) + residual(x)) after every block and every attention             (1)
    features = silu(W1 silu(W0 (embed(noise) + L onehot(label) sqrt(K) + A augment)))            (2)

The resolution changes inside residual blocks, whose short cut is a convolution then; on the way up
only the last block of a level attends. It is DDPM++: the encoder and decoder without the residual
pyramid of NCSN++, and means and copies as resampling filter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast
from genzoo.core.types import Array, Labels
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS, TimeEmbedding
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, wide_groups
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
from genzoo.nets.unet.settings import (
    Blocks,
    Dropout,
    LevelsSettings,
    Multipliers,
    levels_problems,
)
from genzoo.nets.unet.trunk import REMATS, Trunk
from genzoo.nets.unet.unet import UNet


class NoiseCondition(nn.Module):
    """Equation (2): (noise label [B], class label [B] or None, augment [B, A] or None) -> [B, E].

    classes: K; 0 ignores the class label. The label K, or None, is the null class: a row of zeros,
    for which nothing has to be learned. augment: A; 0 ignores the augmentation labels, and None
    stands for zeros, which mean "not augmented". The last silu of (2) is the blocks'.
    """

    embed: TimeEmbedding
    width: int
    features: int
    classes: int
    augment: int

    @nn.compact
    def __call__(self, noise: Array, label: Labels | None, augment: Array | None = None) -> Array:
        dense: Callable[..., nn.Module] = partial(nn.Dense, kernel_init=FAN_AVG)
        h = self.embed(noise, self.width)
        if self.classes:
            label = jnp.full(noise.shape, self.classes) if label is None else label
            rows = jax.nn.one_hot(label, self.classes) * sqrt(self.classes)
            h = h + dense(self.width, name="label")(rows)
        if self.augment:
            augment = jnp.zeros((*noise.shape, self.augment)) if augment is None else augment
            h = h + dense(self.width, use_bias=False, name="augment")(augment)
        h = nn.silu(dense(self.features, name="dense_0")(h))
        return dense(self.features, name="dense_1")(h)


@dataclass(frozen=True, kw_only=True)
class SongUNetSettings(LevelsSettings):
    """The DDPM++ U-Net. The defaults are EDM's for CIFAR-10.

    With augment = 9 that network has 55,733,891 params, with 10 classes 55,735,299.
    """

    multipliers: Multipliers = (2, 2, 2)
    blocks: Blocks = 4
    dropout: Dropout = 0.13
    augment: Annotated[
        int, AtLeast(0), "Numbers that tell how an image was augmented; EDM has 9."
    ] = 0

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """What does not fit together, on inputs of `shape` (*size, C)."""
        return levels_problems(shape, self)

    def build(self, *, out_channels: int, num_classes: int) -> Network:
        """A U-Net of x [B, *size, C], noise level [B] (any real number; EDM: log(sigma) / 4), class
        label [B] int32 or None and, if `augment` is not 0, augmentation labels [B, augment] or None
        (which may be left out).

        out_channels, num_classes: of the output; 0 classes are unconditional. The label
            num_classes, or None, is the null class, and needs no params.

        The features have 4 width, whatever embedding_width is. Where a level has less than 4
        channels for each of norm_groups, all levels have fewer groups.
        """
        style = BlockStyle(
            scale_shift=False,
            dropout=self.dropout,
            groups=wide_groups(min(self.width, *self.widths), self.norm_groups),
            epsilon=self.norm_epsilon,
            dtype=DTYPES[self.dtype],
            scale=sqrt(0.5),
            project=True,
        )
        trunk = Trunk(
            entry=self.width,
            widths=self.widths,
            blocks=self.blocks,
            attention=self.attention,
            middle=True,
            heads=self.heads,
            head_width=0,
            style=style,
            resample=RESAMPLES["block"],
            remat=REMATS[self.remat],
            patch=self.patch,
        )
        condition = partial(
            NoiseCondition,
            embed=TIME_EMBEDDINGS[self.time_embedding],
            width=self.embedding_width or self.width,
            features=4 * self.width,
            classes=num_classes,
            augment=self.augment,
        )
        return network(
            UNet(out_channels=out_channels, trunk=trunk, condition=condition, attention_up=False)
        )
