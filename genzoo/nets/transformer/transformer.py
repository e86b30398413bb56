"""A decoder-only transformer over grids of codes, the prior of VQ-VAE, VQ-VAE-2 and DALL-E.

Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2: pre-normalisation, initialisation),
Ramesh et al. 2021 (codes of images as a sequence). The grids of all levels form one sequence of N
positions, from coarse to fine. Level l has codes 0 .. vocabularies[l] - 1; tokens and logits count
from 0 in each level:

    h_0 = start,  h_i = embed[offset(i - 1) + token_{i-1}]                                    (1)
    h_i <- h_i + position_i + sum of embedded conditions                                      (2)
    h <- h + attention(norm(h)),  h <- h + mlp(norm(h)),  `depth` times, seeing j <= i only   (3)
    p(token_i = c | tokens before i) = softmax over c of (norm(h_i) W + b)[offset(i) + c]     (4)

where offset(i) is the sum of the vocabularies of the levels above that of position i. Sampling
keeps the keys and values of (3) in a cache, so that each code needs one position of the network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.bounds import AtLeast, Below, Limit, OneOf
from genzoo.core.conditions import Conditions, Entries
from genzoo.core.size import Size
from genzoo.core.types import Array, Tree
from genzoo.nets.interface import Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.attention import Fused
from genzoo.nets.parts.conditioning import check_ways, feature_embedder, value_of
from genzoo.nets.parts.layers import DTYPES, ZEROS
from genzoo.nets.transformer.block import Rates, Told
from genzoo.nets.transformer.causal import (
    EPSILON,
    INIT_STD,
    NEVER,
    CausalBlock,
    causal_block,
)


@dataclass(frozen=True, kw_only=True)
class TokenNetwork(Network):
    """A network over sequences of codes, which can also run one position at a time.

    init(key, tokens, None, conditions); apply(params, tokens, None, conditions, train=False,
    key=None) -> logits [B, N, V] float32, V = max(vocabularies). None stands for the time. tokens:
    [B, N] int32, counted from 0 in every level. They are also the targets: logits[:, i] predict
    tokens[:, i] and depend on tokens[:, :i] only. Logits of codes that do not exist in the level of
    a position are NEVER.

    new_cache(batch) -> a cache of zeros.
    step(params, cache, token, position, conditions) -> (logits [B, V], cache): row `position` of
        apply. token [B] is the code at position - 1, and is ignored at position 0. position []
        may be traced. Call it for positions 0, 1, ... in order, each time with the cache from the
        previous call. A `lax.scan` with the cache in its carry updates it in place.
    vocabularies, lengths: the number of codes and of positions in each level, from coarse to fine.
    """

    new_cache: Callable[[int], Tree]
    step: Callable[..., tuple[Array, Tree]]
    vocabularies: tuple[int, ...]
    lengths: tuple[int, ...]


class Transformer(nn.Module):
    """Equations (1) to (4): (tokens [B, N] int32, None, conditions) -> logits [B, N, V] float32."""

    vocabularies: tuple[int, ...]
    lengths: tuple[int, ...]
    entries: Entries
    depth: int
    block: Callable[..., CausalBlock]
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
        h = h + self._condition_features(conditions, tokens)[:, None]
        h = self.drop(h, deterministic=not train)
        rates = Rates(dropout=self.dropout or None)
        for block in self.blocks:
            h = block(h, Told(), rates, train)
        return self._logits(self.norm(h))

    def step(
        self, cache: Tree, token: Array, position: Array, conditions: Conditions
    ) -> tuple[Array, Tree]:
        """See TokenNetwork.step."""
        offsets = jnp.asarray(self._offsets())
        code = self.embed(token + offsets[jnp.maximum(position - 1, 0)])
        h = jnp.where(position == 0, self.start, code) + self.position[position]
        h = h + self._condition_features(conditions, token)
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

    def _condition_features(self, conditions: Conditions, like: Array) -> Array:
        """The sum of the embedded conditions, [B, width], for B = len(like)."""
        features = jnp.zeros((like.shape[0], self.width))
        for embedder, (name, entry) in zip(self.embedders, self.entries.items(), strict=True):
            features = features + embedder(*value_of(entry, conditions.get(name), like))
        return features

    def _product(self, h: Array, kernel: Array) -> Array:
        kernel = kernel.astype(self.dtype)
        return jnp.matmul(h, kernel, preferred_element_type=jnp.float32)

    def _logits(self, h: Array) -> Array:
        """Equation (4) level by level, so that no logit is computed and then masked."""
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
    """A transformer over grids of codes.

    With the width W, V codes and N positions in all levels together, it has
    2 V W + V + N W + 3 W + depth ((4 + 2 expansion) W^2 + (9 + expansion) W) params, plus
    (classes + 1) W for a class label that may be absent.
    """

    width: Annotated[int, AtLeast(1), Limit(65_536), "Width of the residual stream."] = 256
    depth: Annotated[int, AtLeast(1), Limit(1_000), "Number of blocks."] = 6
    heads: Annotated[int, AtLeast(1), Limit(1_024), "Attention heads; must divide the width."] = 8
    expansion: Annotated[int, AtLeast(1), Limit(64), "Hidden width of the MLPs, in widths."] = 4
    dropout: Annotated[
        float,
        AtLeast(0),
        Below(1),
        Limit(0.99),
        "Dropout rate on the embedded sequence and on the output of each layer, in training.",
    ] = 0.0
    fused: Fused = False
    dtype: Annotated[
        str,
        OneOf(DTYPES),
        "Type used in layers and in the cache; params, stream, softmax and logits stay float32.",
    ] = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings, as sentences; independent of `shape`, that of the data."""
        del shape
        if self.width % self.heads == 0:
            return []
        return [
            f"network.heads is {self.heads}, which does not divide network.width, {self.width}: "
            "change one of them."
        ]

    def size(
        self,
        shape: tuple[int, ...],
        *,
        vocabularies: tuple[int, ...],
        lengths: tuple[int, ...],
        entries: Entries,
    ) -> Size:
        """The size of `build`, independent of the `shape` of the data. The layer is that of one
        position, for sampling has no others at a time."""
        del shape
        width, codes, positions = self.width, sum(vocabularies), sum(lengths)
        block = (4 + 2 * self.expansion) * width**2 + (9 + self.expansion) * width
        params = 2 * codes * width + codes + positions * width + 3 * width + self.depth * block
        params += sum(counts.added(entry, width) for entry in entries.values())
        cache = 2 * positions * width * DTYPES[self.dtype].itemsize
        return Size(params=params, layer=min(cache, 4 * self.heads * positions**2))

    def build(
        self, *, vocabularies: tuple[int, ...], lengths: tuple[int, ...], entries: Entries
    ) -> TokenNetwork:
        """A network over the grids of codes of all levels, from coarse to fine.

        vocabularies, lengths: the number of codes and of positions in each level. entries: how each
            condition enters, by name. All must have way = "add" (UserError): their features are
            added at every position.
        """
        check_ways(entries, ("add",))
        dtype = DTYPES[self.dtype]

        block = partial(
            causal_block,
            width=self.width,
            heads=self.heads,
            expansion=self.expansion,
            depth=self.depth,
            dtype=dtype,
            fused=self.fused,
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
