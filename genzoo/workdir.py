"""The folder of one run: `config.json`, `metrics.jsonl`, `checkpoints/`, `frozen/`, `samples/`,
`run.json`, `eval.json`, `report.html`.

A workdir belongs to one config and one data set. Training in it with others, or reading it with the
config of another model, is refused before anything is written.
"""

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ml_collections import FrozenConfigDict

from genzoo import kept
from genzoo.config import differences, outdated, read_json, write_json
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError, listed
from genzoo.core.files import numbered
from genzoo.record import Record, in_todays_form, read_record, run_differences, stored_form
from genzoo.runtime.agreement import by_first, is_first
from genzoo.runtime.progress import waiting
from genzoo.sample_folders import (
    LATEST,
    SAMPLE_SETTINGS,
    folder_name,
    other_samples,
    point_latest_to,
)
from genzoo.settings import RAW
from genzoo.train import rewind
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.claim import Claim
from genzoo.train.frozen import FrozenModels
from genzoo.train.state import TrainState
from genzoo.train.step_folders import StepFolders

# Keys that may change when a run resumes: how long, how often, where, how carefully.
_FREE_IN_TRAINING = (
    "sample.", "eval.", "mesh.", "bench.", "tools.", "compile.", "data.dir", "data.hold",
    "train.steps", "train.steps_per_call", "train.log_every", "train.save_every", "train.keep",
    "train.keep_every", "train.fault_limit", "train.picture_first", "train.picture_count",
    "train.save_minutes", "train.evaluate_every", "train.picture_minutes", "train.restart",
    "train.resume_from", "train.wandb",
    "optimizer.learning_rate", "optimizer.clip",
)  # fmt: skip
# Those of them that change the numbers of the run and not only its housekeeping.
_LOGGED = ("train.steps", "optimizer.")
# Keys on which the arrays of a checkpoint, or the meaning of its conditions, depend.
_BOUND_IN_READING = (
    "family.", "network.", "conditions.", "frozen.", "data.name", "data.size", "data.channels",
    "data.classes", "data.columns", "data.tokens", "data.words",
)  # fmt: skip
# What a workdir may hold. Something else in the place of these stops a run before it begins.
_FOLDERS = ("checkpoints", "frozen", "samples", "samples/training", "tensorboard", "wandb")
_FILES = (
    "config.json", "data.json", "metrics.jsonl", "eval.json", "distances.png", "nearest.png",
    "diverged.json", "run.json", "report.html", ".lock",
)  # fmt: skip
# Files of samples, and what is left of one that was being written when the process was killed.
_OF_SAMPLES = re.compile(r"\.?(\d{6,}\.png|samples\.npz|grid\.png)(\.\w{8})?")
_RESERVED = (LATEST, "training")  # names in samples/ that a call may not use
_log = logging.getLogger("genzoo")


def _free(key: str) -> bool:
    """Whether a key may change when a run resumes. A player's own key is like the shared one that
    it overrides."""
    shared = re.sub(r"^optimizer\.players\.[^.]+\.", "optimizer.", key)
    return shared.startswith(_FREE_IN_TRAINING)


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Workdir:
    """The folder of a run, at `path`."""

    path: Path

    @property
    def samples(self) -> Path:
        """The folder of samples."""
        return self.path / "samples"

    def training_grid(self, step: int, weights: str) -> Path:
        """The file of a sample grid drawn during training."""
        return self.samples / "training" / f"step_{step:08d}_{weights}.png"

    def config(self) -> dict | None:
        """The resolved config of the run in this folder, with defaults for newer keys; None if
        there is no run."""
        file = self.path / "config.json"
        if not file.is_file():
            return None
        return in_todays_form(read_json(file), self.path, file)

    def _readable(self) -> None:
        """Raises UserError if the checkpoints have an older form that can no longer be read."""
        if problems := outdated(read_json(self.path / "config.json")):
            raise UserError(*(f"--workdir={self.path}: {problem}" for problem in problems))

    @property
    def begun(self) -> bool:
        """Whether a checkpoint was ever finished. Before that, a failed start may be repeated with
        another config."""
        return StepFolders(self.path / "checkpoints").survey().begun

    def stored(self, remedy: str) -> dict:
        """The config of the run in the folder. Raises UserError with the remedy if it has none."""
        stored = self.config()
        if stored is None:
            raise UserError(
                f"--workdir={self.path} holds no run (there is no config.json): {remedy}."
            )
        return stored

    def check(self, config: FrozenConfigDict) -> None:
        """Raises UserError if the folder cannot be written or belongs to another config. Writes
        nothing, because other checks come before the folder is claimed."""
        self.check_writable()
        before = self.config()
        checkpoints = self.checkpoints(keep=1)
        back = rewind.target(checkpoints, config.to_dict())
        if before is None and self.begun:
            raise UserError(
                f"--workdir={self.path} holds checkpoints and no config.json, so their config is "
                "unknown: restore it from a copy, or give another --workdir."
            )
        if not before or not self.begun:
            return
        self._readable()
        changed = run_differences(before, config.to_dict())
        bound = {k: v for k, v in changed.items() if not _free(k)}
        if bound:
            raise UserError(self._other_config(bound))
        if "train.steps" in changed:
            reached = back or max(checkpoints.steps(), default=0)
            if config.train.steps < reached:
                raise UserError(
                    f"train.steps = {config.train.steps} is below step {reached}, which the run in "
                    f"--workdir={self.path} has reached: raise it, or give another --workdir."
                )
        record = read_record(self.path)
        changed |= record.differences(config.to_dict())
        if edited := [key for key in changed if not _free(key)]:
            raise UserError(self._edited(edited, record))
        for key, (old, new) in changed.items():
            if key.startswith(_LOGGED) and key != "train.steps_per_call":
                _log.info("%s was %s and is now %s: this changes the run.", key, old, new)

    def _edited(self, changed: Iterable[str], record: Record) -> str:
        return (
            f"--workdir={self.path} belongs to a config with other values of "
            f"{', '.join(sorted(changed))}, by its newest checkpoint ({record.file}): undo the "
            "changes to config.json, or give another --workdir."
        )

    def check_writable(self) -> None:
        """Raises UserError if the folder cannot be written, or something in it is in the way."""
        place = self.path.absolute()
        if not _is_text(place):
            raise UserError(
                f"--workdir={str(self.path)!r} has bytes in its name that are not UTF-8, which the "
                "library of the checkpoints cannot write: rename the folder, or give another one."
            )
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise UserError(self._unwritable(f"{place} is a file"))
        if not os.access(place, os.W_OK):
            raise UserError(self._unwritable(f"no permission in {place}"))
        for names, kind, right in (_FOLDERS, "folder", Path.is_dir), (_FILES, "file", Path.is_file):
            for wrong in (self.path / name for name in names):
                if os.path.lexists(wrong) and not right(wrong):
                    raise UserError(f"{wrong} is in the way of a {kind}: rename it.")

    def claim(self, config: FrozenConfigDict, data: dict) -> Claim:
        """Makes the folder and claims it for this config and data set. data: what identifies the
        data set. Raises UserError if that is not possible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            claim = Claim(self.path)
        except OSError as error:
            raise UserError(self._unwritable(error.strerror)) from error
        if is_first():
            try:
                self._same_data(data)
                kept.keep(self.path, config.to_dict())
                self._write("config.json", stored_form(config))
                self._write("data.json", data)
            except BaseException:
                claim.close()
                raise
        return claim

    def _same_data(self, data: dict) -> None:
        # The order of the examples depends on their number. With another data set, a resumed run
        # would see other examples than an uninterrupted one, and held-out ones might be trained on.
        file = self.path / "data.json"
        if not self.begun:
            return
        before = read_json(file) if file.is_file() else read_record(self.path).data
        # Older runs lack some entries, as do sets that are not held in memory.
        both = before.keys() & data.keys()
        changed = differences({k: before[k] for k in both}, {k: data[k] for k in both})
        if changed:
            shown = "; ".join(f"{k} was {a} and is {b}" for k, (a, b) in changed.items())
            raise UserError(
                f"The data has changed since the run in --workdir={self.path} began ({shown}): "
                "restore it, or start a new run in another --workdir."
            )

    def write(self, name: str, value: dict) -> None:
        """Writes a JSON file in the folder, from the first process."""
        by_first(lambda: self._write(name, value))

    def _write(self, name: str, value: dict) -> None:
        try:
            write_json(self.path / name, value)
        except OSError as error:
            raise UserError(self._unwritable(error.strerror)) from error

    def sample_folder(self, config: FrozenConfigDict, step: int) -> Path:
        """The folder in `samples/` for a call of `--mode=sample`.

        Its name is sample.into or, if that is empty, made from the step and from the settings that
        differ from the run's own. It never holds samples with other settings; raises UserError if
        sample.into names such a folder.
        """
        settings = {k: v for k, v in config.sample.to_dict().items() if k != "into"}
        if into := config.sample.into:
            if into in _RESERVED or Path(into).name != into or into.startswith("."):
                raise UserError(
                    f"sample.into = {into!r} must be the name of a folder: without slashes, and "
                    f"not {' or '.join(_RESERVED)}."
                )
            folder = self.samples / into
            if other := other_samples(folder, settings):
                raise UserError(
                    f"sample.into = {into!r}: {folder} {other}. Give another name, or remove it."
                )
            return folder
        own = {k: v for k, v in (self.config() or {}).get("sample", {}).items() if k != "into"}
        name = folder_name(step, {k: v for k, (_, v) in differences(own, settings).items()})
        folders = (self.samples / each for each in numbered(name))
        return next(folder for folder in folders if not other_samples(folder, settings))

    def begin_samples(self, folder: Path, settings: dict) -> None:
        """Prepares the folder for samples with these settings, in the first process. Removes what
        an earlier call with the same settings left there, so that it is not mistaken for new."""

        def begin():
            self.check_writable()
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for file in folder.iterdir():
                    if _OF_SAMPLES.fullmatch(file.name):
                        file.unlink(missing_ok=True)  # another call may be doing the same
            except OSError as error:
                raise UserError(self._unwritable(error.strerror)) from error
            self._write(f"{folder.relative_to(self.path)}/{SAMPLE_SETTINGS}", settings)

        by_first(begin)

    def end_samples(self, folder: Path, settings: dict) -> None:
        """Writes the final settings and makes `samples/latest` point to this folder: by a link, or
        by a copy if the file system has no links."""

        def end():
            self._write(f"{folder.relative_to(self.path)}/{SAMPLE_SETTINGS}", settings)
            point_latest_to(folder)

        by_first(end)

    def checkpoints(
        self, *, keep: int, keep_every: int = 0, about: dict | None = None,
        claim: Claim | None = None,
    ) -> Checkpoints:  # fmt: skip
        """The checkpoints in the folder. claim: that of the run that writes them."""
        return Checkpoints(
            directory=self.path / "checkpoints", keep=keep, keep_every=keep_every,
            about=about or {}, claim=claim,
        )  # fmt: skip

    @property
    def frozen(self) -> FrozenModels:
        """The frozen models of other runs that this one uses."""
        return FrozenModels(self.path / "frozen")

    def load(self, config: FrozenConfigDict, abstract: TrainState) -> TrainState:
        """Reads the newest good state, for a config of the same model. Raises UserError."""
        self._same_model(config)
        checkpoints = self.checkpoints(keep=config.train.keep)
        with waiting("Reading the checkpoint."):
            state = checkpoints.restore(abstract, read_only=True)
        checkpoints.close()
        if state is None:
            raise UserError(self._unfinished(config))
        return self.completed(state, abstract)

    def completed(self, state: TrainState, abstract: TrainState) -> TrainState:
        """The state of a checkpoint with the frozen models, which newer checkpoints do not hold."""
        if state.frozen or not abstract.frozen:
            return state
        return replace(state, frozen=self.frozen.read(abstract.frozen))

    def variables(
        self, config: FrozenConfigDict, abstract: TrainState, weights: str
    ) -> Variables:
        """The params themselves ("raw") or an average of them, with stats and frozen models, from
        the newest readable checkpoint. Only reads these arrays. Raises UserError."""
        self._same_model(config)
        own = {"params": abstract.params}
        if weights != RAW:
            own = {"averages": {weights: abstract.averages[weights]}}
        checkpoints = self.checkpoints(keep=config.train.keep)
        with waiting("Reading the checkpoint."):
            parts = checkpoints.restore_parts({**own, "stats": abstract.stats}, abstract.frozen)
        checkpoints.close()
        if parts is None:
            raise UserError(self._unfinished(config))
        frozen = parts["frozen"] or (abstract.frozen and self.frozen.read(abstract.frozen))
        params = parts["params"] if weights == RAW else parts["averages"][weights]
        return Variables(params=params, stats=parts["stats"], frozen=frozen)

    def _same_model(self, config: FrozenConfigDict) -> None:
        before = self.stored("train first, with --mode=train and the same --workdir")
        self._readable()
        changed = run_differences(before, config.to_dict())
        bound = {k: v for k, v in changed.items() if k.startswith(_BOUND_IN_READING)}
        if bound:
            raise UserError(self._other_config(bound))
        record = read_record(self.path)
        edited = record.differences(config.to_dict())
        if edited := [key for key in edited if key.startswith(_BOUND_IN_READING)]:
            raise UserError(self._edited(edited, record))
        for key, (there, here) in record.differences(before).items():
            if not _free(key):
                _log.warning(
                    "%s is %r in config.json, but %r in %s.", key, here, there, record.file
                )

    def _unfinished(self, config: FrozenConfigDict) -> str:
        return (
            f"--workdir={self.path} holds no finished checkpoint yet: train at least to step "
            f"{config.train.save_every} (train.save_every)."
        )

    def _other_config(self, changed: dict[str, tuple]) -> str:
        shown = [f"{k} is {a!r} there and {b!r} here" for k, (a, b) in changed.items()]
        return (
            f"--workdir={self.path} belongs to another config: {listed(shown, 4, '; ')}. "
            "Use the config it was made with, or another --workdir."
        )

    def _unwritable(self, why: str) -> str:
        return (
            f"--workdir={self.path} cannot be written ({why}): give a folder with write permission."
        )


def announced(paths: Iterable[Path]) -> list[str]:
    """The paths of the files that a mode wrote, for its report; the first process logs them."""
    written = [str(path) for path in paths]
    for path in written if is_first() else ():
        _log.info("Wrote %s", path)
    return written
