"""Atomic file writes: a file is written under a temporary name and moved into place."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


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


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes the whole file or, on any failure, none of it. Makes the folder."""
    with aside(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
