"""The network of variational diffusion models: one resolution, many layers, Fourier features.

Kingma et al. 2021 (Variational diffusion models, section 3.4). A likelihood lives in the last bits
of the pixels, so nothing is ever made coarser, and the input comes with

    sin(2^n pi x), cos(2^n pi x),  n = 7, 8                                                      (1)

whose periods are two grey levels and one of an 8-bit image in [-1, 1]. The input is added to the
output, because the noise that is to be predicted is most of it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.bounds import AtLeast, AtMost, Each
from genzoo.core.conditions import Conditions, Entries
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import Conditioner, check_ways
from genzoo.nets.parts.embeddings import sinusoidal
from genzoo.nets.parts.layers import DTYPES, wide_groups
from genzoo.nets.parts.problems import even_problems, indivisible
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
from genzoo.nets.unet.settings import (
    Dropout,
    Dtype,
    Patch,
    RematName,
    attention_problems,
)
from genzoo.nets.unet.trunk import REMATS, Trunk
from genzoo.nets.unet.unet import UNet

FINEST = 16  # 2^n pi x in float32 has lost its phase where n is well above this


def sinusoidal_and_spare(time: Array, width: int) -> Array:
    """[B] -> [B, width + 1]: `sinusoidal`, and the scalar that VDM keeps for another condition.

    The published models are unconditional and have a zero there. Conditions come in as in
    `Conditioner`, so it is zero here too; its 4 width weights are part of the published count.
    """
    return jnp.pad(sinusoidal(time, width), ((0, 0), (0, 1)))


def base2_fourier(x: Array, exponents: tuple[int, ...]) -> Array:
    """Equation (1): x [B, *size, C] -> [B, *size, 2 C len(exponents)], in float32."""
    frequencies = jnp.asarray(np.pi * 2.0 ** np.asarray(exponents), jnp.float32)
    angles = (x.astype(jnp.float32)[..., None] * frequencies).reshape(*x.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


class VDMUNet(nn.Module):
    """(x [B, *size, C], time, conditions) -> x + unet of x and its Fourier features, float32.

    Where the output has other channels than x, the first ones of both are added: x may end in an
    image that is given (super-resolution), the output in something else (a learned variance).
    """

    core: UNet
    fourier: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, time: Array, conditions: Conditions, train: bool) -> Array:
        h = jnp.concatenate([x, base2_fourier(x, self.fourier)], -1) if self.fourier else x
        h = self.core(h, time, conditions, train=train)
        shared = min(x.shape[-1], h.shape[-1])
        return h.at[..., :shared].add(x[..., :shared])


@dataclass(frozen=True, kw_only=True)
class VDMUNetSettings:
    """The network of variational diffusion models. The defaults are those of CIFAR-10; ImageNet at
    32 x 32 has width 256 and attention (32,).

    On CIFAR-10 it has 30,578,179 params; with the two ends of a learned gamma 30,578,181.
    """

    width: Annotated[int, AtLeast(1), "Channels throughout."] = 128
    blocks: Annotated[
        int, AtLeast(1), "Residual blocks before the middle; one more behind it."
    ] = 32
    attention: Annotated[
        tuple[int, ...], "() or the side of the feature map, for attention after every block."
    ] = ()
    middle_attention: Annotated[bool, "Whether the middle has self-attention."] = True
    fourier: Annotated[
        tuple[int, ...],
        Each(AtMost(FINEST)),
        "Exponents n of the waves sin(2^n pi x) of the input, () for none; 7 and 8 are published, "
        "above 16 float32 does not resolve them.",
    ] = (7, 8)
    dropout: Dropout = 0.1
    patch: Patch = 1
    remat: RematName = "none"
    dtype: Dtype = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """What does not fit together, on inputs of `shape` (*size, C)."""
        problems = even_problems("width", self.width)
        unfit = indivisible("patch", self.patch, shape[:-1], self.patch)
        sides = [min(shape[:-1]) // self.patch]
        return problems + (unfit or attention_problems(self.attention, sides))

    def build(self, *, out_channels: int, entries: Entries) -> Network:
        """A network of x [B, *size, C], time [B], and conditions.

        Time is 1000 (gamma - gamma_min) / (gamma_max - gamma_min), which is DDPM's steps for a
        gamma that is linear in them; any real number will do. out_channels, entries: as for the
        U-Net. Code of the paper's authors has 2^n 2 pi in place of 2^n pi, and n = 6, 7.
        """
        check_ways(entries, ("add", "concat"))
        style = BlockStyle(
            scale_shift=False,
            dropout=self.dropout,
            groups=wide_groups(self.width, 32),
            epsilon=1e-6,
            dtype=DTYPES[self.dtype],
            condition_bias=False,
        )
        trunk = Trunk(
            entry=self.width,
            widths=(self.width,),
            blocks=self.blocks,
            attention=self.attention,
            middle=self.middle_attention,
            heads=1,
            head_width=0,
            style=style,
            resample=RESAMPLES["plain"],
            remat=REMATS[self.remat],
            patch=self.patch,
        )
        condition = partial(
            Conditioner,
            embed=sinusoidal_and_spare,
            width=self.width,
            features=4 * self.width,
            entries=entries,
        )
        core = UNet(out_channels=out_channels, trunk=trunk, condition=condition)
        return network(VDMUNet(core=core, fourier=self.fourier))
