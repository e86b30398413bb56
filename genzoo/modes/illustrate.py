"""Explanatory pictures, drawn by `--mode=sample` on request.

For images: how noise becomes data, the effect of guidance, how solvers differ, completion,
restoration. For points in the plane: the velocity field, the paths and the density. For both: how
data becomes noise, under every schedule. Each is a function of a Subject that writes one file into
the folder of the call.
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
from genzoo.builders.conditions import sources
from genzoo.builders.sampling import DiffusionSampling
from genzoo.builders.space import LATENT
from genzoo.config import freeze
from genzoo.core import streams
from genzoo.core.conditions import droppable
from genzoo.core.contract import Family, Likelihoods, Solution, Variables, conditions_of
from genzoo.core.errors import UserError, nearest
from genzoo.core.types import Array, Batch
from genzoo.data import transforms
from genzoo.data.fields import Field, Image, Points, Signal
from genzoo.evaluate import plane, strips
from genzoo.evaluate.figures import Row, save_rows
from genzoo.experiment import Experiment, sample_keys
from genzoo.math import gaussian, prediction
from genzoo.math.schedules import Schedule, TableSchedule
from genzoo.modes import forward_process, restored
from genzoo.requests import Requests
from genzoo.samplers.inpainting import Projection, RePaint, grey, masked
from genzoo.samplers.solver import at_times, start

_log = logging.getLogger("genzoo")

STEPS = (5, 10, 20, 50, 100)
"""Numbers of steps at which solvers are compared, with one program for all."""
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Guidance scales that are compared."""
PATHS = ("euler", "heun", "dpmpp_2m", "unipc", "ancestral", "dpmpp_2m_sde")
"""Solvers whose paths are drawn, with PATH_STEPS steps each."""
PATH_STEPS = 20
NOISE = (0.05, 0.25, 0.7, 2.5)
"""Noise levels at which a field is drawn: sigma / alpha, for data of order 1."""
_FLOW = sampling.ADAPTIVE  # the reference for the other solvers
_KNOWN = 8  # the most test images to complete
_SIDE, _FINE, _POINTS, _LINES, _LOOSE = 21, 64, 2000, 120, 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The subject of the pictures: a trained model. folder: for the files."""

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
        """The family's own keys in the section `sample`."""
        return build.sampling(self.experiment.config)

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule of the model."""
        return self.family.schedule_of(self.variables.params)

    def rows(self, count: int) -> Batch:
        """Random keys ("keys") and conditions of the first `count` samples of `--mode=sample`."""
        config, index = self.experiment.config, np.arange(count)
        return {
            "keys": sample_keys(config.sample.seed, jnp.asarray(index)),
            **self.requests.rows(index),
        }

    def solve(self, rows: Batch, **others) -> Solution:
        """The family's `solve`, compiled. others: its further arguments."""
        run = jax.jit(partial(_solved, self.requests, **others))
        return jax.device_get(run(self.variables, rows))

    def by_method(self, name: str, rows: Batch, counts: tuple[int, ...]) -> list[Solution]:
        """The solutions of a method from the same noise for each number of steps in `counts`, with
        one program."""
        own, schedule = self.settings, self.schedule
        table = isinstance(schedule, TableSchedule)
        grid = sampling.grid(replace(own, grid=_common(own.grid)), table=table)
        counts = [min(n, schedule.steps) if table else n for n in counts]
        variance = getattr(self.family, "variance", gaussian.FIXED_SMALL)
        method = sampling.method(replace(own, method=name), variance)

        @jax.jit
        def run(variables, rows, times, steps):
            return _solved(
                self.requests, variables, rows, sampler=at_times(method, times, steps)
            )

        solutions = []
        for count in counts:
            times = np.zeros(max(counts) + 1)
            times[: count + 1] = grid(schedule, count)
            solutions.append(jax.device_get(run(self.variables, rows, jnp.asarray(times), count)))
        return solutions


def _common(grid: str) -> str:
    # The only rule for tables that suits every number of steps.
    return "trailing" if grid == "uniform" else grid


def _solved(requests: Requests, variables: Variables, rows: Batch, **others) -> Solution:
    requested = {name: values for name, values in rows.items() if name != "keys"}
    conditions = requests.conditions(variables, requested)
    negative = requests.negative(variables, requested)
    return requests.family.solve(
        variables, rows["keys"], conditions, negative=negative, **others
    )


# --- images ---------------------------------------------------------------------------------------


def denoising(subject: Subject) -> Path:
    """x_t on its way from noise to data, above the x_0 predicted there."""
    rows = subject.rows(4)
    schedule = subject.schedule
    solution = subject.solve(rows, trajectory=True)
    times = subject.family.sampler(schedule).times
    path = subject.folder / "denoising.png"
    states = _bytes(_states(subject, times, rows, solution))
    strips.save_denoising(path, states, _bytes(solution.predicted), np.asarray(times))
    return path


def guidance(subject: Subject) -> Path:
    """One sample per class at several guidance scales, each from the same noise."""
    shown = min(subject.experiment.classes, 10)
    rows = {**subject.rows(shown), "label": jnp.arange(shown, dtype=jnp.int32)}
    run = jax.jit(lambda v, rows, scale: _solved(subject.requests, v, rows, guidance_scale=scale).x)
    images = [np.asarray(run(subject.variables, rows, jnp.float32(s))) for s in SCALES]
    path = subject.folder / "guidance.png"
    names = subject.experiment.open("test").spec.classes[:shown]
    strips.save_guidance(path, _bytes(np.stack(images)), SCALES, names)
    return path


def solvers(subject: Subject) -> Path:
    """Samples of every method at several numbers of steps, from the same noise, with their distance
    to the end point of the probability flow."""
    rows = subject.rows(4)
    names = list(sampling.METHODS)
    flow = sampling.sampler(replace(subject.settings, method=_FLOW), gaussian.FIXED_SMALL)
    reference = subject.solve(rows, sampler=flow)
    _log.info("%s: %.0f evaluations.", _FLOW, np.mean(reference.evaluations))
    images, evaluations = [], []
    for name in names:
        solutions = subject.by_method(name, rows, STEPS)
        images.append([_bytes(one.x) for one in solutions])
        evaluations.append([int(np.mean(one.evaluations)) for one in solutions])
        _log.info("%s: %s evaluations.", name, ", ".join(map(str, evaluations[-1])))
    path = subject.folder / "solvers.png"
    strips.save_solvers(path, images, names, STEPS, evaluations, _bytes(reference.x), _FLOW)
    return path


def inpainting(subject: Subject) -> Path:
    """Test images with the centre masked, and completions of them."""
    height, width, _ = subject.experiment.shape
    mask = np.ones((height, width, 1), bool)
    mask[height // 4 : -(height // 4), width // 4 : -(width // 4)] = False
    return _completed(subject, "inpainting.png", masked(mask))


def colourisation(subject: Subject) -> Path:
    """Test images without colour, and colourisations of them."""
    return _completed(subject, "colourisation.png", grey(subject.experiment.shape[-1]))


def restoration(subject: Subject) -> Path:
    """Conditions that are made from test images, and samples that restore the images."""

    def solve(variables: Variables, rows: Batch) -> Array:
        return _solved(subject.requests, variables, rows).x

    return restored.picture(subject.requests, subject.variables, subject.folder, solve)


def forward(subject: Subject) -> Path:
    """x_t over t under the model's schedule and those of tables."""
    return forward_process.forward(subject.experiment, subject.schedule, subject.folder)


def schedule(subject: Subject) -> Path:
    """beta_t, alpha_bar_t and log-SNR over t under the same schedules."""
    return forward_process.schedules(subject.experiment, subject.schedule, subject.folder)


def _completed(subject: Subject, name: str, project: Projection) -> Path:
    """Rows of test images, their known part, and two completions of each."""
    source = subject.experiment.open("test")
    count = min(_KNOWN, len(source))
    records = source.read(np.arange(count))
    known = transforms.to_float(records["x"])
    schedule = subject.schedule
    own = subject.family.sampler(schedule)
    conditions = {name: records[name] for name in subject.requests.fields}

    def make(schedule):
        step = RePaint(
            schedule=schedule, step=own.step, known=known, project=project,
            resample=subject.settings.resample,
        )  # fmt: skip
        return replace(own, step=step)

    rows = [
        Row(images=records["x"], label="test image"),
        Row(images=_bytes(project(known)), label="known part"),
    ]
    for first in (0, count):
        own_keys = {k: v[first:] for k, v in subject.rows(first + count).items()}
        solution = subject.solve({**own_keys, **conditions}, sampler=make)
        rows.append(Row(images=_bytes(solution.x), label="completed"))
    save_rows(subject.folder / name, rows)
    return subject.folder / name


# --- points ---------------------------------------------------------------------------------------


def field(subject: Subject) -> Path:
    """The velocity of the flow at several times, over the noisy points that it moves."""
    points = _points(subject)
    schedule = subject.schedule
    rows = subject.rows(1)
    eps = np.random.default_rng(0).normal(size=points.shape)
    times = np.asarray(schedule.time_of_logsnr(-2 * jnp.log(jnp.asarray(NOISE))))
    noisy = [np.asarray(gaussian.q_sample(schedule, points, jnp.float32(t), eps)) for t in times]
    positions = plane.places(plane.frame(np.concatenate(noisy)), _SIDE)
    flat = jnp.asarray(positions.reshape(-1, 2), jnp.float32)
    first = {name: jnp.asarray(rows[name][:1]) for name in ("index", *subject.requests.fields)}
    requested = {name: jnp.repeat(value, len(flat), 0) for name, value in first.items()}

    @jax.jit
    def velocity(variables, t):
        conditions = subject.requests.conditions(variables, requested)
        predicted = subject.family.predictor(variables, conditions)(flat, t)
        return prediction.VELOCITY.from_pair(predicted.pair, schedule, t)

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
        solution = subject.solve(rows, sampler=make, trajectory=True)
        paths.append(_states(subject, make(schedule).times, rows, solution))
        evaluations.append(int(solution.evaluations[0]))
    path = subject.folder / "trajectories.png"
    plane.save_trajectories(path, PATHS, paths, evaluations)
    return path


def density(subject: Subject) -> Path:
    """The log density under the probability flow, beside the exact one."""
    mixture = subject.experiment.exact_density
    box = plane.frame(_points(subject), margin=0.2)
    places = plane.places(box, _FINE)
    flat = jnp.asarray(places.reshape(-1, 2), jnp.float32)
    keys = streams.per_example(streams.root(0), jnp.arange(len(flat)))
    batch = {"x": flat}
    family, config = subject.family, subject.experiment.config.to_dict()
    if "tolerance" in config["eval"]:  # a picture needs no smaller tolerance
        config["eval"] |= {"tolerance": _LOOSE}
        family = build.family(freeze(config))
    run = jax.jit(lambda variables: family.likelihood(variables, batch, keys).total)
    model = -np.asarray(run(subject.variables)).reshape(places.shape[:2])
    exact = np.asarray(mixture.log_density(flat)).reshape(places.shape[:2])
    path = subject.folder / "density.png"
    error = plane.save_densities(path, exact, model, box)
    _log.info("Log density: mean absolute error %.3g nats.", error)
    return path


Picture = Callable[[Subject], Path]
OF_IMAGES: Mapping[str, Picture] = {
    "denoising": denoising,
    "guidance": guidance,
    "solvers": solvers,
    "inpainting": inpainting,
    "colourisation": colourisation,
    "restoration": restoration,
    "forward": forward,
    "schedule": schedule,
}
OF_POINTS: Mapping[str, Picture] = {
    "field": field,
    "trajectories": trajectories,
    "density": density,
    "forward": forward,
    "schedule": schedule,
}
OF_SIGNALS: Mapping[str, Picture] = {"schedule": schedule}
PICTURES: Mapping[type[Field], Mapping[str, Picture]] = {
    Image: OF_IMAGES, Points: OF_POINTS, Signal: OF_SIGNALS,
}  # fmt: skip
"""Kind of data -> its pictures by name."""
_NOISY = {"denoising", "inpainting", "colourisation", "forward", "field", "trajectories", "density"}


def chosen(experiment: Experiment) -> list[Picture]:
    """The pictures named in sample.pictures. Raises UserError if one is unknown or impossible."""
    known = PICTURES.get(type(experiment.drawn), {})
    settings, family = build.sampling(experiment.config), experiment.family
    names = [n.strip() for n in getattr(settings, "pictures", "").split(",") if n.strip()]
    problems = []
    for name in names:
        if name not in known:
            problems.append(f"{name!r} is unknown: {nearest(name, known)}")
    latent = experiment.config.space.name == LATENT
    for name in _NOISY & set(names) if latent else ():
        problems.append(f"{name} needs noisy data, but the noise is in the latents: leave it out.")
    adaptive = getattr(settings, "method", "") == sampling.ADAPTIVE
    for name in {"denoising", "inpainting", "colourisation"} & set(names) if adaptive else ():
        problems.append(
            f"{name} is drawn step by step, but {sampling.ADAPTIVE} chooses its own steps for each "
            "image: set another sample.method."
        )
    if "guidance" in names and "label" not in droppable(conditions_of(family)):
        problems.append(
            "guidance needs a model that was trained with labels, some of them dropped "
            "(conditions.label.dropout)."
        )
    if "restoration" in names and "x" not in sources(experiment.config.conditions).values():
        problems.append(
            "restoration needs a condition that is made from x, such as a smaller copy "
            "(conditions.low.of = 'x'): leave it out, or train with one."
        )
    if "colourisation" in names and experiment.shape[-1] == 1:
        problems.append("colourisation needs colour images, but these are grey: leave it out.")
    if "density" in names and not (experiment.exact_density and isinstance(family, Likelihoods)):
        problems.append(
            "density needs data with a known density, such as swissroll, and a model with a "
            "likelihood: leave it out."
        )
    if "density" in names and conditions_of(family):
        problems.append("density needs a model without conditions: leave it out.")
    if problems:
        raise UserError(*(f"sample.pictures: {problem}" for problem in problems))
    return [known[name] for name in names]


def _points(subject: Subject) -> np.ndarray:
    source = subject.experiment.open("train")
    return source.read(np.arange(min(len(source), _POINTS)))["x"]


def _states(subject: Subject, times: Array, rows: Batch, solution: Solution) -> np.ndarray:
    """[S + 1, N, ...]: the initial noise and the states, all at unit scale: x_t /
    sqrt(alpha^2 + sigma^2)."""
    schedule, times = subject.schedule, jnp.asarray(times)
    first = start(schedule, times[0], streams.fold(rows["keys"], 0), subject.family.shape)
    path = np.concatenate([np.asarray(first)[None], solution.states])
    scale = np.asarray(jnp.hypot(schedule.alpha(times), schedule.sigma(times)))
    return path / scale.reshape(-1, *(1,) * (path.ndim - 1))


def _bytes(images: np.ndarray) -> np.ndarray:
    return np.asarray(transforms.to_uint8(np.asarray(images)))
