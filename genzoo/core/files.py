"""Atomic file writes, under a temporary name that is moved into place, and reading of texts."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from genzoo.core.errors import UserError


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it if the block succeeds. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes it private, but a cache or a run may be shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def beside(path: Path, name: str) -> Path:
    """A free path in the folder of `path`: `name`, or `name`-2 and so on if that is taken."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    paths = (path.parent / each for each in itertools.chain([name], numbered))
    return next(each for each in paths if not os.path.lexists(each))


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes the whole file or, on any failure, none of it. Makes the folder."""
    with aside(path) as temporary, temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())  # otherwise a power failure may leave an empty file in its place


def read_text(path: Path, called: str = "") -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises UserError. called: how
    errors name the file, by default by its path."""
    called = called or str(path)
    if not path.is_file():
        raise UserError(f"{called}: there is no such file; give the path of a text file.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{called} cannot be read: {error.strerror}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{called}, line {line}: it is not UTF-8; save the file as UTF-8."
        ) from error
