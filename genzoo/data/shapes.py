"""Shapes: captioned scenes, rendered when they are read, on which text-to-image is scored exactly.

`scene_reader` decides whether a sample shows what its caption says, also for combinations of shapes
and colours that never occur in training.

For a classifier there are other scenes, in which every combination occurs, with the kind of their
first object, such as "red triangle", as the class.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from genzoo.data import scenes
from genzoo.data.fields import Classes, Field, Image, Tokens
from genzoo.data.scene_reader import Reader
from genzoo.data.source import Records, Spec, check_split
from genzoo.data.vocabulary import Words

LENGTHS = {"train": 1_000_000, "test": 10_000}
"""Scenes in each split."""
SIDES = (32, 64)
"""The sides in pixels at which scenes can be rendered, the default first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapesSource:
    """The scenes of a split, rendered when they are read, with captions or with classes."""

    name: str
    spec: Spec
    split: str

    def __len__(self) -> int:
        return LENGTHS[self.split]

    def read(self, indices: np.ndarray) -> Records:
        """The scenes of these indices [n]: `x` uint8 [n, side, side, 3], and `text` int32 [n, L] or
        `label` int32 [n], if there is such a field."""
        index = np.asarray(indices)
        if "label" in self.spec.fields:
            drawn = scenes.generate_any(self.split, index)
            images = scenes.render(drawn, self.spec.shape[0])
            return {"x": images, "label": scenes.first_kind(drawn)}
        drawn, field = scenes.generate(self.split, index), self.spec.fields.get("text")
        if field is None:
            return {"x": scenes.render(drawn, self.spec.shape[0])}
        texts = scenes.captions(self.split, index, drawn)
        tokens = [field.take(text) for text in texts]
        return {"x": scenes.render(drawn, self.spec.shape[0]), "text": np.stack(tokens)}

    def identity(self) -> dict[str, int]:
        """The CRC-32 of the first hundred records."""
        content = b"".join(array.tobytes() for array in self.read(np.arange(100)).values())
        return {"checksum": zlib.crc32(content)}


_WORDS = Words(scenes.WORDS)
CAPTIONS = Tokens(shape=(scenes.MAX_WORDS,), vocabulary=_WORDS.size, tokenizer=_WORDS)
"""The captions as sequences of words, the default field."""


def longest_captions() -> list[str]:
    """Captions that include the longest one under any tokenizer: every object in every place, and
    beside itself in every relation, whether or not a scene shows that."""
    objects = [f"a {size} {kind}" for size in scenes.SIZES for kind in scenes.KINDS]
    placed = [f"{one} {place}" for one in objects for place in scenes.PLACES]
    return placed + [f"{one} {how} {one}" for one in objects for how in scenes.RELATIONS]


def spec(side: int, text: Tokens | None = CAPTIONS) -> Spec:
    """The fields of the scenes, and their judge. text: the field of their captions; None to leave
    it out."""
    fields: dict[str, Field] = {"x": Image(shape=(side, side, 3))}
    return Spec(fields=fields if text is None else {**fields, "text": text}, judge=Reader())


def spec_of_kinds(side: int) -> Spec:
    """The fields of the scenes with classes."""
    return Spec(fields={"x": Image(shape=(side, side, 3)), "label": Classes(names=scenes.KINDS)})


def open_shapes(
    split: str, side: int = SIDES[0], text: Tokens | None = CAPTIONS
) -> ShapesSource:
    """The "train" or "test" split, in images of `side` pixels. text: as for `spec`."""
    check_split(split)
    return ShapesSource(name="shapes", spec=spec(side, text), split=split)


def open_kinds(split: str, side: int = SIDES[0]) -> ShapesSource:
    """Scenes whose class is the kind of their first object, "train" or "test"."""
    check_split(split)
    return ShapesSource(name="shapes_kinds", spec=spec_of_kinds(side), split=split)
