"""Samples that restore the images behind their conditions: their PSNR, whether their outlines agree
with a hint, and a picture."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from genzoo.builders.conditions import TRANSFORMS, ConditionSettings, factor
from genzoo.core.contract import Variables
from genzoo.core.types import Array, Batch
from genzoo.data import transforms
from genzoo.evaluate.agreement import Agreement
from genzoo.evaluate.restoration import Restoration, bicubic, save_restoration
from genzoo.experiment import sample_keys
from genzoo.requests import Requests

_IMAGES, _SAMPLES = 8, 8  # the most in the picture, and those of each of them


def restoration(requests: Requests) -> Restoration:
    """The PSNR of the samples, with bicubic enlargement as the baseline if a condition is a smaller
    copy of x."""
    size = requests.experiment.shape[:2]
    sections = requests.experiment.config.conditions
    settings = [ConditionSettings(**sections[name]) for name in requests.of_x]
    downsampled = [TRANSFORMS[own.transform] for own in settings if factor(own) > 1]
    if not downsampled:
        return Restoration(repeat=requests.repeat)

    def enlarged(originals: np.ndarray) -> np.ndarray:
        return bicubic(np.asarray(downsampled[0](transforms.to_float(originals))), size)

    return Restoration(repeat=requests.repeat, baseline=enlarged, name="bicubic")


def agreement(requests: Requests) -> Agreement | None:
    """The agreement of outlines, if outlines of test images are conditions."""
    sections = requests.experiment.config.conditions
    drawn = any(sections[name].get("transform") == "outline" for name in requests.of_x)
    return Agreement() if requests.restores and drawn else None


def picture(
    requests: Requests,
    variables: Variables,
    folder: Path,
    solve: Callable[[Variables, Batch], Array],
) -> Path:
    """Draws up to eight different conditions with eight samples of each, as `restoration.png`.
    solve: (variables, rows with "keys") -> samples x."""
    images = min(_IMAGES, requests.distinct)
    rows = requests.rows(requests.repeat * np.arange(images))
    run, seed = jax.jit(solve), requests.experiment.config.sample.seed
    samples = [
        run(variables, {**rows, "keys": sample_keys(seed, first + np.arange(images))})
        for first in range(0, _SAMPLES * images, images)
    ]
    given = requests.conditions(variables, rows)
    measure = restoration(requests)
    save_restoration(
        folder / "restoration.png",
        {name: np.asarray(given[name].value) for name in requests.of_x},
        {measure.name: measure.baseline(rows["x"])} if measure.baseline else {},
        transforms.to_uint8(np.stack(samples)),
        rows["x"] if requests.restores else None,
    )
    return folder / "restoration.png"
