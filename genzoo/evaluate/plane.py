"""Pictures of models of points in the plane: samples, vector fields, paths of solvers, densities.

All are pure functions of NumPy arrays. A box is ((left, bottom), (right, top)), an array [2, 2].
The first axis of an R x R grid of places points up the plane, the second to the right. All panels
of a picture have the same frame and show both axes at one scale.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from genzoo.evaluate.figures import (
    BLUE,
    FAINT,
    INK,
    blank,
    legend_marks,
    save,
    scatter,
    shortened,
)

_SIDE = 340  # pixels of a panel
_MAX_COLUMNS = 4  # panels in a row
_GAP, _LEFT, _RIGHT, _BELOW, _ABOVE = 24, 72, 18, 56, 40  # pixels around them
_BAR = 90  # pixels for a colour bar and its numbers
_SHOWN = 20_000  # points; more make a panel no clearer
_FLOOR = 9.0  # nats below its peak at which a density counts as nothing


def frame(points: np.ndarray, margin: float = 0.08) -> np.ndarray:
    """A square box around points [..., 2] that excludes the outermost 0.1 % of the finite ones."""
    flat = np.reshape(points, (-1, 2))
    flat = flat[np.isfinite(flat).all(-1)]
    low, high = np.quantile(flat, (0.001, 0.999), axis=0)
    # Identical points still need a frame of non-zero size.
    half = max((high - low).max() / 2 * (1 + 2 * margin), 1e-6)
    centre = (low + high) / 2
    return np.stack([centre - half, centre + half])


def places(box: np.ndarray, side: int) -> np.ndarray:
    """The centres of side x side cells of a box: float64 [side, side, 2]."""
    part = (np.arange(side) + 0.5) / side
    x, y = (low + part * (high - low) for low, high in np.transpose(box))
    return np.stack(np.meshgrid(x, y), axis=-1)


def save_samples(
    path: Path,
    data: np.ndarray,
    samples: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Data [N, 2] beside samples [M, 2] in the frame of the data.

    labels: the classes of both, integers [N] and [M]; classes: their names.
    """
    box = frame(data)
    count = 0 if labels is None else 1 + max(int(label.max()) for label in labels)
    names = [*classes, *(f"class {i}" for i in range(len(classes), count))]
    longest = max((len(shortened(name, 20)) for name in names), default=0) if count else 0
    figure, panels = _panels(2, box, beside=40 + 8 * longest if count else 0)
    size = float(np.clip(8000 / min(max(len(data), len(samples)), _SHOWN), 1, 12))
    for i, (axes, source, points) in enumerate(
        zip(panels, ("data", "samples"), (data, samples), strict=True)
    ):
        # A random subset in random order, because the data may be sorted by label.
        order = np.random.default_rng(0).permutation(len(points))[:_SHOWN]
        known = None if labels is None else labels[i][order]
        scatter(axes, points[order], 2 * size, known, len(names))
        outside = _outside(points, box)
        lost = f", {outside} outside the frame" if outside else ""
        axes.set_title(f"{len(points)} {source}{lost}", fontsize=11)
    if count:
        panels[-1].legend(
            handles=legend_marks(panels[-1], names), loc="center left", bbox_to_anchor=(1.0, 0.5),
            frameon=False, fontsize=9, handletextpad=0.3,
        )  # fmt: skip
    save(figure, path)


def save_field(
    path: Path,
    positions: np.ndarray,
    vectors: np.ndarray,
    times: Sequence[float],
    points: np.ndarray,
    name: str = "velocity",
) -> None:
    """A vector field at K times over the points it acts on, one panel for each time.

    positions: [R, R, 2]; vectors: [K, R, R, 2]; points: [K, N, 2]; name: the name of the field. All
    arrows have the same length and show the direction. The colour shows the magnitude on a shared
    logarithmic scale, because a score grows by orders of magnitude towards the data.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    flat = positions.reshape(-1, 2)
    cell = np.ptp(flat, axis=0) / max(len(positions) - 1, 1)
    cell = np.where(cell > 0, cell, 1.0)
    box = np.stack([flat.min(0) - 0.75 * cell, flat.max(0) + 0.75 * cell])
    lengths = np.linalg.norm(vectors, axis=-1)
    known = lengths[np.isfinite(lengths) & (lengths > 0)]
    high = float(known.max(initial=0)) or 1.0
    # Clip at a thousandth of the maximum: zeros of the field would use up the colour scale.
    low = max(float(known.min(initial=high)), high / 1000)
    norm = LogNorm(low, high if high > low else 1.001 * low)
    figure, panels = _panels(len(times), box, beside=_BAR)
    reach = float(cell.min())
    for axes, time, vector, length, behind in zip(
        panels, times, vectors, lengths, points, strict=True
    ):
        axes.scatter(*behind[:_SHOWN].T, s=3, color="#c8c8c8", linewidths=0)
        arrows = vector / np.maximum(length, 1e-30)[..., None] * (0.85 * reach)
        axes.quiver(
            *flat.T, *arrows.reshape(-1, 2).T, np.maximum(length, low).ravel(), norm=norm,
            cmap=colormaps["viridis"], angles="xy", scale_units="xy", scale=1, pivot="middle",
            units="xy", width=0.08 * reach, headwidth=4, headlength=4.5, headaxislength=4,
        )  # fmt: skip
        axes.set_title(f"t = {time:.3g}", fontsize=11)
    _bar(figure, panels[_columns(len(panels)) - 1], panels[0].collections[-1], f"|{name}|")
    save(figure, path)


def save_trajectories(
    path: Path,
    names: Sequence[str],
    paths: Sequence[np.ndarray],
    evaluations: Sequence[int],
) -> None:
    """The paths that solvers take from noise to data, one panel for each solver.

    paths: one array [S + 1, N, 2] for each solver, from noise to data; evaluations: the network
    evaluations of each solver.
    """
    # One diverging solver must not set the frame of all the others.
    finite = [points for points in paths if np.isfinite(points).all()] or paths
    boxes = sorted((frame(points) for points in finite), key=lambda box: box[1, 0] - box[0, 0])
    box = boxes[(len(boxes) - 1) // 2]
    figure, panels = _panels(len(paths), box, head=30)
    count = max(points.shape[1] for points in paths)
    size = float(np.clip(3000 / count, 3, 18))
    for axes, name, points, calls in zip(panels, names, paths, evaluations, strict=True):
        thin = float(np.clip(100 / count, 0.3, 1.0))
        axes.plot(points[..., 0], points[..., 1], color=FAINT, lw=thin, zorder=1)
        start, *between, end = points
        if 0 < len(between) < 20 and points[..., 0].size <= 2000:  # few enough to be distinct
            steps = np.reshape(between, (-1, 2))
            axes.scatter(*steps.T, s=3, color=FAINT, linewidths=0, zorder=2)
        starts = axes.scatter(*start.T, s=size, color="white", edgecolors=FAINT, lw=0.8, zorder=3)
        ends = axes.scatter(*end.T, s=size, color=BLUE, linewidths=0, zorder=4)
        outside = _outside(end, box)
        lost = f", {outside} end outside" if outside else ""
        axes.set_title(f"{name}: {calls} NFE{lost}", fontsize=11)
    figure.legend(
        (starts, ends), ("start: noise", "end: data"), loc="upper right", ncols=2, frameon=False,
        fontsize=10, borderaxespad=0.3, handletextpad=0.2, markerscale=math.sqrt(25 / size),
    )  # fmt: skip
    save(figure, path)


def save_forward(
    path: Path, states: Mapping[str, np.ndarray], times: Sequence[float]
) -> None:
    """How points become noise: one row for each schedule, one column for every second time.

    states: schedule -> points [K, N, 2] at times [K].
    """
    shown = range(0, len(times), 2)
    box = frame(np.concatenate([points[i] for points in states.values() for i in shown]))
    side, left, gap, head = 170, 150, 8, 30
    width = left + (side + gap) * len(shown) + gap
    height = head + (side + gap) * len(states) + gap
    figure = blank(width, height)
    for row, (name, points) in enumerate(states.items()):
        bottom = height - head - (side + gap) * (row + 1)
        figure.text(
            (left - 12) / width, (bottom + side / 2) / height, name.replace(" (", "\n("),
            ha="right", va="center", fontsize=10, color=INK,
        )  # fmt: skip
        for column, i in enumerate(shown):
            x = left + (side + gap) * column
            axes = figure.add_axes((x / width, bottom / height, side / width, side / height))
            axes.scatter(*points[i][:_SHOWN].T, s=2, color=BLUE, alpha=0.6, linewidths=0)
            axes.set_xlim(*box[:, 0])
            axes.set_ylim(*box[:, 1])
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("#dddddd")
            if row == 0:
                axes.set_title(f"t = {times[i]:.2g}", fontsize=10, color=FAINT)
    save(figure, path)


def save_densities(path: Path, exact: np.ndarray, model: np.ndarray, box: np.ndarray) -> float:
    """The exact log-density, the model's and their difference; returns the mean in the title.

    exact, model: log-densities in nats, [R, R], at the cell centres of a box as given by `places`.
    The title gives the mean of |model - exact| under the exact density on the grid. Places where
    both are more than 9 nats below the exact peak stay blank. The colour scale of the difference
    ends where 99 % of the mass has smaller differences.
    """
    from matplotlib import colormaps

    peak = exact.max()
    weights = np.exp(exact - peak)
    weights /= weights.sum()
    with np.errstate(invalid="ignore"):
        off = model - exact
    # Where the exact density is zero the difference is NaN and has no weight.
    apart = np.where(weights > 0, np.abs(off), 0.0)
    mean = float((weights * apart).sum())
    order = np.argsort(apart, axis=None)
    heights = np.cumsum(weights.ravel()[order])
    most = float(apart.ravel()[order][min(np.searchsorted(heights, 0.99), apart.size - 1)])
    most = most if np.isfinite(most) and most > 0 else 1.0
    figure, panels = _panels(3, box, beside=_BAR, each=True)
    nothing = np.maximum(exact, model) < peak - _FLOOR
    shown = (
        ("exact log density", exact, "viridis", peak - _FLOOR, peak),
        ("log density of the model", model, "viridis", peak - _FLOOR, peak),
        (f"difference: mean absolute {mean:.3g} nats", off, "RdBu_r", -most, most),
    )
    (left, bottom), (right, top) = box
    for axes, (title, values, cmap, low, high) in zip(panels, shown, strict=True):
        image = axes.imshow(
            np.ma.masked_where(nothing | np.isnan(values), values), origin="lower",
            extent=(left, right, bottom, top), vmin=low, vmax=high, cmap=colormaps[cmap],
            interpolation="nearest", aspect="equal",
        )  # fmt: skip
        axes.set_title(title, fontsize=11)
        if values is off:
            _bar(figure, axes, image, "model minus exact, nats", extend="both")
        else:
            _bar(figure, axes, image, "nats")
    save(figure, path)
    return mean


def _outside(points: np.ndarray, box: np.ndarray) -> int:
    """The number of points [N, 2] outside a box, including those that are NaN."""
    return int(len(points) - ((points >= box[0]) & (points <= box[1])).all(-1).sum())


def _columns(count: int) -> int:
    """The number of panels in a row, for rows as even as possible."""
    return -(-count // -(-count // _MAX_COLUMNS))


def _panels(count: int, box: np.ndarray, *, beside: int = 0, head: int = 0, each: bool = False):
    """A figure and `count` axes over a box.

    beside: pixels to the right of the last column, or of every panel if `each`. head: pixels above
    all panels.
    """
    across, down = (float(extent) for extent in box[1] - box[0])
    side = (_SIDE, max(1, round(_SIDE * down / across)))
    columns = _columns(count)
    rows = -(-count // columns)
    step = _SIDE + _GAP + (beside if each else 0)
    tall = side[1] + _ABOVE
    width = _LEFT + step * columns - _GAP + _RIGHT + (0 if each else beside)
    height = head + tall * rows + _BELOW
    figure = blank(width, height)
    panels = []
    for i in range(count):
        row, column = divmod(i, columns)
        x, y = _LEFT + step * column, height - head - tall * (row + 1)
        axes = figure.add_axes((x / width, y / height, side[0] / width, side[1] / height))
        axes.set_xlim(box[0][0], box[1][0])
        axes.set_ylim(box[0][1], box[1][1])
        axes.locator_params(nbins=5)
        axes.tick_params(labelsize=9, colors=FAINT)
        axes.spines[:].set_color("#bbbbbb")
        # Labels only at the edges of the picture; the inner panels share them.
        if i + columns < count:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("first coordinate", color=INK, fontsize=10)
        if column:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("second coordinate", color=INK, fontsize=10)
        panels.append(axes)
    return figure, panels


def _bar(figure, axes, mappable, label: str, extend: str = "neither") -> None:
    """A colour bar to the right of the axes, with the same height."""
    x, y, wide, tall = axes.get_position().bounds
    pixel = wide / _SIDE
    bar = figure.colorbar(
        mappable, cax=figure.add_axes((x + wide + 10 * pixel, y, 12 * pixel, tall)), extend=extend
    )
    bar.set_label(label, fontsize=9, color=INK, labelpad=5)
    bar.ax.tick_params(labelsize=8, colors=FAINT)
    bar.outline.set_visible(False)
