"""The files of a folder that is a data set: its splits, its classes, and the notes on each file.

A folder may hold the folders `train` and `test` (or `val`, `valid`, `validation`); otherwise part
of its files are held out for testing. Classes come from the column `label` of its metadata, or else
are its sub-folders. See `metadata` for captions and numbers.
"""

import itertools
import os
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genzoo.core.errors import UserError, refuse
from genzoo.data import metadata
from genzoo.data.fields import Classes, Field
from genzoo.data.metadata import LABEL, PROPERTIES, TEXT, Notes

_TEST_NAMES = ("test", "val", "valid", "validation")
_CAPTIONS = ".txt"
Inside = Callable[[Path, Sequence[str], Collection[str]], Notes]
"""(root, files, wanted fields) -> what the files themselves say of their records."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The files of one split, sorted, as paths relative to `root`, and the notes on them."""

    root: Path
    files: Sequence[str]
    notes: Notes

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files with their root."""
        return tuple(self.root / file for file in self.files)

    def of(self, chosen: Collection[str]) -> "Part":
        """Only the chosen ones of the files."""
        rows = [row for row, file in enumerate(self.files) if file in chosen]
        files = [self.files[row] for row in rows]
        return replace(self, files=files, notes=self.notes.of(rows))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder. name: of the data set. parts: the splits. classes: the names of the
    classes in order, which are the same for all splits; () if there are none. annotated: whether
    more is known of the files than their names."""

    name: str
    parts: Mapping[str, Part]
    classes: tuple[str, ...]
    annotated: bool

    def others(
        self, split: str, fields: Mapping[str, Field]
    ) -> tuple[dict[str, Field], dict[str, np.ndarray]]:
        """(the fields besides x of a split, their stored values [N, ...]).

        fields: `text` and `properties`, if they are wanted; the label is always there if the files
        have classes. Raises UserError if a wanted one is not in the folder.
        """
        part, known, arrays = self.parts[split], {}, {}
        notes = part.notes
        if self.classes:
            known[LABEL] = Classes(names=self.classes)
            number = {name: index for index, name in enumerate(self.classes)}
            arrays[LABEL] = np.array([number[name] for name in notes.labels], np.int32)
        for name in (TEXT, PROPERTIES):
            if name in fields and name not in notes.known:
                raise UserError(
                    f"{self.name} has no {fields[name].plural} for the field {name} (see "
                    f"{' or '.join(metadata.FILES)} in {part.root}), which the model was made for: "
                    "restore them."
                )
        if text := fields.get(TEXT):
            ids = {caption: text.take(caption) for caption in dict.fromkeys(notes.texts)}
            known[TEXT] = text
            arrays[TEXT] = np.array([ids[caption] for caption in notes.texts], text.dtype)
            arrays[TEXT] = arrays[TEXT].reshape(-1, *text.shape)
        if properties := fields.get(PROPERTIES):
            self._same_columns(notes.columns, properties.names)
            order = [notes.columns.index(name) for name in properties.names]
            known[PROPERTIES] = properties
            arrays[PROPERTIES] = notes.numbers[:, order].astype(properties.dtype)
        return known, arrays

    def _same_columns(self, columns: Sequence[str], names: Sequence[str]) -> None:
        if set(columns) != set(names):
            raise UserError(
                f"{self.name} has the numbers {', '.join(columns)}, but data.columns are "
                f"{', '.join(names)}: give it the same columns."
            )


def listed(
    path: str,
    *,
    kind: str,
    suffixes: Collection[str],
    holdout: int,
    labels: bool,
    wanted: Collection[str] = metadata.EVERYTHING,
    classes: Sequence[str] = (),
    inside: Inside | None = None,
) -> Listing:
    """The files below a folder, and the notes on them; hidden files and folders are skipped.

    kind: the data set is KIND:PATH. suffixes: the endings of the files, in lower case. holdout:
    about one file in so many, and at least one, is held out for testing by the CRC-32 of its path,
    unless there is a folder for testing; a single file serves as both. labels: whether the
    top-level folders are classes, if the metadata has no column `label`. wanted: the fields whose
    notes are read; mistakes in others do not matter. classes: the names of the classes in order, if
    they are known already. inside: reads the notes from the files if there is no file of metadata.
    Raises UserError.
    """
    if holdout < 2:
        raise UserError(f"data.holdout is {holdout}: it must be at least 2 (one file in 2).")
    top = Path(path).expanduser()
    if not top.is_dir():
        raise UserError(f"There is no folder {top}: give data.name as {kind}:PATH.")
    roots = _roots(top, wanted)
    walks = [_Walk.through(root, suffixes) for root in roots]
    wholes = [
        Part(root=walk.root, files=walk.files, notes=walk.notes(wanted, inside)) for walk in walks
    ]
    annotated = any(whole.notes.known for whole in wholes)
    numbered = any(whole.notes.labels is not None for whole in wholes)
    if labels:
        wholes = _with_folders(wholes, lenient=annotated)
    _check_alike([whole for whole in wholes if whole.files])
    if len(roots) == 1:
        held = _held_out(wholes[0].files, holdout)
        rest = [file for file in wholes[0].files if file not in held]
        train, test = wholes[0].of(set(rest or held)), wholes[0].of(held)
    else:
        train, test = wholes
    return Listing(
        name=f"{kind}:{path}",
        parts={"train": train, "test": test},
        classes=_classes(wholes, tuple(classes), numbered),
        annotated=annotated,
    )


def _roots(top: Path, wanted: Collection[str]) -> list[Path]:
    """The folder of all files, or those of the two splits."""
    if not (top / "train").is_dir():
        return [top]
    if not set(wanted) <= {LABEL} and (stray := metadata.find(top)):
        raise UserError(
            f"{stray} is beside the folder train: move it there, with paths relative to it."
        )
    return [top / name for name in ("train", *_TEST_NAMES) if (top / name).is_dir()][:2]


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """What lies below a folder: the files with one of the suffixes, sorted, and the text files."""

    root: Path
    files: Sequence[str]
    texts: Collection[str]

    @classmethod
    def through(cls, root: Path, suffixes: Collection[str]) -> "_Walk":
        files, texts, seen = [], set(), set()
        for folder, below, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link that leads back up
                below.clear()
                continue
            seen.add(real)
            below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
            relative = Path(folder).relative_to(root).as_posix()
            before = "" if relative == "." else f"{relative}/"
            for name in names:
                suffix = os.path.splitext(name)[1].lower()
                if name.startswith("."):
                    continue
                if suffix in suffixes:
                    files.append(before + name)
                elif suffix == _CAPTIONS:
                    texts.add(before + name)
        return cls(root=root, files=sorted(files), texts=texts)

    def notes(self, wanted: Collection[str], inside: Inside | None) -> Notes:
        """The notes on the files, from the first place that has any."""
        table = metadata.find(self.root)
        if table and (notes := metadata.read(table, self.files, wanted)):
            return notes
        notes = Notes(places=[str(self.root / file) for file in self.files])
        if inside and self.files:
            notes = inside(self.root, self.files, wanted)
        if TEXT in wanted and notes.texts is None:
            beside = metadata.captions(self.root, self.files, self.texts)
            notes = replace(notes, texts=beside.texts) if beside else notes
        return notes


def _with_folders(wholes: Sequence[Part], lenient: bool) -> list[Part]:
    """The parts, those without labels with the top-level folders of their files as labels, if every
    file is in one. lenient: whether the files have notes, so that their folders need not be
    classes."""
    lacking = [whole for whole in wholes if whole.notes.labels is None]
    files = [file for whole in lacking for file in whole.files]
    loose = [file for file in files if "/" not in file]
    if loose and len(loose) < len(files) and not lenient:
        raise UserError(
            f"Some files are in sub-folders, which are classes, and others are not "
            f"({loose[0]!r}): move these into a sub-folder, or set data.labels=False."
        )
    names = {file.split("/")[0] for file in files}
    if loose or not names or (lenient and len(names) == 1):
        return list(wholes)
    return [_sorted_by_folder(whole) if whole in lacking else whole for whole in wholes]


def _sorted_by_folder(part: Part) -> Part:
    labels = [file.split("/")[0] for file in part.files]
    return replace(part, notes=replace(part.notes, labels=labels))


def _check_alike(wholes: Sequence[Part]) -> None:
    """Raises UserError if not all parts have the same notes."""
    for first, other in itertools.pairwise(wholes):
        here, there = (set(part.notes.known) for part in (first, other))
        if here != there:
            lacking, having = (other, first) if here - there else (first, other)
            names = ", ".join(sorted(here ^ there))
            raise UserError(
                f"The files in {lacking.root} have no {names}, but those in {having.root} do: give "
                f"both the same ({' or '.join(metadata.FILES)})."
            )
        if set(first.notes.columns) != set(other.notes.columns):
            names = sorted(set(first.notes.columns) ^ set(other.notes.columns))
            raise UserError(
                f"The column {names[0]!r} is only in one of {metadata.find(first.root)} and "
                f"{metadata.find(other.root)}: give both the same columns."
            )


def _classes(
    wholes: Sequence[Part], given: tuple[str, ...], numbered: bool
) -> tuple[str, ...]:
    """The classes of all parts, so that a label means the same in each, in the order of their names
    or, if numbered and all are numbers, of these."""
    present = {label for whole in wholes for label in whole.notes.labels or ()}
    if given and present:
        refuse([
            f"{place}: {label!r} is not one of the classes of the run (data.classes)."
            for whole in wholes
            for place, label in zip(whole.notes.places, whole.notes.labels or (), strict=False)
            if label not in given
        ])
        return given
    if numbered and all(label.isdecimal() for label in present):
        return tuple(sorted(present, key=lambda label: (int(label), label)))
    return tuple(sorted(present))


def _held_out(files: Sequence[str], holdout: int) -> set[str]:
    """The files that are held out for testing."""
    hashes = {file: zlib.crc32(file.encode("utf-8", "surrogateescape")) for file in files}
    held = {file for file in files if hashes[file] % holdout == 0}
    if not held and files:
        held = {min(files, key=lambda file: (hashes[file] % holdout, file))}
    if len(held) == len(files) > 1:
        held.discard(max(files, key=lambda file: (hashes[file], file)))
    return held
