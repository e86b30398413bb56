"""The values of conditions as users give them: one or several, each present or absent.

A value is in the notation of the field that the condition is made from (`Field.parse`). "none", in
any case, or None leaves the condition out; "all" stands for all classes in turn. A class that is
itself called "none" is requested by its number, one called "all" by its name.

Several values are a list or a tuple. Text may also hold them, as on a command line where "none" has
no quotes: "('a red circle', none)", and for classes and files without brackets, "steel, none".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genzoo.builders.conditions import ConditionSettings, factor
from genzoo.core.errors import UserError
from genzoo.core.files import expanded
from genzoo.data import given as notation
from genzoo.data import pixels
from genzoo.data.fields import Classes, Field, Image, Tokens

NONE, ALL = "none", "all"
_CLOSING = {"(": ")", "[": "]"}
_QUOTES = "'\""


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """The n values that samples cycle through.

    stored: in their stored form, [n, ...]. present: bool [n]; absent values are stored as zeros.
    """

    stored: np.ndarray
    present: np.ndarray

    @property
    def absent(self) -> bool:
        """Whether all are absent."""
        return not self.present.any()

    def __len__(self) -> int:
        return len(self.present)


def joined(each: Sequence[Values]) -> Values | None:
    """The values of a field from which several conditions are made: present where one of the
    conditions is. None if two of them have different values for the same sample."""
    turns = np.arange(math.lcm(*map(len, each)))
    stored, present = None, np.zeros(len(turns), bool)
    for one in each:
        values, given = one.stored[turns % len(one)], one.present[turns % len(one)]
        stored = np.zeros_like(values) if stored is None else stored
        both = given & present
        if not np.array_equal(values[both], stored[both]):
            return None
        stored[given] = values[given]
        present |= given
    return Values(stored=stored, present=present)


def same_turns(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two cycles of flags, bool [n] and [m], are present for the same samples."""
    turns = np.arange(math.lcm(len(one), len(other)))
    return np.array_equal(one[turns % len(one)], other[turns % len(other)])


def values(
    own: ConditionSettings, source: Field, given: object, key: str, *, every: bool = True
) -> Values:
    """The values of a condition. own: its settings. source: the field that it is made from. given:
    by the user. key: the config key to name in errors. every: whether they may be all classes.
    Raises UserError."""
    several = _several(given, source)
    if several == []:
        raise UserError(f"{key} is an empty list: give at least one value, or leave it out.")
    stored, present = [], []
    for value in [given] if several is None else several:
        if _is_all(value, source):
            if not every:
                raise UserError(f"{key} = {value!r} is no class: give one, or leave it out.")
            stored += list(np.arange(source.count, dtype=source.dtype))
            present += [True] * source.count
            continue
        present.append(not _is_none(value))
        absent = np.zeros(source.shape, source.dtype)
        try:
            stored.append(_one(own, source, value, key) if present[-1] else absent)
        except UserError as error:
            hint = _hint(source, value, every)
            raise UserError(*(f"{problem}{hint}" for problem in error.problems)) from error
    return Values(stored=np.stack(stored), present=np.array(present))


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() == NONE)


def _is_all(value: object, source: Field) -> bool:
    if not isinstance(source, Classes) or not isinstance(value, str):
        return False
    name = value.strip().casefold()
    return name == ALL and name not in {known.casefold() for known in source.names}


# --- one value ------------------------------------------------------------------------------------


def _one(own: ConditionSettings, source: Field, value: object, key: str) -> np.ndarray:
    """One value in its stored form.

    An image file is fitted as the data are; it must be at least as large as they are, because an
    enlarged one would lack detail that the model takes for granted. For a smaller copy, it may also
    be an image file of the size of that copy; each pixel is then repeated, so that the copy made
    from it equals the file.
    """
    if not isinstance(source, Image):
        return source.parse(value, key)
    height, width, channels = source.shape
    size, by = pixels.size_of(value), factor(own)
    small = height // by, width // by
    if by > 1 and size == small:
        fitted = replace(source, shape=(*small, channels))
        return fitted.parse(value, key).repeat(by, 0).repeat(by, 1)
    if size and (size[0] < height or size[1] < width):
        copy = f"the smaller copy itself ({small[0]} x {small[1]}), or " if by > 1 else ""
        raise UserError(
            f"{key} = {value!r} has {size[0]} x {size[1]} pixels: give {copy}an image of at least "
            f"{height} x {width}."
        )
    return source.parse(value, key)


def _hint(source: Field, value: object, every: bool) -> str:
    """A further sentence for a value that cannot be used: how to write what it may stand for."""
    text = str(value).strip()
    if isinstance(source, Classes) and text == "-1" and every:
        return f" For all classes in turn write {ALL}."
    if isinstance(source, Tokens) and text.startswith(tuple(_CLOSING)):
        return " Several texts are written \"('...','...')\"."
    return ""


# --- several --------------------------------------------------------------------------------------


def _several(given: object, source: Field) -> list | None:
    """The values that a user gave, if they are meant as several; None for one."""
    if isinstance(given, list | tuple):
        several = isinstance(source, Classes | Image | Tokens) or any(
            part is None or isinstance(part, str | list | tuple) for part in given
        )
        return list(given) if several else None
    if not isinstance(given, str) or _whole(given, source):
        return None
    text = given.strip()
    bracketed = len(text) > 1 and _CLOSING.get(text[0]) == text[-1]
    parts = _parts(text[1:-1] if bracketed else text)
    quoted = [len(part) > 1 and part[0] in _QUOTES and part[-1] == part[0] for part in parts]
    clear = all(q or _is_none(part) for q, part in zip(quoted, parts, strict=True)) and any(quoted)
    if isinstance(source, Classes):
        several = bracketed or len(parts) > 1
    elif bracketed:  # one text or vector may be in brackets too
        several = clear or isinstance(source, Image) or any(map(_is_none, parts))
    else:  # and hold commas
        several = len(parts) > 1 and (clear or _files(parts))
    unquoted = [part[1:-1] if q else part for q, part in zip(quoted, parts, strict=True)]
    return unquoted if several else None


def _whole(text: str, source: Field) -> bool:
    """Whether a text with a comma or brackets is one value, such as the name of a class."""
    if isinstance(source, Classes):
        return text.strip().casefold() in {name.casefold() for name in source.names}
    return isinstance(source, Image) and expanded(text).is_file()


def _files(parts: Sequence[str]) -> bool:
    """Whether all are names of files or absent, and at least one is a file."""
    endings = (*pixels.SUFFIXES, *notation.NUMBER_FILES, notation.TEXT_FILE)
    named = [part for part in parts if not _is_none(part)]
    return bool(named) and all(part.lower().endswith(endings) for part in named)


def _parts(text: str) -> list[str]:
    """A text split at its commas, except those within quotes or brackets."""
    parts, depth, quote, start = [], 0, "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES and not text[start:i].strip():
            quote = letter
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif letter == "," and depth <= 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts
