"""The network of variational diffusion models: one resolution, many layers, Fourier features.

Kingma et al. 2021 (Variational diffusion models, section 3.4). The likelihood depends on the lowest
bits of the pixels. The network therefore never reduces the resolution, and its input is extended by

    sin(2^n pi x), cos(2^n pi x),  n = 7, 8                                                      (1)

whose periods are two levels and one level of an 8-bit image in [-1, 1]. The input is added to the
output, because it consists mostly of the noise to be predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core import bounds
from genzoo.core.bounds import AtLeast, AtMost, Between, Each, Limit
from genzoo.core.conditions import Conditions, Entries
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import InnerMap, Steerable, steerable
from genzoo.nets.parts import counts
from genzoo.nets.parts.attention import Fused
from genzoo.nets.parts.conditioning import Conditioner, check_ways
from genzoo.nets.parts.embeddings import sinusoidal
from genzoo.nets.parts.layers import DTYPES, wide_groups
from genzoo.nets.parts.problems import even_problems, indivisible
from genzoo.nets.unet.control import ControlBranch
from genzoo.nets.unet.counts import Count
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
from genzoo.nets.unet.settings import (
    Dropout,
    Dtype,
    Patch,
    RematName,
    attention_problems,
)
from genzoo.nets.unet.trunk import REMATS, Trunk, middle
from genzoo.nets.unet.unet import UNet

FINEST = 16  # far above this, float32 cannot resolve the phase 2^n pi x


def sinusoidal_and_zero(time: Array, width: int) -> Array:
    """[B] -> [B, width + 1]: `sinusoidal` followed by a zero.

    VDM reserves this entry for a condition. It is zero in the published models, which are
    unconditional, and zero here, where conditions enter through `Conditioner`. Its 4 width weights
    are part of the published parameter count.
    """
    return jnp.pad(sinusoidal(time, width), ((0, 0), (0, 1)))


def base2_fourier(x: Array, exponents: tuple[int, ...]) -> Array:
    """Equation (1): x [B, *size, C] -> [B, *size, 2 C len(exponents)], in float32."""
    frequencies = jnp.asarray(np.pi * 2.0 ** np.asarray(exponents), jnp.float32)
    angles = (x.astype(jnp.float32)[..., None] * frequencies).reshape(*x.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def _with_features(x: Array, fourier: tuple[int, ...]) -> Array:
    return jnp.concatenate([x, base2_fourier(x, fourier)], -1) if fourier else x


class VDMUNet(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions, residuals) -> x + core(x and its features).

    The output is float32. residuals: see `UNet`.

    If x and the output differ in their number of channels, only the first channels are added: the
    last channels of x may be a given image (super-resolution), and those of the output something
    else (a learned variance).
    """

    core: UNet
    fourier: tuple[int, ...]

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
        h = _with_features(x, self.fourier)
        h = self.core(h, time, conditions, residuals, train=train)
        shared = min(x.shape[-1], h.shape[-1])
        return h.at[..., :shared].add(x[..., :shared])


class VDMBranch(nn.Module):
    """The control branch of a `VDMUNet`: core(x and its features, ...)."""

    core: ControlBranch
    fourier: tuple[int, ...]

    @nn.compact
    def __call__(
        self, x: Array, time: Array, conditions: Conditions, hint: Array, *, train: bool
    ) -> tuple[Array, ...]:
        h = _with_features(x, self.fourier)
        return self.core(h, time, conditions, hint, train=train)


@dataclass(frozen=True, kw_only=True)
class VDMUNetSettings:
    """The network of variational diffusion models. The defaults are those for CIFAR-10.

    It then has 30,578,179 params, or 30,578,181 with the two ends of a learned gamma. For ImageNet
    at 32 x 32 the paper uses width 256 and attention (32,).
    """

    width: Annotated[int, AtLeast(1), Limit(65_536), "Channels throughout."] = 128
    blocks: Annotated[
        int, AtLeast(1), Limit(1_000), "Residual blocks before the middle; one more follows it."
    ] = 32
    attention: Annotated[
        tuple[int, ...],
        bounds.Entries(0, 16),
        Each(Between(1, 65_536)),
        "The side of the feature map for attention after every block; () for none.",
    ] = ()
    middle_attention: Annotated[bool, "Whether the middle has self-attention."] = True
    fourier: Annotated[
        tuple[int, ...],
        bounds.Entries(0, 32),
        Each(AtMost(FINEST)),
        Each(AtLeast(-FINEST)),
        "Exponents n of the Fourier features sin(2^n pi x), () for none; the paper uses 7 and 8, "
        "and float32 does not resolve those above 16.",
    ] = (7, 8)
    dropout: Dropout = 0.1
    patch: Patch = 1
    remat: RematName = "none"
    fused: Fused = False
    dtype: Dtype = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = even_problems("width", self.width)
        unfit = indivisible("patch", self.patch, shape[:-1], self.patch)
        sides = [min(shape[:-1]) // self.patch]
        return problems + (unfit or attention_problems(self.attention, sides))

    def size(self, shape: tuple[int, ...], *, out_channels: int, entries: Entries) -> Size:
        """The size of `build` for inputs of `shape` (*size, C)."""
        return self._count(shape, entries).ascend(out_channels, attention_up=True)

    def _count(self, shape: tuple[int, ...], entries: Entries) -> Count:
        features = 4 * self.width
        channels = shape[-1] * (1 + 2 * len(self.fourier)) + counts.mapped(entries)
        count = Count(self._trunk(), shape[:-1], channels, features=features)
        count.params += counts.conditioner(entries, self.width + 1, features)
        return count

    def inner(self, block: int, key: str) -> InnerMap:
        """The map after the middle; see `trunk.middle`."""
        return middle(self.width, block, key, within="core/")

    def _trunk(self) -> Trunk:
        style = BlockStyle(
            scale_shift=False,
            dropout=self.dropout,
            groups=wide_groups(self.width, 32),
            epsilon=1e-6,
            dtype=DTYPES[self.dtype],
            condition_bias=False,
            fused=self.fused,
        )
        return Trunk(
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

    def build(self, *, out_channels: int, entries: Entries) -> Steerable:
        """A network (x [B, *size, C], time [B], conditions) -> [B, *size, out_channels].

        The time is 1000 (gamma - gamma_min) / (gamma_max - gamma_min), the DDPM step if gamma is
        linear in it; any real number is accepted. out_channels, entries: as for the U-Net, by way =
        "add" or "concat" (UserError). The authors' code writes the frequencies 2^n pi of equation
        (1) as 2^n 2 pi with n = 6, 7.
        """
        check_ways(entries, ("add", "concat"))
        condition = partial(
            Conditioner,
            embed=sinusoidal_and_zero,
            width=self.width,
            features=4 * self.width,
            entries=entries,
        )
        trunk = self._trunk()
        core = UNet(out_channels=out_channels, trunk=trunk, condition=condition)

        def branch(widths: tuple[int, ...]) -> VDMBranch:
            return VDMBranch(ControlBranch(trunk, condition, widths), self.fourier)

        return steerable(
            VDMUNet(core=core, fourier=self.fourier),
            entries,
            branch,
            lambda shape, hint, widths: self._count(shape, entries).branch(hint, widths),
            lambda shape: (
                self.size(shape, out_channels=out_channels, entries=entries).params
                - self._count(shape, entries).params
            ),
        )
