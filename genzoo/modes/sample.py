"""`--mode=sample`: draws samples, each call into its own folder in the workdir's `samples/`."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.builders.sampling import ADAPTIVE
from genzoo.core.contract import Solves, Variables
from genzoo.core.types import Array, Batch
from genzoo.core.version import VERSION
from genzoo.data.fields import Image, Latents, Points, Signal
from genzoo.evaluate import figures, pictures, plane, signals
from genzoo.evaluate.prompts import PromptAccuracy
from genzoo.experiment import (
    Experiment,
    require,
    require_kind,
    sample_keys,
    variables_of,
)
from genzoo.modes import illustrate, restored
from genzoo.requests import Requests
from genzoo.runs import for_sampling
from genzoo.runtime.agreement import agreed, by_first, is_first
from genzoo.runtime.compilation import Program
from genzoo.runtime.progress import Progress, waiting
from genzoo.runtime.stopping import Stop
from genzoo.workdir import SAMPLE_SETTINGS, Workdir, announced

_log = logging.getLogger("genzoo")


class Drawn(NamedTuple):
    """A batch of samples.

    images: the samples [n, ...] in the format of the data. requested: their rows, `Requests.rows`.
    evaluations: [n, 2], model evaluations and rows of network input per sample; [0, 2] if the
    family does not count them.
    """

    images: np.ndarray
    requested: dict[str, np.ndarray]
    evaluations: np.ndarray


DRAWN = (Image, Signal, Points, Latents)
"""Kinds of data whose samples can be drawn."""
NOTHING = np.zeros((0, 2))


def draw(
    requests: Requests,
    variables: Variables,
    programs: dict[int, Program],
    count: int,
    *,
    function: Callable[[Requests, Variables, Batch], dict[str, Array]] | None = None,
    settings: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Drawn]:
    """Samples 0 to count - 1 in batches.

    A batch has min(sample.batch_size, count) rows, padded to a multiple of the devices; the last
    one is drawn whole and cut. programs: compiled programs by batch size, which are added here.
    function: in place of `sample_batch`. settings: arrays that it finds in every row.
    """
    experiment = requests.experiment
    config, placement = experiment.config, experiment.placement
    batch = min(config.sample.batch_size, count)
    size = -(-batch // placement.devices) * placement.devices
    mine = placement.rows(size)
    for start in range(0, count, batch):
        experiment.stop.check()
        requested = requests.rows(np.arange(start, start + size))
        every = {k: np.broadcast_to(v, (size, *np.shape(v))) for k, v in (settings or {}).items()}
        given = {name: values[mine] for name, values in {**requested, **every}.items()}
        rows = placement.put_batch(given)
        if size not in programs:
            one = partial(function or sample_batch, requests)
            programs[size] = experiment.program(one, variables, rows)
        samples = jax.device_get(programs[size](variables, rows))
        real = min(batch, count - start)
        finite = samples.get("finite", np.ones(size, bool))[:real]
        if not finite.all():
            problem = f"{(~finite).sum()} of {real} samples are not finite"
            _log.warning("%s%s", problem, _remedies(config.sample))
        yield Drawn(
            samples["x"][:real],
            {name: values[:real] for name, values in requested.items()},
            samples.get("evaluations", NOTHING)[:real],
        )


def _remedies(settings: FrozenConfigDict) -> str:
    """Settings that may help against samples that are not finite and are not in use yet."""
    remedies = []
    if settings.get("method") == ADAPTIVE:
        remedies.append("a smaller sample.tolerance")
    elif settings.get("steps"):  # 0 already takes all steps
        remedies.append(f"more steps than sample.steps = {settings.steps}")
    if "method" in settings:
        remedies.append("another sample.method or sample.grid")
    if settings.get("clip") == "none":
        remedies.append("sample.clip = 'clip'")
    if settings.get("guidance_scale", 1.0) > 1:
        remedies.append("a lower sample.guidance_scale")
    return f": try {', or '.join(remedies)}." if remedies else "."


def columns_of(requests: Requests) -> int:
    """Columns of a grid: one per sample of a condition, or one per class if samples cycle through
    classes, if these are at most 20; otherwise 0, which makes the grid about square."""
    columns = requests.repeat if requests.repeat > 1 else requests.classes
    return columns if columns <= 20 else 0


def sample_batch(
    requests: Requests, variables: Variables, rows: Batch, **others: object
) -> dict[str, Array]:
    """One sample `x` per row, in the format of the data, which depends on that row alone. For a
    family that `Solves`, also `evaluations` [B, 2] (see `Drawn`) and `finite` bool [B]. others:
    further arguments of its `solve`."""
    family, x = requests.family, requests.experiment.drawn
    keys = sample_keys(requests.experiment.config.sample.seed, rows["index"])
    conditions = requests.conditions(variables, rows)
    if not isinstance(family, Solves):
        return {"x": x.stored(family.sample(variables, keys, conditions))}
    solution = family.solve(
        variables, keys, conditions, negative=requests.negative(variables, rows), **others
    )
    finite = jnp.isfinite(solution.x).reshape(solution.x.shape[0], -1).all(-1)
    return {
        "x": x.stored(solution.x),
        "evaluations": jnp.stack([solution.evaluations, solution.network_rows], axis=-1),
        "finite": finite,
    }


def sample(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Draws sample.count samples into their own folder in the workdir's `samples/`.

    Images are written as one PNG each and a grid; points and signals as an array and a plot. The
    folder also holds the pictures named in sample.pictures and the settings in `settings.json`.
    Afterwards `samples/latest` points to it.
    """
    experiment, place = Experiment(config, stop or Stop()), Workdir(workdir)
    require(experiment.family, config.family.name, "sample", "sample")
    require_kind(experiment, DRAWN, "sample", "draws images, signals and points")
    chosen_pictures = illustrate.chosen(experiment)
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.sample.weights)
    family, variables = for_sampling(experiment, variables)
    requests = Requests(experiment=experiment, family=family)
    requests.check()
    as_images = isinstance(experiment.drawn, Image)
    kept: list[Drawn] = []
    evaluations, done = [], 0
    judge = experiment.spec.judge
    accuracy = PromptAccuracy(judge) if judge else None
    restoration = restored.restoration(requests) if requests.restores else None
    agreement = restored.agreement(requests)
    started = time.perf_counter()
    folder = agreed(lambda: place.sample_folder(config, int(state.step)))
    settings = _settings(config, int(state.step))
    place.begin_samples(folder, settings)
    _log.info("Sampling %d on %d device(s).", config.sample.count, jax.device_count())
    unit = experiment.unit
    with Progress(config.sample.count, "sampling", unit) as bar:
        for drawn in draw(requests, variables, {}, config.sample.count):
            if is_first() and as_images:
                pictures.save_each(folder, drawn.images, done)
            if not as_images or config.sample.npz or done < pictures.LARGEST_GRID:
                kept.append(drawn)
            if accuracy:
                accuracy.add(drawn.images, requests.texts(drawn.requested))
            if restoration:
                restoration.add(drawn.images, drawn.requested["x"])
            if agreement:
                agreement.add(drawn.images, drawn.requested["x"])
            evaluations.append(drawn.evaluations)
            done += len(drawn.images)
            bar.update(len(drawn.images))
    made = [folder / "grid.png"]
    samples, requested = together(kept)
    if is_first():
        save_samples(requests, made[0], samples, requested)
    if not as_images or config.sample.npz:
        made.append(folder / "samples.npz")
        if is_first():
            fields = {name: requested[name] for name in requests.fields}
            named = {"original" if k == "x" else k: v for k, v in fields.items()}
            np.savez_compressed(made[-1], x=samples, **named)
    seconds = time.perf_counter() - started
    _log.info("%d samples in %.1f s.", config.sample.count, seconds)
    report = {"samples": str(folder), "count": config.sample.count, "step": int(state.step)}
    if len(counted := np.concatenate(evaluations)):
        calls, rows = (round(float(mean), 1) for mean in counted.mean(axis=0))
        counts = {"evaluations": calls, "network_rows": rows}
        report |= counts
        settings |= counts
        _log.info("Per sample: %s evaluations (NFE), %s rows of network input.", calls, rows)
    if accuracy and (judged := accuracy.report()):
        report["prompt_accuracy"] = settings["prompt_accuracy"] = judged
    if restoration:
        report["psnr"] = settings["psnr"] = restoration.report()
    if agreement:
        report["outlines"] = settings["outlines"] = agreement.report()
    if chosen_pictures:
        made += _illustrate(chosen_pictures, requests, variables, folder)
    place.end_samples(folder, settings | {"seconds": round(seconds, 1)})
    return report | {"files": announced([*made, folder / SAMPLE_SETTINGS])}


def _settings(config: FrozenConfigDict, step: int) -> dict:
    """The settings of samples, which cannot be recovered from the samples themselves."""
    return {
        "genzoo": VERSION,
        "family": config.family.name,
        "data": config.data.name,
        "step": step,
        "devices": jax.device_count(),
        "platform": jax.default_backend(),
        "sample": {k: v for k, v in config.sample.to_dict().items() if k != "into"},
    }


def _illustrate(
    chosen: list[illustrate.Picture], requests: Requests, variables: Variables, folder: Path
) -> list[Path]:
    """Draws the pictures. With several processes the first one draws them, on its own device."""
    if jax.process_count() > 1:
        replicated = requests.experiment.placement.replicated
        whole = jax.jit(lambda tree: tree, out_shardings=replicated)
        variables = jax.device_get(whole(variables))
    subject = illustrate.Subject(requests=requests, variables=variables, folder=folder)
    made: list[Path] = []

    def drawn(picture: illustrate.Picture) -> Path:
        with waiting(f"Drawing {picture.__name__}."):
            return picture(subject)

    by_first(lambda: made.extend(drawn(picture) for picture in chosen))
    return made


def together(drawn: Sequence[Drawn]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(the samples of several batches [N, ...], the rows that requested them)."""
    requested = {
        name: np.concatenate([batch.requested[name] for batch in drawn])
        for name in drawn[0].requested
    }
    return np.concatenate([batch.images for batch in drawn]), requested


def save_samples(
    requests: Requests, path: Path, samples: np.ndarray, requested: Mapping[str, np.ndarray]
) -> None:
    """Plots samples by the kind of data: a grid of images, with captions if there are any, points
    as a scatter plot and signals as lines, beside test data."""
    experiment = requests.experiment
    x = experiment.drawn
    if isinstance(x, Image):
        grid, columns = samples[: pictures.LARGEST_GRID], columns_of(requests)
        if captions := requests.captions(requested)[: len(grid)]:
            figures.save_captioned(path, grid, captions, columns)
        else:
            pictures.save_grid(path, grid, columns)
        return
    source = experiment.open("test")
    data = source.read(np.arange(len(source)))
    classed = requests.classed(requested).all()
    of_class = (data["label"], requested["label"]) if classed else None
    shown = (path, data["x"], samples, of_class, source.spec.classes if of_class else ())
    if isinstance(x, Signal):
        signals.save_samples(*shown, channels=x.channels, axis=x.axis)
    else:
        plane.save_samples(*shown)
