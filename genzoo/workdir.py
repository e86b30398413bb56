"""The folder of one run: `config.json`, `metrics.jsonl`, `checkpoints/`, `samples/`, `eval.json`.

A workdir belongs to one config. Training in it with another one, or reading it with one that makes
another model, is refused before anything is written.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import jax
from ml_collections import FrozenConfigDict

from genzoo.config import differences, load, write_json
from genzoo.core.errors import UserError
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.state import TrainState

# What may change between a run and its continuation: how long, how often, where; not what.
_FREE_IN_TRAINING = (
    "sample.", "eval.", "mesh.", "bench.", "data.dir", "train.steps", "train.steps_per_call",
    "train.log_every", "train.save_every", "train.keep", "train.keep_every",
    "train.picture_first", "train.picture_count",
)  # fmt: skip
# What a checkpoint's arrays depend on.
_BOUND_IN_READING = ("family.", "network.", "data.name", "data.size", "data.channels")


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
        """The config of the run in this folder, as it was resolved."""
        file = self.path / "config.json"
        return load(str(file)) if file.is_file() else None

    def check(self, config: FrozenConfigDict) -> None:
        """Raises UserError when the folder cannot be written or belongs to another config. Writes
        nothing: what else may be wrong is looked at before the folder is claimed."""
        place = self.path.absolute()
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise UserError(self._unwritable(f"{place} is a file"))
        if not os.access(place, os.W_OK):
            raise UserError(self._unwritable(f"no permission in {place}"))
        before = self.config()
        if before is not None:
            changed = differences(before, config.to_dict())
            bound = {k: v for k, v in changed.items() if not k.startswith(_FREE_IN_TRAINING)}
            if bound:
                raise UserError(self._other_config(bound))

    def claim(self, config: FrozenConfigDict) -> None:
        """Makes the folder this config's."""
        self.check(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                write_json(self.path / "config.json", config.to_dict())
        except OSError as error:
            raise UserError(self._unwritable(error.strerror)) from error

    def write(self, name: str, value: dict) -> None:
        """A JSON file in the folder, by the first process."""
        try:
            if jax.process_index() == 0:
                write_json(self.path / name, value)
        except OSError as error:
            raise UserError(self._unwritable(error.strerror)) from error

    def clear_samples(self) -> None:
        """Removes the numbered samples of an earlier call, so that none is taken for a new one."""
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                for file in self.samples.iterdir():
                    if re.fullmatch(r"\d{6,}\.png|samples\.npz|grid\.png", file.name):
                        os.unlink(file)
        except OSError as error:
            raise UserError(self._unwritable(error.strerror)) from error

    def checkpoints(self, *, keep: int, keep_every: int = 0) -> Checkpoints:
        """The checkpoints in the folder."""
        return Checkpoints(directory=self.path / "checkpoints", keep=keep, keep_every=keep_every)

    def load(self, config: FrozenConfigDict, abstract: TrainState) -> TrainState:
        """The newest good state, for use by a config that makes the same model."""
        before = self.config()
        if before is None:
            raise UserError(
                f"--workdir={self.path} holds no run (there is no config.json): "
                "train first, with --mode=train and the same --workdir."
            )
        changed = differences(before, config.to_dict())
        bound = {k: v for k, v in changed.items() if k.startswith(_BOUND_IN_READING)}
        if bound:
            raise UserError(self._other_config(bound))
        checkpoints = self.checkpoints(keep=config.train.keep)
        state = checkpoints.restore(abstract)
        checkpoints.close()
        if state is None:
            raise UserError(
                f"--workdir={self.path} holds no finished checkpoint yet: train on, at least to "
                f"train.save_every = {config.train.save_every}."
            )
        return state

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
