"""The manifest of a folder of arrays: what was written, so that damage is noticed.

The library of the checkpoints reads a changed file without an error. The manifest therefore lists
every file with its size and SHA-256, and it has a checksum of its own. It is written last.

    {"format": 1, "step": 20, "files": {"run.json": [3694, "<sha256>"], ..}, "checksum": "<sha256>"}

Manifests of before format 1 are one section {"run.json": [3694, CRC-32], ..}; they are still read.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from genzoo.core import strict_json
from genzoo.core.errors import UserError, cause
from genzoo.core.files import write_atomically

MANIFEST = "genzoo_manifest.json"
FORMAT = 1
_CHUNK = 1 << 22  # bytes read at a time
_MOST = 1 << 27  # bytes of a manifest: that of a million files
_THREADS = 4  # that read files: SHA-256 is slower than most disks
_EVERY = ("_METADATA", "manifest.ocdbt")  # files that every folder of arrays has


class Damaged(Exception):
    """What is wrong with a folder, with the name of the file."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest that was read. step: of the checkpoint; None for other folders and before format
    1. files: name -> (size in bytes, checksum). checksum: the function of these checksums."""

    step: int | None
    files: dict[str, tuple[int, object]]
    checksum: Callable[[Path], object]


def _crc32(path: Path) -> int:
    value = 0
    for chunk in _chunks(path):
        value = zlib.crc32(chunk, value)
    return value


def _sha256(path: Path) -> str:
    value = hashlib.sha256()
    for chunk in _chunks(path):
        value.update(chunk)
    return value.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _own_checksum(about: dict) -> str:
    """The checksum of a manifest, which does not depend on the order or the layout of the file."""
    about = {name: about[name] for name in sorted(about) if name != "checksum"}
    about["files"] = dict(sorted(about["files"].items()))
    return hashlib.sha256(strict_json.dumps(about).encode()).hexdigest()


def _written(folder: Path) -> dict[str, Path]:
    """Name -> path of the files in a folder, without the manifest and hidden ones, which belong to
    the file system or to other programs. Raises OSError."""

    def stop(error: OSError):
        raise error

    paths = (Path(place) / n for place, _, names in os.walk(folder, onerror=stop) for n in names)
    files = (path for path in paths if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    hidden = {name for name in named if any(p.startswith(".") for p in PurePosixPath(name).parts)}
    return {name: named[name] for name in sorted(named.keys() - hidden - {MANIFEST})}


def write_manifest(folder: Path, step: int | None = None) -> None:
    """Writes the manifest of a folder, after all of its files have reached the disk."""

    def entry(path: Path) -> list:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return [path.stat().st_size, _sha256(path)]

    files = _written(folder)
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = dict(zip(files, pool.map(entry, files.values()), strict=True))
    about = {"format": FORMAT, "step": step, "files": entries}
    about["checksum"] = _own_checksum(about)
    write_atomically(folder / MANIFEST, strict_json.dumps(about, indent=1))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, after checking it against its own checksum. Raises Damaged, and
    UserError if a newer version of genzoo wrote it."""
    about = _section(folder, MANIFEST)
    if "format" not in about:
        return Manifest(step=None, files=_entries(about, int), checksum=_crc32)
    if not isinstance(about.get("files"), dict) or about.get("checksum") != _own_checksum(about):
        raise Damaged(f"{MANIFEST} has changed since it was written")
    if about["format"] != FORMAT:
        raise UserError(
            f"{folder} was written by a newer version of genzoo (format {about['format']}): use "
            "that version."
        )
    return Manifest(step=about["step"], files=_entries(about["files"], str), checksum=_sha256)


def _section(folder: Path, name: str) -> dict:
    path = folder / name
    try:
        if not path.is_file():
            raise Damaged(f"{name} is missing")
        if path.stat().st_size > _MOST:
            raise Damaged(f"{name} is too large")
        value = strict_json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Damaged(f"{name} cannot be read: {cause(error)}") from error
    if not isinstance(value, dict):
        raise Damaged(f"{name} cannot be read: it is no section")
    return value


def _entries(files: dict, kind: type) -> dict[str, tuple[int, object]]:
    for name, entry in files.items():
        pair = type(entry) is list and len(entry) == 2
        within = not name.startswith("/") and ".." not in PurePosixPath(name).parts
        if not (pair and type(entry[0]) is int and type(entry[1]) is kind and within):
            raise Damaged(f"{MANIFEST} cannot be read: {name!r} has no size and checksum")
    return {name: (size, checksum) for name, (size, checksum) in files.items()}


def damage(folder: Path, arrays: str, needed: tuple[str, ...] = ()) -> str | None:
    """The first damage in a finished folder, with the name of the file, or None.

    arrays: the name of its folder of arrays. needed: other files without which it is of no use.
    """
    try:
        _check(folder, arrays, needed)
    except Damaged as problem:
        return str(problem)
    except OSError as error:
        return f"{error.filename or folder} cannot be read: {cause(error)}"
    return None


def _check(folder: Path, arrays: str, needed: tuple[str, ...]) -> None:
    manifest = read_manifest(folder)
    for name in (*needed, *(f"{arrays}/{each}" for each in _EVERY)):
        if name not in manifest.files:
            raise Damaged(f"{MANIFEST} does not list {name}")
    for name in _written(folder):  # the library might read it
        if name.startswith(f"{arrays}/") and name not in manifest.files:
            raise Damaged(f"{name} is not listed in {MANIFEST}")
    for name, (size, _) in manifest.files.items():
        _check_size(folder / name, name, size)
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(lambda name: _check_content(folder, name, manifest), manifest.files):
            pass


def _check_size(path: Path, name: str, size: int) -> None:
    if not path.is_file():
        raise Damaged(f"{name} is missing")
    if path.stat().st_size != size:
        raise Damaged(f"{name} has {path.stat().st_size} bytes instead of {size}")


def _check_content(folder: Path, name: str, manifest: Manifest) -> None:
    if manifest.checksum(folder / name) != manifest.files[name][1]:
        raise Damaged(f"{name} has changed since it was written")


def read_checked(folder: Path, name: str) -> dict:
    """One JSON file of a folder, after checking that it is what the manifest lists. Raises Damaged,
    and UserError as `read_manifest` does."""
    manifest = read_manifest(folder)
    if name not in manifest.files:
        raise Damaged(f"{MANIFEST} does not list {name}")
    try:
        _check_size(folder / name, name, manifest.files[name][0])
        _check_content(folder, name, manifest)
    except OSError as error:
        raise Damaged(f"{name} cannot be read: {cause(error)}") from error
    return _section(folder, name)
