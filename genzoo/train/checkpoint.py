"""Checkpoints by Orbax, with checksums: a damaged checkpoint is never loaded silently.

Saving is asynchronous. When the arrays are on the disk, a manifest of sizes and checksums is
written atomically beside them; a folder without a manifest is an unfinished save. Older checkpoints
are deleted only then. Loading verifies every file. A damaged checkpoint is skipped in favour of the
next older one, and if none is good, loading fails with an error. Readers never change the folder,
because a training run may be writing to it.

Each process writes and reads its own shards. The first process decides which checkpoint to load,
and a failure in one process is raised in all.
"""

import json
import logging
import shutil
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from genzoo.core.errors import UserError
from genzoo.core.files import write_atomically
from genzoo.core.types import Tree
from genzoo.runtime.agreement import agreed, by_first, is_first, of_first
from genzoo.train.claim import Claim
from genzoo.train.state import TrainState

MANIFEST = "genzoo_manifest.json"
_ARRAYS, _ABOUT = "state", "run.json"
_FROZEN = "frozen"  # only in checkpoints of older versions
_NONE = -1  # stands for "no checkpoint" in place of a step
_log = logging.getLogger("genzoo")


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value


def write_manifest(folder: Path) -> None:
    """Writes the manifest of `folder`: the size and CRC-32 of every file below it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    entries = {p.relative_to(folder).as_posix(): [p.stat().st_size, _checksum(p)] for p in files}
    write_atomically(folder / MANIFEST, json.dumps(entries, indent=1))


def _arrays_of(state: TrainState) -> dict:
    """The state as nested dicts, without the frozen variables, which a run writes only once."""
    arrays = {f.name: getattr(state, f.name) for f in fields(state) if f.name != _FROZEN}
    return {**arrays, "faults": vars(state.faults)}


def damage(folder: Path) -> str | None:
    """The first damage found in a finished checkpoint, with the name of the file, or None."""
    try:
        entries = json.loads((folder / MANIFEST).read_text())
    except ValueError:
        return f"{MANIFEST} cannot be read"
    for name, (size, checksum) in entries.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _checksum(path) != checksum:
            return f"{name} has changed since it was written"
    return None


@dataclass(kw_only=True)
class Checkpoints:
    """The checkpoints of one run.

    directory: holds one folder for each step. keep: the number of newest checkpoints to keep.
    keep_every: checkpoints at multiples of this step are kept permanently; 0 for none. about:
    metadata written beside the arrays as JSON. claim: nothing is saved once it is lost.
    """

    directory: Path
    keep: int = 2
    keep_every: int = 0
    about: Mapping[str, object] = field(default_factory=dict)
    claim: Claim | None = None

    def __post_init__(self):
        self._orbax = ocp.StandardCheckpointer()
        self._finishing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.last_saved: int | None = None

    def steps(self) -> list[int]:
        """The steps with a finished checkpoint, newest first, including damaged ones."""
        if not self.directory.is_dir():
            return []
        steps = [int(p.name) for p in self.directory.iterdir() if p.name.isdigit()]
        return sorted((s for s in steps if (self.folder(s) / MANIFEST).is_file()), reverse=True)

    def folder(self, step: int) -> Path:
        """The folder of the checkpoint at a step."""
        return self.directory.absolute() / str(step)

    def save(self, state: TrainState) -> None:
        """Starts saving and returns once the arrays are copied; waits for the previous save first.

        Raises UserError if the previous save failed or this one cannot start.
        """
        self.wait()
        step = int(state.step)
        if step == self.last_saved:
            return
        folder = self.folder(step)
        arrays = _arrays_of(state)
        by_first(lambda: self._begin(folder, step))
        try:
            self._orbax.save(folder / _ARRAYS, arrays)
        except OSError as error:
            raise self._unsaved(error) from error

        def finish():
            try:
                self._orbax.wait_until_finished()
                if is_first():
                    write_manifest(folder)
                    self._prune()
                self.last_saved = step
            except BaseException as error:  # raised again by `wait`, since a thread has no caller
                self._failure = error

        self._finishing = threading.Thread(target=finish, name="finish-checkpoint")
        self._finishing.start()

    def _begin(self, folder: Path, step: int) -> None:
        if self.claim is not None:
            self.claim.check()
        about = {**self.about, "step": step}
        try:
            write_atomically(folder / _ABOUT, json.dumps(about, indent=2))
        except OSError as error:
            raise self._unsaved(error) from error

    def _prune(self) -> None:
        for step in self.steps()[self.keep :]:
            if not self.keep_every or step % self.keep_every:
                shutil.rmtree(self.folder(step))

    def _unsaved(self, error: BaseException) -> UserError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return UserError(
            f"A checkpoint could not be written to {self.directory} ({why}); the last good one is "
            f"of step {self.last_saved or 'none'}. Free some space or repair the disk, and start "
            "the run again: it resumes from there."
        )

    def wait(self) -> None:
        """Waits for the current save. Raises UserError if a save failed in any process."""
        agreed(self._wait)

    def _wait(self) -> None:
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise self._unsaved(failure) from failure

    def restore(self, abstract: TrainState, *, read_only: bool = False) -> TrainState | None:
        """The newest good state, or None if no save was ever finished.

        abstract: the shapes and shardings to restore into. read_only: leaves the folder unchanged;
        otherwise damaged checkpoints are renamed and unfinished ones deleted. The state has no
        frozen variables, except in checkpoints of older versions. Raises UserError if all
        checkpoints are damaged, or if the arrays have other shapes.
        """
        step = self._chosen(read_only)
        if step == _NONE:
            return None
        target = _arrays_of(abstract)
        if self._holds_frozen(step):
            target[_FROZEN] = abstract.frozen
        restored = self._load(step, target)
        self.last_saved = step
        faults = replace(abstract.faults, **restored.pop("faults"))
        return replace(abstract, **{_FROZEN: {}, **restored}, faults=faults)

    def restore_parts(
        self, abstract: Mapping[str, Tree], frozen: Mapping[str, Tree]
    ) -> dict | None:
        """Parts of the newest good state, {name: arrays}, or None if no save was ever finished.

        Leaves the folder unchanged. abstract: the shapes and shardings of the parts. frozen: those
        of frozen variables, which are loaded if the checkpoint has them. Raises UserError as
        `restore` does.
        """
        step = self._chosen(read_only=True)
        if step == _NONE:
            return None
        old = {_FROZEN: frozen} if self._holds_frozen(step) else {}
        return {_FROZEN: {}, **self._load(step, {**abstract, **old}, whole=False)}

    def _chosen(self, read_only: bool) -> int:
        """The newest good step, after checking that every process sees it, or _NONE."""
        step = of_first(lambda: self._newest_good(read_only))
        if step != _NONE:
            agreed(lambda: self._check_visible(step))
        return step

    def _holds_frozen(self, step: int) -> bool:
        return _FROZEN in self._orbax.metadata(self.folder(step) / _ARRAYS).item_metadata.tree

    def _newest_good(self, read_only: bool) -> int:
        if not read_only:
            self._delete_unfinished()
        bad = []
        for step in self.steps():
            if reason := damage(self.folder(step)):
                _log.warning("Checkpoint %d: %s. Trying the previous one.", step, reason)
                if not read_only:
                    self._set_aside(step)
                bad.append(f"{step} ({reason})")
                continue
            return step
        if bad:
            raise UserError(
                f"No checkpoint in {self.directory} is good: {', '.join(bad)}. "
                "Restore the folder from a copy, or start a new run in another --workdir."
            )
        return _NONE

    def _set_aside(self, step: int) -> None:
        number, name = 1, f"damaged-{step}"
        while (self.directory / name).exists():
            number, name = number + 1, f"damaged-{step}-{number}"
        self.folder(step).rename(self.directory / name)
        _log.warning("The damaged checkpoint is kept as %s.", self.directory / name)

    def _delete_unfinished(self) -> None:
        # A kill during a save leaves a folder that would block the resumed run at the same step.
        if self.directory.is_dir():
            for folder in self.directory.iterdir():
                if folder.name.isdigit() and not (folder / MANIFEST).is_file():
                    shutil.rmtree(folder)

    def _load(self, step: int, target: dict, whole: bool = True) -> dict:
        place = self.folder(step) / _ARRAYS
        try:
            if whole:
                return self._orbax.restore(place, target)
            with ocp.PyTreeCheckpointer() as reader:
                kinds = ocp.checkpoint_utils.construct_restore_args(target)
                wanted = ocp.args.PyTreeRestore(target, kinds, partial_restore=True)
                return reader.restore(place, args=wanted)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"The checkpoint {self.folder(step)} holds other arrays than this config makes "
                f"({str(error).splitlines()[0]}). Use the config of that run, or another "
                "--workdir."
            ) from error

    def _check_visible(self, step: int) -> None:
        if not self.folder(step).is_dir():
            raise UserError(
                f"Process {jax.process_index()} cannot see {self.folder(step)}, which exists for "
                "the first process: --workdir must be on a file system that all processes share."
            )

    def close(self) -> None:
        """Waits for the last save and stops Orbax's threads.

        It does not communicate with other processes, because this one may be leaving alone.
        """
        try:
            self._wait()
        finally:
            self._orbax.close()
