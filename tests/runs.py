"""What tests ask of the folder of a run."""

import json
from pathlib import Path

import jax

from genzoo import check
from genzoo.experiment import Experiment
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir


def final_state(workdir: Path) -> TrainState:
    """The newest state in it."""
    found = check.check(Workdir(workdir).config())
    return jax.device_get(Workdir(workdir).load(found, Experiment(found).abstract_state))


def metrics(workdir: Path, *names: str) -> list[list]:
    """The named values of every line of its log, None for those that are not there."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [[json.loads(line).get(name) for name in names] for line in lines]
