"""`train.restart`: how a run without a good checkpoint starts over, and nothing of it is lost."""

import logging
import shutil
from pathlib import Path

from genzoo.core.errors import UserError
from genzoo.core.files import beside
from genzoo.train.checkpoint import Checkpoints

# What a run makes. The checkpoints come last, because they tell that a run must start over.
_MADE = (
    "frozen", "samples", "tensorboard", "wandb", "metrics.jsonl", "eval.json", "distances.png",
    "nearest.png", "diverged.json", "run.json", "report.html", "checkpoints",
)  # fmt: skip
_log = logging.getLogger("genzoo")


def start_over(folder: Path, checkpoints: Checkpoints) -> None:
    """Moves what the run in a workdir has made into `before-restart/` there, with a copy of its
    config, if it has checkpoints and none of them is good.

    With a good checkpoint it does nothing, so that the same command starts over and later resumes.
    """
    try:
        step = checkpoints.newest()
    except UserError as error:
        _log.warning("%s", str(error).partition(" Restore ")[0])
    else:
        if step is not None:
            _log.info("train.restart has no effect: the checkpoint of step %d is good.", step)
        return
    place = beside(folder / "checkpoints", "before-restart")
    place.mkdir()
    for file in folder.glob("*.json"):
        shutil.copy2(file, place / file.name)
    for name in _MADE:
        if (folder / name).exists():
            (folder / name).rename(place / name)
    _log.warning("Starting over at step 0. What the run had made is kept in %s.", place)
