"""Settings that the transformers over noisy patches share, their checks, counts and modules."""

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Annotated

from flax import linen as nn

from genzoo.core import conditions
from genzoo.core.bounds import AtLeast, Below, Between, Each, Entries, Limit, OneOf
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.nets.interface import InnerMap, Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.attention import Fused
from genzoo.nets.parts.conditioning import TOKEN_STD, Conditioner, check_ways
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS
from genzoo.nets.parts.layers import DTYPES
from genzoo.nets.parts.problems import indivisible
from genzoo.nets.parts.remat import POLICIES
from genzoo.nets.transformer.block import MLPS, Attention, Norm
from genzoo.nets.transformer.counts import block_params, norm_params
from genzoo.nets.transformer.patch_transformer import PatchTransformer
from genzoo.nets.transformer.patches import grid_of
from genzoo.nets.transformer.stack import Stack

FREQUENCIES = 256
"""The width of the time embedding, the same for all published networks."""

Width = Annotated[int, AtLeast(2), Limit(65_536), "Width of the residual stream."]
Depth = Annotated[int, AtLeast(1), Limit(1_000), "Number of blocks."]
Heads = Annotated[int, AtLeast(1), Limit(1_024), "Attention heads; must divide the width."]
Patch = Annotated[int, AtLeast(1), Limit(1_024), "Side of the patches that become tokens."]
Expansion = Annotated[
    float,
    Between(0.25, 64),
    "Hidden width of the MLPs, in widths; those of swiglu have two thirds of it.",
]
MLPName = Annotated[
    str, OneOf(MLPS), "MLP of a block: gelu (by tanh), gelu_exact, gelu_quick or swiglu (gated)."
]
QKNorm = Annotated[
    bool,
    "Whether queries and keys of every head pass through an RMSNorm, except in cross-attention.",
]
UsesRotary = Annotated[bool, "Whether queries and keys are turned by their positions."]
POSITIONS = ("sincos", "learned")
Positions = Annotated[
    str,
    OneOf(POSITIONS),
    "Positions added to the patches: a fixed sincos table, or learned ones.",
]
Base = Annotated[
    tuple[int, ...],
    Entries(0, 8),
    Each(Between(1, 65_536)),
    "Grid of patches, one number for each axis, at which the network was trained, for data of "
    "another resolution: positions are stretched to its extent, learned ones interpolated; () for "
    "the grid of the data.",
]
TimeEmbedding = Annotated[
    str,
    OneOf(TIME_EMBEDDINGS),
    "sinusoidal_adm (DiT), sinusoidal_slow (JiT) or fourier for times in DDPM steps; "
    "sinusoidal_adm or fourier_noise_level for noise levels of order 1.",
]
Dropout = Annotated[
    float, AtLeast(0), Below(1), Limit(0.99), "Rate on what layers add to the stream, in training."
]
DropPath = Annotated[
    float,
    AtLeast(0),
    Below(1),
    Limit(0.99),
    "Rate at which the last block is skipped in training; it falls linearly to 0 at the first.",
]
Scan = Annotated[
    bool, "Whether the blocks are run by a scan: compiles faster, but stores params as stacks."
]
RematName = Annotated[
    str,
    OneOf(POLICIES),
    "What the backward pass recomputes to save memory: none, full (all but block inputs) or dots "
    "(all but matrix products).",
]
Dtype = Annotated[
    str, OneOf(DTYPES), "Type used in blocks; params, stream, softmax and output stay float32."
]


def head_problems(width: int, heads: int, of: str = "") -> list[str]:
    """An error if the heads do not divide the width. of: the prefix of both keys."""
    if width % heads == 0:
        return []
    return [
        f"network.{of}heads is {heads}, which does not divide network.{of}width, {width}: change "
        "one of them."
    ]


def narrow_problems(width: int, axes: int, of: str = "") -> list[str]:
    """An error if a sin-cos table of this width has no frequency for some axis. of: the prefix of
    the key."""
    if width >= 2 * axes:
        return []
    return [
        f"network.{of}width = {width} is too narrow for positions along {axes} axes: give at least "
        f"{2 * axes}."
    ]


def linear_path(rate: float, depth: int) -> tuple[float, ...]:
    """The rates of drop path of every block, from 0 to `rate` (Huang et al. 2016); () for none."""
    return tuple(rate * i / max(depth - 1, 1) for i in range(depth)) if rate else ()


@dataclass(frozen=True, kw_only=True)
class PatchSettings:
    """Settings of every transformer over noisy patches."""

    width: Width = 768
    depth: Depth = 12
    heads: Heads = 12
    patch: Patch = 2
    expansion: Expansion = 4.0
    mlp: MLPName = "gelu"
    qk_norm: QKNorm = False
    rotary: UsesRotary = False
    positions: Positions = "sincos"
    base: Base = ()
    time_embedding: TimeEmbedding = "sinusoidal_adm"
    dropout: Dropout = 0.0
    drop_path: DropPath = 0.0
    scan: Scan = False
    remat: RematName = "none"
    fused: Fused = False
    dtype: Dtype = "float32"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        size = shape[:-1]
        problems = head_problems(self.width, self.heads)
        problems += indivisible("patch", self.patch, size, self.patch)
        problems += narrow_problems(self.width, len(size))
        if self.rotary and not problems and self.width // self.heads < 2 * len(size):
            problems.append(
                f"network.rotary = True turns at least one pair of channels for each of "
                f"{len(size)} axes, but a head has {self.width // self.heads} channels: use fewer "
                "heads, or network.rotary = False."
            )
        elif self.rotary and not problems and self.width // self.heads % 2:
            problems.append(
                f"network.rotary = True turns pairs of channels, but a head has "
                f"{self.width // self.heads}: change network.heads, or use network.rotary = False."
            )
        if self.base and len(self.base) != len(size):
            problems.append(
                f"network.base = {self.base} must have one entry for each of the {len(size)} axes, "
                "or be ()."
            )
        return problems

    @property
    def norm(self) -> Norm:
        """The norms of the blocks."""
        return Norm(learned=False)

    @property
    def deep_vectors(self) -> bool:
        """Whether conditions that are vectors go through two layers."""
        return False

    @property
    def rates(self) -> tuple[float, ...]:
        """The dropout of every block."""
        return (self.dropout,) * self.depth

    def inner(self, block: int, key: str) -> InnerMap:
        """The tokens after this many blocks. key: the config key of that number. Raises UserError
        if there are not so many blocks."""
        if not 1 <= block <= self.depth:
            raise UserError(f"{key} = {block} must be between 1 and network.depth = {self.depth}.")
        path, layer = self.stack.place(block - 1, self.boundaries)
        return InnerMap(path=path, layer=layer, width=self.width, patch=self.patch)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Between which block numbers all blocks are equal: from 0 to the depth."""
        return 0, self.depth

    @property
    def stack(self) -> Stack:
        """How blocks are stacked."""
        return Stack(
            dropout=self.rates,
            path=linear_path(self.drop_path, self.depth),
            scan=self.scan,
            remat=self.remat,
        )

    def size(
        self, shape: tuple[int, ...], *, out_channels: int, entries: conditions.Entries
    ) -> Size:
        """The size of `build` for inputs of `shape` (*size, C)."""
        width, axes = self.width, len(shape) - 1
        within, places = self.patch**axes, prod(grid_of(shape[:-1], self.patch))
        params = counts.conditioner(
            entries, FREQUENCIES, width, context=width, deep=self.deep_vectors
        )
        params += self.entry_params(within * (shape[-1] + counts.mapped(entries)))
        if self.positions == "learned":
            params += width * prod(self.base or grid_of(shape[:-1], self.patch))
        params += self.blocks_params(entries)
        params += norm_params(self.norm, width)
        params += counts.dense(width, 2 * width) + counts.dense(width, within * out_channels)
        itemsize = DTYPES[self.dtype].itemsize
        hidden = max(3 * width, MLPS[self.mlp](int(self.expansion * width)).hidden)
        layer = max(places * hidden * itemsize, 4 * self.heads * places**2)
        return Size(params=params, layer=layer)

    def entry_params(self, inputs: int) -> int:
        """The number of params of the embedding of patches of `inputs` numbers."""
        return counts.dense(inputs, self.width)

    def blocks_params(self, entries: conditions.Entries) -> int:
        """The number of params of all blocks."""
        return self.depth * block_params(**self.block(entries))

    def cross(self, entries: conditions.Entries) -> bool:
        """Whether blocks have cross-attention."""
        return any(entry.way == "attend" for entry in entries.values())

    def block(self, entries: conditions.Entries) -> dict:
        """The fields of every block."""
        return dict(
            width=self.width,
            attention=Attention(
                heads=self.heads,
                qk_norm=self.qk_norm,
                cross=self.cross(entries),
                fused=self.fused,
            ),
            mlp=MLPS[self.mlp](int(self.expansion * self.width)),
            norm=self.norm,
            modulated=True,
            dtype=DTYPES[self.dtype],
        )

    def fields(self, out_channels: int, entries: conditions.Entries) -> dict:
        """The fields that every network of patches has."""
        check_ways(entries, ("add", "concat", "attend"))
        condition = partial(
            Conditioner,
            embed=TIME_EMBEDDINGS[self.time_embedding],
            width=FREQUENCIES,
            features=self.width,
            entries=entries,
            context=self.width,
            start=nn.initializers.normal(TOKEN_STD),
            std=TOKEN_STD,
            deep=self.deep_vectors,
        )
        return dict(
            out_channels=out_channels,
            patch=self.patch,
            width=self.width,
            depth=self.depth,
            head_width=self.width // self.heads,
            norm=self.norm,
            stack=self.stack,
            condition=condition,
            dtype=DTYPES[self.dtype],
            rotary=self.rotary,
            base=self.base,
            learned=self.positions == "learned",
        )

    def made(self, out_channels: int, entries: conditions.Entries, **own: object) -> Network:
        """The network of one stream. own: further fields of its `PatchTransformer`."""
        block, fields = self.block(entries), self.fields(out_channels, entries)
        return network(
            PatchTransformer(block=lambda cls, name: cls(**block, name=name), **fields, **own)
        )
