"""`--mode=gallery`: a folder of static pages on many runs: an index with one card for each run, and
the report on each.

    gallery/index.html       the cards, by room
    gallery/runs/NAME.html   the reports

Every page is self-contained and linked by relative addresses, so that the folder can be opened as
it is, moved, or put on any web server. The same runs produce the same bytes. An existing gallery is
updated in place: first the pages, then the index, and last the pages of dropped runs are removed,
so that no link is ever broken. A folder that is not a gallery is never written to.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from genzoo.build import FAMILIES
from genzoo.core.errors import UserError, cause
from genzoo.core.files import Unreadable, read_bytes, write_atomically
from genzoo.evaluate.report.folder import Folder, read
from genzoo.evaluate.report.index import index
from genzoo.evaluate.report.render import GALLERY, MARK, render
from genzoo.evaluate.report.run_page import distinct, run_page
from genzoo.modes.report import about
from genzoo.runtime.progress import tracked
from genzoo.workdir import announced

FOLDER = Path("gallery")
"""Where a gallery goes if no --workdir is named, relative to the current folder."""
_INDEX, _PAGES = "index.html", "runs"
_OTHERS = "Other runs"
_MOST_RUNS = 500


def gallery(workdirs: Sequence[Path], folder: Path | None = None) -> dict:
    """Writes the gallery of several runs into `folder`, by default `gallery/` in the current one.
    Raises UserError for every workdir that holds no run, and for a folder that is no gallery."""
    place = folder or FOLDER
    runs = list({path.resolve(): path for path in workdirs}.values())
    if not 1 <= len(runs) <= _MOST_RUNS:
        raise UserError(
            f"--workdirs needs 1 to {_MOST_RUNS} runs, separated by commas; it has {len(runs)}."
        )
    begun = _begun(place)
    folders = _read(runs)
    order = [*dict.fromkeys(row.room for row in FAMILIES.values()), _OTHERS]
    folders.sort(key=lambda each: order.index(_room(each)))
    links = [f"{_PAGES}/{name}.html" for name in _names(folders)]
    with _target(place, begun) as target:
        for link, each in tracked(list(zip(links, folders, strict=True)), "pages", "run"):
            _write(target / link, render(run_page(each, about(each), up=f"../{_INDEX}")))
        rooms = [_room(each) for each in folders]
        _write(target / _INDEX, render(index(folders, rooms, links)))
        _remove_others(target, links)
    return {
        "gallery": str(place / _INDEX),
        "runs": len(folders),
        "files": announced([place / _INDEX, *(place / link for link in links)]),
    }


def _read(runs: Sequence[Path]) -> list[Folder]:
    """The content of all workdirs. Raises UserError with a sentence for each bad one."""
    folders, problems = [], []
    for path in tracked(runs, "reading", "run"):
        try:
            folders.append(read(path))
        except UserError as error:
            problems.append(str(error).replace("--workdir=", "--workdirs: ", 1))
        except OSError as error:
            problems.append(f"--workdirs: {path} cannot be read: {cause(error)}.")
    if problems:
        raise UserError(*problems)
    return folders


def _room(folder: Folder) -> str:
    row = FAMILIES.get(folder.family)
    return row.room if row else _OTHERS


def _names(folders: Sequence[Folder]) -> list[str]:
    """A name of a file for each run: that of its folder, in characters that every file system and
    address takes, numbered where several are the same."""
    plain = [re.sub(r"[^A-Za-z0-9._-]+", "-", f.name).strip("-.")[:80] or "run" for f in folders]
    # Some file systems do not tell capitals apart.
    numbered = distinct([name.lower() for name in plain])
    return [
        name + low[len(name) :].replace(" (", "-").replace(")", "")
        for name, low in zip(plain, numbered, strict=True)
    ]


# --- the folder -----------------------------------------------------------------------------------


def _begun(place: Path) -> bool:
    """Whether the folder is a gallery. Raises UserError if it is anything else but empty."""
    try:
        if not os.path.lexists(place) or (place.is_dir() and not any(place.iterdir())):
            return False
    except OSError as error:
        raise UserError(f"{place} cannot be read: {cause(error)}.") from error
    if _marked(place / _INDEX, GALLERY):
        return True
    flag = "name another folder with --workdir, or rename it"
    raise UserError(f"{place} exists and is not a gallery: {flag}.")


def _marked(path: Path, mark: str) -> bool:
    """Whether a file is a page of this kind."""
    try:
        return f'content="{mark}"'.encode() in read_bytes(path)[:4000]
    except Unreadable:
        return False


@contextlib.contextmanager
def _target(place: Path, begun: bool) -> Iterator[Path]:
    """The folder to write into: the gallery itself or, for a new one, a folder beside it that takes
    its place when all is written. Raises UserError."""
    if begun:
        yield place
        return
    real = place.resolve()
    aside = real.with_name(f".{real.name}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        yield aside
        aside.rename(real)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {cause(error)}.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, content: str) -> None:
    try:
        if path.is_file() and read_bytes(path) == content.encode():
            return
    except Unreadable:
        pass  # it is replaced
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {cause(error)}.") from error


def _remove_others(place: Path, links: Sequence[str]) -> None:
    """Removes the reports on runs that are no longer in the gallery, and nothing else."""
    kept = {Path(link).name for link in links}
    for path in sorted((place / _PAGES).glob("*.html")):
        if path.name not in kept and _marked(path, MARK):
            path.unlink(missing_ok=True)
