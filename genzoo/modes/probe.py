"""`--mode=probe`: how well a representation tells the classes apart, beside the raw pixels."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core.errors import UserError
from genzoo.data.source import Source
from genzoo.evaluate import probe as linear
from genzoo.evaluate.neighbours import Neighbours, vote
from genzoo.modes.encode import Trained, chosen, spread, trained
from genzoo.runtime.stopping import Stop
from genzoo.workdir import announced

NEIGHBOURS = 20
"""Whose votes are counted."""
_TRAIN = "train"
_PIXELS = 64 * 64 * 3  # values of an image from which it is averaged over squares of pixels
_BATCH = 512  # candidates whose distances from all queries are held at once
_log = logging.getLogger("genzoo")


def probe(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """The accuracies on eval.split of a linear probe and of the votes of the nearest neighbours,
    learned from tools.probe_examples training images, of embeddings and of raw pixels, as
    `probe.json`."""
    model = trained(config, workdir, "probe", "encode", stop=stop)
    if config.eval.split == _TRAIN:
        raise UserError("eval.split = 'train' is what the probe learns from; set it to 'test'.")
    train, test = model.experiment.open(_TRAIN), model.experiment.open(config.eval.split)
    classes = len(train.spec.classes)
    if not classes:
        raise UserError(f"--mode=probe needs classes; {train.name} has none.")
    learned = _features(model, train, _TRAIN, spread(len(train), config.tools.probe_examples))
    asked = _features(model, test, config.eval.split, chosen(config, test))
    report = {
        "split": config.eval.split,
        "step": model.step,
        "train_examples": len(learned["label"]),
        "test_examples": len(asked["label"]),
        "classes": classes,
        "neighbours": min(NEIGHBOURS, len(learned["label"])),
        "metric": config.tools.metric,
        "l2": config.tools.probe_l2,
    }
    for name in ("embedding", "pixels"):
        both = [(part[name], part["label"]) for part in (learned, asked)]
        report[name] = _scores(*both, classes, config, name)
    model.place.write("probe.json", report)
    return report | {"files": announced([model.place.path / "probe.json"])}


def _scores(
    learned: tuple, asked: tuple, classes: int, config: FrozenConfigDict, name: str
) -> dict:
    (x, labels), (asked_x, truth) = learned, asked
    standard = linear.Standard.of(x)

    def solved(x, labels):
        return linear.fit(x, labels, classes=classes, l2=config.tools.probe_l2)

    found = jax.jit(solved)(jnp.asarray(standard(x)), jnp.asarray(labels, jnp.int32))
    if found.gradient > 1e-3:
        _log.warning(
            "The linear probe of the %s has not converged after %d iterations (largest slope "
            "%.2g): a larger tools.probe_l2 makes it easier.",
            name,
            found.iterations,
            found.gradient,
        )
    near = Neighbours.none(len(asked_x), min(NEIGHBOURS, len(x)))
    for start in range(0, len(x), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(x)))
        near = near.with_batch(config.tools.metric, asked_x, x[rows], rows)

    def guessed(features: np.ndarray) -> np.ndarray:
        return np.asarray(linear.predict(found, jnp.asarray(standard(features))))

    return {
        "dimensions": x.shape[1],
        "linear_accuracy": float((guessed(asked_x) == truth).mean()),
        "linear_train_accuracy": float((guessed(x) == labels).mean()),
        "neighbour_accuracy": float((vote(labels[near.index], classes) == truth).mean()),
        "iterations": int(found.iterations),
        "largest_slope": float(found.gradient),
    }


def _features(model: Trained, source: Source, split: str, indices: np.ndarray) -> dict:
    """{"embedding": [N, D], "pixels": [N, D'], "label": [N]}."""
    found: dict[str, list] = {"embedding": [], "pixels": [], "label": []}
    for batch in model.embeddings(source, split, indices, f"encoding {split}"):
        found["embedding"].append(batch.embedding)
        found["pixels"].append(_pixels(batch.image))
        found["label"].append(batch.label)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _pixels(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] as float32 [N, D] in [-1, 1]; large ones averaged over squares."""
    count, height, width, channels = images.shape
    side = 1
    while (height // side) * (width // side) * channels > _PIXELS:
        side += 1
    rows, columns = height // side, width // side
    cut = images[:, : rows * side, : columns * side].astype(np.float32) / 127.5 - 1
    squares = cut.reshape(count, rows, side, columns, side, channels)
    return squares.mean((2, 4)).reshape(count, -1)
