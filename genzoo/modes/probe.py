"""`--mode=probe`: classification accuracy from a representation, compared with the raw data."""

import logging
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core.contract import Fits
from genzoo.core.errors import UserError
from genzoo.data.counts import Counts
from genzoo.data.source import Source
from genzoo.evaluate import probe as linear
from genzoo.evaluate.neighbours import Neighbours, vote
from genzoo.experiment import variables_of
from genzoo.modes.encode import Trained, chosen, spread, trained
from genzoo.runtime.progress import waiting
from genzoo.runtime.stopping import Stop
from genzoo.settings import RAW
from genzoo.workdir import announced

NEIGHBOURS = 20
"""Number of nearest neighbours that vote."""
_TRAIN = "train"
_PIXELS = 64 * 64 * 3  # an image with more values is averaged over squares of pixels
_BATCH = 512  # candidates whose distances from all queries are in memory at once
_log = logging.getLogger("genzoo")


def probe(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Measures the accuracies on eval.split of a linear probe and of a nearest-neighbour vote, both
    fitted to tools.probe_examples training examples, for embeddings, for raw pixels or word counts,
    and for the embeddings of the same model before training ("random"), unless it is fitted without
    training steps. Writes `probe.json`."""
    model = trained(config, workdir, "probe", "encode", stop=stop)
    if config.eval.split == _TRAIN:
        raise UserError("eval.split = 'train' is the training set of the probe: set it to 'test'.")
    train, test = model.experiment.open(_TRAIN), model.experiment.open(config.eval.split)
    classes = len(train.spec.classes)
    if not classes:
        raise UserError(f"--mode=probe needs classes, but {train.name} has none: use other data.")
    parts = (
        (train, _TRAIN, spread(len(train), config.tools.probe_examples)),
        (test, config.eval.split, chosen(config, test)),
    )
    fitted, scored = (_features(model, *part) for part in parts)
    raw = "counts" if isinstance(model.experiment.x, Counts) else "pixels"
    report = {
        "split": config.eval.split,
        "step": model.step,
        "train_examples": len(fitted["label"]),
        "test_examples": len(scored["label"]),
        "classes": classes,
        "neighbours": min(NEIGHBOURS, len(fitted["label"])),
        "metric": config.tools.metric,
        "l2": config.tools.probe_l2,
    }
    for name, key in {"embedding": "embedding", raw: "raw"}.items():
        both = [(part[key], part["label"]) for part in (fitted, scored)]
        with waiting(f"Fitting the probe of the {name}."):
            report[name] = _scores(*both, classes, config, name)
    if not isinstance(model.family, Fits):
        untrained = (_features(_untrained(model), *part) for part in parts)
        both = [(part["embedding"], part["label"]) for part in untrained]
        report["random"] = _scores(*both, classes, config, "random embedding")
    model.place.write("probe.json", report)
    return report | {"files": announced([model.place.path / "probe.json"])}


def _scores(
    fitted: tuple, scored: tuple, classes: int, config: FrozenConfigDict, name: str
) -> dict:
    (x, labels), (test_x, truth) = fitted, scored
    standard = linear.Standard.of(x)

    def fit(x, labels):
        return linear.fit(x, labels, classes=classes, l2=config.tools.probe_l2)

    fitted_probe = jax.jit(fit)(jnp.asarray(standard(x)), jnp.asarray(labels, jnp.int32))
    if fitted_probe.gradient > 1e-3:
        _log.warning(
            "The linear probe of the %s has not converged after %d iterations (largest slope "
            "%.2g): raise tools.probe_l2.",
            name,
            fitted_probe.iterations,
            fitted_probe.gradient,
        )
    near = Neighbours.none(len(test_x), min(NEIGHBOURS, len(x)))
    for start in range(0, len(x), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(x)))
        near = near.with_batch(config.tools.metric, test_x, x[rows], rows)

    def predicted(features: np.ndarray) -> np.ndarray:
        return np.asarray(linear.predict(fitted_probe, jnp.asarray(standard(features))))

    return {
        "dimensions": x.shape[1],
        "linear_accuracy": float((predicted(test_x) == truth).mean()),
        "linear_train_accuracy": float((predicted(x) == labels).mean()),
        "neighbour_accuracy": float((vote(labels[near.index], classes) == truth).mean()),
        "iterations": int(fitted_probe.iterations),
        "largest_slope": float(fitted_probe.gradient),
    }


def _untrained(model: Trained) -> Trained:
    """The model with the params and stats of step 0; those of other runs are kept."""
    fresh = variables_of(model.experiment.new_state(), RAW)
    return replace(model, variables=replace(fresh, frozen=model.variables.frozen))


def _features(model: Trained, source: Source, split: str, indices: np.ndarray) -> dict:
    """{"embedding": [N, D], "raw": [N, D'], "label": [N]}; raw is the pixels, or log(1 + count) of
    each word."""
    raw = np.log1p if isinstance(model.experiment.x, Counts) else _pixels
    parts: dict[str, list] = {"embedding": [], "raw": [], "label": []}
    for batch in model.embeddings(source, split, indices, f"encoding {split}"):
        parts["embedding"].append(batch.embedding)
        parts["raw"].append(raw(batch.x).astype(np.float32))
        parts["label"].append(batch.label)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _pixels(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] -> float32 [N, D] in [-1, 1]; large images are averaged over squares."""
    count, height, width, channels = images.shape
    side = 1
    while (height // side) * (width // side) * channels > _PIXELS:
        side += 1
    rows, columns = height // side, width // side
    cut = images[:, : rows * side, : columns * side].astype(np.float32) / 127.5 - 1
    squares = cut.reshape(count, rows, side, columns, side, channels)
    return squares.mean((2, 4)).reshape(count, -1)
