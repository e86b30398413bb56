"""`--mode=reconstruct`: what comes back of test images that a model has encoded and decoded."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core import streams
from genzoo.core.compilation import compile_program
from genzoo.core.contract import Family, Variables
from genzoo.core.types import Array, Batch
from genzoo.data import batches, transforms
from genzoo.evaluate import pictures
from genzoo.experiment import Experiment, prepare, require, variables_of
from genzoo.workdir import Workdir


def reconstruct(config: FrozenConfigDict, workdir: Path) -> dict:
    """The first sample.count images of eval.split in pairs (original left, reconstruction right),
    as `samples/reconstruction.png`, with the error of each in `reconstruct.json`."""
    experiment, place = Experiment(config), Workdir(workdir)
    require(experiment.family, config.family.name, "reconstruct", "reconstruct")
    place.check_writable()
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.eval.weights)
    source, placement = experiment.open(config.eval.split), experiment.placement
    size = config.eval.batch_size
    program, originals, copies, errors = None, [], [], []
    for batch in batches.eval_batches(
        source,
        batch_size=size,
        count=config.sample.count,
        rows=experiment.local_rows(size),
    ):
        rows = placement.put_batch(batch)
        if program is None:
            function = partial(_pairs, experiment.family, config.eval.seed)
            program = compile_program(
                function, variables, rows, out_shardings=placement.replicated
            )
        original, copy, error, mask = jax.device_get(program(variables, rows))
        originals.append(original[mask > 0])
        copies.append(copy[mask > 0])
        errors.append(error[mask > 0])
    pairs = np.stack([np.concatenate(originals), np.concatenate(copies)], axis=1)
    error = np.concatenate(errors).astype(np.float64)
    # The range of the images is 2, from -1 to 1.
    psnr = 10 * np.log10(4 / np.maximum(error, 1e-20))
    report = {
        "split": config.eval.split,
        "step": int(state.step),
        "count": len(error),
        "mean_squared_error": float(error.mean()),
        "psnr": float(psnr.mean()),
        "mean_squared_errors": error.tolist(),
    }
    place.write("reconstruct.json", report)
    if jax.process_index() == 0:
        shown = pairs[: pictures.LARGEST_GRID // 2].reshape(-1, *pairs.shape[2:])
        pictures.save_grid(place.samples / "reconstruction.png", shown, columns=16)
    return {k: v for k, v in report.items() if k != "mean_squared_errors"}


def _pairs(
    family: Family, seed: int, variables: Variables, batch: Batch
) -> tuple[Array, Array, Array, Array]:
    keys = streams.per_example(streams.stream(streams.root(seed), "reconstruct"), batch["index"])
    prepared = prepare(batch, None)
    copy = family.reconstruct(variables, prepared, keys)
    error = jnp.square(jnp.clip(copy, -1, 1) - prepared["image"])
    error = error.reshape(len(error), -1).mean(-1)
    return batch["image"], transforms.to_uint8(copy), error, batch["mask"]
