"""Settings that several U-Nets share, their checks, and the modules built from them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from flax import linen as nn

from genzoo.core import conditions
from genzoo.core.bounds import Above, AtLeast, Below, Between, Each, Entries, Limit, OneOf
from genzoo.nets.interface import InnerMap
from genzoo.nets.parts import counts
from genzoo.nets.parts.attention import Fused
from genzoo.nets.parts.conditioning import Conditioner
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS
from genzoo.nets.parts.layers import DTYPES, groups_of
from genzoo.nets.parts.problems import even_problems
from genzoo.nets.parts.resample import Taps, filter_fits
from genzoo.nets.unet.counts import Count
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
from genzoo.nets.unet.trunk import REMATS, Trunk, heads_of, middle, width_of

Width = Annotated[
    int, AtLeast(1), Limit(65_536), "Base number of channels, scaled by the multipliers."
]
Multipliers = Annotated[
    tuple[float, ...],
    Entries(1, 16),
    Each(Above(0)),
    Each(Limit(1_000)),
    "Channel multiplier of each level.",
]
Blocks = Annotated[
    int, AtLeast(1), Limit(256), "Residual blocks per level; one more in the decoder."
]
Attention = Annotated[
    tuple[int, ...],
    Entries(0, 16),
    Each(Between(1, 65_536)),
    "Sides of the feature maps with attention after each block (the smaller side of a rectangle).",
]
Heads = Annotated[int, AtLeast(1), Limit(1_024), "Attention heads; for head_width = 0."]
HeadWidth = Annotated[
    int, AtLeast(0), Limit(65_536), "Channels of an attention head; 0 to give heads instead."
]
ScaleShift = Annotated[
    bool, "Whether time features scale and shift the norms (iDDPM, ADM) or are added (DDPM)."
]
ResampleName = Annotated[
    str,
    OneOf(RESAMPLES),
    "conv (DDPM), conv_centred (strided convolutions padded on both sides: iDDPM, latent "
    "diffusion), block (ADM) or plain (averages and copies).",
]
ResampleFilter = Annotated[
    tuple[float, ...],
    Entries(2, 64),
    Each(Between(-1e6, 1e6)),
    "Taps of the resampling filter along each axis: (1, 1) for averages and copies (DDPM++), "
    "(1, 3, 3, 1) for NCSN++.",
]
ProgressiveInput = Annotated[
    str,
    OneOf(("none", "residual")),
    "none (DDPM++), or residual: the input is added at every level of the encoder (NCSN++).",
]
TimeEmbedding = Annotated[
    str,
    OneOf(TIME_EMBEDDINGS),
    "sinusoidal (DDPM), sinusoidal_adm (iDDPM, ADM), fourier (NCSN++) for times in DDPM steps; "
    "fourier_noise_level for noise levels of order 1.",
]
Dropout = Annotated[
    float, AtLeast(0), Below(1), Limit(0.99), "Rate inside residual blocks, in training."
]
NormEpsilon = Annotated[
    float,
    Above(0),
    Between(1e-12, 0.1),
    "Added to the variance in GroupNorm: DDPM 1e-6, ADM 1e-5.",
]
Patch = Annotated[
    int,
    AtLeast(1),
    Limit(1_024),
    "Side of the patches that are folded into channels before the first layer.",
]
RematName = Annotated[
    str,
    OneOf(REMATS),
    "What the backward pass recomputes to save memory: none, full (all but block inputs) or dots "
    "(all but convolutions and matrix products).",
]
Dtype = Annotated[
    str,
    OneOf(DTYPES),
    "Type used in convolutions and attention; params, norms and output stay float32.",
]


@dataclass(frozen=True, kw_only=True)
class LevelsSettings:
    """Settings of every U-Net with several levels."""

    width: Width = 128
    multipliers: Multipliers = (1, 2, 2, 2)
    blocks: Blocks = 2
    attention: Attention = (16,)
    heads: Heads = 1
    time_embedding: TimeEmbedding = "sinusoidal"
    embedding_width: Annotated[
        int, AtLeast(0), Limit(65_536), "Width of the time embedding; 0 for width."
    ] = 0
    dropout: Dropout = 0.0
    norm_groups: Annotated[
        int, AtLeast(1), Limit(65_536), "Maximum number of groups in GroupNorm."
    ] = 32
    norm_epsilon: NormEpsilon = 1e-6
    patch: Patch = 1
    remat: RematName = "none"
    fused: Fused = False
    dtype: Dtype = "float32"

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(width_of(self.width, multiplier) for multiplier in self.multipliers)

    def inner(self, block: int, key: str) -> InnerMap:
        """The map after the middle; see `trunk.middle`."""
        return middle(self.widths[-1], block, key)


def levels_problems(
    shape: tuple[int, ...], settings: LevelsSettings, *, head_width: int = 0
) -> list[str]:
    """Errors in the settings of a U-Net for inputs of `shape` (*size, C), as sentences."""
    problems = []
    if not all(settings.widths):
        problems.append(
            f"network.multipliers = {settings.multipliers} with network.width = {settings.width} "
            "leaves a level without channels: use larger ones."
        )
    key = "embedding_width" if settings.embedding_width else "width"
    problems += even_problems(key, getattr(settings, key))
    problems += _size_problems(shape[:-1], len(settings.multipliers), settings.patch)
    sides = [min(shape[:-1]) // settings.patch >> i for i in range(len(settings.multipliers))]
    problems += attention_problems(settings.attention, sides)
    attentive = [i for i, side in enumerate(sides) if side in settings.attention]
    widths = sorted({settings.widths[i] for i in (*attentive, len(sides) - 1)})
    return problems + _head_problems(widths, settings.heads, head_width)


@dataclass(frozen=True, kw_only=True)
class ADMSettings(LevelsSettings):
    """Settings of the U-Nets of DDPM, improved DDPM and ADM, and of ADM's classifier."""

    head_width: HeadWidth = 0
    scale_shift: ScaleShift = False
    resample: ResampleName = "conv"

    def problems(self, shape: tuple[int, ...]) -> list[str]:
        """Errors in the settings for inputs of `shape` (*size, C), as sentences."""
        problems = levels_problems(shape, self, head_width=self.head_width)
        if not self.scale_shift:
            problems += _blind_problems(self.widths, self.norm_groups)
        return problems

    def trunk(self, depth: int = 0) -> Trunk:
        """The trunk. depth: blocks of each spatial transformer; 0 for self-attention."""
        style = BlockStyle(
            scale_shift=self.scale_shift,
            dropout=self.dropout,
            groups=self.norm_groups,
            epsilon=self.norm_epsilon,
            dtype=DTYPES[self.dtype],
            fused=self.fused,
        )
        return Trunk(
            entry=self.widths[0],
            widths=self.widths,
            blocks=self.blocks,
            attention=self.attention,
            middle=True,
            heads=self.heads,
            head_width=self.head_width,
            style=style,
            resample=RESAMPLES[self.resample],
            remat=REMATS[self.remat],
            patch=self.patch,
            depth=depth,
        )

    def count(
        self, shape: tuple[int, ...], entries: conditions.Entries, context: int = 0, depth: int = 0
    ) -> Count:
        """The size of the conditioner and the trunk for inputs of `shape` (*size, C). context,
        depth: see below and `trunk`."""
        width = self.embedding_width or self.width
        count = Count(
            self.trunk(depth),
            shape[:-1],
            shape[-1] + counts.mapped(entries),
            features=4 * width,
            context=context,
        )
        count.params += counts.conditioner(entries, width, 4 * width, context=context)
        return count

    def conditioner(
        self, entries: conditions.Entries, context: int = 0
    ) -> Callable[..., nn.Module]:
        """A function that makes the `Conditioner`. context: the width of the tokens."""
        width = self.embedding_width or self.width
        return partial(
            Conditioner,
            embed=TIME_EMBEDDINGS[self.time_embedding],
            width=width,
            features=4 * width,
            entries=entries,
            context=context,
        )


def filter_problems(taps: Taps) -> list[str]:
    """An error if the taps do not form a resampling filter."""
    if filter_fits(taps):
        return []
    return [
        f"network.resample_filter = {taps}: give an even number of taps that read the same "
        "backwards and do not sum to 0, such as (1, 1) or (1, 3, 3, 1)."
    ]


def attention_problems(attention: tuple[int, ...], sides: list[int]) -> list[str]:
    """An error if no feature map has a side listed in `attention`. sides: those that occur."""
    absent = [side for side in attention if side not in sides]
    if not absent:
        return []
    return [
        f"network.attention contains {', '.join(map(str, absent))}, but the smaller sides of the "
        f"feature maps are {', '.join(map(str, sides))}: choose from these, or () for no attention."
    ]


def _blind_problems(widths: tuple[int, ...], groups: int) -> list[str]:
    """An error if the output cannot depend on the time.

    A GroupNorm that normalises every channel alone removes the constants that the time adds. This
    is an error only if it happens on all levels.
    """
    if not all(groups_of(width, groups) == width for width in widths if width):
        return []
    channels, few = "/".join(map(str, widths)), max(1, min(widths) // 4)
    return [
        f"network.norm_groups = {groups} normalises each of the {channels} channels of a level "
        "alone, which removes the time and the conditions that are added to it: "
        f"set network.norm_groups = {few}, or network.scale_shift = True."
    ]


def _size_problems(size: tuple[int, ...], levels: int, patch: int) -> list[str]:
    unit = patch * 2 ** (levels - 1)
    if all(side % unit == 0 for side in size):
        return []
    fits = [sorted({max(side // unit, 1) * unit, -(-side // unit) * unit}) for side in size]
    near = " by ".join(" or ".join(str(side) for side in sides) for sides in fits)
    return [
        f"network.multipliers has {levels} levels and network.patch is {patch}, so each side of "
        f"the data must be divisible by {unit}; {' x '.join(map(str, size))} is not. Sizes near "
        f"it that fit: {near}; or use fewer levels or a smaller patch."
    ]


def _head_problems(widths: list[int], heads: int, head_width: int) -> list[str]:
    if head_width and heads != 1:
        return [
            f"network.heads is {heads} and network.head_width is {head_width}: give one of them "
            "(heads=1, or head_width=0)."
        ]
    wrong = [w for w in widths if w % (head_width or heads) or not heads_of(w, heads, head_width)]
    if not wrong:
        return []
    key, value = ("head_width", head_width) if head_width else ("heads", heads)
    return [
        f"network.{key} is {value}, which does not divide the {', '.join(map(str, wrong))} "
        "channels of a level with attention: change it, network.width or network.multipliers."
    ]
