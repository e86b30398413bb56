"""Text encoders: BERT, which sees a text as a whole, and a table of word vectors.

Devlin et al. 2019 (BERT); Wang et al. 2020 and Reimers & Gurevych 2019 (MiniLM as a sentence
encoder). Each token is embedded as the sum of three learned vectors, those of its id, its position
and the first segment. A norm and blocks with norms after the sums follow. Id 0 is padding, which
has no row in the table: id i has row i - 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.core.types import Array, Tree
from genzoo.nets.interface import Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.conditioning import TOKEN_STD
from genzoo.nets.parts.layers import DTYPES
from genzoo.nets.transformer.block import Norm
from genzoo.nets.transformer.settings import (
    Depth,
    Dtype,
    Expansion,
    Heads,
    MLPName,
    Width,
    head_problems,
)
from genzoo.nets.transformer.vision import Blocks, Tower

NORM = Norm(epsilon=1e-12, post=True)
SEGMENTS = 2
"""Rows of BERT's table of segments, of which a single text uses the first."""


class WordTable(nn.Module):
    """(ids int32 [B, L], mask bool [B, L]) -> their rows of a table [B, L, width] float32."""

    rows: int
    width: int

    @nn.compact
    def __call__(self, ids: Array, mask: Array, train: bool) -> Array:
        del mask, train
        start = nn.initializers.normal(TOKEN_STD)
        embed = nn.Embed(self.rows, self.width, embedding_init=start, name="embed")
        return embed(jnp.maximum(ids - 1, 0))


class TextTransformer(nn.Module):
    """(ids int32 [B, L], mask bool [B, L]) -> tokens [B, L, width] float32.

    Padding does not affect other tokens, and its own output has no meaning. rows, positions: the
    lengths of the tables of tokens and of positions, the latter at least L.
    """

    rows: int
    positions: int
    width: int
    blocks: Callable[..., Blocks]

    @nn.compact
    def __call__(self, ids: Array, mask: Array, train: bool) -> Array:
        h = WordTable(self.rows, self.width, name="words")(ids, mask, train)
        start = nn.initializers.normal(TOKEN_STD)
        h = h + self.param("position", start, (self.positions, self.width))[: ids.shape[1]]
        h = h + self.param("segment", start, (SEGMENTS, self.width))[0]
        h = NORM.make(jnp.float32, "norm")(h)
        return self.blocks(name="blocks")(h, mask, train)


@dataclass(frozen=True)
class TextNetwork(Network):
    """(ids int32 [B, L], mask bool [B, L]) -> tokens [B, L, width]. length: the largest L; 0 if
    there is no limit."""

    width: int
    length: int


def _text_network(module: nn.Module, width: int, length: int = 0) -> TextNetwork:
    net = network(module)
    return TextNetwork(net.init, net.apply, net.features, width=width, length=length)


@dataclass(frozen=True, kw_only=True)
class TextTransformerSettings:
    """BERT's encoder, without its pooler. The defaults are MiniLM-L6, which has 22,565,376 params
    for its 30,522 tokens; BERT base has (width, depth, heads) = (768, 12, 12)."""

    width: Width = 384
    depth: Depth = 6
    heads: Heads = 12
    expansion: Expansion = 4.0
    mlp: MLPName = "gelu_exact"
    positions: Annotated[
        int,
        AtLeast(1),
        Limit(1_000_000),
        "Number of learned positions, the maximum number of tokens of a text.",
    ] = 512
    dtype: Dtype = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings, as sentences. shape: of x, which the network does not see."""
        del shape
        return head_problems(self.width, self.heads)

    @property
    def _tower(self) -> Tower:
        return Tower(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            expansion=self.expansion,
            mlp=self.mlp,
            dtype=DTYPES[self.dtype],
            norm=NORM,
        )

    def size(self, shape: tuple[int, ...], *, vocabulary: int) -> Size:
        """The size of `build`. shape: of x, which the network does not see."""
        del shape
        rows = vocabulary - 1 + self.positions + SEGMENTS
        params = rows * self.width + counts.norm(self.width) + self._tower.params
        return Size(params=params, layer=self._tower.layer(1))

    def build(self, *, vocabulary: int) -> TextNetwork:
        """The network for ids below `vocabulary`, of which 0 is padding."""
        module = TextTransformer(
            rows=vocabulary - 1,
            positions=self.positions,
            width=self.width,
            blocks=self._tower.blocks(),
        )
        return _text_network(module, self.width, self.positions)


@dataclass(frozen=True, kw_only=True)
class WordTableSettings:
    """A table of word vectors, which sees each token by itself. Those of wordllama have width 256.
    """

    width: Width = 256

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """None. shape: of x, which the network does not see."""
        del shape
        return []

    def size(self, shape: tuple[int, ...], *, vocabulary: int) -> Size:
        """The size of `build`. shape: of x, which the network does not see."""
        del shape
        return Size(params=(vocabulary - 1) * self.width, layer=4 * self.width)

    def build(self, *, vocabulary: int) -> TextNetwork:
        """The network for ids below `vocabulary`, of which 0 is padding."""
        return _text_network(WordTable(vocabulary - 1, self.width), self.width)


# --- published weights ----------------------------------------------------------------------------


def of_table(arrays: Mapping[str, np.ndarray]) -> Tree:
    """The params of a `WordTable` from {"embedding.weight": [rows, width]}, as float32. Raises a
    UserError if it is missing."""
    return {"embed": {"embedding": _named(arrays, "embedding.weight")}}


def of_bert(arrays: Mapping[str, np.ndarray]) -> Tree:
    """The params of a `TextTransformer` from the arrays of transformers' BertModel, as float32.

    The pooler and the buffer of position ids are left out. Raises a UserError if an array is
    missing.
    """

    def pair(name: str, weight: str) -> Tree:
        bias = _named(arrays, f"{name}.bias")
        return {weight: _named(arrays, f"{name}.weight"), "bias": bias}

    def dense(*names: str) -> Tree:
        maps = [pair(name, "kernel") for name in names]
        return {
            "kernel": np.concatenate([each["kernel"].T for each in maps], 1),
            "bias": np.concatenate([each["bias"] for each in maps]),
        }

    def block(name: str) -> Tree:
        attention = f"{name}.attention"
        return {
            "query_key_value": dense(*(f"{attention}.self.{k}" for k in ("query", "key", "value"))),
            "out": dense(f"{attention}.output.dense"),
            "norm_0": pair(f"{attention}.output.LayerNorm", "scale"),
            "expand": dense(f"{name}.intermediate.dense"),
            "contract": dense(f"{name}.output.dense"),
            "norm_1": pair(f"{name}.output.LayerNorm", "scale"),
        }

    layers = {name.split(".")[2] for name in arrays if name.startswith("encoder.layer.")}
    return {
        "words": {"embed": {"embedding": _named(arrays, "embeddings.word_embeddings.weight")}},
        "position": _named(arrays, "embeddings.position_embeddings.weight"),
        "segment": _named(arrays, "embeddings.token_type_embeddings.weight"),
        "norm": pair("embeddings.LayerNorm", "scale"),
        "blocks": {f"block_{i}": block(f"encoder.layer.{i}") for i in range(len(layers))},
    }


def _named(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise UserError(f"The weights of the text encoder have no array {name}: use another file.")
    return np.asarray(arrays[name], np.float32)
