"""Atomic file writes, under a temporary name that is moved into place, and careful reading: of
regular files only, up to a size, and without waiting forever."""

import collections
import contextlib
import errno
import itertools
import os
import queue
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from genzoo.core.errors import UserError, cause

FILE_LIMIT = 1 << 28
"""Bytes above which a file is not read, unless another limit is given."""
PATIENCE = 60.0
"""Seconds without a single byte after which a file, or the disk that holds it, is given up."""
_BLOCK = 1 << 24  # bytes read at a time
_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by the home folder. Like a shell, and unlike Path.expanduser, it
    leaves the name of a user who does not exist as it is."""
    return Path(os.path.expanduser(path))


class Unreadable(Exception):
    """A file that is not read; the text is the reason, as the end of a sentence."""


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it if the block succeeds. Makes the folder.

    Others may read it unless the umask forbids that, and only its owner may write to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def numbered(name: str) -> Iterator[str]:
    """`name`, `name`-2, `name`-3 and so on."""
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def beside(path: Path, name: str) -> Path:
    """A free path in the folder of `path`: the first one of the `numbered` names."""
    paths = (path.parent / each for each in numbered(name))
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
    if not os.path.lexists(path):
        raise UserError(f"{called}: there is no such file; give the path of a text file.")
    try:
        content = read_bytes(path)
    except Unreadable as reason:
        raise UserError(f"{called} cannot be read: {reason}.") from reason
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{called}, line {line}: it is not UTF-8; save the file as UTF-8."
        ) from error


# --- reading --------------------------------------------------------------------------------------


def read_bytes(path: Path, most: int = FILE_LIMIT) -> bytes:
    """The content of a regular file. Raises Unreadable for anything else (pipes, devices), for more
    than `most` bytes, and if nothing arrives for `PATIENCE` seconds.

    Another thread reads, because nothing can interrupt a thread that waits for a disk.
    """
    try:
        reader = _idle.pop()
    except IndexError:
        reader = _Reader()
    task = _Task(path, most)
    reader.tasks.put(task)
    while not task.done.wait(PATIENCE):
        if time.monotonic() - task.last >= PATIENCE:
            task.given_up = True
            raise Unreadable(f"nothing was read for {PATIENCE:g} s")
    _idle.append(reader)  # one that hangs is never used again
    if task.error is not None:
        raise task.error
    return task.content


class _Task:
    """A file to read. last: when something was last read of it. error, content: the result."""

    def __init__(self, path: Path, most: int):
        self.path, self.most = path, most
        self.done, self.given_up = threading.Event(), False
        self.last = time.monotonic()
        self.error: Unreadable | None = None
        self.content = b""

    def run(self) -> None:
        try:
            self.content = self._read()
        except Unreadable as reason:
            self.error = reason
        except OSError as error:
            self.error = Unreadable(cause(error))
        except (ValueError, MemoryError) as error:  # a zero in the path; no room
            self.error = Unreadable(str(error) or "it does not fit into memory")
        self.done.set()

    def _read(self) -> bytes:
        _regular(os.stat(self.path).st_mode)  # opening some devices already acts on them
        handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(handle)  # of what was opened, should it have been exchanged
            _regular(status.st_mode)
            if status.st_size > self.most:
                raise Unreadable(f"it has {status.st_size} bytes, more than {self.most}")
            blocks, total = [], 0
            while not self.given_up and (block := os.read(handle, _BLOCK)):
                blocks.append(block)
                total, self.last = total + len(block), time.monotonic()
                if total > self.most:
                    raise Unreadable(f"it has more than {self.most} bytes")
            return blocks[0] if len(blocks) == 1 else b"".join(blocks)
        finally:
            os.close(handle)


class _Reader(threading.Thread):
    """A thread that reads files; it dies with the process."""

    def __init__(self):
        super().__init__(name="read", daemon=True)
        self.tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            self.tasks.get().run()


_idle: collections.deque[_Reader] = collections.deque()
os.register_at_fork(after_in_child=_idle.clear)  # threads are not forked


def _regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise Unreadable(f"it is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) of every folder below `root`, itself included.

    The folder is relative to `root`, "" or with a slash at its end. Hidden folders and files are
    skipped, links are followed, and links that lead back up are not. Raises a UserError that names
    a folder that cannot be listed.
    """
    seen, waiting = set(), [""]
    while waiting:
        below = waiting.pop()
        folder = os.path.join(root, below)
        folders, files = [], []
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith((".", "__MACOSX")):
                        (folders if _is_folder(entry) else files).append(entry.name)
        except OSError as error:
            raise UserError(
                f"The folder {folder} cannot be read ({error.strerror}): give it read and search "
                "permission, or move it elsewhere."
            ) from error
        waiting += [f"{below}{name}/" for name in sorted(folders, reverse=True)]
        yield below, files
