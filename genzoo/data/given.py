"""Values that users give in a config or an argument: numbers and texts, as such or in files."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genzoo.core.errors import UserError, listed, nearest
from genzoo.core.files import Unreadable, expanded, read_bytes, read_text
from genzoo.data import array_files

TEXT_FILE = ".txt"
"""The ending of a file that holds a text."""
NUMBER_FILES = (".npy", ".csv", ".txt")
"""The endings of files that hold numbers."""
_USUAL = 5.0  # standard deviations from the mean within which nearly all data lie
_SHOWN = 40  # characters of a line in error messages
_log = logging.getLogger("genzoo")


def text(value: object, key: str) -> str:
    """A text, or that in the .txt file of that name, without white space around it. Raises
    UserError, which names the key."""
    words = str(value).strip()
    if words.lower().endswith(TEXT_FILE):
        content = read_text(expanded(words), f"{key} = {value!r}").strip()
        if not content:
            raise UserError(f"{key} = {value!r}: the file is empty; write a text into it.")
        return content
    if (os.sep in words or os.path.splitext(words)[1]) and (what := no_text_file(words)):
        raise UserError(f"{key} = {value!r} {what}")
    return words


def no_text_file(words: str) -> str:
    """What a text names if it is a folder or a file that is not read, and the remedy, as the end of
    a sentence; "" for other texts."""
    path, suffix = os.path.expanduser(words), os.path.splitext(words)[1]
    if not os.path.lexists(path) or suffix.lower() == TEXT_FILE:
        return ""
    remedy = f"give a text, or the name of a {TEXT_FILE} file."
    if os.path.isdir(path):
        return f"is a folder: {remedy}"
    called = f"{suffix} file" if suffix else "file without an ending"
    return f"is a {called}, which is not read as a text: {remedy}"


def numbers(value: object, key: str) -> np.ndarray:
    """Numbers as float32 with at least one axis. Raises UserError, which names the key.

    value: numbers, their text such as "1, 2", or the name of a .npy, .csv or .txt file of numbers.
    """
    if isinstance(value, str) and Path(value).suffix.lower() in NUMBER_FILES:
        return _read_numbers(expanded(value), key)
    parts = value.strip(" ()[]").split(",") if isinstance(value, str) else value
    try:
        array = np.asarray([float(part) for part in parts if part.strip()]
                           if isinstance(value, str) else parts, np.float32)  # fmt: skip
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{key} = {value!r} must be numbers separated by commas, or the name of a file "
            f"({', '.join(NUMBER_FILES)})."
        ) from error
    return _finite(array, f"{key} = {value!r}")


def named_numbers(value: str, names: Sequence[str], key: str) -> np.ndarray:
    """The numbers of a text such as "porosity=0.4, grain=2", in the order of the names [D]: float32
    [D]. Raises UserError, which names the key."""
    values: dict[str, float] = {}
    for part in value.strip(" ()[]").split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UserError(
                f"{key} = {value!r}: {name!r} is not NAME=NUMBER; separate these by commas, and "
                "write decimals with a point."
            )
        if name not in names:
            raise UserError(f"{key} has no entry {name!r}; {nearest(name, names, ordered=True)}")
        if name in values:
            raise UserError(f"{key} = {value!r} gives {name} twice: give it once.")
        values[name] = _one_number(number, f"{key}: {name}")
    if missing := [name for name in names if name not in values]:
        raise UserError(f"{key} = {value!r} lacks {listed(missing, most=10)}: give every entry.")
    return np.array([values[name] for name in names], np.float32)


def _one_number(text: str, called: str) -> float:
    problem = f"{called} = {text!r} must be one finite number; separate entries by commas."
    try:
        array = numbers(text, called)
    except UserError as error:
        raise UserError(problem) from error
    if array.size != 1:
        raise UserError(problem)
    return array.item()


def _finite(array: np.ndarray, called: str) -> np.ndarray:
    if not array.size or not np.isfinite(array).all():
        raise UserError(f"{called} must be finite numbers, at least one.")
    return np.atleast_1d(array)


def warn_of_extrapolation(
    values: np.ndarray,
    names: Sequence[str],
    mean: Sequence[float],
    deviation: Sequence[float],
    key: str,
) -> None:
    """Warns of each of the numbers [D] that is more than `_USUAL` deviations from the mean [D].

    It is not refused, since extrapolation may be meant, and the mean and the deviation may have
    been given by hand. names: of the numbers, or ().
    """
    names = names or tuple(f"number {i + 1}" for i in range(len(values)))
    for name, value, center, unit in zip(names, values.tolist(), mean, deviation, strict=True):
        if abs(value - center) > _USUAL * unit:
            _log.warning(
                "%s: %s = %g is far outside the training set, whose mean and standard deviation "
                "are %.3g and %.3g. The model extrapolates: its samples may be meaningless.",
                key, name, value, center, unit,
            )  # fmt: skip


def _read_numbers(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise UserError(
            f"{key} = {str(path)!r}: there is no such file; give the path of a file of numbers."
        )
    called = f"{key} = {str(path)!r}"
    try:
        if path.suffix.lower() == ".npy":
            array = np.asarray(array_files.load(read_bytes(path)), np.float32)
        else:
            array = _table(read_text(path, called), "," if path.suffix.lower() == ".csv" else None)
    except (Unreadable, ValueError, TypeError) as error:
        raise UserError(f"{called} cannot be read as numbers: {error}.") from error
    return _finite(array, called)


def _table(text: str, separator: str | None) -> np.ndarray:
    """Lines of numbers, float32 [lines, columns]; what follows a # is a comment. Raises a
    ValueError that names the line."""
    rows: list[list[float]] = []
    for line, content in enumerate(text.splitlines(), start=1):
        if not (content := content.partition("#")[0].strip()):
            continue
        try:
            rows.append([float(cell) for cell in content.split(separator)])
        except ValueError as error:
            shown = content if len(content) <= _SHOWN else f"{content[:_SHOWN]}..."
            what = f"numbers separated by {'commas' if separator else 'white space'}"
            header = "" if rows else "; remove the line if it is a header"
            raise ValueError(f"line {line}, {shown!r}, is not {what}{header}") from error
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(f"line {line} has {len(rows[-1])} numbers, others {len(rows[0])}")
    return np.array(rows, np.float32)
