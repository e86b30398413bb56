"""`--mode=reconstruct`: encodes and decodes test images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core import streams
from genzoo.core.contract import Observes, Variables
from genzoo.core.types import Batch
from genzoo.data import batches, transforms
from genzoo.data.fields import Image
from genzoo.data.source import Source
from genzoo.evaluate import pictures
from genzoo.evaluate.similarity import psnr, ssim
from genzoo.experiment import Experiment, require, require_kind, variables_of
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import Workdir, announced


@dataclass(frozen=True, kw_only=True)
class Reconstructions:
    """Images uint8 [N, H, W, C] and scores [N]. shown: what the model saw, if not the original.
    copy: the reconstruction."""

    original: np.ndarray
    shown: np.ndarray | None
    copy: np.ndarray
    mean_squared_error: np.ndarray
    ssim: np.ndarray

    @property
    def caption(self) -> str:
        """A caption that names the parts of `side_by_side`."""
        names = ["original", "shown to the model", "reconstruction"]
        return "each: " + " | ".join(n for n in names if self.shown is not None or n[0] != "s")

    def side_by_side(self) -> np.ndarray:
        """Each original, what the model saw of it, and its reconstruction, as one wide image."""
        parts = [self.original, self.shown, self.copy]
        return np.concatenate([part for part in parts if part is not None], axis=2)


def reconstructed(
    experiment: Experiment,
    variables: Variables,
    programs: dict[int, Callable],
    source: Source,
    count: int,
) -> Reconstructions:
    """Reconstructions of the first `count` images. programs: compiled programs by batch size, which
    are added here. Raises UserError if the data is not images."""
    require_kind(experiment, (Image,), "reconstruct", "compares images")
    parts = list(pairs(experiment, variables, programs, source, count))
    joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    if np.array_equal(joined.get("shown"), joined["original"]):
        joined["shown"] = None
    return Reconstructions(**{"shown": None, **joined})


def pairs(
    experiment: Experiment,
    variables: Variables,
    programs: dict[int, Callable],
    source: Source,
    count: int,
) -> Iterator[dict[str, np.ndarray]]:
    """The fields of `Reconstructions`, in batches."""
    placement = experiment.placement
    size = -(-min(experiment.config.eval.batch_size, count) // placement.devices)
    size *= placement.devices
    for batch in batches.eval_batches(
        source, batch_size=size, count=count, rows=placement.rows(size)
    ):
        experiment.stop.check()
        rows = placement.put_batch(batch)
        if size not in programs:
            function = partial(_compared, experiment)
            programs[size] = experiment.program(function, variables, rows)
        values, mask = jax.device_get(programs[size](variables, rows))
        yield {k: v[mask > 0] for k, v in values.items()}


def reconstruct(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Draws the first sample.count images of eval.split beside their reconstructions as
    `samples/reconstruction.png`, with what the model saw in between if that differs, and writes the
    scores of each into `reconstruct.json`."""
    experiment, place = Experiment(config, stop or Stop()), Workdir(workdir)
    require(experiment.family, config.family.name, "reconstruct", "reconstruct")
    require_kind(experiment, (Image,), "reconstruct", "compares images")
    place.check_writable()
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.eval.weights)
    source = experiment.open(config.eval.split)
    images = reconstructed(experiment, variables, {}, source, config.sample.count)
    error = images.mean_squared_error.astype(np.float64)
    decibels = psnr(error)
    report = {
        "split": config.eval.split,
        "step": int(state.step),
        "count": len(error),
        "mean_squared_error": float(error.mean()),
        "psnr": float(decibels.mean()),
        "ssim": float(images.ssim.mean()),
        "mean_squared_errors": error.tolist(),
        "psnrs": decibels.tolist(),
        "ssims": images.ssim.tolist(),
    }
    place.write("reconstruct.json", report)
    picture = place.samples / "reconstruction.png"
    if is_first():
        shown = images.side_by_side()[: pictures.LARGEST_GRID // 2]
        columns = 8 if images.shown is None else 6
        pictures.save_grid(picture, shown, columns=columns, caption=images.caption)
    short = {k: v for k, v in report.items() if not isinstance(v, list)}
    return short | {"files": announced([picture, place.path / "reconstruct.json"])}


def _compared(experiment: Experiment, variables: Variables, batch: Batch) -> tuple:
    family, seed = experiment.family, experiment.config.eval.seed
    keys = streams.per_example(streams.named(streams.root(seed), "reconstruct"), batch["index"])
    prepared = experiment.prepared(batch)
    original = prepared["x"]
    copy = jnp.clip(family.reconstruct(variables, prepared, keys), -1, 1)
    error = jnp.square(copy - original).reshape(len(copy), -1).mean(-1)
    values = {
        "original": batch["x"],
        "copy": transforms.to_uint8(copy),
        "mean_squared_error": error,
        "ssim": ssim(copy, original),
    }
    if isinstance(family, Observes):
        values["shown"] = transforms.to_uint8(family.observe(prepared, keys))
    return values, batch["mask"]
