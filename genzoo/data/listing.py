"""The files of a folder that is a data set: its splits, its classes and its annotations.

A folder may hold the folders `train` and `test` (or `val`, `valid`, `validation`); otherwise part
of its files are held out for testing. Classes come from the column `label` of its metadata, or else
from its sub-folders. See `metadata` for captions and numbers.
"""

import itertools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genzoo.core.errors import UserError, refuse
from genzoo.core.files import expanded, walk
from genzoo.data import captions, metadata
from genzoo.data.fields import Classes, Field
from genzoo.data.given import TEXT_FILE
from genzoo.data.metadata import LABEL, PROPERTIES, TEXT, Annotations
from genzoo.data.pixels import SUFFIXES
from genzoo.runtime.progress import tracked

HOLDOUT = 20
"""By default, about one file in this many is held out for testing."""
_CALLED = {"folder": "images", "signals": "signals", "documents": "texts"}
"""Kind of data set -> what its files hold."""
_KINDS = {".npy": "signals", ".npz": "signals", TEXT_FILE: "documents"} | dict.fromkeys(
    SUFFIXES, "folder"
)
"""Ending of a file -> the kind of data set that it can be part of."""
_TEST_NAMES = ("test", "val", "valid", "validation")
Inside = Callable[[Path, Sequence[str], Collection[str]], Annotations]
"""(root, files, wanted fields) -> the annotations that the files themselves contain."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The files of one split, sorted, as paths relative to `root`, and their annotations."""

    root: Path
    files: Sequence[str]
    annotations: Annotations

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files with their root."""
        return tuple(self.root / file for file in self.files)

    def of(self, chosen: Collection[str]) -> "Part":
        """The chosen files only."""
        rows = [row for row, file in enumerate(self.files) if file in chosen]
        files = [self.files[row] for row in rows]
        return replace(self, files=files, annotations=self.annotations.of(rows))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder. name: that of the data set. parts: the splits. classes: the names of
    the classes in order, the same for all splits; () if there are none. annotated: whether there
    are annotations besides the names of folders. suffixes: the endings of its files."""

    name: str
    parts: Mapping[str, Part]
    classes: tuple[str, ...]
    annotated: bool
    suffixes: Collection[str]

    def part(self, split: str) -> Part:
        """A split. Raises UserError if it has no files."""
        part = self.parts[split]
        if not part.files:
            raise UserError(f"{_lacking(part.root, self.name, self.suffixes, split)}.")
        return part

    def others(
        self, split: str, fields: Mapping[str, Field]
    ) -> tuple[dict[str, Field], dict[str, np.ndarray]]:
        """(the fields of a split besides x, their stored values [N, ...]).

        fields: `text` and `properties`, if they are wanted; there is always a `label` if the files
        have classes. Raises UserError if the folder lacks a wanted field.
        """
        part, known, arrays = self.parts[split], {}, {}
        annotations = part.annotations
        if self.classes:
            known[LABEL] = Classes(names=self.classes)
            number = {name: index for index, name in enumerate(self.classes)}
            arrays[LABEL] = np.array([number[name] for name in annotations.labels], np.int32)
        for name in (TEXT, PROPERTIES):
            if name in fields and name not in annotations.known:
                raise UserError(
                    f"{self.name} has no {fields[name].plural} for the field {name}, which the "
                    f"model needs: restore {' or '.join(metadata.FILES)} in {part.root}."
                )
        if text := fields.get(TEXT):
            known[TEXT] = text
            arrays[TEXT] = captions.ids(annotations.texts, text, self.name, split)
        if properties := fields.get(PROPERTIES):
            self._same_columns(annotations.columns, properties.names)
            order = [annotations.columns.index(name) for name in properties.names]
            known[PROPERTIES] = properties
            arrays[PROPERTIES] = annotations.numbers[:, order].astype(properties.dtype)
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
    wanted: Collection[str],
    classes: Sequence[str] = (),
    inside: Inside | None = None,
) -> Listing:
    """The files below a folder and their annotations; hidden files and folders are skipped.

    kind: the data set is KIND:PATH, a key of `_CALLED`. suffixes: the endings of the files, in
    lower case. holdout: about one file in `holdout`, and at least one, is held out for testing by
    the CRC-32 of its path, unless there is a folder for testing; a single file serves as both.
    labels: whether the top-level folders are classes, if the metadata has no column `label`.
    wanted: the fields whose annotations are read; mistakes in others do not matter. classes: the
    names of the classes in order, if known. inside: reads the annotations from the files if there
    is no metadata file.
    Raises UserError.
    """
    if holdout < 2:
        raise UserError(f"data.holdout = {holdout} must be at least 2: one file in 2.")
    top = expanded(path)
    if not os.path.isdir(top):
        raise UserError(
            f"There is no folder {top}: give --config.data.name={kind}:PATH with the path where it "
            "is now."
        )
    roots = _roots(top, wanted)
    walks = [_Walk.through(root, suffixes) for root in roots]
    for found, split in zip(walks, ("train", "test"), strict=False):
        # A folder for testing may be empty until it is needed.
        if not found.files and (split == "train" or metadata.find(found.root)):
            what = _lacking(found.root, f"{kind}:{path}", suffixes, split)
            raise UserError(f"{what}; {found.instead(kind)}.")
    wholes = [
        Part(root=walk.root, files=walk.files, annotations=walk.annotations(wanted, inside))
        for walk in walks
    ]
    annotated = any(whole.annotations.known for whole in wholes)
    numbered = any(whole.annotations.labels is not None for whole in wholes)
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
        suffixes=suffixes,
    )


def _lacking(root: Path, name: str, suffixes: Collection[str], split: str) -> str:
    """That a folder holds no files of a data set, as the beginning of a sentence."""
    called, known = _CALLED[name.partition(":")[0]], ", ".join(sorted(suffixes))
    return f"The folder {root} holds no {called} for the {split} split (known endings: {known})"


def _roots(top: Path, wanted: Collection[str]) -> list[Path]:
    """The folder of all files, or the folders of the two splits."""
    if not os.path.isdir(top / "train"):  # also if there is no permission to look
        return [top]
    if not set(wanted) <= {LABEL} and (stray := metadata.find(top)):
        raise UserError(
            f"{stray} is beside the folder train: move it there, with paths relative to it."
        )
    return [top / name for name in ("train", *_TEST_NAMES) if os.path.isdir(top / name)][:2]


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """The files below a folder that have one of the suffixes, sorted, and the text files there.
    others: how many files have which other ending."""

    root: Path
    files: Sequence[str]
    texts: Collection[str]
    others: Mapping[str, int]

    @classmethod
    def through(cls, root: Path, suffixes: Collection[str]) -> "_Walk":
        files, texts, others = [], set(), Counter()
        for folder, names in tracked(walk(root), f"looking through {root}", "folder"):
            for name in names:
                suffix = os.path.splitext(name)[1].lower()
                if suffix in suffixes:
                    files.append(folder + name)
                elif name not in metadata.FILES:
                    others[suffix] += 1
                    if suffix == TEXT_FILE:
                        texts.add(folder + name)
        return cls(root=root, files=sorted(files), texts=texts, others=others)

    def instead(self, kind: str) -> str:
        """What the folder holds instead of files of a kind of data set, and the remedy."""
        if not self.others:
            return "it holds no other files either: check the path"
        suffix = max(self.others, key=self.others.__getitem__)  # the most frequent one
        files = f"{suffix} files" if suffix else "files without an ending"
        other = _KINDS.get(suffix)
        remedy = f"use {other}:PATH" if other else f"convert them, or check the path of {kind}:PATH"
        return f"it holds {files}: {remedy}"

    def annotations(self, wanted: Collection[str], inside: Inside | None) -> Annotations:
        """The annotations of the files, from the metadata file, the files themselves or captions
        beside them, in this order."""
        table = metadata.find(self.root)
        if table and (annotations := metadata.read(table, self.files, wanted)):
            return annotations
        annotations = Annotations(places=[str(self.root / file) for file in self.files])
        if inside and self.files:
            annotations = inside(self.root, self.files, wanted)
        if TEXT in wanted and annotations.texts is None:
            beside = metadata.captions(self.root, self.files, self.texts)
            annotations = replace(annotations, texts=beside.texts) if beside else annotations
        return annotations


def _with_folders(wholes: Sequence[Part], lenient: bool) -> list[Part]:
    """The parts, where those without labels take the top-level folders of their files as labels, if
    every file is in one. lenient: whether the files have annotations, so that their folders need
    not be classes."""
    lacking = [whole for whole in wholes if whole.annotations.labels is None]
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
    return replace(part, annotations=replace(part.annotations, labels=labels))


def _check_alike(wholes: Sequence[Part]) -> None:
    """Raises UserError if the parts differ in the kinds of their annotations."""
    for first, other in itertools.pairwise(wholes):
        here, there = (set(part.annotations.known) for part in (first, other))
        if here != there:
            lacking, having = (other, first) if here - there else (first, other)
            names = ", ".join(sorted(here ^ there))
            raise UserError(
                f"The files in {lacking.root} have no {names}, but those in {having.root} do: give "
                f"both the same annotations ({' or '.join(metadata.FILES)})."
            )
        if set(first.annotations.columns) != set(other.annotations.columns):
            names = sorted(set(first.annotations.columns) ^ set(other.annotations.columns))
            raise UserError(
                f"The column {names[0]!r} is only in one of {metadata.find(first.root)} and "
                f"{metadata.find(other.root)}: give both the same columns."
            )


def _classes(
    wholes: Sequence[Part], given: tuple[str, ...], numbered: bool
) -> tuple[str, ...]:
    """The classes of all parts together, so that a label means the same in each. They are sorted by
    name or, if numbered and all names are numbers, by number."""
    present = {label for whole in wholes for label in whole.annotations.labels or ()}
    if given and present:
        refuse([
            f"{place}: {label!r} is not one of data.classes, the classes of the run."
            for whole in wholes
            for place, label in whole.annotations.placed_labels
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
