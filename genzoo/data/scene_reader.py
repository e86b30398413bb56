"""Reads the objects in an image of a scene, which decides whether the image matches a caption.

The reader is a matching pursuit. d is the image minus the background, m_k are the masks of all
objects (shape, size, place, jitter), and v is a colour minus that of the background. Object k in
colour v with the strength s reduces the squared error by

    gain(k, v, s) = |d|^2 - |d - s m_k v|^2 = 2 s (m_k . d) . v - s^2 |m_k|^2 |v|^2             (1)

where s, from `WEAKEST` to `STRONGEST`, is the best for k and v. With s = 1 alone a pale or soft
circle would pass for a square, which has less area, and a strong cross for a star. The object with
the largest gain is subtracted and the search is repeated, as long as the gain is at least half of
|m_k|^2 |v|^2, which is the gain of an object that is rendered perfectly.

What then remains at the other places may be a pale object, or one in another colour. In the best of
all colours, s v = m_k . d / |m_k|^2, the gain (1) of object k is

    trace(k) = |m_k . d|^2 / |m_k|^2                                                           (2)

If the largest trace is at least `TRACE`, the image shows something that is none of the known
objects, and does not match its caption. The faintest small object, a cyan star, has a trace
of 33 in 32 x 32 pixels, and noise of deviation 0.1 on values in [-1, 1] leaves at most about 0.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from genzoo.data import scenes
from genzoo.data.scenes import PLACES, SHAPES, SIZES, Statement

MAX_OBJECTS = 3
"""Objects that are looked for; scenes have at most two."""
WEAKEST, STRONGEST = 0.7, 1.4
"""Bounds of the strength of an object; that of a rendered object is 1."""
TRACE = 5.0
"""The least trace (2) of something unknown, in images of 32 x 32 pixels; it grows with their area.
"""
_MIN_EXPLAINED = 0.5  # of the gain of a perfect object
_AT_ONCE = 256  # images


@dataclass(frozen=True)
class Seen:
    """An object in an image, as indices into the tables of `scenes`. strength: see (1); 1 for a
    rendered object, and 0 for a trace (2) of something unknown, of which only the place has a
    meaning."""

    shape: int
    size: int
    colour: int
    place: int
    strength: float

    @property
    def known(self) -> bool:
        """Whether it is an object that scenes have."""
        return self.strength > 0


@cache
def _tables(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masks [K, P], their scalar products [K, K], colours minus the background [V, 3])."""
    masks = scenes.masks(side).reshape(-1, side * side)
    return masks, masks @ masks.T, (scenes.PALETTE - np.float32(scenes.BACKGROUND)) / 127.5


def read(images: np.ndarray) -> list[list[Seen]]:
    """The objects in each image, uint8 [N, side, side, 3], the clearest first, and at the end at
    most one trace of something unknown. At most one object is seen at a place."""
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
        match = overlap[active] @ colours.T  # [n, K, V]
        strength = np.clip(match / full, WEAKEST, STRONGEST)
        gain = strength * (2 * match - strength * full)
        shown = gain.reshape(len(active), *layout, -1)
        shown = np.where(free[active][:, None, None, :, None, None], shown, -np.inf)
        best = shown.reshape(len(active), -1).argmax(-1)
        k, v = np.divmod(best, len(colours))
        best = np.arange(len(active)), k, v
        explained, strength = gain[best] / full[k, v], strength[best]
        kept = explained >= _MIN_EXPLAINED
        active, k, v, strength = (values[kept] for values in (active, k, v, strength))
        for row, mask, colour, own in zip(active, k, v, strength, strict=True):
            shape, size, place, _ = np.unravel_index(mask, layout)
            found[row].append(Seen(int(shape), int(size), int(colour), int(place), float(own)))
            free[row, place] = False
        if not len(active):
            break
        overlap[active] -= products[k][..., None] * (strength[:, None] * colours[v])[:, None]
    traces = (np.square(overlap).sum(-1) / products.diagonal()).reshape(-1, *layout)
    traces = np.where(free[:, None, None, :, None], traces, 0).reshape(len(images), -1)
    for row in np.flatnonzero(traces.max(-1) >= TRACE * (side / 32) ** 2):
        shape, size, place, _ = np.unravel_index(traces[row].argmax(), layout)
        found[row].append(Seen(int(shape), int(size), 0, int(place), strength=0.0))
    return found


def holds(statement: Statement, seen: Sequence[Seen]) -> bool:
    """Whether the objects in an image are those of a statement, with nothing else."""
    if len(seen) != len(statement.objects) or not all(each.known for each in seen):
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
