"""A residual MLP for diffusion and flows on points [B, D]: densities in the plane, latent vectors.

The stream is widened once and every block adds to it; time and conditions scale and shift what is
in a block, as in the U-Nets (Dhariwal & Nichol 2021). The input may come with Fourier features of
fixed Gaussian directions (Tancik et al. 2020), because an MLP alone is slow to learn sharp edges:

    [x, sin(2 pi G x), cos(2 pi G x)],  G_ij ~ N(0, scale^2)                                     (1)
    h = h + V_i silu((1 + a_i) W_i norm(h) + b_i),  (a_i, b_i) = C_i silu(features)              (2)
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.conditions import Conditions, Entries
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import Conditioner
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, ZEROS
from genzoo.nets.parts.problems import bad_rate, too_low, unknown


def gaussian_fourier(x: Array, count: int, scale: float) -> Array:
    """The new part of equation (1): x [B, D] -> [B, 2 count] float32.

    The directions are constants drawn once from seed 0, not params: they are never trained.
    """
    directions = np.random.default_rng(0).normal(size=(x.shape[-1], count)) * scale
    angles = x.astype(jnp.float32) @ jnp.asarray(2 * np.pi * directions, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


class PointMLP(nn.Module):
    """(x [B, D], time [B] or [], conditions) -> [B, out_channels] float32, first 0."""

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
        # float32: rounding here would be noise in the output.
        h = nn.silu(nn.LayerNorm(name="out_norm")(h))
        return nn.Dense(self.out_channels, kernel_init=ZEROS, name="out")(h)


def point_mlp(
    *,
    out_channels: int,
    entries: Entries,
    width: int = 128,
    depth: int = 3,
    fourier: int = 32,
    fourier_scale: float = 0.5,
    time_embedding: str = "sinusoidal",
    dropout: float = 0.0,
    dtype: str = "float32",
) -> Network:
    """An MLP of points x [B, D], time [B] and conditions -> [B, out_channels].

    out_channels, entries: as in `unet`; conditions enter by features alone.
    width, depth: of the stream, and blocks.
    fourier, fourier_scale: how many directions equation (1) has, 0 for none, and the deviation of
        their frequencies in periods per unit of x. The defaults suit x in the plane of deviation
        near 1; for many coordinates take none, or a scale that falls with their number's root.
    time_embedding: of `width` sinusoids: "sinusoidal" serves DDPM steps and noise labels of order 1
        alike; "fourier" resolves the former more finely, "fourier_label" the latter.
    dropout: inside the blocks, in training.
    dtype: of the dense layers, "float32" or "bfloat16".
    """
    condition = partial(
        Conditioner,
        embed=TIME_EMBEDDINGS[time_embedding],
        width=width,
        features=width,
        entries=entries,
    )
    module = PointMLP(
        out_channels=out_channels,
        width=width,
        depth=depth,
        fourier=fourier,
        fourier_scale=fourier_scale,
        condition=condition,
        dropout=dropout,
        dtype=DTYPES[dtype],
    )
    return network(module)


def point_problems(
    shape: tuple[int, ...],
    *,
    width: int = 128,
    depth: int = 3,
    fourier: int = 32,
    fourier_scale: float = 0.5,
    time_embedding: str = "sinusoidal",
    dropout: float = 0.0,
    dtype: str = "float32",
) -> list[str]:
    """The problems of `point_mlp` with these settings on inputs of `shape` (D,)."""
    problems = too_low(2, {"width": width}) + too_low(0, {"depth": depth, "fourier": fourier})
    if width > 1 and width % 2:
        problems.append(
            f"network.width is {width}: the sinusoids of the time come in pairs, so give an even "
            "number."
        )
    if fourier_scale <= 0:
        problems.append(f"network.fourier_scale is {fourier_scale}: it must be above 0.")
    problems += unknown("time_embedding", time_embedding, TIME_EMBEDDINGS)
    problems += bad_rate("dropout", dropout) + unknown("dtype", dtype, DTYPES)
    if len(shape) != 1:
        problems.append(
            f"network.name is a network of points [B, D], but an example of the data is "
            f"{' x '.join(map(str, shape))}: take a U-Net."
        )
    return problems
