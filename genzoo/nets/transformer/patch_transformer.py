"""A transformer over the patches of noisy data: DiT, JiT and what lies between them.

Peebles & Xie 2023 (Scalable diffusion models with transformers), Li & He 2025 (Back to basics: let
denoising generative models denoise, arXiv 2511.13720). Works for images, signals and volumes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions
from genzoo.core.types import Array
from genzoo.nets.parts.conditioning import TOKEN_STD, Encoded
from genzoo.nets.parts.layers import FAN_AVG, ZEROS, flat_product
from genzoo.nets.transformer import positions
from genzoo.nets.transformer.block import Norm, Told, TransformerBlock, modulate
from genzoo.nets.transformer.patches import grid_of, patchify, unpatchify
from genzoo.nets.transformer.stack import Stack


class Opened(NamedTuple):
    """The input of a transformer over patches. patches: [B, N, C], with the maps of the conditions.
    encoded: the conditions. features: [B, E], for the modulation. places: [N, axes], of the
    patches."""

    patches: Array
    encoded: Encoded
    features: Array
    places: Array


def opened(
    condition: Callable[..., nn.Module],
    x: Array,
    time: Array,
    conditions: Conditions,
    patch: int,
    base: tuple[int, ...],
    table: int = 0,
) -> Opened:
    """See `PatchTransformer`. Call it inside a compact `__call__`."""
    time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
    encoded = condition(name="condition")(time, conditions, x)
    if encoded.maps is not None:
        x = jnp.concatenate([x, encoded.maps.astype(x.dtype)], -1)
    places = positions.coordinates(grid_of(x.shape[1:-1], patch), base, table)
    return Opened(patchify(x, patch), encoded, nn.silu(encoded.features), places)


class LearnedPositions(nn.Module):
    """grid -> learned positions [N, width]. There is one for each place of the grid `base` or, if
    that is (), of the grid at initialisation; those of other grids are interpolated linearly."""

    width: int
    base: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, grid: tuple[int, ...]) -> Array:
        start = nn.initializers.normal(TOKEN_STD)
        table = self.param("table", start, (*(self.base or grid), self.width))
        if self.base and self.base != grid:
            table = jax.image.resize(table, (*grid, self.width), "linear")
        return table.reshape(-1, self.width)


def added_positions(
    places: Array, width: int, grid: tuple[int, ...], base: tuple[int, ...], learned: bool
) -> Array:
    """What is added to the patches [N, width]: learned positions, or the sin-cos table of their
    places. Call it inside a compact `__call__`."""
    if learned:
        return LearnedPositions(width, base, name="position")(grid)
    return positions.sincos(places, width)


def entry(width: int, dtype: jnp.dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """A layer of the embedding of patches. Call it inside a compact `__call__`."""
    return nn.Dense(
        width,
        use_bias=use_bias,
        kernel_init=FAN_AVG,
        dtype=dtype,
        dot_general=flat_product,
        name=name,
    )


def output(h: Array, features: Array, norm: Norm, channels: int) -> Array:
    """The last layer: h [B, N, width], features [B, E] -> [B, N, channels] float32, zero at the
    start. Call it inside a compact `__call__`. In float32, because rounding here would be noise in
    the output."""
    change = nn.Dense(2 * h.shape[-1], kernel_init=ZEROS, name="out_modulation")(features)
    h = modulate(norm.make(jnp.float32, "out_norm")(h), *jnp.split(change, 2, -1))
    last = nn.Dense(channels, kernel_init=ZEROS, dot_general=flat_product, name="out")
    return last(h)


class PatchTransformer(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions) -> [B, *size, out_channels].

    The output is float32 and zero at the start. size: any number of axes, each side divisible by
    patch. condition: makes the module (time, conditions, x) -> `Encoded`. The features modulate
    every block, the tokens are attended to, and the maps are concatenated to the input.
    block: makes a block of a class and a name; its width is `width`. base: the grid of patches to
    whose extent positions are stretched; () for that of the input.
    learned: whether the positions that are added to the patches are learned, and not a sin-cos
    table. rotary: whether queries and keys are turned by their positions as well.
    bottleneck: the rank of the embedding of patches; 0 for full rank. class_tokens: the number of
    tokens with the features of the conditions that join the patches at block `class_start`. They
    have learned positions and are dropped at the end.
    """

    out_channels: int
    patch: int
    width: int
    depth: int
    head_width: int
    block: Callable[[type[TransformerBlock], str], TransformerBlock]
    norm: Norm
    stack: Stack
    condition: Callable[..., nn.Module]
    dtype: jnp.dtype
    rotary: bool = False
    base: tuple[int, ...] = ()
    learned: bool = False
    bottleneck: int = 0
    class_tokens: int = 0
    class_start: int = 0

    @nn.compact
    def __call__(self, x: Array, time: Array, conditions: Conditions, train: bool) -> Array:
        size = x.shape[1:-1]
        patches, encoded, features, places = opened(
            self.condition, x, time, conditions, self.patch, self.base
        )
        grid = grid_of(size, self.patch)
        h = self._embedded(patches)
        h = h + added_positions(places, self.width, grid, self.base, self.learned)

        def told(still: int) -> Told:
            by = positions.rotary(places, self.head_width, still) if self.rotary else None
            return Told(features, by, None, encoded.tokens, encoded.mask)

        start = self.class_start if self.class_tokens else self.depth
        h = self.stack.run(self._block, 0, start, h, told(0), train)
        if self.class_tokens:
            h = jnp.concatenate([self._class_tokens(encoded, x.shape[0]), h], 1)
            h = self.stack.run(self._block, start, self.depth, h, told(self.class_tokens), train)
            h = h[:, self.class_tokens :]

        channels = self.out_channels * self.patch ** len(size)
        return unpatchify(output(h, features, self.norm, channels), size, self.patch)

    def _block(self, wrap: Callable, name: str) -> TransformerBlock:
        return self.block(wrap(TransformerBlock), name)

    def _embedded(self, patches: Array) -> Array:
        if not self.bottleneck:
            return entry(self.width, self.dtype, "entry")(patches)
        narrow = entry(self.bottleneck, self.dtype, "entry_0", use_bias=False)
        return entry(self.width, self.dtype, "entry_1")(narrow(patches))

    def _class_tokens(self, encoded: Encoded, batch: int) -> Array:
        """[B, class_tokens, width]. Without conditions they are learned registers."""
        shape = (self.class_tokens, self.width)
        tokens = self.param("class_position", nn.initializers.normal(TOKEN_STD), shape)
        added = 0.0 if encoded.added is None else encoded.added[:, None]
        return jnp.broadcast_to(tokens + added, (batch, *shape))
