"""The network of variational diffusion models: one resolution, many layers, Fourier features.

Kingma et al. 2021 (Variational diffusion models, section 3.4). A likelihood lives in the last bits
of the pixels, so nothing is ever made coarser, and the input comes with

    sin(2^n pi x), cos(2^n pi x),  n = 7, 8                                                      (1)

whose periods are two grey levels and one of an 8-bit image in [-1, 1]. The input is added to the
output, because the noise that is to be predicted is most of it.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.conditions import Conditions, Entries
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import Conditioner
from genzoo.nets.parts.embeddings import sinusoidal
from genzoo.nets.parts.layers import DTYPES, wide_groups
from genzoo.nets.parts.problems import indivisible
from genzoo.nets.unet.check import unet_problems
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
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


def vdm_unet(
    *,
    out_channels: int,
    entries: Entries,
    width: int = 128,
    blocks: int = 32,
    attention: tuple[int, ...] = (),
    middle_attention: bool = True,
    fourier: tuple[int, ...] = (7, 8),
    dropout: float = 0.1,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> Network:
    """A VDM network of x [B, *size, C], time [B], and conditions.

    Time is 1000 (gamma - gamma_min) / (gamma_max - gamma_min), which is DDPM's steps for a gamma
    that is linear in them; any real number will do. The defaults are those of CIFAR-10; ImageNet
    at 32 x 32 has width 256 and attention (32,). What is shared with `unet` means the same there.

    blocks: residual blocks before the middle; one more behind it.
    attention: () or the side of the feature map, (32,), for self-attention after every block.
    middle_attention: whether the middle has self-attention.
    fourier: the exponents n of equation (1); () for none. Code of the paper's authors has 2^n 2 pi,
        and n = 6, 7.
    dropout: inside residual blocks, in training.

    On CIFAR-10 it has 30,578,179 params; with the two ends of a learned gamma 30,578,181.
    """
    style = BlockStyle(
        scale_shift=False,
        dropout=dropout,
        groups=wide_groups(width, 32),
        epsilon=1e-6,
        dtype=DTYPES[dtype],
        condition_bias=False,
    )
    trunk = Trunk(
        entry=width,
        widths=(width,),
        blocks=blocks,
        attention=tuple(attention),
        middle=middle_attention,
        heads=1,
        head_width=0,
        style=style,
        resample=RESAMPLES["plain"],
        remat=REMATS[remat],
        patch=patch,
    )
    condition = partial(
        Conditioner,
        embed=sinusoidal_and_spare,
        width=width,
        features=4 * width,
        entries=entries,
    )
    core = UNet(out_channels=out_channels, trunk=trunk, condition=condition)
    return network(VDMUNet(core=core, fourier=tuple(fourier)))


def vdm_problems(
    shape: tuple[int, ...],
    *,
    width: int = 128,
    blocks: int = 32,
    attention: tuple[int, ...] = (),
    middle_attention: bool = True,
    fourier: tuple[int, ...] = (7, 8),
    dropout: float = 0.1,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> list[str]:
    """The problems of `vdm_unet` with these settings on inputs of `shape` (*size, C)."""
    del middle_attention
    fits = patch > 0 and all(side % patch == 0 for side in shape[:-1])
    problems = unet_problems(
        tuple(side // patch for side in shape[:-1]) + shape[-1:] if fits else shape,
        width=width,
        multipliers=(1,),
        blocks=blocks,
        attention=attention if fits else (),
        dropout=dropout,
        patch=min(patch, 1),
        remat=remat,
        dtype=dtype,
    )
    if patch > 0:
        problems += indivisible("patch", patch, shape[:-1], patch)
    if any(exponent > FINEST for exponent in fourier):
        problems.append(
            f"network.fourier is {tuple(fourier)}: an exponent above {FINEST} asks for more than "
            "float32 resolves; 7 and 8 are published."
        )
    return problems
