"""Sentences about settings that cannot be built, which the checks of several networks share.

Each names the config's key and the remedy.
"""


def even_problems(key: str, value: int) -> list[str]:
    """A sentence if the width of sinusoids, sines and cosines, is odd."""
    if value % 2 == 0:
        return []
    return [f"network.{key} = {value}: sinusoids come in pairs, so give an even number."]


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
