"""Pictures of diffusion on images: denoising, the effect of guidance, and a comparison of solvers.

All are labelled rows of images from uint8 arrays.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from genzoo.evaluate import pictures
from genzoo.evaluate.figures import Row, save_rows, shortened

_MOMENTS = 8
_CELL = 160  # least width in pixels of a cell of several images


def moments(count: int, most: int = _MOMENTS) -> np.ndarray:
    """At most `most` evenly spaced indices below `count`, with both ends: int64, ascending."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(int))


def save_denoising(
    path: Path,
    states: np.ndarray,
    predicted: np.ndarray,
    times: Sequence[float],
    symbol: str = "t",
) -> None:
    """The path of each of N examples from noise to an image, at eight evenly spaced states.

    Below each state is the image that the model predicted from it.

    states: uint8 [S, N, H, W, C], from noise to image; times [S]: their times; symbol: the symbol
    for time in the column headings ("t", or "$\\sigma$"). predicted: uint8 [S, N, H, W, C], or
    [S - 1, ...] if the last state is the result and has no prediction; its cell stays empty.
    """
    shown = moments(len(states))
    under = shown[shown < len(predicted)]
    columns = [f"{symbol} = {_brief(times[i])}" for i in shown]
    rows = []
    for i in range(states.shape[1]):
        heading = f"example {i}" if states.shape[1] > 1 else ""
        rows.append(Row(images=states[shown, i], label="state", heading=heading))
        rows.append(Row(images=predicted[under, i], label="predicted\nimage"))
    save_rows(path, rows, columns)


def save_forward(
    path: Path, states: Mapping[str, np.ndarray], times: Sequence[float]
) -> None:
    """One row for each schedule: how an image becomes noise.

    states: schedule -> uint8 [K, H, W, C], at times [K].
    """
    rows = [Row(images=images, label=name.replace(" (", "\n(")) for name, images in states.items()]
    save_rows(path, rows, [f"t = {_brief(t)}" for t in times])


def save_guidance(
    path: Path, images: np.ndarray, scales: Sequence[float], classes: Sequence[str]
) -> None:
    """One row for each guidance scale, one column for each class.

    images: uint8 [scales, classes, H, W, C]; a column shares its noise. classes: the class names.
    """
    rows = [
        Row(images=row, label=f"scale {_brief(scale)}")
        for row, scale in zip(images, scales, strict=True)
    ]
    save_rows(path, rows, [shortened(name, 12) for name in classes])


def save_solvers(
    path: Path,
    images: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    steps: Sequence[int],
    evaluations: Sequence[Sequence[int]],
    reference: np.ndarray,
    reference_name: str = "reference",
) -> np.ndarray:
    """One row for each solver, one column for each number of steps.

    A cell shows N images from the same N noises, with the number of network evaluations (NFE) and
    the distance to the reference.

    images: [solvers][steps] of uint8 [N, H, W, C]; evaluations: [solvers][steps]; reference: uint8
    [N, H, W, C], shown below the others. Returns the distances, float64 [solvers, steps]: the
    root-mean-square difference over all N images, of pixels in [-1, 1].
    """
    distances = np.array([[distance(cell, reference) for cell in row] for row in images])
    rows = [
        Row(
            images=np.stack([pictures.grid(cell, shown_width=_CELL) for cell in row]),
            label=name,
            captions=[
                f"NFE {calls}\nrms {rms:.3f}" for calls, rms in zip(counts, errors, strict=True)
            ],
        )
        for name, row, counts, errors in zip(names, images, evaluations, distances, strict=True)
    ]
    rows.append(Row(images=pictures.grid(reference, shown_width=_CELL)[None], label=reference_name))
    columns = [f"{count} step{'s' * (count != 1)}" for count in steps]
    save_rows(path, rows, columns, title=f"rms: distance to the {reference_name}")
    return distances


def distance(images: np.ndarray, reference: np.ndarray) -> float:
    """The root-mean-square difference of two uint8 arrays of one shape, for pixels in [-1, 1]."""
    off = images.astype(np.float64) - reference.astype(np.float64)
    return float(np.sqrt(np.mean(np.square(off))) / 127.5)


def _brief(value: float) -> str:
    """A number with three digits and no exponent: 0.0123, 80, 1000."""
    value = float(value)
    if value == 0:
        return "0"
    digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
