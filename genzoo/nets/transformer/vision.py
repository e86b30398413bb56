"""ViT: a transformer over the patches of an image, as an encoder and as a classifier.

Dosovitskiy et al. 2021 (An image is worth 16x16 words). The encoder also serves MAE, which shows it
a part of the patches, and CLIP. Works for images, signals and volumes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.bounds import OneOf
from genzoo.core.conditions import Conditions
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import FeatureNetwork, features_of
from genzoo.nets.parts import counts
from genzoo.nets.parts.attention import Fused
from genzoo.nets.parts.conditioning import TOKEN_STD
from genzoo.nets.parts.layers import DTYPES, FAN_AVG, ZEROS
from genzoo.nets.parts.problems import indivisible
from genzoo.nets.transformer import positions
from genzoo.nets.transformer.block import MLPS, Attention, Norm, Told, TransformerBlock
from genzoo.nets.transformer.counts import block_params
from genzoo.nets.transformer.patches import grid_of, patchify
from genzoo.nets.transformer.settings import (
    Depth,
    Dropout,
    DropPath,
    Dtype,
    Expansion,
    Heads,
    MLPName,
    Patch,
    RematName,
    Scan,
    Width,
    head_problems,
    linear_path,
)
from genzoo.nets.transformer.stack import Stack

NORM = Norm(epsilon=1e-6)
MakeBlock = Callable[[type[TransformerBlock], str], TransformerBlock]


class Blocks(nn.Module):
    """(tokens [B, N, W], mask bool [B, N] or None, train) -> the same shape, through `depth` blocks
    and, unless every block ends in a norm, a final one. Output float32."""

    depth: int
    block: MakeBlock
    stack: Stack
    norm: Norm

    @nn.compact
    def __call__(self, h: Array, mask: Array | None, train: bool) -> Array:
        def make(wrap: Callable, name: str) -> TransformerBlock:
            return self.block(wrap(TransformerBlock), name)

        h = self.stack.run(make, 0, self.depth, h, Told(mask=mask), train)
        return h if self.norm.post else self.norm.make(jnp.float32, "norm")(h)


class PatchEncoder(nn.Module):
    """(x [B, *size, C], keep int32 [B, K] or None, train) -> tokens [B, 1 + K, width] float32.

    The first token is the class token; the others are the patches `keep`, or all of them, in that
    order. Each patch has its position added before any is left out. learned: whether positions are
    learned, for the size at initialisation, or the sin-cos table, which leaves the class token's at
    zero. bias: whether the embedding of patches has one. first_norm: whether a norm comes before
    the blocks, as in CLIP.
    """

    patch: int
    width: int
    blocks: Callable[..., Blocks]
    dtype: jnp.dtype
    learned: bool = True
    bias: bool = True
    first_norm: Norm | None = None

    @nn.compact
    def __call__(self, x: Array, keep: Array | None, train: bool) -> Array:
        size, width = x.shape[1:-1], self.width
        entry = partial(nn.Dense, use_bias=self.bias, kernel_init=FAN_AVG, dtype=self.dtype)
        patches = entry(width, name="entry")(patchify(x, self.patch)).astype(jnp.float32)
        table = nn.initializers.normal(TOKEN_STD)
        token = self.param("class_token", table, (width,))
        if self.learned:
            place = self.param("position", table, (1 + patches.shape[1], width))
            token, places = token + place[0], place[1:]
        else:
            places = positions.sincos(positions.coordinates(grid_of(size, self.patch)), width)
        patches = patches + places
        if keep is not None:
            patches = jnp.take_along_axis(patches, keep[..., None], axis=1)
        first = jnp.broadcast_to(token, (x.shape[0], 1, width))
        h = jnp.concatenate([first, patches], 1)
        if self.first_norm is not None:
            h = self.first_norm.make(jnp.float32, "first_norm")(h)
        return self.blocks(name="blocks")(h, None, train)


class Pool(nn.Module):
    """Tokens [B, 1 + N, W] -> [B, W]: the class token, or the mean of the patches. A module of its
    own so that its output can be asked for by name."""

    mean: bool

    def __call__(self, tokens: Array) -> Array:
        return tokens[:, 1:].mean(1) if self.mean else tokens[:, 0]


class VisionTransformer(nn.Module):
    """(x [B, *size, C], time, conditions) -> logits [B, classes] float32, or with no classes the
    features [B, W] before them, the output of the inner module "pool".

    Time and conditions are ignored; classifiers of noisy data take them. The logits are zero at the
    start.
    """

    encoder: Callable[..., PatchEncoder]
    classes: int
    mean: bool

    @nn.compact
    def __call__(self, x: Array, time: Array, conditions: Conditions, train: bool) -> Array:
        del time, conditions
        features = Pool(self.mean, name="pool")(self.encoder(name="encoder")(x, None, train))
        if not self.classes:
            return features
        return nn.Dense(self.classes, kernel_init=ZEROS, name="out")(features)


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A stack of equal blocks between an embedding and a final norm, as settings have it.

    causal: whether tokens see earlier ones only. norm: of the blocks and, unless these end in one,
    at the end.
    """

    width: int
    depth: int
    heads: int
    expansion: float
    mlp: str
    dtype: jnp.dtype
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = False
    remat: str = "none"
    fused: bool = False
    causal: bool = False
    norm: Norm = field(default=NORM)

    @property
    def block(self) -> dict:
        """The fields of every block."""
        return dict(
            width=self.width,
            attention=Attention(heads=self.heads, causal=self.causal, fused=self.fused),
            mlp=MLPS[self.mlp](int(self.expansion * self.width)),
            norm=self.norm,
            dtype=self.dtype,
        )

    @property
    def params(self) -> int:
        """The number of params of the blocks and the final norm."""
        final = 0 if self.norm.post else counts.norm(self.width)
        return self.depth * block_params(**self.block) + final

    def layer(self, tokens: int) -> int:
        """The bytes of the largest array for one example of this many tokens."""
        hidden = max(3 * self.width, self.block["mlp"].hidden)
        return max(tokens * hidden * self.dtype.itemsize, 4 * self.heads * tokens**2)

    def blocks(self) -> Callable[..., Blocks]:
        """Makes the module, of a name."""
        block = self.block
        stack = Stack(
            dropout=(self.dropout,) * self.depth,
            path=linear_path(self.drop_path, self.depth),
            scan=self.scan,
            remat=self.remat,
        )
        return partial(
            Blocks,
            depth=self.depth,
            block=lambda cls, name: cls(**block, name=name),
            stack=stack,
            norm=self.norm,
        )


POOLS = ("class", "mean")


@dataclass(frozen=True, kw_only=True)
class VisionSettings:
    """Settings of every transformer over the patches of clean data."""

    width: Width = 768
    depth: Depth = 12
    heads: Heads = 12
    patch: Patch = 16
    expansion: Expansion = 4.0
    mlp: MLPName = "gelu_exact"
    dropout: Dropout = 0.0
    drop_path: DropPath = 0.0
    scan: Scan = False
    remat: RematName = "none"
    fused: Fused = False
    dtype: Dtype = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = head_problems(self.width, self.heads)
        return problems + indivisible("patch", self.patch, shape[:-1], self.patch)

    def tower(self, **own: object) -> Tower:
        """The blocks of the encoder. own: fields that differ."""
        names = Tower.__dataclass_fields__.keys() & self.__dataclass_fields__.keys()
        fields = {name: getattr(self, name) for name in names}
        return Tower(**{**fields, "dtype": DTYPES[self.dtype], **own})

    def encoder_size(self, shape: tuple[int, ...], *, learned: bool, bias: bool = True) -> Size:
        """The size of the encoder for inputs of `shape` (*size, C)."""
        tower, axes = self.tower(), len(shape) - 1
        tokens, inputs = 1 + prod(grid_of(shape[:-1], self.patch)), self.patch**axes * shape[-1]
        params = tower.params + (inputs + bias) * self.width + self.width
        params += learned * tokens * self.width
        return Size(params=params, layer=tower.layer(tokens))

    def encoder(self, **own: object) -> Callable[..., PatchEncoder]:
        """Makes the encoder, of a name. own: further fields of it."""
        return partial(
            PatchEncoder,
            patch=self.patch,
            width=self.width,
            blocks=self.tower().blocks(),
            dtype=DTYPES[self.dtype],
            **own,
        )


@dataclass(frozen=True, kw_only=True)
class ViTSettings(VisionSettings):
    """ViT. The defaults are ViT-B/16, which has 86,567,656 params for images of 224 x 224 and 1000
    classes.

    (depth, width, heads) are (12, 192, 3) for Ti, (12, 384, 6) for S, (12, 768, 12) for B and
    (24, 1024, 16) for L.
    """

    pool: Annotated[
        str, OneOf(POOLS), "What represents the image: the class token, or the mean of the patches."
    ] = "class"

    def size(self, shape: tuple[int, ...], *, num_classes: int) -> Size:
        """The size of `build` for inputs of `shape` (*size, C)."""
        size = self.encoder_size(shape, learned=True)
        head = counts.dense(self.width, num_classes)
        return Size(params=size.params + head, layer=size.layer)

    def build(self, *, num_classes: int) -> FeatureNetwork:
        """A classifier (x [B, *size, C], time, {}) -> logits [B, num_classes], which ignores the
        time; with no classes -> its features [B, width]."""
        module = VisionTransformer(
            encoder=self.encoder(), classes=num_classes, mean=self.pool == "mean"
        )
        return features_of(module, self.width)
