"""A decoder-only transformer over grids of codes: the prior of VQ-VAE, VQ-VAE-2 and DALL-E.

Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2: norms first, initialisation), Ramesh et
al. 2021 (codes of images as a sequence). The grids of all levels form one sequence of N positions,
coarse to fine; level l has codes 0 .. vocabularies[l] - 1, and tokens and logits count from 0 in
each level:

    h_0 = start,  h_i = embed[offset(i - 1) + token_{i-1}]                                    (1)
    h_i <- h_i + position_i + sum of embedded conditions                                      (2)
    h <- h + attention(norm(h)),  h <- h + mlp(norm(h)),  `depth` times, seeing j <= i only   (3)
    p(token_i = c | tokens before i) = softmax over c of (norm(h_i) W + b)[offset(i) + c]     (4)

where offset(i) is the sum of the vocabularies of the levels above that of position i. Drawing
codes one by one keeps the keys and values of (3) in a cache, so that a code costs one position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Below, OneOf
from genzoo.core.conditions import Conditions, Entries
from genzoo.core.types import Array, Tree
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import check_ways, feature_embedder, value_of
from genzoo.nets.parts.layers import DTYPES, ZEROS
from genzoo.nets.transformer.causal import EPSILON, INIT_STD, NEVER, Block


@dataclass(frozen=True, kw_only=True)
class TokenNetwork(Network):
    """A network of sequences of codes, and the same network one position at a time.

    init(key, tokens, None, conditions); apply(params, tokens, None, conditions, train=False,
    key=None) -> logits [B, N, V] float32, V = max(vocabularies); there is no time. tokens: [B, N]
    int32, counted from 0 in every level, so they are their own targets: logits[:, i] is of
    tokens[:, i] and sees tokens[:, :i] only. Logits of codes that the level of a position does not
    have are NEVER.

    new_cache(batch) -> a cache of zeros.
    step(params, cache, token, position, conditions) -> (logits [B, V], cache): row `position` of
        apply. token [B] is the code at position - 1 (any at position 0); position [] may be
        traced. Positions come in order from 0, each with the cache that the one before gave. In a
        `lax.scan` over positions with the cache in its carry, the cache is changed in place.
    vocabularies, lengths: codes and positions of each level, coarse to fine.
    """

    new_cache: Callable[[int], Tree]
    step: Callable[..., tuple[Array, Tree]]
    vocabularies: tuple[int, ...]
    lengths: tuple[int, ...]


class Transformer(nn.Module):
    """(tokens [B, N] int32, no time, conditions) -> logits [B, N, V] float32: equations (1) to
    (4)."""

    vocabularies: tuple[int, ...]
    lengths: tuple[int, ...]
    entries: Entries
    depth: int
    block: Callable[..., Block]
    width: int
    dropout: float
    dtype: jnp.dtype

    def setup(self):
        table = nn.initializers.normal(INIT_STD)
        count, length = sum(self.vocabularies), sum(self.lengths)
        self.embed = nn.Embed(count, self.width, embedding_init=table)
        self.start = self.param("start", table, (self.width,))
        self.position = self.param("position", table, (length, self.width))
        self.embedders = [
            feature_embedder(entry, self.width, name, INIT_STD)
            for name, entry in self.entries.items()
        ]
        self.blocks = [self.block(name=f"block_{i}") for i in range(self.depth)]
        self.norm = nn.LayerNorm(EPSILON, dtype=self.dtype)
        self.kernel = self.param("kernel", table, (self.width, count))
        self.bias = self.param("bias", ZEROS, (count,))
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, tokens: Array, time: None, conditions: Conditions, train: bool
    ) -> Array:
        batch = tokens.shape[0]
        codes = self.embed(tokens[:, :-1] + self._offsets()[:-1])
        start = jnp.broadcast_to(self.start, (batch, 1, self.width))
        h = jnp.concatenate([start, codes], 1) + self.position
        h = h + self._told(conditions, tokens)[:, None]
        h = self.drop(h, deterministic=not train)
        for block in self.blocks:
            h = block(h, train)
        return self._logits(self.norm(h))

    def step(
        self, cache: Tree, token: Array, position: Array, conditions: Conditions
    ) -> tuple[Array, Tree]:
        """TokenNetwork.step."""
        offsets = jnp.asarray(self._offsets())
        code = self.embed(token + offsets[jnp.maximum(position - 1, 0)])
        h = jnp.where(position == 0, self.start, code) + self.position[position]
        h = h + self._told(conditions, token)
        new = {}
        for block in self.blocks:
            h, new[block.name] = block.step(h, cache[block.name], position)
        logits = self._product(self.norm(h), self.kernel) + self.bias
        widest = np.arange(max(self.vocabularies))
        level = jnp.asarray(np.repeat(np.arange(len(self.lengths)), self.lengths))[position]
        own = jnp.take(logits, offsets[position] + widest, axis=-1, mode="clip")
        return jnp.where(widest < jnp.asarray(self.vocabularies)[level], own, NEVER), new

    def _offsets(self) -> np.ndarray:
        """offset(i) of every position, [N]."""
        starts = np.cumsum([0, *self.vocabularies[:-1]])
        return np.repeat(starts, self.lengths).astype(np.int32)

    def _told(self, conditions: Conditions, like: Array) -> Array:
        told = jnp.zeros((like.shape[0], self.width))
        for embedder, (name, entry) in zip(self.embedders, self.entries.items(), strict=True):
            told = told + embedder(*value_of(entry, conditions.get(name), like))
        return told

    def _product(self, h: Array, kernel: Array) -> Array:
        kernel = kernel.astype(self.dtype)
        return jnp.matmul(h, kernel, preferred_element_type=jnp.float32)

    def _logits(self, h: Array) -> Array:
        """Equation (4) level by level, so that no logit is computed only to be masked."""
        parts, widest, first, at = [], max(self.vocabularies), 0, 0
        for vocabulary, length in zip(self.vocabularies, self.lengths, strict=True):
            own = slice(first, first + vocabulary)
            logits = self._product(h[:, at : at + length], self.kernel[:, own]) + self.bias[own]
            padding = ((0, 0), (0, 0), (0, widest - vocabulary))
            parts.append(jnp.pad(logits, padding, constant_values=NEVER))
            first, at = first + vocabulary, at + length
        return jnp.concatenate(parts, 1)


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """A transformer over the codes of grids.

    With W the width, V the sum of the vocabularies and N that of the lengths there are
    2 V W + V + N W + 3 W + depth ((4 + 2 expansion) W^2 + (9 + expansion) W) params, and
    (classes + 1) W with classes that may be absent.
    """

    width: Annotated[int, AtLeast(1), "Of the stream."] = 256
    depth: Annotated[int, AtLeast(1), "Blocks."] = 6
    heads: Annotated[int, AtLeast(1), "Heads of attention; they must divide the width."] = 8
    expansion: Annotated[int, AtLeast(1), "Hidden layer of a block's MLP, in widths."] = 4
    dropout: Annotated[
        float,
        AtLeast(0),
        Below(1),
        "Of the embedded sequence and of what each block adds, in training.",
    ] = 0.0
    dtype: Annotated[
        str,
        OneOf(DTYPES),
        "Of the computation and the cache; params, the stream, softmax, logits stay float32.",
    ] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """What does not fit together; `shape` is of the data, not of the codes."""
        del shape
        if self.width % self.heads == 0:
            return []
        return [
            f"network.heads is {self.heads}, which does not divide network.width, {self.width}: "
            "change one of them."
        ]

    def build(
        self, *, vocabularies: tuple[int, ...], lengths: tuple[int, ...], entries: Entries
    ) -> TokenNetwork:
        """A network of the codes of grids, level after level, coarse to fine.

        vocabularies, lengths: how many codes and how many positions each level has.
        entries: how conditions enter, by name: by features, added at every position.
        """
        check_ways(entries, ("add",))
        dtype = DTYPES[self.dtype]

        def block(name: str) -> Block:
            return Block(
                width=self.width,
                heads=self.heads,
                expansion=self.expansion,
                depth=self.depth,
                dropout=self.dropout,
                dtype=dtype,
                name=name,
            )

        module = Transformer(
            vocabularies=vocabularies,
            lengths=lengths,
            entries=entries,
            depth=self.depth,
            block=block,
            width=self.width,
            dropout=self.dropout,
            dtype=dtype,
        )
        net = network(module)

        def new_cache(batch: int) -> Tree:
            shape = (batch, self.heads, sum(lengths), self.width // self.heads)
            return {
                f"block_{i}": {name: jnp.zeros(shape, dtype) for name in ("key", "value")}
                for i in range(self.depth)
            }

        def step(
            params: Tree, cache: Tree, token: Array, position: Array, conditions: Conditions
        ) -> tuple[Array, Tree]:
            inputs = cache, token, position, conditions
            return module.apply({"params": params}, *inputs, method="step")

        return TokenNetwork(
            init=net.init,
            apply=net.apply,
            features=net.features,
            new_cache=new_cache,
            step=step,
            vocabularies=vocabularies,
            lengths=lengths,
        )
