"""Reads the folder of a run for tests."""

import json
from pathlib import Path

import jax

from genzoo import check
from genzoo.experiment import Experiment
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir


def final_state(workdir: Path) -> TrainState:
    """The newest state in a workdir."""
    config = check.check(Workdir(workdir).config())
    return jax.device_get(Workdir(workdir).load(config, Experiment(config).abstract_state))


def metrics(workdir: Path, *names: str) -> list[list]:
    """The named values in every line of metrics.jsonl, None for missing ones."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [[json.loads(line).get(name) for name in names] for line in lines]
