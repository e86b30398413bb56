"""A residual MLP for diffusion and flows on points [B, D], such as points in a plane or latents.

The input is projected to the residual stream once, and every block adds to the stream. Time and
conditions scale and shift the activations of a block, as in the U-Nets (Dhariwal & Nichol 2021).
The input can be extended by Fourier features along fixed Gaussian directions (Tancik et al. 2020),
because an MLP alone is slow to learn sharp edges:

    [x, sin(2 pi G x), cos(2 pi G x)],  G_ij ~ N(0, scale^2)                                     (1)
    h = h + V_i silu((1 + a_i) W_i norm(h) + b_i),  (a_i, b_i) = C_i silu(features)              (2)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.bounds import Above, AtLeast, Below, Between, Limit, OneOf
from genzoo.core.conditions import Conditions, Entries
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.conditioning import Conditioner, check_ways
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, ZEROS
from genzoo.nets.parts.problems import even_problems


def gaussian_fourier(x: Array, count: int, scale: float) -> Array:
    """The Fourier features of equation (1): x [B, D] -> [B, 2 count] float32.

    The directions are constants drawn from seed 0. They are not params and are never trained.
    """
    directions = np.random.default_rng(0).normal(size=(x.shape[-1], count)) * scale
    angles = x.astype(jnp.float32) @ jnp.asarray(2 * np.pi * directions, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


class PointMLP(nn.Module):
    """(x [B, D], time [B] or [], conditions) -> [B, out_channels] float32, zero at the start."""

    out_channels: int
    width: int
    depth: int
    fourier: int
    fourier_scale: float
    condition: Callable[..., nn.Module]
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: Array, time: Array, conditions: Conditions, train: bool
    ) -> Array:
        dense: Callable[..., nn.Module] = partial(nn.Dense, kernel_init=FAN_AVG)
        time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
        encoded = self.condition(name="condition")(time, conditions, x)
        features = nn.silu(encoded.features)
        if self.fourier:
            x = jnp.concatenate([x, gaussian_fourier(x, self.fourier, self.fourier_scale)], -1)
        h = dense(self.width, dtype=self.dtype, name="entry")(x)
        for i in range(self.depth):
            y = nn.LayerNorm(name=f"norm_{i}")(h)
            y = dense(self.width, dtype=self.dtype, name=f"dense_{i}_0")(y)
            scale, shift = jnp.split(dense(2 * self.width, name=f"condition_{i}")(features), 2, -1)
            y = nn.silu(y * (1 + scale) + shift)
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            out = partial(nn.Dense, kernel_init=ZEROS, dtype=self.dtype, name=f"dense_{i}_1")
            h = h + out(self.width)(y)
        # In float32, because rounding here would be noise in the output.
        h = nn.silu(nn.LayerNorm(name="out_norm")(h))
        return nn.Dense(self.out_channels, kernel_init=ZEROS, name="out")(h)


@dataclass(frozen=True, kw_only=True)
class PointMLPSettings:
    """A residual MLP for points."""

    width: Annotated[
        int, AtLeast(2), Limit(65_536), "Width of the stream and of the time embedding."
    ] = 128
    depth: Annotated[int, AtLeast(0), Limit(1_000), "Residual blocks."] = 3
    fourier: Annotated[
        int,
        AtLeast(0),
        Limit(1_000_000),
        "Number of Fourier directions for the input; 0 for none.",
    ] = 32
    fourier_scale: Annotated[
        float,
        Above(0),
        Between(1e-6, 1e6),
        "Standard deviation of their frequencies, in periods per unit of x. The default suits "
        "points in a plane with unit variance; in high dimensions use less, or fourier = 0.",
    ] = 0.5
    time_embedding: Annotated[
        str,
        OneOf(TIME_EMBEDDINGS),
        "sinusoidal suits both DDPM steps and noise levels of order 1; fourier resolves DDPM "
        "steps more finely, and fourier_noise_level noise levels.",
    ] = "sinusoidal"
    dropout: Annotated[
        float, AtLeast(0), Below(1), Limit(0.99), "Rate inside the blocks, in training."
    ] = 0.0
    dtype: Annotated[str, OneOf(DTYPES), "Type used in layers; params stay float32."] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for points of `shape` (D,), as sentences."""
        problems = even_problems("width", self.width)
        if len(shape) != 1:
            problems.append(
                "network.name is a network for points [B, D], but the shape of an example is "
                f"{' x '.join(map(str, shape))}: use a U-Net."
            )
        return problems

    def size(self, shape: tuple[int, ...], *, out_channels: int, entries: Entries) -> Size:
        """The size of `build` for points of `shape` (D,)."""
        width = self.width
        block = counts.norm(width) + 2 * counts.dense(width, width) + counts.dense(width, 2 * width)
        params = (
            counts.conditioner(entries, width, width)
            + counts.dense(shape[-1] + 2 * self.fourier, width)
            + self.depth * block
            + counts.norm(width)
            + counts.dense(width, out_channels)
        )
        return Size(params=params, layer=width * DTYPES[self.dtype].itemsize)

    def build(self, *, out_channels: int, entries: Entries) -> Network:
        """An MLP (x [B, D], time [B], conditions) -> [B, out_channels].

        out_channels, entries: as for the U-Net. All conditions must have way = "add" (UserError).
        """
        check_ways(entries, ("add",))
        condition = partial(
            Conditioner,
            embed=TIME_EMBEDDINGS[self.time_embedding],
            width=self.width,
            features=self.width,
            entries=entries,
        )
        module = PointMLP(
            out_channels=out_channels,
            width=self.width,
            depth=self.depth,
            fourier=self.fourier,
            fourier_scale=self.fourier_scale,
            condition=condition,
            dropout=self.dropout,
            dtype=DTYPES[self.dtype],
        )
        return network(module)
