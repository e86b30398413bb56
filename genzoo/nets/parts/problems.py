"""Sentences about settings that cannot be built, which the checks of several networks share.

Each names the config's key and the remedy; `build.py` shows them before anything is built.
"""

from collections.abc import Iterable, Mapping

from genzoo.core.errors import nearest


def too_low(least: int, settings: Mapping[str, float]) -> list[str]:
    """A sentence for every setting {key: value} that is below `least`."""
    return [
        f"network.{key} is {value}: it must be at least {least}."
        for key, value in settings.items()
        if value < least
    ]


def unknown(key: str, name: str, known: Iterable[str]) -> list[str]:
    """A sentence if `name` is not among `known`, with the name that was probably meant."""
    if name in known:
        return []
    return [f"network.{key} is {name!r}: {nearest(name, known)}"]


def even_problems(key: str, value: int) -> list[str]:
    """A sentence if the width of sinusoids, sines and cosines, is odd."""
    if value % 2 == 0:
        return []
    return [f"network.{key} = {value}: sinusoids come in pairs, so give an even number."]


def bad_rate(key: str, rate: float) -> list[str]:
    """A sentence if a rate of dropout is not in [0, 1)."""
    if 0 <= rate < 1:
        return []
    return [f"network.{key} is {rate}: a rate is at least 0 and below 1."]


def indivisible(key: str, value: int, size: tuple[int, ...], unit: int) -> list[str]:
    """A sentence if `unit`, which follows from network.key = value, does not divide each side."""
    if all(side % unit == 0 for side in size):
        return []
    fits = [sorted({max(side // unit, 1) * unit, -(-side // unit) * unit}) for side in size]
    near = " by ".join(" or ".join(str(side) for side in sides) for sides in fits)
    return [
        f"network.{key} is {value}, so each side of the data must be divisible by {unit}; "
        f"{' x '.join(map(str, size))} is not. Sizes near it that fit: {near}; or take a smaller "
        f"network.{key}."
    ]
