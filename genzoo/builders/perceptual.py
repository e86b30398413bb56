"""Perceptual distances by name, for the losses of autoencoders.

They stand on a floor above the families, which take them as functions: their weights are those of
the feature networks that also measure distances between sets of images. They are read when a loss
is first traced, so that a model can decode without them.
"""

from collections.abc import Callable
from functools import cache

import jax

from genzoo.core.errors import UserError
from genzoo.core.types import Array
from genzoo.evaluate.features import own, vgg16
from genzoo.nets.judges.vgg import SMALLEST

Distance = Callable[[Array, Array], Array]
"""(x [B, *size, C], y) in [-1, 1] -> distances [B]."""

NAMES = ("none", "lpips", *own.HASHES)


def distance(name: str, shape: tuple[int, ...]) -> Distance | None:
    """The distance of that name for images of `shape` (*size, C); None for "none". Raises UserError
    if the network does not take such images; the distance raises one if a package is missing."""
    if name == "none":
        return None
    given = f"family.perceptual = {name!r}"
    *sides, channels = shape
    if name == "lpips":
        if channels not in (1, 3) or min(sides) < SMALLEST:
            raise UserError(
                f"{given} compares grey or colour images of at least {SMALLEST} x {SMALLEST} "
                f"pixels, but the data has the shape {list(shape)}: choose another."
            )
        return _lpips
    side, needed = own.images_of(name)
    if shape != (side, side, needed):
        kind = "grey" if needed == 1 else "colour"
        raise UserError(
            f"{given} compares {kind} images of {side} x {side} pixels, but the data has the "
            f"shape {list(shape)}: choose another."
        )
    return lambda one, other: _own(name)(one, other)


def require_weights(name: str) -> None:
    """Raises UserError if the weights of the distance of that name cannot be read."""
    if name == "lpips":
        _open_lpips()


def _lpips(one: Array, other: Array) -> Array:
    return _open_lpips()(one, other)


@cache
def _open_lpips() -> vgg16.Lpips:
    try:
        with jax.ensure_compile_time_eval():  # the weights are arrays, not part of what is traced
            return vgg16.open_lpips()
    except UserError as error:
        problems = (f"family.perceptual = 'lpips': {problem}" for problem in error.problems)
        raise UserError(*problems) from error


@cache
def _own(name: str) -> Distance:
    return own.distance(name)
