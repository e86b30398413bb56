"""The networks of masked autoencoders: a ViT encoder that sees few patches, and a small decoder.

He et al. 2022 (Masked autoencoders are scalable vision learners). The encoder is that of ViT with
the sin-cos table of positions. The decoder sees its tokens and, at the places of the hidden
patches, one learned mask token, all with their positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.size import Size
from genzoo.core.types import Array, Tree
from genzoo.nets.interface import Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.conditioning import TOKEN_STD
from genzoo.nets.parts.layers import FAN_AVG
from genzoo.nets.transformer import positions
from genzoo.nets.transformer.patches import grid_of
from genzoo.nets.transformer.settings import Heads, Width, head_problems, narrow_problems
from genzoo.nets.transformer.vision import Blocks, PatchEncoder, VisionSettings


@dataclass(frozen=True)
class MAENetwork(Network):
    """(x [B, *size, C], keep int32 [B, K], restore int32 [B, N]) -> predicted patches [B, N, P],
    P = patch^axes C, in the order of `patchify`. keep, restore: see math/masking.py.

    encode(params, x) -> tokens [B, 1 + N, width], the class token first, with no patch hidden.
    patch: the side of the patches. width: of the tokens.
    """

    encode: Callable[[Tree, Array], Array]
    patch: int
    width: int


class Decoder(nn.Module):
    """(tokens [B, 1 + K, W] of the class and the visible patches, restore [B, N], grid, train) ->
    predicted patches [B, N, values] float32."""

    values: int
    width: int
    blocks: Callable[..., Blocks]

    @nn.compact
    def __call__(self, tokens: Array, restore: Array, grid: tuple[int, ...], train: bool) -> Array:
        h = nn.Dense(self.width, kernel_init=FAN_AVG, name="entry")(tokens)
        mask = self.param("mask_token", nn.initializers.normal(TOKEN_STD), (self.width,))
        batch, count = restore.shape
        hidden = jnp.broadcast_to(mask, (batch, count + 1 - h.shape[1], self.width))
        patches = jnp.concatenate([h[:, 1:], hidden.astype(h.dtype)], 1)
        patches = jnp.take_along_axis(patches, restore[..., None], axis=1)
        patches = patches + positions.sincos(positions.coordinates(grid), self.width)
        h = jnp.concatenate([h[:, :1], patches], 1)
        h = self.blocks(name="blocks")(h, None, train)
        return nn.Dense(self.values, kernel_init=FAN_AVG, name="out")(h[:, 1:])


class MaskedAutoencoder(nn.Module):
    """See MAENetwork."""

    patch: int
    values: int
    make_encoder: Callable[..., PatchEncoder]
    make_decoder: Callable[..., Decoder]

    def setup(self):
        self.encoder = self.make_encoder()
        self.decoder = self.make_decoder()

    def __call__(self, x: Array, keep: Array, restore: Array, train: bool) -> Array:
        tokens = self.encoder(x, keep, train)
        return self.decoder(tokens, restore, grid_of(x.shape[1:-1], self.patch), train)

    def encode(self, x: Array) -> Array:
        """See MAENetwork.encode."""
        return self.encoder(x, None, False)


@dataclass(frozen=True, kw_only=True)
class MAESettings(VisionSettings):
    """The encoder and decoder of a masked autoencoder.

    The defaults are MAE-B/16, which has 111,655,680 trained params for images with three channels:
    85,647,360 of the encoder and 26,008,320 of the decoder.
    """

    decoder_width: Width = 512
    decoder_depth: Annotated[int, AtLeast(1), Limit(1_000), "Number of blocks of the decoder."] = 8
    decoder_heads: Heads = 16

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = super().problems(shape)
        problems += head_problems(self.decoder_width, self.decoder_heads, "decoder_")
        axes = len(shape) - 1
        problems += narrow_problems(self.width, axes)
        return problems + narrow_problems(self.decoder_width, axes, "decoder_")

    def _decoder(self):
        return self.tower(
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            drop_path=0.0,
        )

    def size(self, x: tuple[int, ...], *, shape: tuple[int, ...]) -> Size:
        """The size of `build`; x is `shape`, that of the data."""
        del x
        encoder, decoder = self.encoder_size(shape, learned=False), self._decoder()
        width, values = self.decoder_width, self.patch ** (len(shape) - 1) * shape[-1]
        params = counts.dense(self.width, width) + width + decoder.params
        params += counts.dense(width, values)
        layer = decoder.layer(1 + prod(grid_of(shape[:-1], self.patch)))
        return Size(params=encoder.params + params, layer=max(encoder.layer, layer))

    def build(self, *, shape: tuple[int, ...]) -> MAENetwork:
        """The networks for data of `shape` (*size, C)."""
        values = self.patch ** (len(shape) - 1) * shape[-1]
        blocks, width = self._decoder().blocks(), self.decoder_width
        module = MaskedAutoencoder(
            patch=self.patch,
            values=values,
            make_encoder=self.encoder(learned=False),
            make_decoder=lambda: Decoder(values=values, width=width, blocks=blocks),
        )
        net = network(module)

        def encode(params: Tree, x: Array) -> Array:
            return module.apply({"params": params}, x, method="encode")

        return MAENetwork(
            init=net.init,
            apply=net.apply,
            features=net.features,
            encode=encode,
            patch=self.patch,
            width=self.width,
        )
