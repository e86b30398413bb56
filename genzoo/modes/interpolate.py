"""`--mode=interpolate`: interpolates between two images in the space of a representation."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core.errors import UserError
from genzoo.data import loose
from genzoo.data.source import Source
from genzoo.evaluate import figures
from genzoo.math import paths
from genzoo.modes.encode import FILES, Trained, chosen, numbered, spread, trained
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import announced

STEPS = 9
"""Points between the two ends."""
_PAIRS = 4
_CANDIDATES = 64  # examples among which pairs of different classes are chosen
_PATHS = {"linear": paths.lerp, "spherical": paths.slerp}


class Pairs(NamedTuple):
    """The ends of paths: images uint8 [P, 2, H, W, C], embedding [P, 2, D], and a name for each
    end."""

    images: np.ndarray
    embedding: np.ndarray
    names: list[tuple[str, str]]


def interpolate(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Draws straight and spherical paths between images: pairs from eval.split, of different
    classes if there are any, or tools.first and tools.second (files, or examples by number). Writes
    `samples/interpolation.png` and `interpolate.json`."""
    model = trained(config, workdir, "interpolate", "encode", "decode", stop=stop)
    pairs = _from_files(model) if _two_files(config) else _from_split(model)
    times = np.linspace(0, 1, STEPS + 2, dtype=np.float32)
    a, b = jnp.asarray(pairs.embedding[:, 0]), jnp.asarray(pairs.embedding[:, 1])
    pictures = {}
    for name, path in _PATHS.items():
        points = np.asarray(path(a, b, jnp.asarray(times)))
        drawn = model.decoded(points.reshape(-1, points.shape[-1]))
        pictures[name] = drawn.reshape(*points.shape[:2], *drawn.shape[1:])
    report = {
        **({} if _two_files(config) else {"split": config.eval.split}),
        "step": model.step,
        "paths": list(_PATHS),
        "times": [round(float(t), 6) for t in times],
        "pairs": [_description(*ends) for ends in zip(pairs.names, pairs.embedding, strict=True)],
    }
    if is_first():
        _draw(model, pairs, pictures, times)
    model.place.write("interpolate.json", report)
    made = [model.place.samples / "interpolation.png", model.place.path / "interpolate.json"]
    return {"step": model.step, "pairs": pairs.names, "files": announced(made)}


def pairs_of(indices: np.ndarray, labels: np.ndarray | None, count: int) -> list[tuple[int, int]]:
    """At most `count` pairs of the indices [N], in order and each index once: neighbours or, if the
    labels [N] have several classes, each index with the next one of another class."""
    if labels is None or len(set(labels.tolist())) < 2:
        labels = np.arange(len(indices))
    left, pairs = list(range(len(indices))), []
    while left and len(pairs) < count:
        first = left.pop(0)
        other = next((place for place in left if labels[place] != labels[first]), None)
        if other is not None:
            left.remove(other)
            pairs.append((int(indices[first]), int(indices[other])))
    return pairs


def _two_files(config: FrozenConfigDict) -> bool:
    first, second = config.tools.first, config.tools.second
    if bool(first) != bool(second):
        missing = "second" if first else "first"
        raise UserError(
            f"tools.{missing} is missing: give two images, as files or as numbers of examples in "
            "eval.split, with --config.tools.first and --config.tools.second."
        )
    if bool(first) and first.isdecimal() != second.isdecimal():
        raise UserError(
            f"tools.first = {first!r} and tools.second = {second!r} must both be files, or both be "
            "numbers of examples in eval.split."
        )
    return bool(first) and not first.isdecimal()


def _from_files(model: Trained) -> Pairs:
    tools = model.experiment.config.tools
    files = [loose.existing(tools[key], f"tools.{key}") for key in ("first", "second")]
    (both,) = model.embeddings(model.files(files), FILES, np.arange(2))
    names = [(files[0].name, files[1].name)]
    return Pairs(both.x[None], both.embedding[None], names)


def _from_split(model: Trained) -> Pairs:
    config = model.experiment.config
    source = model.experiment.open(config.eval.split)
    if config.tools.first:
        pairs = np.array([[numbered(config, key, source) for key in ("first", "second")]])
    else:
        pairs = np.array(_pairs_in(source, chosen(config, source)))
    if not len(pairs):
        raise UserError(
            f"--mode=interpolate needs two examples, but eval.split = {config.eval.split!r} with "
            f"eval.count = {config.eval.count} gives fewer: raise eval.count."
        )
    batches = list(model.embeddings(source, config.eval.split, pairs.ravel()))
    image = np.concatenate([batch.x for batch in batches])
    embedding = np.concatenate([batch.embedding for batch in batches])
    names = [f"example {index}" for index in pairs.ravel()]
    if batches[0].label is not None:
        classes = [source.spec.classes[k] for batch in batches for k in batch.label]
        names = [f"{name} ({title})" for name, title in zip(names, classes, strict=True)]
    return Pairs(
        image.reshape(*pairs.shape, *image.shape[1:]),
        embedding.reshape(*pairs.shape, -1),
        list(zip(names[::2], names[1::2], strict=True)),
    )


def _pairs_in(source: Source, indices: np.ndarray) -> list[tuple[int, int]]:
    pairs = []
    # In data sorted by class, the first examples all have the same class.
    for candidates in (indices[:_CANDIDATES], indices[spread(len(indices), _CANDIDATES)]):
        labels = source.read(candidates).get("label")
        pairs = pairs_of(candidates, labels, _PAIRS)
        if labels is None or len(set(labels.tolist())) > 1:
            break
    return pairs


def _description(names: tuple[str, str], ends: np.ndarray) -> dict:
    first, second = ends.astype(np.float64)
    norms = np.linalg.norm(ends.astype(np.float64), axis=1)
    cosine = first @ second / max(norms.prod(), 1e-300)
    return {
        "first": names[0],
        "second": names[1],
        "norms": norms.tolist(),
        "distance": float(np.linalg.norm(first - second)),
        "angle_degrees": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    }


def _draw(model: Trained, pairs: Pairs, pictures: dict, times: np.ndarray) -> None:
    rows = []
    for number, (first, second) in enumerate(pairs.names):
        for name, drawn in pictures.items():
            ends = pairs.images[number]
            heading = f"{first}  to  {second}" if name == next(iter(pictures)) else ""
            images = np.concatenate([ends[:1], drawn[number], ends[1:]])
            rows.append(figures.Row(images=images, label=name, heading=heading))
    figures.save_rows(
        model.place.samples / "interpolation.png",
        rows,
        columns=("original", *(f"{t:g}" for t in times.round(3)), "original"),
        apart=(1, len(times) + 1),
    )
