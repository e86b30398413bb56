"""A picture of distances over the number of evaluations and the guidance scale."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genzoo.evaluate.figures import FAINT, INK, blank, marks, save

_WIDTH, _HEIGHT = 620, 430  # pixels


class Point(NamedTuple):
    """A measured distance. evaluations: per sample. scale: of guidance."""

    evaluations: float
    scale: float
    value: float
    error: float = 0.0


def save_sweep(
    path: Path, name: str, points: Sequence[Point], floor: float, scale: str = "guidance scale"
) -> None:
    """Plots distances called `name` against evaluations, a line per scale of guidance, or against
    that scale if the evaluations are always the same. floor: the distance of test images. scale:
    what the scale is called."""
    scales = sorted({point.scale for point in points})
    counts = sorted({point.evaluations for point in points})
    figure = blank(_WIDTH, _HEIGHT)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    if len(counts) > 1:
        lines = {f"{scale} {at:g}": [p for p in points if p.scale == at] for at in scales}
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("evaluations of the network per sample")
    else:
        lines = {"": list(points)}
        axes.set_xlabel(scale)
    for (colour, mark), (label, line) in zip(marks(len(lines)), lines.items(), strict=True):
        places = [p.evaluations if len(counts) > 1 else p.scale for p in line]
        axes.errorbar(
            places, [p.value for p in line], [p.error for p in line], marker=mark, color=colour,
            label=label if len(lines) > 1 else None, linewidth=1.2, markersize=4, capsize=2,
        )  # fmt: skip
    axes.axhline(floor, color=FAINT, linestyle=":", linewidth=1.2, label="test images")
    axes.set_ylabel(name)
    axes.set_ylim(bottom=0)
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    save(figure, path)
