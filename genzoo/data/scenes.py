"""Scenes of coloured objects on a plain background, with their captions and images.

A scene is a pure function of (split, index). It has one or two objects at different places of a
3 x 3 grid. An object has one of six shapes, eight colours and two sizes, and is displaced from the
centre of its place by at most one pixel (of 32) along each axis:

    a small red circle left of a large blue square

Captions may omit the size and the place. Some combinations, `HELD_OUT_PAIRS` and
`HELD_OUT_RELATIONS`, never occur in the training split. The test split cycles through the groups in
`GROUPS`. `scene_reader` decides whether an image matches a caption.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from genzoo.data.source import SPLITS

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("small", "large")
COLOURS = {
    "red": (220, 40, 40), "orange": (245, 145, 25), "yellow": (250, 225, 50),
    "green": (45, 165, 70), "cyan": (60, 205, 225), "blue": (45, 75, 205),
    "purple": (145, 60, 175), "black": (30, 30, 30),
}  # fmt: skip
BACKGROUND = (235, 235, 235)
PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
"""The phrase for each place of the grid, row by row."""
RELATIONS = ("left of", "right of", "above", "below")
"""Relation of the first object to the second. "left of" and "right of" compare columns, "above" and
"below" rows."""

HELD_OUT_PAIRS = (
    ("red", "triangle"), ("blue", "star"), ("green", "circle"),
    ("yellow", "ring"), ("purple", "square"), ("orange", "cross"),
)  # fmt: skip
"""No object of the training split has one of these colours and shapes."""
HELD_OUT_RELATIONS = (("star", "above", "ring"), ("square", "left of", "circle"))
"""No scene of the training split has two objects in one of these relations."""
GROUPS = ("one object, seen", "one object, unseen", "two objects, seen", "two objects, unseen")
"""The parts of the test split; "unseen" scenes have a combination that never occurs in training."""

MAX_WORDS = 10
"""Words of the longest caption."""
WORDS = tuple(
    sorted({*" ".join((*SHAPES, *SIZES, *COLOURS, *PLACES, *RELATIONS, "a", "an")).split()})
)
"""The vocabulary of all captions."""

KINDS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""The kinds of objects, also those that never occur in training."""

PALETTE = np.array(list(COLOURS.values()), np.float32)
"""The colours, [8, 3], from 0 to 255."""
_NAMES = tuple(COLOURS)
_JITTERS = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """N scenes as arrays of indices, [N, 2] with one column per object.

    shape, size, colour, place: into the tables of this module. jitter: one of nine displacements.
    count [N]: the number of objects; for scenes with one, the second column has no meaning.
    """

    shape: np.ndarray
    size: np.ndarray
    colour: np.ndarray
    place: np.ndarray
    jitter: np.ndarray
    count: np.ndarray

    @cached_property
    def held_out(self) -> np.ndarray:
        """Whether each scene has a combination that never occurs in training: bool [N]."""
        pairs = np.zeros((len(_NAMES), len(SHAPES)), bool)
        for colour, shape in HELD_OUT_PAIRS:
            pairs[_NAMES.index(colour), SHAPES.index(shape)] = True
        objects = pairs[self.colour, self.shape]
        unseen = objects[:, 0] | (objects[:, 1] & (self.count == 2))
        for first, relation, second in HELD_OUT_RELATIONS:
            a, b = SHAPES.index(first), SHAPES.index(second)
            for i, j in ((0, 1), (1, 0)):
                holds = related(relation, self.place[:, i], self.place[:, j])
                match = (self.shape[:, i] == a) & (self.shape[:, j] == b)
                unseen |= (self.count == 2) & match & holds
        return unseen


def related(relation: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether objects at places `first` stand in a relation to objects at places `second`."""
    row, column = first // 3 - second // 3, first % 3 - second % 3
    return {"left of": column < 0, "right of": column > 0, "above": row < 0, "below": row > 0}[
        relation
    ]


# --- random scenes --------------------------------------------------------------------------------


def _random_bits(seed: int, index: np.ndarray, attempt: int, count: int) -> np.ndarray:
    """Random bits, uint64 [N, count]: SplitMix64 (Steele et al. 2014) of a counter."""
    counter = (index.astype(np.uint64)[:, None] << np.uint64(24)) + (
        np.uint64(attempt << 8) + np.arange(count, dtype=np.uint64)
    )
    start = np.uint64(seed * 0xD1B54A32D192ED03 % 2**64)
    z = counter * np.uint64(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def _below(bits: np.ndarray, bound: int) -> np.ndarray:
    """Integers from 0 to bound - 1, from the upper half of random bits."""
    return ((bits >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def _random_scenes(seed: int, index: np.ndarray, count: np.ndarray, attempt: int) -> Scenes:
    bits = _random_bits(seed, index, attempt, 10).reshape(-1, 5, 2)
    first = _below(bits[:, 3, 0], 9)
    second = (first + 1 + _below(bits[:, 3, 1], 8)) % 9  # any other place
    return Scenes(
        shape=_below(bits[:, 0], len(SHAPES)),
        size=_below(bits[:, 1], len(SIZES)),
        colour=_below(bits[:, 2], len(_NAMES)),
        place=np.stack([first, second], -1),
        jitter=_below(bits[:, 4], len(_JITTERS)),
        count=count,
    )


def generate(split: str, index: np.ndarray) -> Scenes:
    """The scenes of a split with these indices [N]."""
    seed = SPLITS.index(split)
    if split == "test":
        group = index % len(GROUPS)
        count, unseen = 1 + group // 2, group % 2 == 1
    else:
        coin = _random_bits(seed, index, 0xFFFF, 1)[:, 0]
        count, unseen = 1 + _below(coin, 5) // 3, np.zeros(len(index), bool)
    result = _random_scenes(seed, index, count, 0)
    fields = {name: getattr(result, name).copy() for name in Scenes.__dataclass_fields__}
    attempt, wrong = 0, np.flatnonzero(result.held_out != unseen)
    while len(wrong):  # drawn again until the scene belongs to its group
        attempt += 1
        again = _random_scenes(seed, index[wrong], count[wrong], attempt)
        for name, values in fields.items():
            values[wrong] = getattr(again, name)
        wrong = wrong[again.held_out != unseen[wrong]]
    return Scenes(**fields)


def generate_any(split: str, index: np.ndarray) -> Scenes:
    """Other scenes with these indices [N], in which every combination occurs, for a classifier."""
    seed = len(SPLITS) + SPLITS.index(split)
    count = 1 + _below(_random_bits(seed, index, 0xFFFF, 1)[:, 0], 5) // 3
    return _random_scenes(seed, index, count, 0)


def first_kind(scenes: Scenes) -> np.ndarray:
    """The kind of the first object of each scene, row by row from the top left: int32 [N], into
    `KINDS`."""
    second = (scenes.count == 2) & (scenes.place[:, 1] < scenes.place[:, 0])
    rows, first = np.arange(len(second)), second.astype(int)
    kind = scenes.colour[rows, first] * len(SHAPES) + scenes.shape[rows, first]
    return kind.astype(np.int32)


# --- captions -------------------------------------------------------------------------------------


def captions(split: str, index: np.ndarray, scenes: Scenes) -> list[str]:
    """A caption for each of the scenes with these indices [N]: true, but not always complete."""
    bits = _random_bits(SPLITS.index(split), index, 0xFFFE, 4)
    says_size = _below(bits[:, :2], 10) < 6
    says_place = _below(bits[:, 2], 5) < 4
    which = _below(bits[:, 3], 1 << 16)
    texts = []
    for i in range(len(index)):
        parts = [_phrase(scenes, i, j, says_size[i, j]) for j in range(scenes.count[i])]
        if len(parts) == 1:
            texts.append(f"{parts[0]} {PLACES[scenes.place[i, 0]]}" if says_place[i] else parts[0])
        else:
            true = [r for r in RELATIONS if related(r, scenes.place[i, 0], scenes.place[i, 1])]
            whole = [f"{parts[0]} {relation} {parts[1]}" for relation in true]
            if scenes.held_out[i]:  # the caption must state the unseen combination
                whole = [text for text in whole if parse(text).held_out]
            texts.append(whole[which[i] % len(whole)])
    return texts


def _phrase(scenes: Scenes, i: int, j: int, says_size: bool) -> str:
    words = f"{_NAMES[scenes.colour[i, j]]} {SHAPES[scenes.shape[i, j]]}"
    words = f"{SIZES[scenes.size[i, j]]} {words}" if says_size else words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Statement:
    """What a caption states. objects: (size or "", colour, shape, place phrase or "") of each.
    relation: of the first to the second, or ""."""

    objects: tuple[tuple[str, str, str, str], ...]
    relation: str = ""

    @property
    def held_out(self) -> bool:
        """Whether it states a combination that never occurs in training."""
        if any((colour, shape) in HELD_OUT_PAIRS for _, colour, shape, _ in self.objects):
            return True
        if not self.relation:
            return False
        (_, _, first, _), (_, _, second, _) = self.objects
        inverse = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
        stated = (first, self.relation, second), (second, inverse[self.relation], first)
        return any(each in HELD_OUT_RELATIONS for each in stated)


def parse(caption: str) -> Statement | None:
    """What a caption states; None if it does not follow the grammar."""
    text = " ".join(caption.casefold().replace(".", " ").split())
    for relation in RELATIONS:
        first, found, second = text.partition(f" {relation} ")
        if found:
            objects = _object(first), _object(second)
            return Statement(objects, relation) if all(objects) else None
    place = next((p for p in sorted(PLACES, key=len)[::-1] if text.endswith(" " + p)), "")
    only = _object(text.removesuffix(place).strip(), place)
    return Statement((only,)) if only else None


def _object(text: str, place: str = "") -> tuple[str, str, str, str] | None:
    words = [word for word in text.split() if word not in ("a", "an", "one")]
    size = words.pop(0) if words and words[0] in SIZES else ""
    if len(words) == 2 and words[0] in COLOURS and words[1] in SHAPES:
        return size, words[0], words[1], place
    return None


def group(text: str) -> str:
    """The group in `GROUPS` of a caption; "" if it does not follow the grammar."""
    statement = parse(text)
    if statement is None:
        return ""
    return GROUPS[2 * (len(statement.objects) - 1) + statement.held_out]


# --- images ---------------------------------------------------------------------------------------


@cache
def masks(side: int) -> np.ndarray:
    """The share of each pixel that an object covers: float32 [6, 2, 9, 9, side^2], by shape, size,
    place and jitter."""
    scale = side // 32
    table = np.zeros((len(SHAPES), len(SIZES), 9, 9, side, side), np.float32)
    reach = 6 * scale  # half the side of a window that holds any object
    for shape in range(len(SHAPES)):
        for size, radius in enumerate((3.5, 4.8)):
            window = _coverage(SHAPES[shape], radius * scale, reach)
            for place in range(9):
                for jitter, (dy, dx) in enumerate(_JITTERS):
                    y = scale * (6 + 10 * (place // 3) + dy) - reach
                    x = scale * (6 + 10 * (place % 3) + dx) - reach
                    top, left = max(-y, 0), max(-x, 0)
                    part = window[top : top + side - max(y, 0), left : left + side - max(x, 0)]
                    mask = table[shape, size, place, jitter]
                    y, x = max(y, 0), max(x, 0)
                    mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    return table.reshape(*table.shape[:4], side * side)


def _coverage(shape: str, radius: float, reach: int, fine: int = 8) -> np.ndarray:
    """The share of each pixel in a window [2 reach, 2 reach] that lies in a shape around its
    centre, counted on a `fine` x `fine` grid in each pixel."""
    along = (np.arange(2 * reach * fine) + 0.5) / fine - reach
    y, x = np.meshgrid(along, along, indexing="ij")
    inside = _inside(shape, x / radius, y / radius)
    return inside.reshape(2 * reach, fine, 2 * reach, fine).mean((1, 3), dtype=np.float32)


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a shape of about unit radius; y points down."""
    r = np.hypot(x, y)
    if shape == "circle":
        return r < 0.95
    if shape == "ring":
        return (r < 1.05) & (r > 0.55)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 1
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.28) & (np.maximum(abs(x), abs(y)) < 1.15)
    if shape == "triangle":  # equilateral, with its tip at the top
        angles = np.pi * np.array([1, 3, 5]) / 3
        return np.max([x * np.sin(a) - y * np.cos(a) for a in angles], 0) < 0.62
    # A star: in polar coordinates every tenth of it is a triangle between a tip and a notch.
    angle = (np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    tip, notch = np.array([1.2, 0.0]), 0.48 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    u, v = r * np.cos(angle), r * abs(np.sin(angle))
    edge = notch - tip
    return (u - tip[0]) * edge[1] - v * edge[0] < 0


def render(scenes: Scenes, side: int) -> np.ndarray:
    """The images of scenes: uint8 [N, side, side, 3]. The second object covers the first."""
    table, ground = masks(side), np.float32(BACKGROUND)
    ink = PALETTE[scenes.colour]
    coverage = _coverage_of(table, scenes, slice(None), 0)
    images = coverage * (ink[:, 0] - ground)[:, None]
    images += ground
    both = np.flatnonzero(scenes.count == 2)
    under = images[both]
    images[both] += _coverage_of(table, scenes, both, 1) * (ink[both, 1][:, None] - under)
    np.rint(images, out=images)
    return images.astype(np.uint8).reshape(-1, side, side, 3)


def _coverage_of(table: np.ndarray, scenes: Scenes, rows: np.ndarray | slice, j: int) -> np.ndarray:
    """The masks of object j of some scenes, [n, side^2, 1]."""
    index = (values[rows, j] for values in (scenes.shape, scenes.size, scenes.place, scenes.jitter))
    return table[tuple(index)][..., None]
