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
from functools import partial
from math import sqrt

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions, Entries
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import Encoded, Scalar, Vector, concatenated, value_of
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS, TimeEmbedding
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, wide_groups
from genzoo.nets.unet.check import unet_problems
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
from genzoo.nets.unet.trunk import REMATS, Trunk, width_of
from genzoo.nets.unet.unet import UNet


class NoiseConditioner(nn.Module):
    """Equation (2): (noise level [B], conditions, x) -> Encoded. The last silu of (2) is the
    blocks'.

    Conditions enter before the dense layers. An absent class is a row of zeros, and absent
    augmentations are "not augmented", so that there is nothing to learn for either: their entries
    need no null.
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


def song_unet(
    *,
    out_channels: int,
    entries: Entries,
    width: int = 128,
    multipliers: tuple[float, ...] = (2, 2, 2),
    blocks: int = 4,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    time_embedding: str = "sinusoidal",
    embedding_width: int = 0,
    dropout: float = 0.13,
    norm_groups: int = 32,
    norm_epsilon: float = 1e-6,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> Network:
    """A DDPM++ U-Net of x [B, *size, C], noise level [B] (any real number; EDM: log(sigma) / 4),
    and conditions.

    The defaults are EDM's for CIFAR-10. What the settings share with `unet` means the same there.

    out_channels, entries: as in `unet`. EDM is told of augmentations by a vector of 9 numbers.
    blocks: residual blocks per level on the way down; one more on the way up.
    time_embedding: "sinusoidal" (DDPM++), or "fourier_label" (NCSN++ in EDM) of labels of order 1;
        "fourier" of a thousandth of the label, if that is in DDPM steps.
    embedding_width: of that; 0 is `width`, NCSN++ has 2 width. The features have 4 width.
    dropout: inside residual blocks, in training.
    norm_groups: at most; fewer where a level has less than 4 channels for each.

    EDM's CIFAR-10, with augmentations, has 55,733,891 params, with 10 classes 55,735,299.
    """
    widths = tuple(width_of(width, multiplier) for multiplier in multipliers)
    style = BlockStyle(
        scale_shift=False,
        dropout=dropout,
        groups=wide_groups(min(width, *widths), norm_groups),
        epsilon=norm_epsilon,
        dtype=DTYPES[dtype],
        scale=sqrt(0.5),
        project=True,
    )
    trunk = Trunk(
        entry=width,
        widths=widths,
        blocks=blocks,
        attention=tuple(attention),
        middle=True,
        heads=heads,
        head_width=0,
        style=style,
        resample=RESAMPLES["block"],
        remat=REMATS[remat],
        patch=patch,
    )
    condition = partial(
        NoiseConditioner,
        embed=TIME_EMBEDDINGS[time_embedding],
        width=embedding_width or width,
        features=4 * width,
        entries=entries,
    )
    return network(
        UNet(out_channels=out_channels, trunk=trunk, condition=condition, attention_up=False)
    )


def song_problems(
    shape: tuple[int, ...],
    *,
    width: int = 128,
    multipliers: tuple[float, ...] = (2, 2, 2),
    blocks: int = 4,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    time_embedding: str = "sinusoidal",
    embedding_width: int = 0,
    dropout: float = 0.13,
    norm_groups: int = 32,
    norm_epsilon: float = 1e-6,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> list[str]:
    """The problems of `song_unet` with these settings on inputs of `shape` (*size, C)."""
    return unet_problems(
        shape,
        width=width,
        multipliers=multipliers,
        blocks=blocks,
        attention=attention,
        heads=heads,
        time_embedding=time_embedding,
        embedding_width=embedding_width,
        dropout=dropout,
        norm_groups=norm_groups,
        norm_epsilon=norm_epsilon,
        patch=patch,
        remat=remat,
        dtype=dtype,
    )
