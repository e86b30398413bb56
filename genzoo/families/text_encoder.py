"""Pretrained text encoders: MiniLM, or a table of word vectors.

Reimers & Gurevych 2019 (Sentence-BERT). There is nothing to train: `fit` takes the pretrained
weights or, without any, draws the params at random. Other models attend to the features of each
token. The representation of a text as a whole is the unit vector

    e = u / |u|,  u = the mean of the features of its tokens, without special ones            (1)
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp

from genzoo.core.contract import Aux, Context, Player, Variables
from genzoo.core.types import (
    Array,
    Batch,
    Examples,
    Ids,
    Key,
    Keys,
    PerExample,
    TokenMask,
    Tree,
    Vectors,
)
from genzoo.math.contrastive import unit
from genzoo.nets.parts.text_encoder import pooled
from genzoo.nets.transformer.text_transformer import TextNetwork

TEXT = "text"
"""The field that it encodes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextEncoder:
    """The text encoder family. Capabilities: Fits, Encodes (texts), EncodesText.

    mask: ids [B, L] -> which of them are not padding. skipped: ids that the mean (1) leaves out,
    such as a start token. pretrained: reads the params; None for random ones.
    """

    network: TextNetwork
    mask: Callable[[Array], Array]
    skipped: tuple[int, ...] = ()
    pretrained: Callable[[], Tree] | None = None

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Fresh params of the network."""
        ids = example[TEXT]
        return Variables(params=self.network.init(key, ids, self.mask(ids)))

    def fit(self, batches: Iterable[Batch], key: Key) -> Variables:
        """The pretrained params, for which no batch is read, or else fresh ones."""
        if self.pretrained is None:
            return self.init(key, next(iter(batches)))
        return Variables(params=self.pretrained())

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model", whose loss is only measured."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Zeros [B], since nothing is trained; metrics: tokens, the number in each text."""
        del params
        tokens = self.mask(context.batch[TEXT]).sum(-1).astype(jnp.float32)
        return jnp.zeros_like(tokens), Aux(metrics={"tokens": tokens}, stats=context.stats)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """Equation (1) for each text [B, D]; zero for a text without such tokens."""
        del keys
        ids = batch[TEXT]
        mask = self.mask(ids)
        tokens = self.text_features(variables, ids, mask)
        for skipped in self.skipped:
            mask = mask & (ids != skipped)
        return unit(pooled(tokens, mask))

    @property
    def text_width(self) -> int:
        """The width of the features."""
        return self.network.width

    @property
    def text_length(self) -> int:
        """The maximum number of tokens of a text; 0 if there is no limit."""
        return self.network.length

    def text_features(self, variables: Variables, ids: Ids, mask: TokenMask) -> Examples:
        """The network's features [B, L, D] of ids [B, L]; mask: False for padding."""
        return self.network.apply(variables.params, ids, mask)
