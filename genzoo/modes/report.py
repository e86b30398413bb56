"""`--mode=report`: one page on a run, or on several side by side, as a self-contained HTML file."""

import logging
from collections.abc import Sequence
from pathlib import Path

from genzoo.build import FAMILIES
from genzoo.core.bounds import REQUIRED, settings_of
from genzoo.core.errors import UserError, cause
from genzoo.core.files import Unreadable, read_bytes, write_atomically
from genzoo.evaluate.report.folder import Folder, read
from genzoo.evaluate.report.render import MARK, render
from genzoo.evaluate.report.run_page import About, comparison_page, run_page
from genzoo.settings import SECTIONS, RunSettings
from genzoo.workdir import announced

REPORT = "report.html"
"""The page of a run, in its workdir."""
COMPARISON = "comparison.html"
"""The page of several runs, in the workdir of the first one if no other folder is named."""
_MOST_RUNS = 8
_log = logging.getLogger("genzoo")


def report(workdir: Path | None, workdirs: Sequence[Path] = ()) -> dict:
    """Writes the page of a run into its workdir, or the page of several runs into `workdir`, by
    default the first one of them. Raises UserError."""
    if not workdirs:
        path = write(workdir)
        return {"report": str(path), "files": announced([path])}
    if not 2 <= len(workdirs) <= _MOST_RUNS:
        raise UserError(
            f"--workdirs needs 2 to {_MOST_RUNS} runs, separated by commas; it has {len(workdirs)}."
        )
    folders = [read(path) for path in workdirs]
    path = (workdir or workdirs[0]) / COMPARISON
    _save(path, render(comparison_page(folders, [about(folder) for folder in folders])))
    return {"report": str(path), "files": announced([path])}


def write(workdir: Path) -> Path:
    """Writes the page of a run into its workdir. Raises UserError."""
    folder = read(workdir)
    path = workdir / REPORT
    _save(path, render(run_page(folder, about(folder))))
    return path


def write_beside(workdir: Path) -> list[Path]:
    """Writes the page of a run that has done its work, which a page that fails must not undo: the
    file, or nothing and a warning."""
    try:
        return [write(workdir)]
    except Exception as error:  # whatever it is
        _log.warning("%s was not written: %s", workdir / REPORT, cause(error))
        return []


def about(folder: Folder) -> About:
    """What the program knows of the family of a run."""
    row = FAMILIES.get(folder.family)
    if row is None:
        return About()
    sections = {name: settings_of(kind) for name, kind in SECTIONS.items()}
    sections["family"] = settings_of(row.settings)
    for name, own in row.own_keys.items():
        sections[name] = {**sections[name], **own}
    defaults = {
        f"{name}.{key}": setting.default
        for name, keys in sections.items()
        for key, setting in keys.items()
    }
    defaults |= {k: s.default for k, s in settings_of(RunSettings).items()}
    known = {k: v for k, v in defaults.items() if v is not REQUIRED and v != {}}
    return About(expect=row.expect, samples="sample" not in row.instead, defaults=known)


def _save(path: Path, content: str) -> None:
    """Writes a page in place of an older one. Raises UserError if another file is there."""
    if path.exists():
        try:
            before = read_bytes(path)
        except Unreadable as reason:
            raise UserError(f"{path} is in the way of the report ({reason}): rename it.") from None
        if f'content="{MARK}"'.encode() not in before[:4000]:
            raise UserError(f"{path} is in the way of the report: rename it.")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
