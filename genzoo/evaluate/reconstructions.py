"""How well reconstructions agree with their originals, and what the measures are called.

| name | measures | source |
|---|---|---|
| psnr | mean over images of 10 log10(R^2 / MSE), in decibels | `similarity` |
| ssim | mean over images of SSIM, 1 for equal images | Wang et al. 2004 |
| lpips | mean over images of LPIPS 0.1 on VGG-16, 0 for equal images | Zhang et al. 2018 |
| rfd_NETWORK | Fréchet distance between the images and their reconstructions | Heusel et al. 2017 |

`rfd` compares two sets, not pairs of images: blurred reconstructions have a large `rfd`, however
close each is to its original. It is reported with the distances of up to as many images of another
split (its floor, which reconstructions may beat) and of noise (its ceiling) from the originals.

`lpips` and `rfd` are computed on reconstructions rounded to integer levels from 0 to 255, `psnr`
and `ssim` on the unrounded output of the model.
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
    """A sentence for each invalid name in eval.reconstructions."""
    known = (*PAIRED, *(f"{RFD}_{network}" for network in NETWORKS))
    return [
        f"eval.reconstructions: {str(one)!r} is no measure: {nearest(str(one), known)}"
        for one in parsed(names)
        if str(one) not in known
    ]


def averaged(values: np.ndarray) -> dict[str, float]:
    """The mean of the values [n] and, if n > 1, its standard error."""
    values, mean = values.astype(np.float64), {"value": float(values.mean(dtype=np.float64))}
    if len(values) == 1:
        return mean
    return {**mean, "standard_error": float(values.std(ddof=1) / np.sqrt(len(values)))}
