"""The folder of one run: `config.json`, `metrics.jsonl`, `checkpoints/`, `frozen/`, `samples/`,
`eval.json`.

A workdir belongs to one config and one data set. Training in it with others, or reading it with a
config that makes another model, is refused before anything is written.
"""

import fcntl
import itertools
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from ml_collections import FrozenConfigDict

from genzoo.check import fill
from genzoo.config import differences, outdated, read_json, write_json
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.runtime.agreement import by_first, is_first
from genzoo.settings import RAW
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.frozen import FrozenModels
from genzoo.train.state import TrainState

# What may change between a run and its continuation: how long, how often, where, how carefully.
_FREE_IN_TRAINING = (
    "sample.", "eval.", "mesh.", "bench.", "tools.", "compile.", "data.dir", "train.steps",
    "train.steps_per_call", "train.log_every", "train.save_every", "train.keep",
    "train.keep_every", "train.fault_limit", "train.picture_first", "train.picture_count",
    "train.save_minutes", "train.picture_minutes",
    "optimizer.learning_rate", "optimizer.clip",
)  # fmt: skip
# Of these, what changes the numbers of the run and not only its housekeeping.
_WORTH_SAYING = ("train.steps", "optimizer.")
# What a checkpoint's arrays depend on.
_BOUND_IN_READING = (
    "family.", "network.", "conditions.", "frozen.", "data.name", "data.size", "data.channels",
)  # fmt: skip
SAMPLE_SETTINGS = "settings.json"
"""What tells with which settings a folder of samples was made."""
LATEST = "latest"
_TAKEN = (LATEST, "training")  # names in samples/ that are not those of a call
_LONGEST = 100  # letters of the name of a folder
_log = logging.getLogger("genzoo")


def _shared(key: str) -> str:
    """The key that all players share for one that a player has of its own."""
    return re.sub(r"^optimizer\.players\.[^.]+\.", "optimizer.", key)


@dataclass(frozen=True)
class Workdir:
    """The folder at `path`."""

    path: Path

    @property
    def samples(self) -> Path:
        """Where samples go."""
        return self.path / "samples"

    def training_grid(self, step: int, weights: str) -> Path:
        """Where a grid drawn during training goes."""
        return self.samples / "training" / f"step_{step:08d}_{weights}.png"

    def config(self) -> dict | None:
        """The config of the run in this folder, as it was resolved; keys that have come since with
        their defaults."""
        file = self.path / "config.json"
        if not file.is_file():
            return None
        try:
            return fill(read_json(file))
        except UserError as error:
            raise UserError(*(f"{file}: {problem}" for problem in error.problems)) from error

    def _readable(self) -> None:
        """Raises UserError when the checkpoints are of an older form, which has no reader."""
        if problems := outdated(read_json(self.path / "config.json")):
            raise UserError(*(f"--workdir={self.path}: {problem}" for problem in problems))

    @property
    def begun(self) -> bool:
        """Whether a checkpoint was ever finished here: before that, a start that failed may be
        made again with another config."""
        return bool(self.checkpoints(keep=1).steps())

    def check(self, config: FrozenConfigDict) -> None:
        """Raises UserError when the folder cannot be written or belongs to another config. Writes
        nothing: what else may be wrong is looked at before the folder is claimed."""
        self.check_writable()
        before = self.config()
        if before is None and self.begun:
            raise UserError(
                f"--workdir={self.path} holds checkpoints and no config.json, so nobody can tell "
                "whose they are: restore it from a copy, or give another --workdir."
            )
        if before and self.begun:
            self._readable()
        changed = differences(before, config.to_dict()) if before and self.begun else {}
        bound = {k: v for k, v in changed.items() if not _shared(k).startswith(_FREE_IN_TRAINING)}
        if bound:
            raise UserError(self._other_config(bound))
        for key, (old, new) in changed.items():
            if key.startswith(_WORTH_SAYING) and key != "train.steps_per_call":
                _log.info("%s was %s and is now %s: not the same run any more.", key, old, new)

    def check_writable(self) -> None:
        """Raises UserError when the folder cannot be written."""
        place = self.path.absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise UserError(self._unwritable(f"{place} is a file"))
        if not os.access(place, os.W_OK):
            raise UserError(self._unwritable(f"no permission in {place}"))

    def claim(self, config: FrozenConfigDict, data: dict) -> IO:
        """Makes the folder this config's and this data set's, for as long as the returned file is
        open. data: what tells the data set from another."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            guard = (self.path / ".lock").open("a")
        except OSError as error:
            raise UserError(self._unwritable(error.strerror)) from error
        if is_first():
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"Another process is training in --workdir={self.path}: wait for it, or give "
                    "another --workdir."
                ) from error
            self._same_data(data)
            self._write("config.json", config.to_dict())
            self._write("data.json", data)
        return guard

    def _same_data(self, data: dict) -> None:
        # The order of the examples follows from their number: with another set a resumed run would
        # see others than a straight one, and a hold-out might move into training.
        file = self.path / "data.json"
        before = read_json(file) if file.is_file() and self.begun else {}
        # A run that is older than an entry does not have it.
        changed = differences(before, {k: v for k, v in data.items() if k in before})
        if changed:
            said = "; ".join(f"{k} was {a} and is {b}" for k, (a, b) in changed.items())
            raise UserError(
                f"The data has changed since the run in --workdir={self.path} began ({said}): "
                "restore it, or start anew in another --workdir."
            )

    def write(self, name: str, value: dict) -> None:
        """A JSON file in the folder, by the first process."""
        by_first(lambda: self._write(name, value))

    def _write(self, name: str, value: dict) -> None:
        try:
            write_json(self.path / name, value)
        except OSError as error:
            raise UserError(self._unwritable(error.strerror)) from error

    def sample_folder(self, config: FrozenConfigDict, step: int) -> Path:
        """Where a call of `--mode=sample` writes: a folder of `samples/` with the name sample.into,
        else with one made of the step and of the keys whose values are not the run's own. Never one
        that holds what a call with other settings has written; raises UserError where sample.into
        names such a one."""
        asked = {k: v for k, v in config.sample.to_dict().items() if k != "into"}
        if into := config.sample.into:
            if into in _TAKEN or Path(into).name != into or into.startswith("."):
                raise UserError(
                    f"sample.into = {into!r} must be the name of a folder: without slashes, and "
                    f"other than {' and '.join(_TAKEN)}."
                )
            folder = self.samples / into
            if other := _other_samples(folder, asked):
                raise UserError(
                    f"sample.into = {into!r}: {folder} {other}. Give another name, or remove it."
                )
            return folder
        own = {k: v for k, v in (self.config() or {}).get("sample", {}).items() if k != "into"}
        name = _named(step, {k: v for k, (_, v) in differences(own, asked).items()})
        names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
        folders = (self.samples / each for each in names)
        return next(folder for folder in folders if not _other_samples(folder, asked))

    def begin_samples(self, folder: Path, settings: dict) -> None:
        """Makes the folder ready for samples with these settings, by the first process. What the
        same call has left there goes, so that none of it is taken for new."""

        def begin():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for file in folder.iterdir():
                    if re.fullmatch(r"\d{6,}\.png|samples\.npz|grid\.png", file.name):
                        os.unlink(file)
            except OSError as error:
                raise UserError(self._unwritable(error.strerror)) from error
            self._write(f"{folder.relative_to(self.path)}/{SAMPLE_SETTINGS}", settings)

        by_first(begin)

    def end_samples(self, folder: Path, settings: dict) -> None:
        """Writes the settings again, with what is known now, and lets `samples/latest` be this
        folder: by a link, or where there are none by a copy."""

        def end():
            self._write(f"{folder.relative_to(self.path)}/{SAMPLE_SETTINGS}", settings)
            _be_latest(folder)

        by_first(end)

    def checkpoints(
        self, *, keep: int, keep_every: int = 0, about: dict | None = None
    ) -> Checkpoints:
        """The checkpoints in the folder."""
        place = self.path / "checkpoints"
        return Checkpoints(directory=place, keep=keep, keep_every=keep_every, about=about or {})

    @property
    def frozen(self) -> FrozenModels:
        """The models of other runs that this one uses as they are."""
        return FrozenModels(self.path / "frozen")

    def load(self, config: FrozenConfigDict, abstract: TrainState) -> TrainState:
        """The newest good state, for use by a config that makes the same model. Reads only."""
        self._same_model(config)
        checkpoints = self.checkpoints(keep=config.train.keep)
        state = checkpoints.restore(abstract, read_only=True)
        checkpoints.close()
        if state is None:
            raise UserError(self._unfinished(config))
        return self.completed(state, abstract)

    def completed(self, state: TrainState, abstract: TrainState) -> TrainState:
        """A state from a checkpoint with the frozen models, which newer ones do not hold."""
        if state.frozen or not abstract.frozen:
            return state
        return replace(state, frozen=self.frozen.read(abstract.frozen))

    def variables(
        self, config: FrozenConfigDict, abstract: TrainState, weights: str
    ) -> Variables:
        """The params themselves ("raw") or an average of them, with stats and frozen models, and
        nothing else of the newest good state. Reads only."""
        self._same_model(config)
        own = {"params": abstract.params}
        if weights != RAW:
            own = {"averages": {weights: abstract.averages[weights]}}
        checkpoints = self.checkpoints(keep=config.train.keep)
        found = checkpoints.restore_parts({**own, "stats": abstract.stats}, abstract.frozen)
        checkpoints.close()
        if found is None:
            raise UserError(self._unfinished(config))
        frozen = found["frozen"] or (abstract.frozen and self.frozen.read(abstract.frozen))
        params = found["params"] if weights == RAW else found["averages"][weights]
        return Variables(params=params, stats=found["stats"], frozen=frozen)

    def _same_model(self, config: FrozenConfigDict) -> None:
        before = self.config()
        if before is None:
            raise UserError(
                f"--workdir={self.path} holds no run (there is no config.json): "
                "train first, with --mode=train and the same --workdir."
            )
        self._readable()
        changed = differences(before, config.to_dict())
        bound = {k: v for k, v in changed.items() if k.startswith(_BOUND_IN_READING)}
        if bound:
            raise UserError(self._other_config(bound))

    def _unfinished(self, config: FrozenConfigDict) -> str:
        return (
            f"--workdir={self.path} holds no finished checkpoint yet: train on, at least to "
            f"train.save_every = {config.train.save_every}."
        )

    def _other_config(self, changed: dict[str, tuple]) -> str:
        shown = [f"{k} is {a!r} there and {b!r} here" for k, (a, b) in changed.items()]
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        return (
            f"--workdir={self.path} belongs to another config: {'; '.join(shown[:4])}{more}. "
            "Use the config it was made with, or another --workdir."
        )

    def _unwritable(self, why: str) -> str:
        return (
            f"--workdir={self.path} cannot be written ({why}): "
            "give a folder that you may write to."
        )


def announced(paths: Iterable[Path]) -> list[str]:
    """The paths of what a mode has made, for its report; the first process logs them."""
    found = [str(path) for path in paths]
    for path in found if is_first() else ():
        _log.info("Wrote %s", path)
    return found


def _named(step: int, changed: dict) -> str:
    """step_00001800_method=heun_steps=20: letters that every file system takes, and not too many of
    them."""
    parts = [f"step_{step:08d}"]
    for key, value in changed.items():
        plain = re.sub(r"[^\w.,+-]+", "-", str(value)).strip("-.")
        parts.append(f"{key}={plain}")
    name = "_".join(parts)
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}_{zlib.crc32(json.dumps(changed).encode()):08x}"


def _other_samples(folder: Path, asked: dict) -> str:
    """Why a folder is not that of a call with the settings that are asked for, "" where it may
    be."""
    file = folder / SAMPLE_SETTINGS
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return ""
    if not file.is_file():
        return f"is there and has no {SAMPLE_SETTINGS}"
    changed = differences(read_json(file).get("sample", {}), asked)
    said = [f"{key} = {before!r}" for key, (before, _) in changed.items()]
    return f"holds samples with {', '.join(said)}" if said else ""


def _be_latest(folder: Path) -> None:
    link, beside = folder.parent / LATEST, folder.parent / f".{LATEST}"
    copied = link.is_dir() and not link.is_symlink()
    if copied and not (link / SAMPLE_SETTINGS).is_file():
        _log.warning("%s is left as it is: it holds no samples.", link)
        return
    if copied:
        shutil.rmtree(link)
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder.name, target_is_directory=True)
        os.replace(beside, link)
    except OSError:  # not every file system has links
        beside.unlink(missing_ok=True)
        link.unlink(missing_ok=True)
        shutil.copytree(folder, link)
