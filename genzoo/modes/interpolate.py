"""`--mode=interpolate`: what lies between two images in the space of a representation."""

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
from genzoo.modes.encode import FILES, Trained, chosen, spread, trained
from genzoo.runtime.agreement import is_first
from genzoo.runtime.stopping import Stop
from genzoo.workdir import announced

STEPS = 9
"""Points between the two ends."""
_PAIRS = 4
_LOOKED_AT = 64  # examples among which pairs of different classes are looked for
_PATHS = {"linear": paths.lerp, "spherical": paths.slerp}


class Pairs(NamedTuple):
    """Where paths begin and end: images uint8 [P, 2, H, W, C], embedding [P, 2, D], and the name of
    each end."""

    images: np.ndarray
    embedding: np.ndarray
    names: list[tuple[str, str]]


def interpolate(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Straight and spherical paths between pairs of images of eval.split, of different classes
    where there are any, or between tools.first and tools.second (files, or examples by number), as
    `samples/interpolation.png` and `interpolate.json`."""
    model = trained(config, workdir, "interpolate", "encode", "decode", stop=stop)
    pairs = _of_files(model) if _two_files(config) else _of_split(model)
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
        "pairs": [_described(*ends) for ends in zip(pairs.names, pairs.embedding, strict=True)],
    }
    if is_first():
        _draw(model, pairs, pictures, times)
    model.place.write("interpolate.json", report)
    made = [model.place.samples / "interpolation.png", model.place.path / "interpolate.json"]
    return {"step": model.step, "pairs": pairs.names, "files": announced(made)}


def pairs_of(indices: np.ndarray, labels: np.ndarray | None, count: int) -> list[tuple[int, int]]:
    """At most `count` pairs of the indices [N], in order and each used once: neighbours, or where
    there are labels [N] of several classes, each with the next of another class."""
    if labels is None or len(set(labels.tolist())) < 2:
        labels = np.arange(len(indices))
    left, found = list(range(len(indices))), []
    while left and len(found) < count:
        first = left.pop(0)
        other = next((place for place in left if labels[place] != labels[first]), None)
        if other is not None:
            left.remove(other)
            found.append((int(indices[first]), int(indices[other])))
    return found


def _two_files(config: FrozenConfigDict) -> bool:
    first, second = config.tools.first, config.tools.second
    if bool(first) != bool(second):
        missing = "second" if first else "first"
        raise UserError(
            f"tools.{missing} is missing: interpolation takes two images, files or numbers of "
            "examples of eval.split, by --config.tools.first and --config.tools.second."
        )
    return bool(first) and not (first.isdecimal() and second.isdecimal())


def _of_files(model: Trained) -> Pairs:
    tools = model.experiment.config.tools
    files = [loose.existing(tools[key], f"tools.{key}") for key in ("first", "second")]
    (found,) = model.embeddings(model.files(files), FILES, np.arange(2))
    names = [(files[0].name, files[1].name)]
    return Pairs(found.image[None], found.embedding[None], names)


def _of_split(model: Trained) -> Pairs:
    config = model.experiment.config
    source = model.experiment.open(config.eval.split)
    if config.tools.first:
        pairs = np.array([[int(config.tools.first), int(config.tools.second)]])
        if pairs.max() >= len(source):
            raise UserError(
                f"tools.first and tools.second: the {config.eval.split} split of {source.name} "
                f"has the examples 0 to {len(source) - 1}."
            )
    else:
        pairs = np.array(_pairs_in(source, chosen(config, source)))
    if not len(pairs):
        raise UserError(f"The {config.eval.split} split of {source.name} has no two examples.")
    found = list(model.embeddings(source, config.eval.split, pairs.ravel()))
    image = np.concatenate([part.image for part in found])
    embedding = np.concatenate([part.embedding for part in found])
    names = [f"example {index}" for index in pairs.ravel()]
    if found[0].label is not None:
        classes = [source.spec.classes[k] for part in found for k in part.label]
        names = [f"{name} ({known})" for name, known in zip(names, classes, strict=True)]
    return Pairs(
        image.reshape(*pairs.shape, *image.shape[1:]),
        embedding.reshape(*pairs.shape, -1),
        list(zip(names[::2], names[1::2], strict=True)),
    )


def _pairs_in(source: Source, indices: np.ndarray) -> list[tuple[int, int]]:
    found = []
    # A set that is sorted by class has others only far from its beginning.
    for candidates in (indices[:_LOOKED_AT], indices[spread(len(indices), _LOOKED_AT)]):
        labels = source.read(candidates).get("label")
        found = pairs_of(candidates, labels, _PAIRS)
        if labels is None or len(set(labels.tolist())) > 1:
            break
    return found


def _described(names: tuple[str, str], ends: np.ndarray) -> dict:
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
