"""The folders of checkpoints, one for each step, and what else may lie beside them.

    20/             a finished save of step 20
    unfinished-30/  a save of step 30 that is under way, or that was interrupted
    damaged-10/     a checkpoint that was finished and is no longer good
    later-25/       a checkpoint of a later step than the one a run went back to
    replaced-10/    whatever had the name of a checkpoint when that was finished
    removed-5/      an old checkpoint that is being removed

A save gets its final name last, so that a folder of this name was finished once. Nothing that may
hold a state is ever deleted except by pruning. A folder that is in the way is renamed.
"""

import contextlib
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from genzoo.core.errors import UserError
from genzoo.core.files import beside
from genzoo.train.manifest import MANIFEST, Damaged, read_checked, read_manifest

ABOUT = "run.json"
_MOST_STEPS = 2**31 - 1
_SET_ASIDE = re.compile(r"([a-z]+)-[0-9]+(-[0-9]+)?")
_STEP = re.compile(r"0|[1-9][0-9]{0,9}")
UNFINISHED, DAMAGED, LATER = "unfinished", "damaged", "later"
REPLACED, REMOVED = "replaced", "removed"
_log = logging.getLogger("genzoo")


@dataclass
class Survey:
    """What lies in a folder of checkpoints. steps: of the finished saves, newest first; the files
    of arrays are not looked at. broken: step -> what is wrong at first sight. set_aside, unfinished
    and strange: the names of other entries; the strange ones are no checkpoints."""

    steps: list[int] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether a save was ever finished here."""
        return bool(self.steps or self.broken or self.set_aside)


@dataclass(frozen=True)
class StepFolders:
    """The folders of the checkpoints in `directory`."""

    directory: Path

    def path(self, step: int) -> Path:
        """The folder of a finished checkpoint."""
        return self.directory.absolute() / str(step)

    def unfinished(self, step: int) -> Path:
        """The folder of a checkpoint while it is written."""
        return self.directory.absolute() / f"{UNFINISHED}-{step}"

    def survey(self) -> Survey:
        """What lies in the folder now.

        A listing that is made while the newest checkpoint replaces the only other one may show
        neither, so that only two equal ones say that there is none.
        """
        found = self._once()
        while not found.begun and (again := self._once()) != found:
            found = again
        return found

    def _once(self) -> Survey:
        found = Survey()
        for name in self._names():
            path, kind = self.directory / name, _SET_ASIDE.fullmatch(name)
            if _STEP.fullmatch(name) and int(name) <= _MOST_STEPS and path.is_dir():
                self._look(int(name), found)
            elif kind and kind[1] == UNFINISHED:
                found.unfinished.append(name)
            elif kind and path.is_dir():
                found.set_aside += [name] if kind[1] != REMOVED else []
            else:
                found.strange.append(name)
        found.steps.sort(reverse=True)
        return found

    def _names(self) -> list[str]:
        try:
            return sorted(n for n in os.listdir(self.directory) if not n.startswith("."))
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise UserError(
                f"{self.directory} is not a folder: rename it, or give another --workdir."
            ) from error

    def _look(self, step: int, found: Survey) -> None:
        try:
            inside = self.step_inside(step)
        except Damaged as problem:
            if self.path(step).is_dir():  # otherwise it was removed in the meantime
                found.broken[step] = str(problem)
            return
        if inside == step:
            found.steps.append(step)
        else:
            found.broken[step] = f"it holds step {inside}: rename it to {inside}"

    def step_inside(self, step: int) -> object:
        """The step that the files in the folder of `step` are of. Raises Damaged."""
        inside = read_manifest(self.path(step)).step
        return self.about(step).get("step") if inside is None else inside

    def about(self, step: int) -> dict:
        """The metadata of a checkpoint. Raises Damaged."""
        return read_checked(self.path(step), ABOUT)

    def record(self) -> tuple[int, dict] | None:
        """(step, metadata) of the newest checkpoint with undamaged metadata, if there is one."""
        for step in self.survey().steps:
            with contextlib.suppress(Damaged), self.held(step):
                return step, self.about(step)
        return None

    def begin(self, step: int, arrays: str) -> Path:
        """An empty place for the files of a new checkpoint. arrays: the name of its folder of
        arrays, which an interrupted save has only if it got so far that it may hold a state."""
        place = self.unfinished(step)
        if place.is_dir() and not place.is_symlink() and not (place / arrays).exists():
            shutil.rmtree(place)
        self._clear(place, UNFINISHED, step)
        return place

    def finish(self, step: int) -> None:
        """Gives a checkpoint its final name, when all of its files have been written."""
        place = self.path(step)
        self._clear(place, REPLACED, step)
        self.unfinished(step).rename(place)
        handle = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(handle)  # older checkpoints are removed after this
        finally:
            os.close(handle)

    def set_aside(self, step: int, kind: str = DAMAGED) -> None:
        """Renames the folder of a step to `kind`-step."""
        self._clear(self.path(step), kind, step)

    def _clear(self, place: Path, kind: str, step: int) -> None:
        if os.path.lexists(place):
            free = beside(place, f"{kind}-{step}")
            place.rename(free)
            _log.warning("%s is kept as %s.", place, free.name)

    @contextlib.contextmanager
    def held(self, step: int) -> Iterator[bool]:
        """Keeps a checkpoint from being removed inside the block. Yields whether it is there.

        Where the file system has no locks, it may still be removed.
        """
        with self._locked(step, fcntl.LOCK_SH) as locked:
            yield locked or self.path(step).is_dir()

    @contextlib.contextmanager
    def _locked(self, step: int, kind: int) -> Iterator[bool]:
        """Locks a checkpoint by its manifest. Yields whether the file system could do that. Raises
        BlockingIOError if somebody else holds it and `kind` is not to wait."""
        manifest = self.path(step) / MANIFEST
        with contextlib.ExitStack() as cleanup:
            locked = False
            try:
                if manifest.is_file():
                    file = cleanup.enter_context(manifest.open("rb"))
                    fcntl.flock(file, kind)
                    cleanup.callback(fcntl.flock, file, fcntl.LOCK_UN)
                    # The folder may have been renamed before it was locked.
                    locked = os.path.samestat(os.fstat(file.fileno()), manifest.stat())
            except BlockingIOError:
                raise
            except OSError:
                pass
            yield locked

    def remove(self, step: int) -> None:
        """Removes a checkpoint, unless somebody reads it or its folder is a link.

        It is renamed first, so that nobody finds a half of it.
        """
        if self.path(step).is_symlink():
            return
        try:
            with self._locked(step, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self.path(step).rename(beside(self.path(step), f"{REMOVED}-{step}"))
        except BlockingIOError:
            return
        self.remove_rest()

    def remove_rest(self) -> None:
        """Removes what is left of checkpoints whose removal was interrupted."""
        for name in self._names():
            kind, path = _SET_ASIDE.fullmatch(name), self.directory / name
            # Of a pipe, the removal of a tree would wait for somebody to write into it.
            if kind and kind[1] == REMOVED and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
