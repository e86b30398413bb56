"""Pictures of how data becomes noise, under a model's schedule and under those of tables."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genzoo.builders.ddpm import SCHEDULES
from genzoo.config import write_json
from genzoo.data import transforms
from genzoo.data.fields import Points
from genzoo.evaluate import plane, strips
from genzoo.evaluate import schedules as noise
from genzoo.experiment import Experiment
from genzoo.math.schedules import Schedule, TableSchedule

_POINTS = 2000


def forward(experiment: Experiment, own: Schedule, folder: Path) -> Path:
    """Draws x_t over t, of one test image or of points, as `forward.png`. own: the schedule of the
    model."""
    named, path = compared(experiment, own), folder / "forward.png"
    source = experiment.open("test")
    if isinstance(experiment.x, Points):
        points = source.read(np.arange(min(len(source), _POINTS)))["x"]
        plane.save_forward(path, noise.noisy(named, points), noise.MOMENTS)
        return path
    image = transforms.to_float(source.read(np.arange(1))["x"])
    states = {
        name: np.asarray(transforms.to_uint8(each[:, 0].astype(np.float32)))
        for name, each in noise.noisy(named, np.asarray(image)).items()
    }
    strips.save_forward(path, states, noise.MOMENTS)
    return path


def schedules(experiment: Experiment, own: Schedule, folder: Path) -> Path:
    """Draws beta_t, alpha_bar_t and log-SNR over t as `schedule.png`, and writes the numbers as
    `schedule.json`."""
    curves = {name: noise.curves(each) for name, each in compared(experiment, own).items()}
    write_json(folder / "schedule.json", noise.plain(curves))
    path = folder / "schedule.png"
    noise.save(path, curves)
    return path


def compared(experiment: Experiment, own: Schedule) -> Mapping[str, Schedule]:
    """The model's own schedule, which comes first, and the others that a table may have."""
    settings, table = experiment.config.family, isinstance(own, TableSchedule)
    steps = own.steps if table else noise.STEPS
    name = settings.get("schedule", "") if table else settings.name
    others = {k: make(steps) for k, make in SCHEDULES.items() if k != name}
    return {f"{name} (own)": own, **others}
