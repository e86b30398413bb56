"""MM-DiT: a transformer over two streams, patches and tokens, with one attention for both.

Esser et al. 2024 (Scaling rectified flow transformers for high-resolution image synthesis: SD3).
Each stream has its own weights; queries, keys and values of both are concatenated. The last block
only reads the tokens. The first blocks of SD 3.5 medium add a second attention of the patches.
"""

from collections.abc import Callable
from itertools import pairwise

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions
from genzoo.core.types import Array
from genzoo.nets.parts.attention import attend
from genzoo.nets.transformer import positions
from genzoo.nets.transformer.block import Norm, Rates, Told, TransformerBlock
from genzoo.nets.transformer.patch_transformer import added_positions, entry, opened, output
from genzoo.nets.transformer.patches import grid_of, unpatchify
from genzoo.nets.transformer.stack import Stack


class JointBlock(nn.Module):
    """((h [B, N, width], tokens [B, M, width]), told, rates, train) -> the same shapes.

    stream: makes the block of a stream from (dual, ends). told.rotary applies to h alone;
    told.token_mask: bool [B, M], False for padding. dual: whether h has a second attention. ends:
    whether the tokens are read but not changed. Without tokens (M = 0), h is that of a
    `TransformerBlock`.
    """

    stream: Callable[[bool, bool], TransformerBlock]
    dual: bool = False
    ends: bool = False

    def setup(self):
        self.x = self.stream(self.dual, False)
        self.tokens = self.stream(False, self.ends)

    def __call__(
        self, streams: tuple[Array, Array], told: Told, rates: Rates, train: bool
    ) -> tuple[Array, Array]:
        h, tokens = streams
        own, theirs = self.x.changes(told.features), self.tokens.changes(told.features)
        both = zip(
            self.x.heads(h, told.rotary, own), self.tokens.heads(tokens, None, theirs), strict=True
        )
        mask = told.token_mask
        if mask is not None:
            mask = jnp.concatenate([jnp.ones(h.shape[:2], bool), mask], 1)
        fused = self.x.attention.fused
        attended = attend(*(jnp.concatenate(parts, 1) for parts in both), mask, fused=fused)
        split = h.shape[1]
        second = self.x.dual(h, rates, train, own) if self.dual else 0.0
        h = self.x.attended(h, attended[:, :split], rates, train, own) + second
        h = self.x.passed_on(h, rates, train, own)
        if not self.ends:
            tokens = self.tokens.attended(tokens, attended[:, split:], rates, train, theirs)
            tokens = self.tokens.passed_on(tokens, rates, train, theirs)
        return h, tokens


class JointTransformer(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions) -> [B, *size, out_channels].

    The arguments are those of `PatchTransformer`; the tokens of the conditions are the second
    stream. stream: makes the block of a stream from (dual, ends). dual: the number of first blocks
    with a second attention. boundaries: the block numbers between which all blocks are equal.
    table: the side of the largest grid, see `positions.coordinates`.
    """

    out_channels: int
    patch: int
    width: int
    depth: int
    head_width: int
    stream: Callable[[bool, bool], TransformerBlock]
    norm: Norm
    stack: Stack
    condition: Callable[..., nn.Module]
    dtype: jnp.dtype
    boundaries: tuple[int, ...]
    rotary: bool = False
    base: tuple[int, ...] = ()
    learned: bool = False
    table: int = 0
    dual: int = 0

    @nn.compact
    def __call__(self, x: Array, time: Array, conditions: Conditions, train: bool) -> Array:
        size = x.shape[1:-1]
        patches, encoded, features, places = opened(
            self.condition, x, time, conditions, self.patch, self.base, self.table
        )
        grid = grid_of(size, self.patch)
        added = added_positions(places, self.width, grid, self.base, self.learned)
        h = entry(self.width, self.dtype, "entry")(patches) + added
        by = positions.rotary(places, self.head_width) if self.rotary else None
        told = Told(features, by, token_mask=encoded.mask)
        # Attention gives padding no weight, but 0 times NaN would be NaN.
        streams = h, jnp.where(encoded.mask[..., None], encoded.tokens, 0)
        for first, last in pairwise(self.boundaries):

            def make(wrap: Callable, name: str, first: int = first) -> JointBlock:
                dual, ends = first < self.dual, first == self.depth - 1
                return wrap(JointBlock)(self.stream, dual, ends, name=name)

            streams = self.stack.run(make, first, last, streams, told, train)
        channels = self.out_channels * self.patch ** len(size)
        return unpatchify(output(streams[0], features, self.norm, channels), size, self.patch)
