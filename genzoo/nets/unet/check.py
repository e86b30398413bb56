"""What is wrong with the settings of a U-Net, said before anything is built: all of it at once.

Each problem is a sentence that names the config's key and the remedy; `build.py` shows them.
"""

from collections.abc import Mapping

from genzoo.core.errors import nearest
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS
from genzoo.nets.parts.layers import DTYPES
from genzoo.nets.unet.residual import RESAMPLES
from genzoo.nets.unet.trunk import REMATS, heads_of, width_of


def unet_problems(
    shape: tuple[int, ...],
    *,
    width: int = 128,
    multipliers: tuple[float, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    head_width: int = 0,
    scale_shift: bool = False,
    resample: str = "conv",
    time_embedding: str = "sinusoidal",
    embedding_width: int = 0,
    dropout: float = 0.0,
    norm_groups: int = 32,
    norm_epsilon: float = 1e-6,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> list[str]:
    """The problems of `unet` with these settings on inputs of `shape` (*size, C); [] if none."""
    positive = {
        "width": width,
        "blocks": blocks,
        "patch": patch,
        "norm_groups": norm_groups,
        "norm_epsilon": norm_epsilon,
    }
    problems = [
        f"network.{key} is {value}: it must be above 0."
        for key, value in positive.items()
        if value <= 0
    ]
    if not multipliers or (width > 0 and any(width_of(width, m) < 1 for m in multipliers)):
        problems.append(
            f"network.multipliers is {tuple(multipliers)}: give one number above 0 per level, "
            "such as (1, 2, 2)."
        )
    if not 0 <= dropout < 1:
        problems.append(f"network.dropout is {dropout}: a rate is at least 0 and below 1.")
    if embedding_width < 0 or (embedding_width or width) % 2:
        key = "embedding_width" if embedding_width else "width"
        problems.append(
            f"network.{key} is {embedding_width or width}: sinusoids come in pairs, so give an "
            "even number."
        )
    problems += _unknown("resample", resample, RESAMPLES)
    problems += _unknown("time_embedding", time_embedding, TIME_EMBEDDINGS)
    problems += _unknown("remat", remat, REMATS)
    problems += _unknown("dtype", dtype, DTYPES)
    # What follows divides by these, and would only repeat what has been said.
    if patch <= 0 or width <= 0 or not multipliers:
        return problems
    problems += _size_problems(shape[:-1], len(multipliers), patch)
    sides = [min(shape[:-1]) // patch >> level for level in range(len(multipliers))]
    problems += _attention_problems(attention, sides)
    at = [i for i, side in enumerate(sides) if side in attention or i == len(sides) - 1]
    widths = sorted({width_of(width, multipliers[i]) for i in at})
    return problems + _head_problems(widths, heads, head_width)


def _unknown(key: str, name: str, table: Mapping[str, object]) -> list[str]:
    if name in table:
        return []
    return [f"network.{key} is {name!r}: {nearest(name, table)}"]


def _size_problems(size: tuple[int, ...], levels: int, patch: int) -> list[str]:
    unit = patch * 2 ** (levels - 1)
    if all(side % unit == 0 for side in size):
        return []
    fits = [
        sorted({max(side // unit, 1) * unit, -(-side // unit) * unit}) for side in size
    ]
    near = " by ".join(" or ".join(str(side) for side in sides) for sides in fits)
    return [
        f"network.multipliers has {levels} levels and network.patch is {patch}, so each side of "
        f"the data must be divisible by {unit}; {' x '.join(map(str, size))} is not. Sizes near "
        f"it that fit: {near}; or take fewer levels or a smaller patch."
    ]


def _attention_problems(attention: tuple[int, ...], sides: list[int]) -> list[str]:
    never = [side for side in attention if side not in sides]
    if not never:
        return []
    return [
        f"network.attention has {', '.join(map(str, never))}, which no feature map has: "
        f"their smaller sides are {', '.join(map(str, sides))}."
    ]


def _head_problems(widths: list[int], heads: int, head_width: int) -> list[str]:
    if head_width and heads != 1:
        return [
            f"network.heads is {heads} and network.head_width is {head_width}: give one of them "
            "(heads=1, or head_width=0)."
        ]
    if head_width < 0 or heads < 1:
        return [f"network.heads is {heads} and network.head_width is {head_width}: one is too low."]
    wrong = [
        w for w in widths if w % (head_width or heads) or not heads_of(w, heads, head_width)
    ]
    if not wrong:
        return []
    key, value = ("head_width", head_width) if head_width else ("heads", heads)
    return [
        f"network.{key} is {value}, which does not divide the {', '.join(map(str, wrong))} "
        "channels of a level with attention: change it, network.width or network.multipliers."
    ]
