"""Values that users give in a config or an argument: numbers and texts, as such or in files."""

import io
from pathlib import Path

import numpy as np

from genzoo.core.errors import UserError
from genzoo.core.files import Unreadable, read_bytes, read_text

TEXT_FILE = ".txt"
"""The ending of a file that holds a text."""
NUMBER_FILES = (".npy", ".csv", ".txt")
"""The endings of files that hold numbers."""


def text(value: object, key: str) -> str:
    """A text, or that in the .txt file of that name, without white space around it. Raises
    UserError, which names the key."""
    words = str(value).strip()
    if words.lower().endswith(TEXT_FILE):
        return read_text(Path(words).expanduser(), f"{key} = {value!r}").strip()
    return words


def numbers(value: object, key: str) -> np.ndarray:
    """Numbers as float32 with at least one axis. Raises UserError, which names the key.

    value: numbers, their text such as "1, 2", or the name of a .npy, .csv or .txt file of numbers.
    """
    if isinstance(value, str) and Path(value).suffix.lower() in NUMBER_FILES:
        return _read_numbers(Path(value).expanduser(), key)
    parts = value.strip(" ()[]").split(",") if isinstance(value, str) else value
    try:
        array = np.asarray([float(part) for part in parts if part.strip()]
                           if isinstance(value, str) else parts, np.float32)  # fmt: skip
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{key} = {value!r} must be numbers separated by commas, or the name of a file "
            f"({', '.join(NUMBER_FILES)})."
        ) from error
    if not array.size or not np.isfinite(array).all():
        raise UserError(f"{key} = {value!r} must be finite numbers.")
    return np.atleast_1d(array)


def _read_numbers(path: Path, key: str) -> np.ndarray:
    if not path.is_file():
        raise UserError(
            f"{key} = {str(path)!r}: there is no such file; give the path of a file of numbers."
        )
    try:
        content = io.BytesIO(read_bytes(path))
        if path.suffix.lower() == ".npy":
            array = np.load(content, allow_pickle=False)
        else:
            array = np.loadtxt(content, delimiter="," if path.suffix.lower() == ".csv" else None)
        return np.asarray(array, np.float32)
    except (Unreadable, ValueError, OSError, EOFError, MemoryError, TypeError) as error:
        raise UserError(f"{key} = {str(path)!r} cannot be read as numbers: {error}.") from error
