"""Metadata files as tables: CSV, or lines of JSON. Error messages give the line and the column."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genzoo.core import strict_json
from genzoo.core.errors import UserError, refuse
from genzoo.core.files import read_text

INDEX = re.compile(r"Unnamed: \d+")
"""The name that pandas gives to a column without a name, usually the index of an earlier table."""
_SHOWN = 60  # characters of a value in error messages


@dataclass(frozen=True, kw_only=True)
class Table:
    """The content of a metadata file.

    columns: their names in order. first: the line that they are on. rows: (line, value of each
    column).
    """

    file: Path
    columns: Sequence[str]
    first: int
    rows: Sequence[tuple[int, Sequence[object]]]

    def at(self, line: int, column: str = "") -> str:
        """The name of a place in error messages."""
        return f"{self.file}, line {line}" + (f", column {column!r}" if column else "")

    def values(self, column: str) -> Iterable[object]:
        """The values of a column."""
        index = self.columns.index(column)
        return (row[index] for _, row in self.rows)

    @staticmethod
    def shown(value: object) -> str:
        """A value in error messages: a text in quotes, anything else as JSON."""
        text = repr(value) if isinstance(value, str) else strict_json.dumps(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def read(file: Path) -> Table:
    """The table in a `.csv` file, or in a `.jsonl` file of one object per line. Raises UserError.

    The columns of a CSV file may lack names.
    """
    return (_csv if file.suffix == ".csv" else _jsonl)(file)


def _csv(file: Path) -> Table:
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    lines, before = [], 0
    try:
        for cells in reader:
            if cells:  # blank lines have none
                lines.append((before + 1, cells))
            before = reader.line_num
    except csv.Error as error:
        raise UserError(
            f"{file}, line {before + 1}: it is not CSV ({error}); a cell that begins with a quote "
            'ends with one, and quotes within it are doubled, as in "a ""red"" cat".'
        ) from error
    if not lines:
        raise UserError(f"{file}, line 1: it is empty; name the columns there.")
    (line, header), *rows = lines
    table = Table(file=file, columns=[name.strip() for name in header], first=line, rows=rows)
    mistakes = [
        f"{table.at(line, name)}: it is named twice; rename or remove one of the columns."
        for name in dict.fromkeys(table.columns)
        if name and table.columns.count(name) > 1
    ]
    mistakes += [
        f"{table.at(line)}: it has {len(cells)} cells, but there are {len(header)} columns; quote "
        'cells that contain a comma, as in "a cat, asleep".'
        for line, cells in rows
        if len(cells) != len(header)
    ]
    refuse(mistakes)
    return table


def _jsonl(file: Path) -> Table:
    content = read_text(file)
    if (begun := content.lstrip()).startswith("["):
        line = content[: len(content) - len(begun)].count("\n") + 1
        raise UserError(
            f"{file}, line {line}: it is a JSON array; write one object per line and file, without "
            "brackets and commas around them (pandas: to_json(orient='records', lines=True))."
        )
    mistakes, rows, columns, reported = [], [], None, set()
    # Not splitlines, which also splits at characters that captions may contain.
    for line, text in enumerate(content.split("\n"), start=1):
        if not text.strip():
            continue
        place = f"{file}, line {line}"
        try:
            entry = strict_json.loads(text)
        except json.JSONDecodeError as error:
            mistakes.append(f"{place}, character {error.colno}: it is not JSON ({error}).")
            continue
        except ValueError as error:
            mistakes.append(f"{place}: it is not JSON, because {error}; correct the line.")
            continue
        if not isinstance(entry, dict):
            mistakes.append(f'{place}: it is not a JSON object, such as {{"file_name": "a.png"}}.')
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
    if len(mistakes) > 1 and not rows:
        raise UserError(
            f"{file}: none of its lines is a JSON object; write one object per line and file, such "
            'as {"file_name": "a.png"}.'
        )
    refuse(mistakes)
    if not rows:
        raise UserError(f"{file}, line 1: it is empty; write one JSON object per line and file.")
    return Table(file=file, columns=columns, first=rows[0][0], rows=rows)
