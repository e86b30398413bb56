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

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from genzoo.core.errors import UserError, refuse
from genzoo.core.files import read_text

FILES = ("metadata.csv", "metadata.jsonl")
"""The possible names of a metadata file."""
NAME, TEXT, LABEL, PROPERTIES = "file_name", "text", "label", "properties"
EVERYTHING = frozenset((TEXT, LABEL, PROPERTIES))
"""The fields that metadata can supply."""


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
    # Stored as float32, whose largest number is 3.4e38.
    return number if math.isfinite(number) and abs(number) < 3e38 else None


# --- lines of a file ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The content of a metadata file. columns: in order. rows: (line, value of each column)."""

    file: Path
    columns: Sequence[str]
    rows: Sequence[tuple[int, Sequence[object]]]

    def at(self, line: int, column: str = "") -> str:
        """The name of a place in error messages."""
        return f"{self.file}, line {line}" + (f", column {column!r}" if column else "")

    def values(self, column: str) -> Iterable[object]:
        """The values of a column."""
        index = self.columns.index(column)
        return (row[index] for _, row in self.rows)


def _csv(file: Path) -> _Table:
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    lines, before = [], 0
    try:
        for cells in reader:
            if cells:  # blank lines have none
                lines.append((before + 1, cells))
            before = reader.line_num
    except csv.Error as error:
        raise UserError(f"{file}, line {before + 1}: it is not CSV ({error}).") from error
    if not lines:
        raise UserError(f"{file}, line 1: it is empty; name the columns there.")
    (line, header), *rows = lines
    table = _Table(file=file, columns=[name.strip() for name in header], rows=rows)
    mistakes = [
        f"{table.at(line, name)}: it is named twice; rename or remove one of the columns."
        for name in dict.fromkeys(table.columns)
        if table.columns.count(name) > 1
    ]
    mistakes += [
        f"{table.at(line)}: it has {len(cells)} cells, but there are {len(header)} columns; quote "
        'cells that contain a comma, as in "a cat, asleep".'
        for line, cells in rows
        if len(cells) != len(header)
    ]
    refuse(mistakes)
    return table


def _jsonl(file: Path) -> _Table:
    mistakes, rows, columns, reported = [], [], None, set()
    # Not splitlines, which also splits at characters that captions may contain.
    for line, text in enumerate(read_text(file).split("\n"), start=1):
        if not text.strip():
            continue
        place = f"{file}, line {line}"
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError) as error:
            where = getattr(error, "colno", 1)
            mistakes.append(f"{place}, character {where}: it is not JSON ({error}).")
            continue
        if not isinstance(entry, dict):
            mistakes.append(f"{place}: it is not a JSON object, such as {{\"{NAME}\": \"a.png\"}}.")
            continue
        columns = list(entry) if columns is None else columns
        for name in dict.fromkeys((*columns, *entry)):
            # Once for each key, since the first line may be the odd one.
            if (name in columns) != (name in entry) and name not in reported:
                reported.add(name)
                where = "here" if name in columns else f"on line {rows[0][0]}"
                mistakes.append(
                    f"{place}, column {name!r}: it is missing {where}; every line needs the same "
                    "keys."
                )
        rows.append((line, [entry.get(name) for name in columns]))
    refuse(mistakes)
    if not rows:
        raise UserError(f"{file}, line 1: it is empty; write one JSON object per line and file.")
    return _Table(file=file, columns=columns, rows=rows)


# --- annotations from a file ----------------------------------------------------------------------


def read(
    file: Path, files: Sequence[str], wanted: Collection[str] = EVERYTHING
) -> Annotations | None:
    """The annotations in a metadata file; None if it has none of the wanted fields.

    files: every file below the folder, relative to it; each needs a line, and each line a file.
    wanted: the fields to read; the columns of others are not checked. Raises UserError.
    """
    table = (_csv if file.suffix == ".csv" else _jsonl)(file)
    first = table.rows[0][0] if file.suffix == ".jsonl" else 1
    named = [name for name in table.columns if name in (TEXT, LABEL)]
    others = [name for name in table.columns if name not in (NAME, TEXT, LABEL)]
    kept = [name for name in named if name in wanted]
    if not kept and not (others and PROPERTIES in wanted):
        return None
    if NAME not in table.columns:
        raise UserError(
            f"{table.at(first)}: there is no column {NAME!r}; the columns, separated by commas, "
            f"are {', '.join(map(repr, table.columns))}."
        )
    mistakes: list[str] = []
    lines = _lines(table, frozenset(files), mistakes)
    words = {name: _words(table, name, mistakes) for name in kept}
    numbers = {}
    for name in others if PROPERTIES in wanted else ():
        numbers[name] = _numbers(table, name, first, mistakes)
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


def _lines(table: _Table, files: Collection[str], mistakes: list[str]) -> Mapping[str, int]:
    """The index of each file's row."""
    lines: dict[str, int] = {}
    for row, value in enumerate(table.values(NAME)):
        line = table.rows[row][0]
        place, given = table.at(line, NAME), str(value or "").strip()
        name = str(PurePosixPath(given)) if given else ""
        if name in lines:
            before = table.rows[lines[name]][0]
            mistakes.append(f"{place}: {given!r} is also on line {before}; remove one of the two.")
        elif name in files:
            lines[name] = row
        elif name and (table.file.parent / name).is_file():
            mistakes.append(
                f"{place}: {given!r} is not a file of the data set, because its ending is unknown "
                "or it is hidden; remove the line."
            )
        else:
            mistakes.append(
                f"{place}: there is no file {given!r} in {table.file.parent}; correct the name, or "
                "remove the line."
            )
    return lines


def _words(table: _Table, column: str, mistakes: list[str]) -> list[str]:
    words, called = [], {TEXT: "caption", LABEL: "class"}[column]
    for (line, _), value in zip(table.rows, table.values(column), strict=True):
        known = isinstance(value, str) or (column == LABEL and isinstance(value, int | float))
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # 2.0 and 2 are one class
        word = str(value).strip() if known else ""
        if value is not None and not known:
            mistakes.append(f"{table.at(line, column)}: {value!r} is not a {called}; write a text.")
        elif not word:
            mistakes.append(
                f"{table.at(line, column)}: the {called} is empty; write one, or remove the line "
                "and its file."
            )
        words.append(word)
    return words


def _numbers(table: _Table, column: str, first: int, mistakes: list[str]) -> list[float]:
    values = list(table.values(column))
    numbers = [number_of(value) for value in values]
    if values and all(number is None for number in numbers):
        # Every line would be a mistake; the column itself is one.
        mistakes.append(
            f"{table.at(first, column)}: the column is unknown, and holds no numbers; rename it to "
            f"{TEXT!r} if it holds captions, to {LABEL!r} if it holds classes, or remove it."
        )
        return []
    for (line, _), value, number in zip(table.rows, values, numbers, strict=True):
        if number is None:
            mistakes.append(
                f"{table.at(line, column)}: {value!r} is not a finite number; write one, with a "
                "point for the decimals."
            )
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
