"""Reads the objects in an image of a scene, which decides whether the image matches a caption.

The reader is a matching pursuit. d is the image minus the background, m_k are the masks of all
objects (shape, size, place, jitter), and v is a colour minus that of the background. Object k in
colour v reduces the squared error by

    gain(k, v) = |d|^2 - |d - m_k v|^2 = 2 (m_k . d) . v - |m_k|^2 |v|^2                        (1)

The object with the largest gain is subtracted and the search is repeated, as long as the gain is at
least half of |m_k|^2 |v|^2, which is the gain of an object that is rendered perfectly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from genzoo.data import scenes
from genzoo.data.scenes import PLACES, SHAPES, SIZES, Statement

MAX_OBJECTS = 3
"""Objects that are looked for; scenes have at most two."""
_MIN_EXPLAINED = 0.5  # of the gain of a perfect object
_AT_ONCE = 256  # images


@dataclass(frozen=True)
class Seen:
    """An object in an image, as indices into the tables of `scenes`. error: 1 minus its gain (1) as
    a fraction of that of a perfect object."""

    shape: int
    size: int
    colour: int
    place: int
    error: float


@cache
def _tables(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masks [K, P], their scalar products [K, K], colours minus the background [V, 3])."""
    masks = scenes.masks(side).reshape(-1, side * side)
    return masks, masks @ masks.T, (scenes.PALETTE - np.float32(scenes.BACKGROUND)) / 127.5


def read(images: np.ndarray) -> list[list[Seen]]:
    """The objects in each image, uint8 [N, side, side, 3], the clearest first. At most one object
    is seen at a place."""
    return [
        seen
        for start in range(0, len(images), _AT_ONCE)
        for seen in _read(images[start : start + _AT_ONCE])
    ]


def _read(images: np.ndarray) -> list[list[Seen]]:
    side = images.shape[1]
    masks, products, colours = _tables(side)
    d = (images.reshape(len(images), -1, 3) - np.float32(scenes.BACKGROUND)) / 127.5
    overlap = np.einsum("kp,npc->nkc", masks, d, optimize=True)
    full = products.diagonal()[:, None] * np.square(colours).sum(-1)  # [K, V]
    layout = (len(SHAPES), len(SIZES), 9, 9)
    found: list[list[Seen]] = [[] for _ in images]
    free = np.ones((len(images), 9), bool)  # places
    active = np.arange(len(images))
    for _ in range(MAX_OBJECTS):
        gain = 2 * overlap[active] @ colours.T - full  # [n, K, V]
        shown = gain.reshape(len(active), *layout, -1)
        shown = np.where(free[active][:, None, None, :, None, None], shown, -np.inf)
        best = shown.reshape(len(active), -1).argmax(-1)
        k, v = np.divmod(best, len(colours))
        explained = gain[np.arange(len(active)), k, v] / full[k, v]
        kept = explained >= _MIN_EXPLAINED
        for row, mask, colour, part in zip(
            active[kept], k[kept], v[kept], explained[kept], strict=True
        ):
            shape, size, place, _ = np.unravel_index(mask, layout)
            found[row].append(
                Seen(int(shape), int(size), int(colour), int(place), float(1 - part))
            )
            free[row, place] = False
        active, k, v = active[kept], k[kept], v[kept]
        if not len(active):
            break
        overlap[active] -= products[k][..., None] * colours[v][:, None]
    return found


def holds(statement: Statement, seen: Sequence[Seen]) -> bool:
    """Whether the objects in an image are those of a statement, with no others."""
    if len(seen) != len(statement.objects):
        return False
    if len(seen) == 1:
        return _fits(statement.objects[0], seen[0])
    return any(
        _fits(statement.objects[0], a)
        and _fits(statement.objects[1], b)
        and bool(scenes.related(statement.relation, np.int64(a.place), np.int64(b.place)))
        for a, b in (seen, seen[::-1])
    )


def _fits(stated: tuple[str, str, str, str], seen: Seen) -> bool:
    size, colour, shape, place = stated
    names = tuple(scenes.COLOURS)
    return (
        (not size or SIZES[seen.size] == size)
        and names[seen.colour] == colour
        and SHAPES[seen.shape] == shape
        and (not place or PLACES[seen.place] == place)
    )


class Reader:
    """The judge of samples of `scenes`; its verdicts are exact on clean images."""

    def group(self, text: str) -> str:
        """The group in which samples of a text are scored; "" if it cannot be judged."""
        return scenes.group(text)

    def shows(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Whether each image, uint8 [N, side, side, 3], shows its text: bool [N]."""
        verdicts = [
            (statement := scenes.parse(text)) is not None and holds(statement, seen)
            for text, seen in zip(texts, read(images), strict=True)
        ]
        return np.array(verdicts, bool)
