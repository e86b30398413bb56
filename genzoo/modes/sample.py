"""`--mode=sample`: draws images into the workdir's `samples/`."""

import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict
from tqdm import tqdm

from genzoo.core import streams
from genzoo.core.compilation import Program, compile_program
from genzoo.core.contract import Family, Variables, class_count
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch
from genzoo.data import transforms
from genzoo.evaluate import pictures
from genzoo.experiment import Experiment, require, variables_of
from genzoo.workdir import Workdir

_log = logging.getLogger("genzoo")


def draw(
    experiment: Experiment, variables: Variables, programs: dict[int, Program], count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Samples 0 .. count - 1 in batches: (uint8 [n, H, W, C], labels [n]).

    A batch has sample.batch_size rows, or `count` if that is less, filled up to a multiple of the
    devices; the last one is drawn whole and cut. programs: the compiled ones by batch size.
    """
    config, placement = experiment.config, experiment.placement
    batch = min(config.sample.batch_size, count)
    size = -(-batch // placement.devices) * placement.devices
    low, high = experiment.local_rows(size)
    for first in range(0, count, batch):
        index = np.arange(first, first + size, dtype=np.int32)
        label = _labels(experiment, index)
        rows = placement.put_batch({"index": index[low:high], "label": label[low:high]})
        if size not in programs:
            programs[size] = compile_program(
                partial(sample_batch, experiment.family, config.sample.seed),
                variables,
                rows,
                out_shardings=placement.replicated,
            )
        images = jax.device_get(programs[size](variables, rows))
        real = min(batch, count - first)
        yield images[:real], label[:real]


def check_label(experiment: Experiment) -> None:
    """Raises UserError where sample.label is no class of the model."""
    label, classes = experiment.config.sample.label, class_count(experiment.family)
    if label >= max(classes, 1):
        known = f"the classes 0 to {classes - 1}." if classes else "no classes; leave it at -1."
        raise UserError(f"sample.label = {label}: this model has {known}")


def _labels(experiment: Experiment, index: np.ndarray) -> np.ndarray:
    fixed = experiment.config.sample.label
    if fixed >= 0:
        return np.full_like(index, fixed)
    return index % max(class_count(experiment.family), 1)


def columns_of(experiment: Experiment) -> int:
    """Columns of a grid: one per class where the samples go through the classes in turn, 0 for
    about a square. More than 20 classes would make a strip."""
    classes = class_count(experiment.family)
    return classes if classes <= 20 and experiment.config.sample.label < 0 else 0


def sample_batch(family: Family, seed: int, variables: Variables, rows: Batch) -> Array:
    """One image per row, uint8 [B, H, W, C], from the row's `index` and `label` alone."""
    keys = streams.per_example(streams.stream(streams.root(seed), "sample"), rows["index"])
    return transforms.to_uint8(family.sample(variables, keys, {"label": rows["label"]}))


def sample(config: FrozenConfigDict, workdir: Path) -> dict:
    """Draws sample.count images into the workdir's `samples/`: one PNG each and a grid."""
    experiment, place = Experiment(config), Workdir(workdir)
    require(experiment.family, config.family.name, "sample", "sample")
    check_label(experiment)
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.sample.weights)
    images, labels, done = [], [], 0
    started = time.perf_counter()
    place.clear_samples()
    with tqdm(total=config.sample.count, desc="sampling", unit="image", disable=None) as bar:
        for drawn, label in draw(experiment, variables, {}, config.sample.count):
            if jax.process_index() == 0:
                pictures.save_each(place.samples, drawn, done)
            if config.sample.npz or done < pictures.LARGEST_GRID:
                images.append(drawn)
                labels.append(label)
            done += len(drawn)
            bar.update(len(drawn))
    if jax.process_index() == 0:
        everything = np.concatenate(images)
        grid = everything[: pictures.LARGEST_GRID]
        pictures.save_grid(place.samples / "grid.png", grid, columns=columns_of(experiment))
        if config.sample.npz:
            arrays = {"image": everything, "label": np.concatenate(labels)}
            np.savez_compressed(place.samples / "samples.npz", **arrays)
    seconds = time.perf_counter() - started
    _log.info("%d samples in %.1f s: %s", config.sample.count, seconds, place.samples / "grid.png")
    return {"samples": str(place.samples), "count": config.sample.count, "step": int(state.step)}
