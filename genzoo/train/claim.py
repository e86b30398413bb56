"""The claim of a run on its folder: a locked file that says who trains there, and since when.

The lock is the system's (`flock`), so that it ends with its process, however that ends, and also
holds for other hosts that share the file system. The folder is lost when the file is no longer the
one that was locked: somebody has removed the folder, or put another one in its place.
"""

import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

from genzoo.core.errors import UserError
from genzoo.runtime.agreement import is_first

NAME = ".lock"
"""The name of the locked file."""
_HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
_MOST = 200  # characters of a claim that are shown
_log = logging.getLogger("genzoo")


class Claim:
    """The claim on a folder, until it is closed. Only the first process of a run locks the file.

    Raises UserError if another run has claimed the folder, and OSError if it cannot be written. As
    a context it turns every exception into one UserError if the folder is lost, since whatever
    failed then failed for this reason.
    """

    def __init__(self, folder: Path):
        self._folder, self._file = folder, None
        if is_first():
            while self._file is None or not self._kept():  # removed between opening and locking
                self._file = _locked(folder)
            self._file.truncate(0)
            self._file.write(_owner() + "\n")
            self._file.flush()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, Exception):
                try:
                    self.check()
                except UserError as lost:
                    raise lost from error
        finally:
            self.close()

    def check(self) -> None:
        """Raises UserError if the folder is lost."""
        if self._file is not None and not self._kept():
            raise UserError(
                f"--workdir={self._folder} was removed or replaced while the run was writing to "
                "it, so the run has stopped: restore the folder from a copy, or start again in "
                "another --workdir."
            )

    def close(self) -> None:
        """Gives the folder back."""
        if self._file is not None:
            self._file.close()

    def _kept(self) -> bool:
        try:
            there = os.stat(self._folder / NAME)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a file system that does not answer is not a folder that is gone
            return True
        return os.path.samestat(there, os.fstat(self._file.fileno()))


def _locked(folder: Path) -> IO:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / NAME).open("a+", errors="replace")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            file.seek(0)
            owner = "".join(c for c in file.read(_MOST) if c.isprintable()) or "one"
            file.close()
            raise UserError(
                f"Another process is training in --workdir={folder}: {owner}. Wait for it, or give "
                "another --workdir."
            ) from error
        _log.warning(
            "%s cannot be locked (%s), so nothing keeps a second run from writing to it.",
            folder / NAME, error.strerror,
        )  # fmt: skip
    return file


def _owner() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}"
