"""Going back to an earlier checkpoint: `--config.train.resume_from=STEP`.

The checkpoints after that step are not deleted. They are renamed and named, as is what
`metrics.jsonl` says of the steps that will be done again.

The same command may be repeated after a kill. Checkpoints that were made since the run went back
are recognised by what they record, and are then not set aside: the run goes on from the newest.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from genzoo.core import strict_json
from genzoo.core.errors import UserError
from genzoo.core.files import beside
from genzoo.runtime.agreement import by_first
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.step_folders import LATER

_CHOICES = ("optimizer", "train.resume_from")
"""The settings that tell one attempt from another: with the same ones it would repeat itself."""
_log = logging.getLogger("genzoo")


def target(checkpoints: Checkpoints, config: Mapping) -> int | None:
    """The step to go back to, or None if the run goes on from its newest checkpoint.

    config: the resolved config as a plain dict. Raises UserError if there is no such checkpoint.
    """
    step = config["train"]["resume_from"]
    if not step:
        return None
    newest = checkpoints.folders.record()
    if newest and _attempt(newest[1].get("config")) == _attempt(config):
        return None
    steps = checkpoints.steps()
    if step not in steps:
        known = ", ".join(map(str, sorted(steps))) or "none"
        raise UserError(
            f"train.resume_from = {step}: {checkpoints.directory} has no checkpoint of this step; "
            f"it has {known}. Give one of them, or 0 for the newest."
        )
    return step


def _attempt(config: object) -> object:
    """The choices in a config, in a form that JSON does not change."""
    values = []
    for key in _CHOICES:
        value = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        values.append(value)
    return strict_json.loads(strict_json.dumps(values))


def go_back(checkpoints: Checkpoints, config: Mapping, metrics: Path) -> None:
    """Sets aside what comes after train.resume_from, so that the run resumes there. metrics: the
    file of the metrics. Raises UserError, and changes nothing, if there is no such checkpoint or it
    is damaged."""
    by_first(lambda: _go_back(checkpoints, config, metrics))


def _go_back(checkpoints: Checkpoints, config: Mapping, metrics: Path) -> None:
    step = target(checkpoints, config)
    if step is None:
        return
    if reason := checkpoints.damage(step):
        raise UserError(
            f"train.resume_from = {step}: the checkpoint in {checkpoints.folder(step)} is damaged "
            f"({reason}). Give another one of {', '.join(map(str, checkpoints.steps()))}."
        )
    later = [other for other in checkpoints.steps() if other > step]
    if later and metrics.is_file():  # first, because only the checkpoints tell what is to be done
        place = beside(metrics, f"{LATER}-{metrics.name}")
        shutil.copyfile(metrics, place)
        _log.warning("The metrics so far are kept in %s.", place)
    for other in later:
        checkpoints.folders.set_aside(other, LATER)
