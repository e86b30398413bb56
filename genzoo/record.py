"""What the newest checkpoint of a run says of it, beside `config.json` and `data.json`.

These two may be edited, lost or copied from elsewhere. The checkpoint has its own record of both,
under its checksums.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml_collections import FrozenConfigDict

from genzoo import kept
from genzoo.builders import datasets
from genzoo.check import fill
from genzoo.config import differences
from genzoo.core.errors import UserError
from genzoo.train.step_folders import ABOUT, StepFolders

# Keys that say what one call does, and not what the run is.
_OF_ONE_CALL = ("train.restart", "train.resume_from")
_log = logging.getLogger("genzoo")


def stored_form(config: FrozenConfigDict) -> dict:
    """A config as `config.json` has it: without the keys that are of one call."""
    stored = config.to_dict()
    for key in _OF_ONE_CALL:
        section, name = key.split(".")
        del stored[section][name]
    return stored


def in_todays_form(stored: dict, folder: Path, file: Path) -> dict:
    """The config that a file in the workdir `folder` holds, with defaults for newer keys. Raises
    UserError, which names the file."""
    try:
        return kept.redirected(folder, fill(stored))
    except UserError as error:
        raise UserError(*(f"{file}: {problem}" for problem in error.problems)) from error


@dataclass(frozen=True)
class Record:
    """The record of a checkpoint. file: that holds it. config: in today's form. data: what
    identifies the data set. Both are empty in checkpoints without them."""

    file: Path
    config: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)

    def differences(self, config: Mapping) -> dict[str, tuple]:
        """Dotted key -> (value in the record, value in `config`), where they differ."""
        return run_differences(self.config, config) if self.config else {}


def run_differences(one: Mapping, other: Mapping) -> dict[str, tuple]:
    """The `differences` of two configs of one run, without data sets that only moved: `data.json`
    knows whether the data are the same."""
    return {
        key: values
        for key, values in differences(one, other).items()
        if not (key.endswith("data.name") and datasets.only_moved(*values))
    }


def read_record(folder: Path) -> Record:
    """The record of the newest checkpoint in a workdir."""
    folders = StepFolders(folder / "checkpoints")
    step, about = folders.record() or (0, {})
    file = folders.path(step) / ABOUT
    config, data = (about.get(name) for name in ("config", "data"))
    try:
        config = in_todays_form(config, folder, file) if isinstance(config, dict) else {}
    except UserError as error:
        _log.warning("The config is not compared with that of the checkpoint: %s", error)
        config = {}
    return Record(file, config, dict(data) if isinstance(data, dict) else {})
