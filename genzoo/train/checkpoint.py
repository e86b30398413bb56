"""Checkpoints by Orbax, with checksums: a damaged checkpoint is never loaded silently.

Saving is asynchronous. When the arrays are on the disk, a manifest of sizes and checksums is
written beside them and the folder gets its final name; older checkpoints are removed only then. A
save is complete before the next one begins. Loading verifies every file. A damaged checkpoint is
skipped in favour of the next older one, and if none is good, loading fails with an error. Readers
never change the folder, because a training run may be writing to it, and hold what they read, so
that it is not removed meanwhile.

Each process writes and reads its own shards. The first process decides which checkpoint to load,
and a failure in one process is raised in all.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp

from genzoo.core import strict_json
from genzoo.core.errors import UserError, cause, listed
from genzoo.core.files import write_atomically
from genzoo.core.types import Tree
from genzoo.runtime.agreement import agreed, by_first, is_first, of_first
from genzoo.train.claim import Claim
from genzoo.train.manifest import Damaged, damage, write_manifest
from genzoo.train.state import TrainState
from genzoo.train.step_folders import ABOUT, LATER, StepFolders, Survey

_ARRAYS = "state"
_FROZEN = "frozen"  # only in checkpoints of older versions
_NONE = -1  # stands for "no checkpoint" in place of a step
_TRIES = 10  # to read one; without locks, it may be removed meanwhile
_log = logging.getLogger("genzoo")
T = TypeVar("T")


def _arrays_of(state: TrainState) -> dict:
    """The state as nested dicts, without the frozen variables, which a run writes only once."""
    arrays = {f.name: getattr(state, f.name) for f in fields(state) if f.name != _FROZEN}
    return {**arrays, "faults": vars(state.faults)}


def spared(steps: Sequence[int], sound: int | None, keep: int, keep_every: int) -> set[int]:
    """The steps whose checkpoints are not pruned: the `keep` newest, those at multiples of
    keep_every, and the newest one without doubts (sound), or two if there is none.

    steps: of the finished checkpoints, newest first.
    """
    companions = steps[:2] if sound is None else [sound]
    forever = [step for step in steps if keep_every and step % keep_every == 0]
    return {*steps[:keep], *companions, *forever}


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
        self.folders = StepFolders(self.directory)
        self._finishing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self.last_saved: int | None = None

    def steps(self) -> list[int]:
        """The steps with a finished checkpoint, newest first. Their arrays may be damaged."""
        return self.folders.survey().steps

    def folder(self, step: int) -> Path:
        """The folder of the checkpoint at a step."""
        return self.folders.path(step)

    def save(self, state: TrainState, doubts: Sequence[str] = ()) -> None:
        """Starts saving and returns once the arrays are copied; waits for the previous save first.

        doubts: reasons why the state may be useless, which are written beside it; the newest
        checkpoint without doubts is not pruned. Raises UserError if the previous save failed or
        this one cannot start.
        """
        self.wait()
        step = int(state.step)
        if step == self.last_saved:
            return
        folder = self.folders.unfinished(step)
        arrays = _arrays_of(state)
        by_first(lambda: self._begin(step, doubts))
        try:
            self._orbax.save(folder / _ARRAYS, arrays)
        except OSError as error:
            raise self._unsaved(error) from error

        def finish():
            try:
                self._orbax.wait_until_finished()
                if is_first():
                    write_manifest(folder, step)
                    self.folders.finish(step)
                    self._prune()
                self.last_saved = step
            except BaseException as error:  # raised again by `wait`, since a thread has no caller
                self._failure = error

        self._finishing = threading.Thread(target=finish, name="finish-checkpoint")
        self._finishing.start()

    def _begin(self, step: int, doubts: Sequence[str]) -> None:
        if self.claim is not None:
            self.claim.check()
        about = {**self.about, "step": step, **({"doubts": list(doubts)} if doubts else {})}
        try:
            folder = self.folders.begin(step, _ARRAYS)
            write_atomically(folder / ABOUT, strict_json.dumps(about, indent=2))
        except OSError as error:
            raise self._unsaved(error) from error

    def _prune(self) -> None:
        steps = self.steps()
        for step in set(steps) - spared(steps, self._sound(steps), self.keep, self.keep_every):
            self.folders.remove(step)

    def doubts(self, step: int) -> list[str]:
        """The reasons why the state of a checkpoint may be useless, as given to `save`, or what is
        wrong with the file that holds them."""
        try:
            return list(self.folders.about(step).get("doubts", ()))
        except Damaged as problem:
            return [str(problem)]

    def newest_sound(self) -> int | None:
        """The step of the newest checkpoint without doubts."""
        return self._sound(self.steps())

    def _sound(self, steps: Sequence[int]) -> int | None:
        return next((step for step in steps if not self.doubts(step)), None)

    def _unsaved(self, error: BaseException) -> UserError:
        return UserError(
            f"A checkpoint could not be written to {self.directory} ({cause(error)}); the last "
            f"good one is of step {self.last_saved or 'none'}. Free some space or repair the disk, "
            "and start the run again: it resumes from there."
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
        otherwise damaged checkpoints are renamed. The state has no frozen variables, except in
        checkpoints of older versions. Raises UserError if all checkpoints are damaged, or if the
        arrays have other shapes.
        """

        def load(step: int) -> TrainState:
            target = _arrays_of(abstract)
            if self._holds_frozen(step):
                target[_FROZEN] = abstract.frozen
            restored = self._load(step, target)
            faults = replace(abstract.faults, **restored.pop("faults"))
            self.last_saved = step
            return replace(abstract, **{_FROZEN: {}, **restored}, faults=faults)

        return self._of_newest(load, read_only)

    def restore_parts(
        self, abstract: Mapping[str, Tree], frozen: Mapping[str, Tree]
    ) -> dict | None:
        """Parts of the newest good state, {name: arrays}, or None if no save was ever finished.

        Leaves the folder unchanged. abstract: the shapes and shardings of the parts. frozen: those
        of frozen variables, which are loaded if the checkpoint has them. Raises UserError as
        `restore` does.
        """

        def load(step: int) -> dict:
            old = {_FROZEN: frozen} if self._holds_frozen(step) else {}
            return {_FROZEN: {}, **self._load(step, {**abstract, **old}, whole=False)}

        return self._of_newest(load, read_only=True)

    def newest(self) -> int | None:
        """The step of the newest good checkpoint, or None if no save was ever finished. Raises
        UserError if all are damaged. For the first process."""
        with contextlib.ExitStack() as held:
            step = self._newest_good(True, held)
        return None if step == _NONE else step

    def _of_newest(self, load: Callable[[int], T], read_only: bool) -> T | None:
        """The result of `load` for the step of the newest good checkpoint, or None if there is
        none. All processes load the same one."""
        for _ in range(_TRIES):
            with contextlib.ExitStack() as held:
                step = of_first(lambda held=held: self._newest_good(read_only, held))
                if step == _NONE:
                    return None
                try:
                    agreed(lambda step=step: self._check_visible(step))
                    return agreed(lambda step=step: load(step))
                except UserError:
                    # The reason is another one if the files have changed or gone meanwhile.
                    if not of_first(lambda step=step: self.damage(step) is not None):
                        raise
        raise self._removed()

    def damage(self, step: int) -> str | None:
        """The first damage in a checkpoint, with the name of the file, or None."""
        return damage(self.folder(step), _ARRAYS, (ABOUT,))

    def _newest_good(self, read_only: bool, held: contextlib.ExitStack) -> int:
        """The step of the newest good checkpoint, which stays `held`, or _NONE."""
        for _ in range(_TRIES):
            survey, bad, gone = self.folders.survey(), {}, False
            for step in sorted([*survey.steps, *survey.broken], reverse=True):
                here = held.enter_context(self.folders.held(step))
                reason = survey.broken.get(step) or (here and self.damage(step))
                if reason and self.folder(step).is_dir():
                    bad[step] = reason
                elif reason or not here:
                    gone = True
                else:
                    self._report(survey, bad, read_only)
                    return step
                held.close()
            if bad or not gone:
                break
        else:
            raise self._removed()
        if bad or survey.set_aside:
            raise UserError(self._none_good(survey, bad))
        self._report(survey, {}, read_only)
        return _NONE

    def _removed(self) -> UserError:
        return UserError(
            f"The checkpoints in {self.directory} were removed {_TRIES} times while they were "
            "read: wait until the training run has ended, or copy the folder."
        )

    def _report(self, survey: Survey, bad: Mapping[int, str], read_only: bool) -> None:
        """Logs what is wrong with newer checkpoints than the one that is used. A run that goes on
        also renames them, and names what else lies in the folder."""
        for step, reason in bad.items():
            _log.warning("Checkpoint %d: %s. Trying the previous one.", step, reason)
        if read_only:
            return
        for step in {**survey.broken, **bad}:
            self.folders.set_aside(step)
        self.folders.remove_rest()
        for names, what in {
            tuple(survey.unfinished): "saves that were interrupted",
            tuple(survey.set_aside): "set aside before",
            tuple(survey.strange): "no checkpoints; they are ignored",
        }.items():
            if names:
                # As literals: a name may hold bytes that are no text, or a line break.
                shown = ", ".join(map(repr, names))
                _log.warning("In %s are %s: %s.", self.directory, what, shown)

    def _none_good(self, survey: Survey, bad: Mapping[int, str]) -> str:
        later = [name for name in survey.set_aside if name.startswith(f"{LATER}-")]
        named = [f"{step} ({reason})" for step, reason in bad.items()]
        named += [f"{name} (set aside before)" for name in survey.set_aside if name not in later]
        these = f": {listed(named, 5)}" if named else ""
        back = "" if not later else (
            f" What train.resume_from set aside is still there ({', '.join(later)}): rename one to "
            "its step to go on from it."
        )
        return (
            f"No checkpoint in {self.directory} is good{these}.{back} Restore the folder from a "
            "copy, or start over at step 0 with --mode=train --config.train.restart=True, which "
            "moves all of it aside and deletes nothing."
        )

    def _holds_frozen(self, step: int) -> bool:
        with self._explained(step):
            metadata = self._orbax.metadata(self.folder(step) / _ARRAYS).item_metadata
            if metadata is None:  # the folder was removed
                raise ValueError("no metadata")
            return _FROZEN in metadata.tree

    def _load(self, step: int, target: dict, whole: bool = True) -> dict:
        place = self.folder(step) / _ARRAYS
        with self._explained(step):
            if whole:
                return self._orbax.restore(place, target)
            with ocp.PyTreeCheckpointer() as reader:
                kinds = ocp.checkpoint_utils.construct_restore_args(target)
                wanted = ocp.args.PyTreeRestore(target, kinds, partial_restore=True)
                return reader.restore(place, args=wanted)

    @contextlib.contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        """Turns the library's errors about the checkpoint of a step into a UserError."""
        try:
            yield
        except OSError as error:
            why = error.strerror or str(error).splitlines()[0]
            raise UserError(
                f"The checkpoint {self.folder(step)} cannot be read ({why}): repair the disk, or "
                "restore the folder from a copy."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"The checkpoint {self.folder(step)} holds other arrays than this config makes "
                f"({why}). Use the config of that run, or another --workdir."
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
