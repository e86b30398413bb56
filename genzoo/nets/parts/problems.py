"""Checks of settings that several networks share.

Each returns a list of error sentences, [] if there is no error. A sentence names the config key and
the remedy.
"""


def even_problems(key: str, value: int) -> list[str]:
    """An error if network.key, the width of a sinusoidal embedding, is odd."""
    if value % 2 == 0:
        return []
    return [f"network.{key} = {value}: sinusoids come in pairs, so give an even number."]


def indivisible(key: str, value: int, size: tuple[int, ...], unit: int) -> list[str]:
    """An error if `unit`, which follows from network.key = value, does not divide every side."""
    if all(side % unit == 0 for side in size):
        return []
    fits = [sorted({max(side // unit, 1) * unit, -(-side // unit) * unit}) for side in size]
    near = " by ".join(" or ".join(str(side) for side in sides) for sides in fits)
    return [
        f"network.{key} is {value}, so each side of the data must be divisible by {unit}; "
        f"{' x '.join(map(str, size))} is not. Sizes near it that fit: {near}; or use a smaller "
        f"network.{key}."
    ]
