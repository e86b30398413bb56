"""Samples that restore the images that their conditions are made from, as `--mode=sample` measures
and draws them."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from genzoo.builders.conditions import TRANSFORMS, ConditionSettings, factor
from genzoo.core.contract import Variables
from genzoo.core.types import Array, Batch
from genzoo.data import transforms
from genzoo.evaluate.restoration import Restoration, bicubic, save_restoration
from genzoo.experiment import sample_keys
from genzoo.requests import Requests

_IMAGES, _SAMPLES = 8, 8  # in the picture, and of each of them


def restoration(requests: Requests) -> Restoration:
    """A measure of the samples, beside bicubic enlargement if a condition is a smaller copy of x.
    """
    size = requests.experiment.shape[:2]
    settings = requests.experiment.config.conditions
    every = [ConditionSettings(**settings[name]) for name in requests.of_x]
    smaller = [TRANSFORMS[own.transform] for own in every if factor(own) > 1]
    if not smaller:
        return Restoration(repeat=requests.repeat)

    def enlarged(originals: np.ndarray) -> np.ndarray:
        return bicubic(np.asarray(smaller[0](transforms.to_float(originals))), size)

    return Restoration(repeat=requests.repeat, simple=enlarged, name="bicubic")


def picture(
    requests: Requests,
    variables: Variables,
    folder: Path,
    solve: Callable[[Variables, Batch], Array],
) -> Path:
    """The conditions of the first samples, and eight samples of each. solve: (variables, rows with
    "keys") -> samples x."""
    rows = requests.rows(requests.repeat * np.arange(_IMAGES))
    run, seed = jax.jit(solve), requests.experiment.config.sample.seed
    samples = [
        run(variables, {**rows, "keys": sample_keys(seed, first + np.arange(_IMAGES))})
        for first in range(0, _SAMPLES * _IMAGES, _IMAGES)
    ]
    given = requests.conditions(variables, rows)
    simple = restoration(requests)
    save_restoration(
        folder / "restoration.png",
        {name: np.asarray(given[name].value) for name in requests.of_x},
        {simple.name: simple.simple(rows["x"])} if simple.simple else {},
        transforms.to_uint8(np.stack(samples)),
        rows["x"] if requests.restores else None,
    )
    return folder / "restoration.png"
