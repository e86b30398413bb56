"""Distances between a model's samples and its data, which `--mode=eval` measures on request.

Samples are drawn as `--mode=sample` draws them, with the settings of the run or, for eval.steps and
eval.guidance, at several numbers of steps and guidance scales, which one compiled program serves.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.builders import sampling
from genzoo.core import named_arrays, tree
from genzoo.core.conditions import droppable
from genzoo.core.contract import Family, Variables, conditions_of
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch
from genzoo.data.fields import Image
from genzoo.evaluate import figures
from genzoo.evaluate.distances import FID, METRICS, Closest, Distance, FeatureSet, parsed
from genzoo.evaluate.sweeps import Point, save_sweep
from genzoo.experiment import Experiment, require, require_kind, variables_of
from genzoo.math import gaussian
from genzoo.math.schedules import TableSchedule
from genzoo.modes.rulers import Ruler, rulers_of
from genzoo.modes.sample import Drawn, draw, sample_batch
from genzoo.requests import Requests
from genzoo.runs import for_sampling
from genzoo.runtime.agreement import by_first
from genzoo.runtime.progress import Progress, waiting
from genzoo.samplers.grids import stop
from genzoo.samplers.solver import at_times
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir

_PROTOCOL = ("method", "grid", "steps", "guidance_scale", "weights", "seed", "clip", "classifier",
             "classifier_scale", "guide")  # fmt: skip
"""Keys of `sample` that a protocol names, as far as the family has them. It names other ones only
if they are not at their defaults."""
_NOT_IN_PROTOCOL = frozenset(("count", "batch_size", "npz", "into", "pictures", "unroll"))
"""Keys of `sample` on which no sample depends."""
_FID_SAMPLES = 10_000  # with fewer, FID is not comparable


class Measured(NamedTuple):
    """report: see `Measurement.report`. files: the pictures."""

    report: list[dict[str, dict]]
    files: list[Path]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings at which distances are measured; None for those of the run."""

    steps: int | None = None
    guidance: float | None = None
    classifier_scale: float | None = None

    def __str__(self) -> str:
        parts = {
            "steps": self.steps, "guidance": self.guidance,
            "classifier scale": self.classifier_scale,
        }  # fmt: skip
        return ", ".join(f"{name} {v:g}" for name, v in parts.items() if v is not None)


@dataclass(kw_only=True, eq=False)
class Measurement:
    """The distances of eval.distances for one model.

    rulers: what the distances in each network need, by its name. family, variables: of the model
    that samples, perhaps with guides. step: of its training.
    closest: for `copies`, the samples of the first setting that are nearest to training images.
    """

    experiment: Experiment
    rulers: Mapping[str, Ruler]
    family: Family
    variables: Variables
    step: int
    closest: dict[str, Closest] = field(default_factory=dict)
    _programs: dict[bool, dict] = field(default_factory=lambda: {False: {}, True: {}})

    @cached_property
    def _named(self) -> list[Distance]:
        return parsed(self.experiment.config.eval.distances)

    @property
    def scale(self) -> str:
        """The key of the scale of guidance that varies between settings, if one does."""
        swept = self.experiment.config.eval.classifier_scale
        return "classifier_scale" if swept else "guidance_scale"

    def report(self) -> list[dict[str, dict]]:
        """For each setting: name of a distance -> its numbers, floor, ceiling and protocol."""
        settings = self.experiment.config.eval
        return [
            self.at(Setting(steps=steps, guidance=scale, classifier_scale=slope))
            for steps in settings.steps or (None,)
            for scale in settings.guidance or (None,)
            for slope in settings.classifier_scale or (None,)
        ]

    def at(self, setting: Setting) -> dict[str, dict]:
        """The distances at one setting."""
        started, evaluations = time.perf_counter(), []
        sets = {name: FeatureSet(keep=ruler.keep) for name, ruler in self.rulers.items()}
        count, unit = self.experiment.config.eval.samples, self.experiment.unit
        requests = Requests(experiment=self.experiment, family=self.family)
        self._require_classes(requests, count)
        closest = self._closest()
        title = f"sampling, {setting}" if str(setting) else "sampling"
        with Progress(count, title, unit) as bar:
            for drawn in self._drawn(requests, setting, count):
                for name, ruler in self.rulers.items():
                    features, logits = ruler.network.outputs(drawn.images)
                    sets[name].add(features, logits, drawn.requested.get("label"))
                    if name in closest:
                        closest[name].add(drawn.images, features)
                evaluations.append(drawn.evaluations)
                bar.update(len(drawn.images))
        counted = np.concatenate(evaluations)
        sampling = self._sampling(setting)
        if len(counted):
            sampling["evaluations"] = round(float(counted[:, 0].mean()), 1)
        sampling["seconds"] = round(time.perf_counter() - started, 1)
        report = {}
        for one in self._named:
            ruler = self.rulers[one.network]
            protocol = {"protocol": {**ruler.protocol(one, count), "sampling": sampling}}
            with waiting(f"Computing {one} of {count:,} samples."):
                numbers = ruler.measure(one, sets[one.network])
            if str(one) == FID and count < _FID_SAMPLES:
                numbers["comparable"] = False
            report[ruler.called(one, count)] = numbers | protocol
        self.closest = self.closest or closest
        return report

    def _require_classes(self, requests: Requests, count: int) -> None:
        """Raises UserError if a distance needs a class of every sample and some have none."""
        wanting = [str(one) for one in self._named if METRICS[one.metric].labels]
        if wanting and not requests.classed({"index": np.arange(count)}).all():
            raise UserError(
                f"eval.distances: {wanting[0]} needs a class of every sample: give one with "
                "sample.conditions.label, or all for all classes in turn."
            )

    def _closest(self) -> dict[str, Closest]:
        """For the picture of samples and their nearest training images, by network."""
        copies = [one.network for one in self._named if one.metric == "copies"]
        return {name: Closest(train=self.rulers[name].real.train.features) for name in copies}

    def _sampling(self, setting: Setting) -> dict:
        own = self.experiment.config.sample
        chosen = {name: own[name] for name in _PROTOCOL if own.get(name) not in (None, "")}
        config = self.experiment.config
        for one in (*fields(build.section(config, "sample")), *fields(build.sampling(config))):
            if one.name not in {*_PROTOCOL, *_NOT_IN_PROTOCOL}:
                value = own[one.name]
                value = value.to_dict() if isinstance(value, FrozenConfigDict) else value
                usual = {} if one.default is MISSING else one.default
                if value != usual:
                    chosen[one.name] = value
        if not own.get("classifier"):
            chosen.pop("classifier_scale", None)
        given = {
            "steps": setting.steps, "guidance_scale": setting.guidance,
            "classifier_scale": setting.classifier_scale,
        }  # fmt: skip
        given = {k: v for k, v in given.items() if v is not None}
        return {"step": self.step, **chosen, **given, **self._guides}

    @cached_property
    def _guides(self) -> dict[str, str]:
        """The hashes of the params of a guide and a classifier."""
        frozen = {name: self.variables.frozen.get(name) for name in sampling.STEERING}
        return {
            f"{name}_hash": named_arrays.digest(jax.device_get(tree.by_path(one["params"])))
            for name, one in frozen.items()
            if one is not None
        }

    def _drawn(self, requests: Requests, setting: Setting, count: int) -> Iterator[Drawn]:
        if setting == Setting():
            return draw(requests, self.variables, self._programs[False], count)
        settings = {}
        if setting.guidance is not None:
            settings["guidance"] = np.float32(setting.guidance)
        if setting.classifier_scale is not None:
            settings["classifier_scale"] = np.float32(setting.classifier_scale)
        if setting.steps is not None:
            settings |= self._times(setting.steps)
        return draw(
            requests, self.variables, self._programs[True], count, function=_at, settings=settings
        )

    def _times(self, steps: int) -> dict[str, np.ndarray]:
        """The times of that many steps, padded to the most steps of all settings."""
        own, schedule = build.sampling(self.experiment.config), self._schedule
        most = max(self.experiment.config.eval.steps)
        table = isinstance(schedule, TableSchedule)
        grid = sampling.grid(own, table=table)
        visited = grid(schedule, steps, stop(schedule, own.last_sigma))
        times = np.zeros(most + 1, np.float32)
        times[: len(visited)] = visited
        return {"times": times, "steps": np.int32(len(visited) - 1)}

    @cached_property
    def _schedule(self):
        return self.family.schedule_of(self.variables.params)


def _at(requests: Requests, variables: Variables, rows: Batch) -> dict[str, Array]:
    """`sample_batch` with the rows' own number of steps and scales, as far as they have any. All
    rows of a batch have the same steps."""
    own, family = build.sampling(requests.experiment.config), requests.family
    others = {}
    if "times" in rows:
        method = sampling.method(own, getattr(family, "variance", gaussian.FIXED_SMALL))
        others["sampler"] = at_times(method, rows["times"][0], rows["steps"][0])
    if "classifier_scale" in rows:
        guidance = replace(family.guidance, classifier_scale=rows["classifier_scale"])
        requests = replace(requests, family=replace(family, guidance=guidance))
    if "guidance" in rows:
        others["guidance_scale"] = rows["guidance"]
    return sample_batch(requests, variables, rows, **others)


def check(experiment: Experiment) -> dict[str, Ruler]:
    """The ruler of each network that eval.distances names. Raises UserError unless these distances
    can be measured for this run."""
    config, settings = experiment.config, experiment.config.eval
    require(experiment.family, config.family.name, "sample", "eval", "eval.distances")
    require_kind(experiment, (Image,), "eval", "measures distances of images")
    problems = []
    solver = config.sample.get("method")
    steered = config.sample.get("guide") or droppable(conditions_of(experiment.family))
    if settings.guidance and solver and not steered:
        problems.append(
            "eval.guidance needs a condition that training sometimes drops, or a weaker model in "
            "sample.guide: leave it empty."
        )
    if settings.guidance and config.sample.get("guidance"):
        problems.append(
            "eval.guidance and sample.guidance are both set: leave one of them empty."
        )
    for name in ("steps", "guidance", "classifier_scale"):
        if settings[name] and solver is None:
            problems.append(
                f"eval.{name} has no effect on {config.family.name}, which has no solver: leave it "
                "empty."
            )
    if settings.classifier_scale and not config.sample.get("classifier"):
        problems.append(
            "eval.classifier_scale has no effect without sample.classifier: name a workdir there."
        )
    if settings.steps and solver == sampling.ADAPTIVE:
        problems.append(
            f"eval.steps has no effect on sample.method = {solver!r}, which chooses its own steps: "
            "leave it empty, or set another method."
        )
    for one in parsed(settings.distances):
        if one.metric in METRICS and settings.samples < METRICS[one.metric].least:
            problems.append(
                f"eval.samples = {settings.samples}, but {one} takes at least "
                f"{METRICS[one.metric].least}."
            )
    if problems:
        raise UserError(*problems)
    return rulers_of(experiment)


def in_training(
    experiment: Experiment, rulers: Mapping[str, Ruler]
) -> Callable[[TrainState, int], dict[str, float]] | None:
    """(state, step) -> the numbers of eval.distances to log; None if none are wanted. Everything
    that does not depend on the state is computed once. rulers: of `check`."""
    if not experiment.config.train.evaluate_every:
        return None
    kept: list[Measurement] = []

    def numbers(state: TrainState, step: int) -> dict[str, float]:
        variables = variables_of(state, experiment.config.sample.weights)
        if not kept:
            family, variables = for_sampling(experiment, variables)
            kept.append(Measurement(
                experiment=experiment, rulers=rulers, family=family, variables=variables, step=step
            ))  # fmt: skip
        measurement = kept[0]
        frozen = measurement.variables.frozen  # with the models that steer sampling
        measurement.variables, measurement.step = replace(variables, frozen=frozen), step
        return {
            name if part == "value" else f"{name}_{part}": value
            for name, one in measurement.at(Setting()).items()
            for part, value in one.items()
            if isinstance(value, float)
        }

    return numbers


def measure(
    experiment: Experiment,
    rulers: Mapping[str, Ruler],
    variables: Variables,
    step: int,
    place: Workdir,
) -> Measured:
    """The distances of eval.distances at every setting, and the pictures of them in the workdir:
    `distances.png` over the settings, `nearest.png` of samples beside their nearest training
    images. rulers: of `check`."""
    family, variables = for_sampling(experiment, variables)
    Requests(experiment=experiment, family=family).check()
    measurement = Measurement(
        experiment=experiment, rulers=rulers, family=family, variables=variables, step=step
    )
    report, made = measurement.report(), []
    plotted = next((name for name, one in report[0].items() if "value" in one), "")
    if len(report) > 1 and plotted:
        made.append(place.path / "distances.png")
        by_first(partial(_save_sweep, made[-1], plotted, report, measurement.scale))
    if measurement.closest:
        made.append(place.path / "nearest.png")
        by_first(partial(_save_closest, made[-1], measurement))
    return Measured(report, made)


def _save_sweep(path: Path, name: str, report: list[dict[str, dict]], scale: str) -> None:
    """Plots the distance of this name, one number. scale: the key of the scale that varies."""
    points = []
    for measured in report:
        one = measured[name]
        drawn = one["protocol"]["sampling"]
        place = drawn.get("evaluations", 0), drawn.get(scale, 1.0)
        points.append(Point(*place, one["value"], one.get("standard_error", 0.0)))
    save_sweep(path, name, points, report[0][name]["floor"]["value"], scale.replace("_", " "))


def _save_closest(path: Path, measurement: Measurement) -> None:
    rows = []
    for name, closest in measurement.closest.items():
        train = measurement.rulers[name].open("train").read(closest.index)["x"]
        captions = [f"{distance:.3g}" for distance in closest.distance]
        heading = f"in the features of {name}"
        rows += [
            figures.Row(images=closest.images, label="sample", heading=heading),
            figures.Row(images=train, label="nearest\ntraining image", captions=captions),
        ]
    figures.save_rows(path, rows)
