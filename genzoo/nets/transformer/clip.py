"""The two towers of CLIP: a ViT for images and a causal transformer for texts.

Radford et al. 2021 (Learning transferable visual models from natural language supervision). Both
end in a linear map to a space of the same width. A text is represented by its last token, which
sees all others; with CLIP's own tokenizer that is the end-of-text token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.conditioning import TOKEN_STD
from genzoo.nets.transformer.block import Norm
from genzoo.nets.transformer.settings import Depth, Heads, MLPName, Width, head_problems
from genzoo.nets.transformer.vision import Blocks, PatchEncoder, Pool, Tower, VisionSettings

POSITION_STD = 0.01
"""Of the initial positions of words (Radford et al. 2021, the authors' code)."""
NORM = Norm(epsilon=1e-5)


class ImageTower(nn.Module):
    """x [B, *size, C] -> [B, out] float32."""

    encoder: Callable[..., PatchEncoder]
    out: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        features = Pool(mean=False, name="pool")(self.encoder(name="encoder")(x, None, train))
        start = nn.initializers.normal(features.shape[-1] ** -0.5)
        return nn.Dense(self.out, use_bias=False, kernel_init=start, name="out")(features)


class TextTower(nn.Module):
    """(ids int32 [B, L], mask bool [B, L]) -> [B, out] float32; padding follows the text."""

    vocabulary: int
    width: int
    blocks: Callable[..., Blocks]
    out: int

    @nn.compact
    def __call__(self, ids: Array, mask: Array, train: bool) -> Array:
        table = nn.initializers.normal(TOKEN_STD)
        h = nn.Embed(self.vocabulary, self.width, embedding_init=table, name="embed")(ids)
        start = nn.initializers.normal(POSITION_STD)
        h = h + self.param("position", start, (ids.shape[1], self.width))
        h = self.blocks(name="blocks")(h, None, train)  # padding comes later, and is not seen
        last = jnp.maximum(mask.sum(-1) - 1, 0)
        features = jnp.take_along_axis(h, last[:, None, None], axis=1)[:, 0]
        start = nn.initializers.normal(self.width**-0.5)
        return nn.Dense(self.out, use_bias=False, kernel_init=start, name="out")(features)


@dataclass(frozen=True)
class Towers:
    """image: x [B, *size, C] -> [B, D]. text: (ids int32 [B, L], mask bool [B, L]) -> [B, D].
    Neither is normalised. text_width: of the tokens of texts, which the module "blocks" returns."""

    image: Network
    text: Network
    text_width: int


@dataclass(frozen=True, kw_only=True)
class CLIPSettings(VisionSettings):
    """CLIP. The defaults are ViT-B/32, which has 87,849,216 params for images of 224 x 224 and
    63,428,096 for texts of 77 out of 49,408 tokens; the temperature is one more."""

    patch: Annotated[int, AtLeast(1), Limit(1_024), "Side of the patches that become tokens."] = 32
    mlp: MLPName = "gelu_quick"
    text_width: Width = 512
    text_depth: Depth = 12
    text_heads: Heads = 8
    embedding: Annotated[
        int, AtLeast(2), Limit(65_536), "Width of the space that images and texts share."
    ] = 512

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = super().problems(shape)
        return problems + head_problems(self.text_width, self.text_heads, "text_")

    def _text(self) -> Tower:
        return self.tower(
            width=self.text_width,
            depth=self.text_depth,
            heads=self.text_heads,
            drop_path=0.0,
            causal=True,
        )

    def tower(self, **own: object) -> Tower:
        """As for ViT, with CLIP's norms."""
        return super().tower(**{"norm": NORM, **own})

    def size(self, shape: tuple[int, ...], *, vocabulary: int, length: int) -> Size:
        """The size of `build` for images of `shape` (*size, C)."""
        image, text = self.encoder_size(shape, learned=True, bias=False), self._text()
        params = image.params + counts.norm(self.width) + self.width * self.embedding
        params += text.params + (vocabulary + length + self.embedding) * self.text_width
        return Size(params=params, layer=max(image.layer, text.layer(length)))

    def build(self, *, vocabulary: int, length: int) -> Towers:
        """The towers, for texts of `length` ids below `vocabulary`."""
        del length  # that of the example at initialisation
        encoder = self.encoder(bias=False, first_norm=NORM)
        text = TextTower(
            vocabulary=vocabulary,
            width=self.text_width,
            blocks=self._text().blocks(),
            out=self.embedding,
        )
        return Towers(
            image=network(ImageTower(encoder=encoder, out=self.embedding)),
            text=network(text),
            text_width=self.text_width,
        )
