"""Pairs of an encoder and a decoder, and the dense pairs of the first VAEs.

Kingma & Welling 2014 (Auto-encoding variational Bayes), Burda et al. 2016 (Importance weighted
autoencoders; `MLPSettings` are its networks with one or two layers of latents).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Each, Entries, Limit, OneOf
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.counts import dense

Activation = Callable[[Array], Array]

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {"tanh": jnp.tanh, "relu": jax.nn.relu, "silu": jax.nn.silu, "gelu": jax.nn.gelu}
)

GLOROT = nn.initializers.xavier_uniform()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An encoder and a decoder; the family defines how the encoder's output gives a latent.

    encoder: x [B, *shape] -> [B, *grid, encoded] float32.
    decoder: z [B, *grid, latent] -> [B, *size, decoded] float32, where shape = (*size, C).
    grid: the sides of the grid of latents; () if the latent is one vector.
    """

    encoder: Network
    decoder: Network
    grid: tuple[int, ...]


class Dense(nn.Module):
    """x [B, ...] -> [B, *out]: flattens x; hidden layers of `widths`, then a linear layer."""

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
    widths: tuple[int, ...],
    activation: Activation,
) -> Pair:
    """Dense networks x [B, *shape] -> [B, encoded] and z [B, latent] -> [B, *size, decoded].

    Here shape = (*size, C). A vector of shape (D,) has no size and is decoded to [B, decoded].

    encoded: width of the encoder's output (twice the latent for mean and variance). latent: width
        of the decoder's input. decoded: numbers for each pixel of the output.
    widths: those of the encoder's hidden layers; the decoder has them in reverse.
    activation: the function after every hidden layer.
    """
    encoder = Dense(widths=widths, out=(encoded,), activation=activation)
    decoder = Dense(widths=widths[::-1], out=(*shape[:-1], decoded), activation=activation)
    return Pair(encoder=network(encoder), decoder=network(decoder), grid=())


ActivationName = Annotated[str, OneOf(ACTIVATIONS), "Function after every hidden layer."]
TopWidths = Annotated[
    tuple[int, ...],
    Entries(0, 64),
    Each(AtLeast(1)),
    Each(Limit(1_000_000)),
    "Hidden widths for the second layer of latents, if there is one.",
]


def upper_pairs(
    first: Pair,
    *,
    encoded: tuple[int, ...],
    latents: tuple[int, ...],
    decoded: tuple[int, ...],
    widths: tuple[int, ...],
    activation: Activation,
) -> tuple[Pair, ...]:
    """The dense pair from the first layer of latents, flattened, to the second; () if none.

    first: the pair of the first layer. encoded, latents, decoded: as for `mlp_pair`, by layer.
    """
    if len(latents) == 1:
        return ()
    places = math.prod(first.grid)
    return (
        mlp_pair(
            shape=(places * latents[0],), encoded=encoded[1], latent=latents[1],
            decoded=places * decoded[1], widths=widths, activation=activation,
        ),
    )  # fmt: skip


def mlp_size(
    inputs: int, outputs: int, widths: tuple[int, ...], *, encoded: int, latent: int
) -> Size:
    """The size of `mlp_pair` from `inputs` numbers to `outputs`."""
    params = dense(inputs, *widths, encoded) + dense(latent, *widths[::-1], outputs)
    return Size(params=params, layer=4 * max(*widths, encoded, outputs))


def upper_size(
    first: Size,
    places: int,
    *,
    encoded: tuple[int, ...],
    latents: tuple[int, ...],
    decoded: tuple[int, ...],
    widths: tuple[int, ...],
) -> Size:
    """The size of a first pair and of its `upper_pairs`. places: in the first grid of latents."""
    if len(latents) == 1:
        return first
    second = mlp_size(
        places * latents[0], places * decoded[1], widths, encoded=encoded[1], latent=latents[1]
    )
    return Size(
        params=first.params + second.params, layer=max(first.layer, second.layer)
    )


@dataclass(frozen=True, kw_only=True)
class MLPSettings:
    """Dense encoders and decoders."""

    widths: Annotated[
        tuple[int, ...],
        Entries(0, 64),
        Each(AtLeast(1)),
        Each(Limit(1_000_000)),
        "Hidden widths of the encoder; reversed in the decoder.",
    ] = (200, 200)
    top_widths: TopWidths = (100, 100)
    activation: ActivationName = "tanh"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """[]: all settings are valid for data of any shape."""
        del shape
        return []

    def size(
        self,
        x: tuple[int, ...],
        *,
        shape: tuple[int, ...],
        encoded: tuple[int, ...],
        latents: tuple[int, ...],
        decoded: tuple[int, ...],
    ) -> Size:
        """The size of `build` for examples of the shape `x`."""
        del shape
        outputs = math.prod(x[:-1]) * decoded[0]
        first = mlp_size(
            math.prod(x), outputs, self.widths, encoded=encoded[0], latent=latents[0]
        )
        return upper_size(
            first, 1, encoded=encoded, latents=latents, decoded=decoded, widths=self.top_widths
        )

    def build(
        self,
        *,
        shape: tuple[int, ...],
        encoded: tuple[int, ...],
        latents: tuple[int, ...],
        decoded: tuple[int, ...],
    ) -> tuple[Pair, ...]:
        """One pair for each layer of latents.

        encoded, latents, decoded: as for `mlp_pair`, by layer.
        """
        act = ACTIVATIONS[self.activation]
        first = mlp_pair(
            shape=shape, encoded=encoded[0], latent=latents[0], decoded=decoded[0],
            widths=self.widths, activation=act,
        )  # fmt: skip
        return first, *upper_pairs(
            first, encoded=encoded, latents=latents, decoded=decoded, widths=self.top_widths,
            activation=act,
        )  # fmt: skip
