"""An encoder and a decoder for the two ends of a latent, and the dense pair of the first VAEs.

Kingma & Welling 2014 (Auto-encoding variational Bayes), Burda et al. 2016 (Importance weighted
autoencoders, whose one and two layer networks are settings of `mlp_pair`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.problems import too_low, unknown

Activation = Callable[[Array], Array]

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {"tanh": jnp.tanh, "relu": jax.nn.relu, "silu": jax.nn.silu, "gelu": jax.nn.gelu}
)

GLOROT = nn.initializers.xavier_uniform()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two networks that meet at a latent; what a latent is made of is the family's matter.

    encoder: x [B, *shape] -> [B, *grid, encoded] float32.
    decoder: z [B, *grid, latent] -> [B, *size, decoded] float32, where shape = (*size, C).
    grid: the sides of the grid of latents; () where the latent is one vector.
    """

    encoder: Network
    decoder: Network
    grid: tuple[int, ...]


class Dense(nn.Module):
    """x [B, ...] -> [B, *out]: flattened, a layer for each of `widths`, and a linear one."""

    widths: tuple[int, ...]
    out: tuple[int, ...]
    activation: Activation

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        h = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths):
            h = self.activation(nn.Dense(width, kernel_init=GLOROT, name=f"dense_{i}")(h))
        h = nn.Dense(math.prod(self.out), kernel_init=GLOROT, name="out")(h)
        return h.reshape(x.shape[0], *self.out)


def mlp_pair(
    *,
    shape: tuple[int, ...],
    encoded: int,
    latent: int,
    decoded: int,
    widths: tuple[int, ...] = (200, 200),
    activation: str = "tanh",
) -> Pair:
    """Dense layers on both sides of a latent vector: x [B, *shape] -> [B, encoded], and
    z [B, latent] -> [B, *size, decoded], where shape is (*size, C).

    A vector, shape (D,), has no size: it is decoded to [B, decoded].

    encoded: what the encoder gives (mean and variance: twice the latent). latent: of the decoder's
        input. decoded: numbers for each pixel of the output.
    widths: of the hidden layers on the way in; reversed on the way out.
    activation: "tanh", "relu", "silu" or "gelu" behind every hidden layer.
    """
    act, widths = ACTIVATIONS[activation], tuple(widths)
    encoder = Dense(widths=widths, out=(encoded,), activation=act)
    decoder = Dense(widths=widths[::-1], out=(*shape[:-1], decoded), activation=act)
    return Pair(encoder=network(encoder), decoder=network(decoder), grid=())


def mlp_problems(
    shape: tuple[int, ...],
    *,
    widths: tuple[int, ...] = (200, 200),
    activation: str = "tanh",
) -> list[str]:
    """The problems of `mlp_pair` with these settings; [] if none. Any `shape` will do."""
    del shape
    low = {f"widths[{i}]": width for i, width in enumerate(widths)}
    return too_low(1, low) + unknown("activation", activation, ACTIVATIONS)
