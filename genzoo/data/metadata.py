"""The annotations of the files in a folder: captions, classes and numbers.

They are read from `metadata.csv` or `metadata.jsonl`, following the convention of Hugging Face's
image folders: one line per file, with the columns (or keys)

| column      | what it holds                                | field of the record |
|-------------|----------------------------------------------|---------------------|
| `file_name` | the file's path, relative to the metadata    |                     |
| `text`      | a caption                                    | `text`              |
| `label`     | a class, by name or number                   | `label`             |
| any other   | a number; all of them together are a vector  | `properties`        |

Without such a file, captions are read from text files of the same name: a.txt holds that of a.png.
Error messages give the file, the line and the column.
"""

import math
import os
import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from genzoo.core.errors import UserError, refuse
from genzoo.core.files import read_text
from genzoo.data import tables
from genzoo.data.tables import Table

FILES = ("metadata.csv", "metadata.jsonl")
"""The possible names of a metadata file."""
NAME, TEXT, LABEL, PROPERTIES = "file_name", "text", "label", "properties"
EVERYTHING = frozenset((TEXT, LABEL, PROPERTIES))
"""The fields that metadata can supply."""
_LARGEST = 1e30  # of the absolute values of numbers; `data.columns` has this bound too


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """The captions, classes and numbers of N records, in order.

    places: for error messages, where those of each record were read. texts, labels: [N], or None.
    columns, numbers: the names of the D numbers, and their values, float64 [N, D].
    """

    places: Sequence[str]
    texts: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    columns: tuple[str, ...] = ()
    numbers: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def of(self, rows: Sequence[int]) -> "Annotations":
        """The annotations of the given rows."""

        def chosen(values: Sequence[str] | None) -> list[str] | None:
            return None if values is None else [values[row] for row in rows]

        return replace(
            self,
            places=chosen(self.places),
            texts=chosen(self.texts),
            labels=chosen(self.labels),
            numbers=self.numbers[list(rows)] if self.columns else self.numbers,
        )

    @property
    def placed_labels(self) -> Iterable[tuple[str, str]]:
        """(place, label) of each record; nothing without labels."""
        return zip(self.places, self.labels, strict=True) if self.labels else ()

    @property
    def known(self) -> tuple[str, ...]:
        """The names of the fields that they supply."""
        has = {
            TEXT: self.texts is not None, LABEL: self.labels is not None,
            PROPERTIES: bool(self.columns),
        }  # fmt: skip
        return tuple(name for name, known in has.items() if known)


def find(root: Path) -> Path | None:
    """The metadata file of a folder, if there is one. Raises UserError if there are two."""
    present = [root / name for name in FILES if os.path.lexists(root / name)]
    if len(present) > 1:
        raise UserError(f"{root} holds both {' and '.join(FILES)}: remove one of them.")
    return present[0] if present else None


def number_of(value: object) -> float | None:
    """A finite number, or the one that a text spells; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= _LARGEST else None  # which excludes NaN


def no_number(value: object) -> str:
    """What is wrong with a value for which there is no `number_of`, as a clause and a remedy."""
    try:
        large = not isinstance(value, bool) and math.isfinite(float(value))
    except OverflowError:
        large = True
    except (ValueError, TypeError):
        large = False
    if large:
        return f"is too large, beyond {_LARGEST:g}; give it in another unit"
    if isinstance(value, float):  # NaN or infinity, which was not spelt
        return "is not a finite number; replace it"
    return "is not a finite number; write one, with a point for the decimals"


def unfit_name(name: str) -> str:
    """Why a number of that name could not be requested by it, as a clause and a remedy; "" if it
    could. Requests are written "porosity=0.4, grain=2"."""
    if not name.strip():
        return (
            "has no name, like the index of a pandas table; write the table with "
            "to_csv(index=False), or name or remove the column"
        )
    if tables.INDEX.fullmatch(name.strip()):
        return (
            f"({name!r}) is the index of a pandas table; remove it, and write the table with "
            "to_csv(index=False)"
        )
    if name != name.strip() or "," in name or "=" in name:
        return (
            f"has the name {name!r}, which cannot be requested as in 'porosity=0.4, grain=2'; "
            "rename it, without commas, equals signs and outer spaces"
        )
    return ""


# --- annotations from a file ----------------------------------------------------------------------


def read(
    file: Path, files: Sequence[str], wanted: Collection[str] = EVERYTHING
) -> Annotations | None:
    """The annotations in a metadata file; None if it has none of the wanted fields.

    files: every file below the folder, relative to it; each needs a line, and each line a file.
    wanted: the fields to read; the columns of others are not checked. Raises UserError.
    """
    table = tables.read(file)
    named = [name for name in table.columns if name in (TEXT, LABEL)]
    others = [name for name in table.columns if name not in (NAME, TEXT, LABEL)]
    kept = [name for name in named if name in wanted]
    if not kept and not (others and PROPERTIES in wanted):
        return None
    if NAME not in table.columns:
        raise UserError(
            f"{table.at(table.first)}: there is no column {NAME!r}; the columns, separated by "
            f"commas, are {', '.join(map(repr, table.columns))}."
        )
    mistakes: list[str] = []
    lines = _lines(table, frozenset(files), mistakes)
    words = {name: _words(table, name, mistakes) for name in kept}
    others = others if PROPERTIES in wanted else []
    mistakes += [
        f"{table.at(table.first)}: column {place} {why}."
        for place, name in enumerate(table.columns, start=1)
        if name in others and (why := unfit_name(name))
    ]
    numbers = {n: _numbers(table, n, mistakes) for n in others if not unfit_name(n)}
    refuse(mistakes)
    mistakes += [
        f"{file} has no line for {name!r}: add one, or remove the file."
        for name in files
        if name not in lines
    ]
    refuse(mistakes)
    order = [lines[name] for name in files]
    annotations = Annotations(
        places=[table.at(line) for line, _ in table.rows],
        texts=words.get(TEXT),
        labels=words.get(LABEL),
        columns=tuple(numbers),
        numbers=np.array(list(numbers.values()), np.float64).T,
    )
    return annotations.of(order)


def _lines(table: Table, files: Collection[str], mistakes: list[str]) -> Mapping[str, int]:
    """The index of each file's row."""
    lines: dict[str, int] = {}
    wrong: list[tuple[str, str, str]] = []  # (place, what is wrong, remedy) of a name
    for row, value in enumerate(table.values(NAME)):
        line = table.rows[row][0]
        given = value.strip() if isinstance(value, str) else ""
        name = str(PurePosixPath(given)) if given else ""
        if name in lines:
            before = table.rows[lines[name]][0]
            mistakes.append(
                f"{table.at(line, NAME)}: {given!r} is also on line {before}; remove one of the "
                "two."
            )
        elif name in files:
            lines[name] = row
        elif value is not None and not isinstance(value, str):
            wrong.append((table.at(line, NAME), f"{table.shown(value)} is no name", "write a text"))
        else:
            wrong.append((table.at(line, NAME), *_no_file(given, table.file.parent, files)))
    if len(wrong) == len(table.rows) > 1 and len({remedy for *_, remedy in wrong}) == 1:
        # The column itself is the mistake.
        place, what, remedy = wrong[0]
        mistakes.append(f"{place}: {what}, and the other lines are alike; {remedy}.")
    else:
        mistakes += [f"{place}: {what}; {remedy}." for place, what, remedy in wrong]
    return lines


def _no_file(name: str, root: Path, files: Collection[str]) -> tuple[str, str]:
    """(why a name is not that of a file of the data set, the remedy)."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute():
        return f"{name!r} is an absolute path", f"give paths relative to {root}"
    if "\\" in name and posixpath.normpath(name.replace("\\", "/")) in files:
        return f"{name!r} has backslashes", "separate folders with slashes"
    if posixpath.normpath(name) in files:
        return f"{name!r} takes a detour", f"write it as {posixpath.normpath(name)!r}"
    if not name or not (root / name).exists():
        return f"there is no file {name!r} in {root}", "correct the name, or remove the line"
    if (root / name).is_dir():
        return f"{name!r} is a folder", "give the path of a file, or remove the line"
    if posixpath.normpath(name).startswith("../"):
        return f"{name!r} is outside {root}", "move the file there, or remove the line"
    return (
        f"{name!r} is not a file of the data set, because its ending is unknown or it is hidden",
        "remove the line",
    )


def _words(table: Table, column: str, mistakes: list[str]) -> list[str]:
    words, called = [], {TEXT: "caption", LABEL: "class"}[column]
    for (line, _), value in zip(table.rows, table.values(column), strict=True):
        known = isinstance(value, str) or (column == LABEL and isinstance(value, int | float))
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 2.0 and 2 are one class
        word = str(value).strip() if known else ""
        if value is not None and not known:
            mistakes.append(
                f"{table.at(line, column)}: {table.shown(value)} is not a {called}; write a text."
            )
        elif not word:
            mistakes.append(
                f"{table.at(line, column)}: the {called} is empty; write one, or remove the line "
                "and its file."
            )
        words.append(word)
    return words


def _numbers(table: Table, column: str, mistakes: list[str]) -> list[float]:
    values = list(table.values(column))
    numbers = [number_of(value) for value in values]
    wrong = {no_number(value) for value, n in zip(values, numbers, strict=True) if n is None}
    place = table.at(table.first, column)
    if values and all(number is None for number in numbers) and len(wrong) == 1:
        # Every line would be a mistake; the column itself is one.
        if "too large" in (why := wrong.pop()):
            mistakes.append(f"{place}: every number {why}.")
        else:
            mistakes.append(
                f"{place}: the column is unknown, and holds no numbers; rename it to {TEXT!r} if "
                f"it holds captions, to {LABEL!r} if it holds classes, or remove it."
            )
        return []
    mistakes += [
        f"{table.at(line, column)}: {table.shown(value)} {no_number(value)}."
        for (line, _), value, number in zip(table.rows, values, numbers, strict=True)
        if number is None
    ]
    return numbers


# --- captions beside files ------------------------------------------------------------------------


def captions(root: Path, files: Sequence[str], present: Collection[str]) -> Annotations | None:
    """The captions in text files beside the files, that of a.png in a.txt; None if there are none.
    If one file has a caption, all need one. present: the text files below the root. Raises
    UserError."""
    beside = [f"{file.rpartition('.')[0]}.txt" for file in files]
    if present.isdisjoint(beside):
        return None
    mistakes, texts = [], []
    for file, name in zip(files, beside, strict=True):
        if name not in present:
            mistakes.append(f"{root / file} has no caption: write one into {name}.")
            continue
        text = read_text(root / name).strip()
        if not text:
            mistakes.append(f"{root / name}, line 1: the caption is empty; write one.")
        texts.append(text)
    refuse(mistakes)
    return Annotations(places=[str(root / name) for name in beside], texts=texts)


def column_statistics(annotations: Annotations) -> tuple[tuple[str, float, float], ...]:
    """(name, mean, standard deviation) of each column of numbers. Raises UserError for a column
    that does not vary in float32."""
    columns = []
    for name, values in zip(annotations.columns, annotations.numbers.T, strict=True):
        mean, deviation = float(values.mean()), float(values.std())
        if deviation <= max(1e-6 * abs(mean), 1e-37):  # which float32 does not resolve
            raise UserError(
                f"{annotations.places[0]}, column {name!r}: all {len(values)} numbers of the "
                f"training split are about {mean:g}, so they carry no information; remove the "
                "column, or multiply it if the numbers are that small."
            )
        columns.append((name, mean, deviation))
    return tuple(columns)
