"""How well reconstructions agree with their originals, and what the measures are called.

| name | measures | source |
|---|---|---|
| psnr | mean over images of 10 log10(R^2 / MSE), in decibels | `similarity` |
| ssim | mean over images of SSIM, 1 for equal images | Wang et al. 2004 |
| lpips | mean over images of LPIPS 0.1 on VGG-16, 0 for equal images | Zhang et al. 2018 |
| rfd_NETWORK | Fréchet distance between the images and their reconstructions | Heusel et al. 2017 |

`rfd` compares two sets and not two images: blurred copies have a large one, however close each of
them is to its original. Beside it stand the distances of as many training images (its floor, which
reconstructions may fall below) and of noise (its ceiling) from the same images.

Networks see images, whose values are whole levels from 0 to 255: `lpips` and `rfd` are of rounded
reconstructions, `psnr` and `ssim` of the model's own values.
"""

from typing import NamedTuple

import numpy as np

from genzoo.core.errors import nearest
from genzoo.evaluate.features.table import NETWORKS

PAIRED = ("psnr", "ssim", "lpips")
"""Measures of pairs of images."""
RFD = "rfd"
"""The measure of two sets, before the name of a feature network."""


class Measure(NamedTuple):
    """The name of a measure in two parts. network: "" for those of pairs."""

    name: str
    network: str = ""

    def __str__(self) -> str:
        return "_".join(part for part in self if part)


def parsed(names: str) -> list[Measure]:
    """The measures named in eval.reconstructions, separated by commas."""
    given = (name.strip().partition("_") for name in names.split(","))
    return [Measure(name, network) for name, _, network in given if name]


def problems(names: str) -> list[str]:
    """Why the names in eval.reconstructions are none."""
    known = (*PAIRED, *(f"{RFD}_{network}" for network in NETWORKS))
    return [
        f"eval.reconstructions: {str(one)!r} is no measure: {nearest(str(one), known)}"
        for one in parsed(names)
        if str(one) not in known
    ]


def averaged(values: np.ndarray) -> dict[str, float]:
    """The mean of the values [n] of all images, with its standard error, which one image lacks."""
    values, mean = values.astype(np.float64), {"value": float(values.mean(dtype=np.float64))}
    if len(values) == 1:
        return mean
    return {**mean, "standard_error": float(values.std(ddof=1) / np.sqrt(len(values)))}
