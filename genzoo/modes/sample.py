"""`--mode=sample`: draws images into the workdir's `samples/`."""

import logging
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict
from tqdm import tqdm

from genzoo.core import streams
from genzoo.core.compilation import Program, compile_program
from genzoo.core.contract import Family, Variables
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch
from genzoo.data import transforms
from genzoo.evaluate import pictures
from genzoo.experiment import Experiment, require, variables_of
from genzoo.workdir import Workdir

_log = logging.getLogger("genzoo")


def draw(
    experiment: Experiment,
    variables: Variables,
    programs: dict[int, Program],
    count: int,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples first .. first + count - 1 in one batch: (uint8 [count, H, W, C], labels [count]).

    The batch is filled up to a multiple of the devices; programs: compiled ones by batch size.
    """
    config, placement = experiment.config, experiment.placement
    size = -(-count // placement.devices) * placement.devices
    classes = getattr(experiment.family, "num_classes", 0)
    index = np.arange(first, first + size, dtype=np.int32)
    fixed = np.full(size, config.sample.label, np.int32)
    label = fixed if config.sample.label >= 0 else index % max(classes, 1)
    low, high = experiment.local_rows(size)
    rows = placement.put_batch({"index": index[low:high], "label": label[low:high]})
    if size not in programs:
        programs[size] = compile_program(
            partial(sample_batch, experiment.family, config.sample.seed),
            variables,
            rows,
            out_shardings=placement.replicated,
        )
    images = jax.device_get(programs[size](variables, rows))
    return images[:count], label[:count]


def sample_batch(family: Family, seed: int, variables: Variables, rows: Batch) -> Array:
    """One image per row, uint8 [B, H, W, C], from the row's `index` and `label` alone."""
    keys = streams.per_example(streams.stream(streams.root(seed), "sample"), rows["index"])
    return transforms.to_uint8(family.sample(variables, keys, {"label": rows["label"]}))


def sample(config: FrozenConfigDict, workdir: Path) -> dict:
    """Draws sample.count images into the workdir's `samples/`: one PNG each and a grid."""
    experiment, place = Experiment(config), Workdir(workdir)
    require(experiment.family, config.family.name, "sample", "sample")
    classes = getattr(experiment.family, "num_classes", 0)
    if config.sample.label >= max(classes, 1):
        raise UserError(
            f"sample.label = {config.sample.label}: this model has "
            + (f"the classes 0 to {classes - 1}." if classes else "no classes; leave it at -1.")
        )
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.sample.weights)
    programs: dict[int, Program] = {}
    images, labels = [], []
    started = time.perf_counter()
    place.clear_samples()
    with tqdm(total=config.sample.count, desc="sampling", unit="image", disable=None) as bar:
        for first in range(0, config.sample.count, config.sample.batch_size):
            count = min(config.sample.batch_size, config.sample.count - first)
            # The last batch has the size of the others: one compile serves all.
            drawn, label = draw(
                experiment, variables, programs, config.sample.batch_size, first
            )
            drawn, label = drawn[:count], label[:count]
            if jax.process_index() == 0:
                pictures.save_each(place.samples, drawn, first)
            if config.sample.npz or first < pictures.LARGEST_GRID:
                images.append(drawn)
                labels.append(label)
            bar.update(count)
    if jax.process_index() == 0:
        everything = np.concatenate(images)
        grid = everything[: pictures.LARGEST_GRID]
        columns = classes if classes and config.sample.label < 0 and len(grid) > classes else 0
        pictures.save_grid(place.samples / "grid.png", grid, columns=columns)
        if config.sample.npz:
            arrays = {"image": everything, "label": np.concatenate(labels)}
            np.savez_compressed(place.samples / "samples.npz", **arrays)
    seconds = time.perf_counter() - started
    _log.info("%d samples in %.1f s: %s", config.sample.count, seconds, place.samples / "grid.png")
    return {"samples": str(place.samples), "count": config.sample.count, "step": int(state.step)}
