"""Pictures that teach, drawn by `--mode=sample` on request: how noise becomes data, what guidance
does, how solvers differ, and for points in the plane the field, the paths and the density.

Each is a function of (Subject) that writes one file into the folder of the call.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from genzoo import build
from genzoo.builders import sampling
from genzoo.builders.sampling import DiffusionSampling
from genzoo.config import freeze
from genzoo.core import streams
from genzoo.core.conditions import droppable
from genzoo.core.contract import Family, Likelihoods, Solution, Variables, conditions_of
from genzoo.core.errors import UserError, nearest
from genzoo.core.types import Array, Batch
from genzoo.data import transforms
from genzoo.data.fields import Field, Image, Points
from genzoo.evaluate import plane, strips
from genzoo.evaluate.figures import Row, save_rows
from genzoo.experiment import Experiment, sample_keys
from genzoo.math import gaussian, prediction
from genzoo.math.schedules import Schedule, TableSchedule
from genzoo.requests import Requests
from genzoo.samplers.inpainting import Projection, RePaint, grey, masked
from genzoo.samplers.loop import Sampler
from genzoo.samplers.solver import start

_log = logging.getLogger("genzoo")

STEPS = (5, 10, 20, 50, 100)
"""Numbers of steps at which solvers are compared: one program serves them all."""
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Guidance scales that are compared."""
PATHS = ("euler", "heun", "dpmpp_2m", "unipc", "ancestral", "dpmpp_2m_sde")
"""Solvers whose paths are drawn, with so many steps:"""
PATH_STEPS = 20
NOISE = (0.05, 0.25, 0.7, 2.5)
"""Where a field is drawn: sigma / alpha, of data of order 1."""
_FLOW = sampling.ADAPTIVE  # what the others are compared with
_KNOWN = 8  # test images that are completed
_SIDE, _FINE, _POINTS, _LINES, _LOOSE = 21, 64, 2000, 120, 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """What pictures are drawn of: a trained model and what it was trained on."""

    requests: Requests
    variables: Variables
    folder: Path

    @property
    def experiment(self) -> Experiment:
        """The run."""
        return self.requests.experiment

    @property
    def family(self) -> Family:
        """The model, with its guides."""
        return self.requests.family

    @cached_property
    def settings(self) -> DiffusionSampling:
        """The keys of section `sample` that are the family's own."""
        return build.sampling(self.experiment.config)

    @cached_property
    def schedule(self) -> Schedule:
        """The model's."""
        return self.family.schedule_of(self.variables.params)

    def rows(self, count: int) -> Batch:
        """(keys, condition) of the first `count` samples of `--mode=sample`."""
        config, index = self.experiment.config, np.arange(count)
        return {
            "keys": sample_keys(config.sample.seed, jnp.asarray(index)),
            **self.requests.rows(index),
        }

    def solve(self, rows: Batch, **others) -> Solution:
        """The family's solve, compiled."""
        run = jax.jit(partial(_solved, self.requests, **others))
        return jax.device_get(run(self.variables, rows))

    def by_method(self, name: str, rows: Batch, counts: tuple[int, ...]) -> list[Solution]:
        """What a method gives with so many steps each, from the same noise: one program."""
        own, schedule = self.settings, self.schedule
        table = isinstance(schedule, TableSchedule)
        grid = sampling.grid(replace(own, grid=_common(own.grid)), table=table)
        counts = [min(n, schedule.steps) if table else n for n in counts]
        variance = getattr(self.family, "variance", gaussian.FIXED_SMALL)

        @jax.jit
        def run(variables, rows, times, steps):
            def make(schedule):
                step = sampling.METHODS[name](schedule, own, variance)
                return Sampler(step=step, times=times, steps=steps)

            return _solved(self.requests, variables, rows, sampler=make)

        found = []
        for count in counts:
            times = np.zeros(max(counts) + 1)
            times[: count + 1] = grid(schedule, count)
            found.append(jax.device_get(run(self.variables, rows, jnp.asarray(times), count)))
        return found


def _common(grid: str) -> str:
    # Of the rules of tables only this one is fit for every number of steps.
    return "trailing" if grid == "uniform" else grid


def _solved(requests: Requests, variables: Variables, rows: Batch, **others) -> Solution:
    asked = {name: values for name, values in rows.items() if name != "keys"}
    conditions = requests.conditions(variables, asked)
    negative = requests.negative(variables, asked)
    return requests.family.solve(
        variables, rows["keys"], conditions, negative=negative, **others
    )


# --- images ---------------------------------------------------------------------------------------


def denoising(subject: Subject) -> Path:
    """What x_t is on its way from noise to data, over the x_0 predicted there."""
    rows = subject.rows(4)
    schedule = subject.schedule
    found = subject.solve(rows, trajectory=True)
    times = subject.family.sampler(schedule).times
    path = subject.folder / "denoising.png"
    states = _bytes(_states(subject, times, rows, found))
    strips.save_denoising(path, states, _bytes(found.predicted), np.asarray(times))
    return path


def guidance(subject: Subject) -> Path:
    """One noise per class at several guidance scales."""
    shown = min(subject.experiment.classes, 10)
    rows = {**subject.rows(shown), "label": jnp.arange(shown, dtype=jnp.int32)}
    run = jax.jit(lambda v, rows, scale: _solved(subject.requests, v, rows, guidance_scale=scale).x)
    images = [np.asarray(run(subject.variables, rows, jnp.float32(s))) for s in SCALES]
    path = subject.folder / "guidance.png"
    names = subject.experiment.open("test").spec.classes[:shown]
    strips.save_guidance(path, _bytes(np.stack(images)), SCALES, names)
    return path


def solvers(subject: Subject) -> Path:
    """Every method at several numbers of steps, from one noise, with the distance to where the
    flow ends."""
    rows = subject.rows(4)
    names = list(sampling.METHODS)
    flow = sampling.sampler(replace(subject.settings, method=_FLOW), gaussian.FIXED_SMALL)
    reference = subject.solve(rows, sampler=flow)
    _log.info("%s: %.0f evaluations.", _FLOW, np.mean(reference.evaluations))
    images, evaluations = [], []
    for name in names:
        found = subject.by_method(name, rows, STEPS)
        images.append([_bytes(one.x) for one in found])
        evaluations.append([int(np.mean(one.evaluations)) for one in found])
        _log.info("%s: %s evaluations.", name, ", ".join(map(str, evaluations[-1])))
    path = subject.folder / "solvers.png"
    strips.save_solvers(path, images, names, STEPS, evaluations, _bytes(reference.x), _FLOW)
    return path


def inpainting(subject: Subject) -> Path:
    """Test images of which the middle is hidden, and what is made of them."""
    height, width, _ = subject.experiment.shape
    mask = np.ones((height, width, 1), bool)
    mask[height // 4 : -(height // 4), width // 4 : -(width // 4)] = False
    return _completed(subject, "inpainting.png", masked(mask))


def colourisation(subject: Subject) -> Path:
    """Test images without their colours, and what is made of them."""
    return _completed(subject, "colourisation.png", grey(subject.experiment.shape[-1]))


def _completed(subject: Subject, name: str, project: Projection) -> Path:
    """Rows of test images, what is known of them, and two ways to complete each."""
    source = subject.experiment.open("test")
    records = source.read(np.arange(_KNOWN))
    known = transforms.to_float(records["x"])
    schedule = subject.schedule
    own = subject.family.sampler(schedule)
    asked = {name: records[name] for name in subject.requests.fields}

    def make(schedule):
        step = RePaint(
            schedule=schedule, step=own.step, known=known, project=project,
            resample=subject.settings.resample,
        )  # fmt: skip
        return replace(own, step=step)

    rows = [
        Row(images=records["x"], label="test image"),
        Row(images=_bytes(project(known)), label="what is known"),
    ]
    for first in (0, _KNOWN):
        mine = {k: v[first:] for k, v in subject.rows(first + _KNOWN).items()}
        found = subject.solve({**mine, **asked}, sampler=make)
        rows.append(Row(images=_bytes(found.x), label="completed"))
    save_rows(subject.folder / name, rows)
    return subject.folder / name


# --- points ---------------------------------------------------------------------------------------


def field(subject: Subject) -> Path:
    """The velocity of the flow at several times, over the noisy points it acts on."""
    points = _points(subject)
    schedule = subject.schedule
    rows = subject.rows(1)
    eps = np.random.default_rng(0).normal(size=points.shape)
    times = np.asarray(schedule.time_of_logsnr(-2 * jnp.log(jnp.asarray(NOISE))))
    noisy = [np.asarray(gaussian.q_sample(schedule, points, jnp.float32(t), eps)) for t in times]
    positions = plane.places(plane.frame(np.concatenate(noisy)), _SIDE)
    flat = jnp.asarray(positions.reshape(-1, 2), jnp.float32)
    first = {name: jnp.asarray(rows[name][:1]) for name in subject.requests.fields}
    asked = {name: jnp.repeat(value, len(flat), 0) for name, value in first.items()}

    @jax.jit
    def velocity(variables, t):
        conditions = subject.requests.conditions(variables, asked)
        seen = subject.family.predictor(variables, conditions)(flat, t)
        return prediction.VELOCITY.from_pair(prediction.Pair(seen.x_0, seen.eps), schedule, t)

    vectors = [np.asarray(velocity(subject.variables, jnp.float32(t))) for t in times]
    path = subject.folder / "field.png"
    shaped = np.stack(vectors).reshape(len(times), *positions.shape)
    plane.save_field(path, positions, shaped, times, np.stack(noisy), name="velocity")
    return path


def trajectories(subject: Subject) -> Path:
    """The paths of several solvers from the same noise."""
    rows = subject.rows(_LINES)
    schedule = subject.schedule
    paths, evaluations = [], []
    for name in PATHS:
        settings = replace(subject.settings, method=name, steps=PATH_STEPS)
        table = schedule if isinstance(schedule, TableSchedule) else None
        make = sampling.sampler(settings, gaussian.FIXED_SMALL, table=table)
        found = subject.solve(rows, sampler=make, trajectory=True)
        paths.append(_states(subject, make(schedule).times, rows, found))
        evaluations.append(int(found.evaluations[0]))
    path = subject.folder / "trajectories.png"
    plane.save_trajectories(path, PATHS, paths, evaluations)
    return path


def density(subject: Subject) -> Path:
    """The log density by the flow, beside the exact one."""
    mixture = subject.experiment.exact_density
    box = plane.frame(_points(subject), margin=0.2)
    places = plane.places(box, _FINE)
    flat = jnp.asarray(places.reshape(-1, 2), jnp.float32)
    keys = streams.per_example(streams.root(0), jnp.arange(len(flat)))
    batch = {"x": flat}
    family, config = subject.family, subject.experiment.config.to_dict()
    if "tolerance" in config["eval"]:  # finer than a picture shows is not worth the time
        config["eval"] |= {"tolerance": _LOOSE}
        family = build.family(freeze(config))
    run = jax.jit(lambda variables: family.likelihood(variables, batch, keys).total)
    model = -np.asarray(run(subject.variables)).reshape(places.shape[:2])
    exact = np.asarray(mixture.log_density(flat)).reshape(places.shape[:2])
    path = subject.folder / "density.png"
    error = plane.save_densities(path, exact, model, box)
    _log.info("Log density: on average %.3g nats from the exact one.", error)
    return path


Picture = Callable[[Subject], Path]
OF_IMAGES: Mapping[str, Picture] = {
    "denoising": denoising,
    "guidance": guidance,
    "solvers": solvers,
    "inpainting": inpainting,
    "colourisation": colourisation,
}
OF_POINTS: Mapping[str, Picture] = {
    "field": field,
    "trajectories": trajectories,
    "density": density,
}
PICTURES: Mapping[type[Field], Mapping[str, Picture]] = {Image: OF_IMAGES, Points: OF_POINTS}
"""By the kind of data."""


def chosen(experiment: Experiment) -> list[Picture]:
    """The pictures that sample.pictures names. Raises UserError."""
    known = PICTURES.get(type(experiment.x), {})
    settings, family = build.sampling(experiment.config), experiment.family
    names = [n.strip() for n in getattr(settings, "pictures", "").split(",") if n.strip()]
    problems = []
    for name in names:
        if name not in known:
            problems.append(f"{name!r} is unknown: {nearest(name, known)}")
    adaptive = getattr(settings, "method", "") == sampling.ADAPTIVE
    for name in {"denoising", "inpainting", "colourisation"} & set(names) if adaptive else ():
        problems.append(
            f"{name} is drawn step by step, and {sampling.ADAPTIVE} takes steps of its own for "
            "each image: choose another sample.method."
        )
    if "guidance" in names and "label" not in droppable(conditions_of(family)):
        problems.append(
            "guidance needs a model that was trained with labels, some of them dropped "
            "(conditions.label.dropout)."
        )
    if "colourisation" in names and experiment.shape[-1] == 1:
        problems.append("colourisation needs images in colour; these are grey.")
    if "density" in names and not (experiment.exact_density and isinstance(family, Likelihoods)):
        problems.append("density needs data of a known density, such as swissroll.")
    if "density" in names and conditions_of(family):
        problems.append("density is that of all data together, and this model is told classes.")
    if problems:
        raise UserError(*(f"sample.pictures: {problem}" for problem in problems))
    return [known[name] for name in names]


def _points(subject: Subject) -> np.ndarray:
    source = subject.experiment.open("train")
    return source.read(np.arange(min(len(source), _POINTS)))["x"]


def _states(subject: Subject, times: Array, rows: Batch, found: Solution) -> np.ndarray:
    """[S + 1, N, ...]: the states with the noise that they set out from, all at unit scale: x_t /
    sqrt(alpha^2 + sigma^2)."""
    schedule, times = subject.schedule, jnp.asarray(times)
    first = start(schedule, times[0], streams.fold(rows["keys"], 0), subject.family.shape)
    path = np.concatenate([np.asarray(first)[None], found.states])
    scale = np.asarray(jnp.hypot(schedule.alpha(times), schedule.sigma(times)))
    return path / scale.reshape(-1, *(1,) * (path.ndim - 1))


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.asarray(transforms.to_uint8(np.asarray(images)))
