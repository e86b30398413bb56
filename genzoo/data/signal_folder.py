"""A folder of signals as a data set: one array file per signal.

A `.npy` file holds the signal alone, [L, C] or [L]. A `.npz` file holds it under the key `x`, and
may hold a caption (`text`), a class (`label`) and numbers, scalars or [D], under any other keys.
If there is a metadata file, all annotations come from there instead; captions may also be in text
files, and sub-folders are classes (see `listing`).

Values are not rescaled. The noise of models has unit variance, so signals should have about that
too: values beyond +-100 are refused, and an unusual root mean square of the whole set gives a
warning. Files are untrusted: objects, which need pickle, are refused.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from genzoo.core.errors import refuse
from genzoo.core.files import FILE_LIMIT, Unreadable, read_bytes
from genzoo.data import array_files, listing, metadata
from genzoo.data.fields import Field, Signal
from genzoo.data.listing import Listing, Part
from genzoo.data.metadata import (
    LABEL,
    PROPERTIES,
    TEXT,
    Annotations,
    no_number,
    number_of,
    unfit_name,
)
from genzoo.data.source import ArraySource, Spec, check_split

SUFFIXES = frozenset((".npy", ".npz"))
_SIGNAL = "x"  # its key in a .npz file
_LARGEST = 100.0  # of the absolute values
_USUAL = (0.1, 10.0)  # root mean squares of a set
_log = logging.getLogger("genzoo")


class _Unfit(Exception):
    """A file that cannot be used; the text completes a sentence that begins with its name."""


def signals_of(
    path: str,
    *,
    holdout: int = listing.HOLDOUT,
    labels: bool = True,
    wanted: Collection[str] = metadata.EVERYTHING,
    classes: Sequence[str] = (),
) -> Listing:
    """The array files of a folder with their annotations; no signal is read. See `listed`."""
    return listing.listed(
        path, kind="signals", suffixes=SUFFIXES, holdout=holdout, labels=labels, wanted=wanted,
        classes=classes, inside=_inside,
    )  # fmt: skip


def open_signals(
    path: str,
    *,
    size: int,
    channels: int,
    split: str = "train",
    holdout: int = listing.HOLDOUT,
    labels: bool = True,
    classes: Sequence[str] = (),
    fields: Mapping[str, Field] = MappingProxyType({}),
) -> ArraySource:
    """The signals below `path` as float32 [N, size, channels] in memory, sorted by path, with
    labels if there are any.

    split: "train" or "test". holdout, labels, classes: see `listing.listed`. fields: the fields
    `text` and `properties`, if these are wanted too. Raises a UserError that lists unusable files,
    those for testing too if this is the split for training.
    """
    check_split(split)
    field = Signal(shape=(size, channels))
    found = signals_of(
        path, holdout=holdout, labels=labels, wanted=(LABEL, *fields), classes=classes
    )
    part = found.part(split)
    mistakes: list[str] = []
    signals = _signals(part, field, mistakes)
    test = found.parts["test"]
    if split == "train" and test.paths != part.paths:
        _signals(test, field, mistakes)  # report these now, not after training
    refuse(mistakes)
    others, arrays = found.others(split, fields)
    rms = float(np.sqrt(np.mean(np.square(signals, dtype=np.float64))))
    if split == "train" and not _USUAL[0] <= rms <= _USUAL[1]:
        _log.warning(
            "The signals of %s have a root mean square of %.3g: divide them by a constant, so that "
            "it is about 1, since the noise of models has unit variance.", found.name, rms,
        )  # fmt: skip
    spec = Spec(fields={"x": field, **others})
    return ArraySource(name=found.name, spec=spec, arrays={"x": signals, **arrays})


def _signals(part: Part, field: Signal, mistakes: list[str]) -> np.ndarray:
    """The signals of a part, float32 [N, L, C]."""
    signals = np.zeros((len(part.files), *field.shape), field.dtype)
    for index, file in enumerate(part.files):
        try:
            with _arrays(part.root / file) as arrays:
                signals[index] = _signal(arrays, field)
        except _Unfit as reason:
            place, own = part.annotations.places[index], str(part.root / file)
            mistakes.append(f"{own}{'' if place == own else f' ({place})'}: {reason}.")
    return signals


def _signal(arrays: Mapping[str, np.ndarray], field: Signal) -> np.ndarray:
    array = _read(arrays, _SIGNAL)
    if array.dtype.kind not in "fiu":
        raise _Unfit(f"its values are {array.dtype}, but must be real numbers; convert them")
    length, channels = field.shape
    samples = array[:, None] if array.ndim == 1 else array
    if samples.ndim != 2:
        raise _Unfit(
            f"its shape is {array.shape}, but must be [L, C], or [L] for one channel; reshape it"
        )
    if len(samples) != length:
        raise _Unfit(f"it has {len(samples)} samples, but data.size = {length}; cut or resample it")
    if samples.shape[1] != channels:
        raise _Unfit(
            f"it has {samples.shape[1]} channels, but data.channels = {channels}; change "
            "that, or the file"
        )
    if not np.isfinite(samples).all():
        index = int(np.flatnonzero(~np.isfinite(samples).all(1))[0])
        raise _Unfit(f"sample {index} is not finite; interpolate it, or remove the file")
    largest = float(np.abs(samples.astype(np.float64)).max())
    if largest > _LARGEST:
        raise _Unfit(
            f"it reaches {largest:.3g}, but values beyond {_LARGEST:g} cannot be modelled; divide "
            "all signals by a constant, so that their root mean square is about 1"
        )
    return samples.astype(field.dtype)


# --- files ----------------------------------------------------------------------------------------


@contextmanager
def _arrays(file: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a file by key, read on access; a .npy file holds the signal alone."""
    try:
        content = array_files.load(read_bytes(file))
    except Unreadable as reason:
        raise _Unfit(f"it cannot be read: {reason}; replace or remove it") from reason
    except ValueError as error:
        raise _Unfit(f"it cannot be read as an array ({error}); replace or remove it") from error
    if isinstance(content, np.ndarray):
        yield {_SIGNAL: content}
        return
    with content:
        size = sum(member.file_size for member in content.zip.infolist())
        if size > FILE_LIMIT:  # of all together, so that no key is unpacked into more
            raise _Unfit(f"it unpacks to {size} bytes, more than {FILE_LIMIT}; remove it")
        yield content


def _read(arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    if key not in arrays:
        raise _Unfit(
            f"it has no key {key!r}, only {', '.join(map(repr, arrays)) or 'none'}; add it, or "
            "remove the file"
        )
    try:
        array = arrays[key]
        if isinstance(array, np.ndarray):
            return array
        raise ValueError("it is another file")
    except Exception as error:  # see above
        raise _Unfit(
            f"key {key!r} cannot be read as an array ({array_files.why(error)}); replace the file"
        ) from error


# --- annotations inside the files -----------------------------------------------------------------


class _Row(NamedTuple):
    """The annotations of one file. shapes: key -> the shape of its array. values: its caption, its
    class and its numbers by name."""

    place: str
    shapes: dict[str, tuple[int, ...]]
    values: dict[str, str | float]


def _inside(root: Path, files: Sequence[str], wanted: Collection[str]) -> Annotations:
    """The annotations in .npz files, which must all have the same keys, of the same shapes."""
    places = [str(root / file) for file in files]
    first, rows, mistakes, reported = None, [], [], set()
    for file, place in zip(files, places, strict=True):
        try:
            with _arrays(root / file) as arrays:
                row = _row(place, arrays, wanted)
        except _Unfit as reason:
            mistakes.append(f"{place}: {reason}.")
            continue
        first = first or row
        keys = dict.fromkeys((*first.shapes, *row.shapes))
        odd = [key for key in keys if first.shapes.get(key) != row.shapes.get(key)]
        if odd and odd[0] not in reported:  # once, since the first file may be the odd one
            reported.add(odd[0])
            mistakes.append(_difference(odd[0], first, row))
        rows.append(row)
    refuse(mistakes)
    columns = tuple(name for name in first.values if name not in (TEXT, LABEL))
    numbers = np.array([[row.values[name] for name in columns] for row in rows], np.float64)

    def words(name: str) -> list[str] | None:
        return [row.values[name] for row in rows] if name in first.values else None

    return Annotations(
        places=places, texts=words(TEXT), labels=words(LABEL), columns=columns, numbers=numbers
    )


def _difference(key: str, one: _Row, other: _Row) -> str:
    """A sentence about a key that two files do not share, or that has two shapes."""
    if key in one.shapes and key in other.shapes:
        return (
            f"{other.place}: key {key!r} has the shape {other.shapes[key]}, but "
            f"{one.shapes[key]} in {one.place}; give it the same shape in all."
        )
    having, lacking = (one, other) if key in one.shapes else (other, one)
    return f"{lacking.place}: it has no {key!r}, but {having.place} does; give it to all."


def _row(place: str, arrays: Mapping[str, np.ndarray], wanted: Collection[str]) -> _Row:
    """The annotations of one file. Number i of an array is named key[i]."""
    row = _Row(place=place, shapes={}, values={})
    for key in arrays:
        if key == _SIGNAL or (key if key in (TEXT, LABEL) else PROPERTIES) not in wanted:
            continue
        array = _read(arrays, key)
        if key in (TEXT, LABEL):
            row.values[key], row.shapes[key] = _word(array, key), ()
            continue
        if unfit := unfit_name(key):
            raise _Unfit(f"key {key!r} {unfit}")
        if array.ndim > 1 or array.dtype.kind not in "fiu" or not array.size:
            raise _Unfit(
                f"key {key!r} is unknown, and is {array.dtype} of shape {array.shape}; the signal "
                f"is {_SIGNAL!r}, a caption {TEXT!r}, a class {LABEL!r}; numbers are scalars or [D]"
            )
        values = {key: array} if not array.ndim else {f"{key}[{i}]": v for i, v in enumerate(array)}
        row.shapes[key] = array.shape
        for name, value in values.items():
            if name in row.values:
                raise _Unfit(f"two keys give the number {name!r}; rename one of them")
            row.values[name] = number_of(float(value))
            if row.values[name] is None:
                raise _Unfit(f"key {key!r} holds {value}, which {no_number(float(value))}")
    return row


def _word(array: np.ndarray, key: str) -> str:
    called, kinds = {TEXT: ("caption", "U"), LABEL: ("class", "Uiu")}[key]
    if array.size != 1 or array.dtype.kind not in kinds:
        raise _Unfit(
            f"key {key!r} is {array.dtype} of shape {array.shape}, but must be one {called}; "
            "store that alone"
        )
    word = str(array.item()).strip()
    if not word:
        raise _Unfit(f"key {key!r}: the {called} is empty; write one")
    return word
