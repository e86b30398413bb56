"""Figures with text: labelled rows of images, a plane of codes, the use of a codebook.

They use Matplotlib without its global state: no pyplot, and no backend is set. Images in rows are
copied pixel by pixel and enlarged by integer factors, so that they stay sharp.
"""

import math
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from genzoo.core.files import aside
from genzoo.evaluate import pictures

_DPI = 100
_LEAST_CELL = 80  # pixels: smaller images are enlarged
INK, FAINT, BLUE, RED = "#222222", "#777777", "#4c72b0", "#c03030"
_LEGEND = 30  # the most classes that a legend names; with more there are only marks


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of images, uint8 [N, H, W, C].

    label: the text to its left. heading: a line of text above it. captions: the text under each
    image, of any number of lines. marked: the images whose captions are highlighted.
    """

    images: np.ndarray
    label: str = ""
    heading: str = ""
    captions: Sequence[str] = ()
    marked: Collection[int] = ()


def shortened(text: str, most: int = 14) -> str:
    """The text, truncated if it is too long to fit under an image."""
    return text if len(text) <= most else text[: most - 1] + "…"


def save_captioned(
    path: Path, images: np.ndarray, captions: Sequence[str], columns: int = 0
) -> None:
    """Saves images, uint8 [N, H, W, C], as PNG, each above its caption. columns: of the grid; 0 for
    about as many columns as rows."""
    cell, letter = 112, 12
    wide = math.ceil(cell / images.shape[2]) * images.shape[2]
    lines = [textwrap.fill(text, int(wide / (0.58 * letter))) for text in captions]
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = [
        Row(images=images[i : i + columns], captions=lines[i : i + columns])
        for i in range(0, len(images), columns)
    ]
    save_rows(path, rows, least_cell=cell, letter=letter)


def save_rows(
    path: Path,
    rows: Sequence[Row],
    columns: Sequence[str] = (),
    apart: Sequence[int] = (),
    title: str = "",
    least_cell: int = _LEAST_CELL,
    letter: int = 0,
) -> None:
    """Saves rows of images of one shape as PNG.

    columns: a name above each column. apart: the columns that follow a wider gap. title: a line of
    text above all rows. least_cell: the side in pixels up to which smaller images are enlarged.
    letter: the height of letters in pixels; 0 for one in proportion to the images.
    """
    height, width = rows[0].images.shape[1:3]
    factor = max(1, math.ceil(least_cell / min(height, width)))
    height, width = height * factor, width * factor
    letter = letter or min(max(width // 7, 11), 22)
    line, gap = round(1.35 * letter), max(3, letter // 4)
    longest = max(len(part) for row in rows for part in row.label.split("\n"))
    left = 2 * letter + round(0.62 * letter * longest)
    count = max(len(row.images) for row in rows)
    shifts = np.cumsum([gap * (1 + 4 * (i in apart)) for i in range(count)])
    lefts = left + shifts + width * np.arange(count)
    top = letter + (2 * line if title else 0) + (line if columns else 0)
    words, placed = [], []
    if title:
        words.append((left + gap, letter, title, "left", INK, 1.2))
    for name, x in zip(columns, lefts, strict=False):
        words.append((x + width / 2, top - line, name, "center", FAINT, 1))
    for row in rows:
        if row.heading:
            top += line // 2
            words.append((left + gap, top, row.heading, "left", INK, 1))
            top += line
        middle = top + (height - line * (1 + row.label.count("\n"))) / 2
        words.append((left - letter // 2, middle, row.label, "right", INK, 1))
        for i, image in enumerate(row.images):
            placed.append((top, lefts[i], image))
        lines = max((caption.count("\n") + 1 for caption in row.captions), default=0)
        for i, caption in enumerate(row.captions):
            colour = RED if i in row.marked else FAINT
            words.append((lefts[i] + width / 2, top + height + gap, caption, "center", colour, 1))
        top += height + gap + (gap + line * lines if lines else 0)
    wide = max(lefts[-1] + width, left + round(0.75 * letter * len(title))) + letter
    page = np.full((top + letter, wide, 3), 255, np.uint8)
    for y, x, image in placed:
        page[y : y + height, x : x + width] = _coloured(image).repeat(factor, 0).repeat(factor, 1)
    figure = blank(page.shape[1], page.shape[0])
    figure.figimage(page, origin="upper")
    for x, y, text, align, colour, scale in words:
        figure.text(
            x / page.shape[1], 1 - y / page.shape[0], text, ha=align, ma=align, va="top",
            color=colour, fontsize=scale * letter * 72 / _DPI,
            fontweight="bold" if colour == RED else "normal",  # not by colour alone
        )  # fmt: skip
    save(figure, path)


def save_plane(
    path: Path,
    codes: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    manifold: np.ndarray,
    box: np.ndarray,
) -> None:
    """A scatter plot of codes [N, 2], coloured by class, beside the decoded images of a grid.

    manifold: uint8 [R, R, H, W, C]; the first axis points up the plane, the second to the right.
    box: ((left, bottom), (right, top)), the codes at the corners of the grid.
    """
    figure = blank(1560, 720)
    left = figure.add_axes((0.045, 0.09, 0.40, 0.84))
    order = np.random.default_rng(0).permutation(len(codes))  # so that no class covers another
    size = float(np.clip(60000 / len(codes), 8, 40))
    scatter(left, codes[order], size, None if labels is None else labels[order], len(classes))
    # Codes that have collapsed to a point still need a frame of non-zero size.
    (x_0, y_0), (x_1, y_1) = box + 1e-6 * np.array([[-1.0], [1.0]])
    left.plot((x_0, x_1, x_1, x_0, x_0), (y_0, y_0, y_1, y_1, y_0), color=INK, lw=1, ls="--")
    left.set_title(f"{len(codes)} codes; the frame is the picture on the right", fontsize=11)
    if labels is not None and len(classes) <= _LEGEND:
        figure.legend(
            handles=legend_marks(left, classes), loc="center left", bbox_to_anchor=(0.449, 0.51),
            frameon=False, fontsize=9, handletextpad=0.3, borderaxespad=0,
        )  # fmt: skip
    right = figure.add_axes((0.59, 0.09, 0.3877, 0.84))
    page = _coloured(
        pictures.grid(manifold[::-1].reshape(-1, *manifold.shape[2:]), manifold.shape[1], gap=0)
    )
    right.imshow(page, extent=(x_0, x_1, y_0, y_1), aspect="auto", interpolation="antialiased")
    side = len(manifold)
    right.set_title(f"decoded codes, {side} x {side} over the central 99 %", fontsize=11)
    for axes in (left, right):
        axes.set_xlabel("unit 0")
        axes.set_ylabel("unit 1")
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a codebook.

    title: the heading. counts [K]: the number of uses of each code. images: the decoded images of
    single codes, uint8 [N, H, W, C], the most used first.
    """

    title: str
    counts: np.ndarray
    images: np.ndarray


def save_codebook(path: Path, levels: Sequence[Level]) -> None:
    """The use of the codes of each level, the most used first, beside their decoded images."""
    width, height = 1300, 560
    figure = blank(width, height * len(levels))
    for number, level in enumerate(levels):
        bottom = 1 - (number + 1) / len(levels)
        tall = 1 / len(levels)
        left = figure.add_axes((0.065, bottom + 0.11 * tall, 0.46, 0.78 * tall))
        used = np.sort(level.counts)[::-1]
        left.fill_between(
            np.arange(len(used) + 1), np.append(used, used[-1]), step="post", color=BLUE, lw=0
        )
        left.set_xlim(0, len(used))
        if used[0] > 0:
            least = max(used[used > 0].min(), 1)
            left.set_yscale("log")
            left.set_ylim(0.7 * least, 1.5 * used[0])
        even = level.counts.sum() / len(used)
        left.axhline(even, color=INK, lw=1, ls="--")
        left.annotate(
            "even use", (1, even), xycoords=("axes fraction", "data"), xytext=(-4, 3),
            textcoords="offset points", ha="right", fontsize=9, color=INK,
        )  # fmt: skip
        left.set_xlabel("codes, the most used first")
        left.set_ylabel("times used")
        left.set_title(level.title, fontsize=11)
        left.spines[["top", "right"]].set_visible(False)
        right = figure.add_axes((0.57, bottom + 0.04 * tall, 0.41, 0.85 * tall))
        right.set_axis_off()
        right.set_anchor("N")
        right.set_title(f"the {len(level.images)} most used, each at every place", fontsize=11)
        page = _coloured(pictures.grid(level.images, 8, shown_width=560))
        right.imshow(page, interpolation="antialiased")
    save(figure, path)


def save_curve(path: Path | IO[bytes], steps: np.ndarray, losses: np.ndarray) -> None:
    """Saves a plot of a loss [N] against the steps [N] as PNG."""
    figure = blank(480, 240)
    axes = figure.add_axes((0.14, 0.2, 0.83, 0.7))
    axes.plot(steps, losses, color=BLUE, lw=1.2)
    axes.set_xlabel("step", color=INK, fontsize=10)
    axes.set_ylabel("loss", color=INK, fontsize=10)
    axes.tick_params(labelsize=8, colors=FAINT)
    figure.savefig(path, format="png", dpi=figure.dpi)


def blank(width: int, height: int):
    """An empty white figure, with its size in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure, path: Path) -> None:
    """Saves the figure as PNG at its own resolution; creates the folder if it is missing."""
    with aside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def _coloured(page: np.ndarray) -> np.ndarray:
    """Three channels, as `pictures.save` chooses them."""
    return page if page.shape[-1] == 3 else page[..., :1].repeat(3, -1)


# Ten colours that readers with any kind of colour blindness can tell apart: Petroff 2021,
# Accessible color sequences for data visualization (arXiv:2107.02270).
_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70",
    "#717581", "#92dadd",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "*")


def marks(count: int) -> list[tuple[str, str]]:
    """(colour, marker) for each of `count` classes.

    Up to ten classes differ in both, and up to a hundred in at least one. Further classes repeat
    earlier pairs.
    """
    ten = len(_COLOURS)
    return [(_COLOURS[i % ten], _MARKERS[(i + i // ten) % ten]) for i in range(count)]


def scatter(
    axes, points: np.ndarray, size: float, labels: np.ndarray | None = None, classes: int = 0
) -> None:
    """Plots points [N, 2] in the given order, as dots or as the marks of their classes.

    size: the area of a mark in square points. labels: int [N], or None for dots. classes: the
    number of classes.
    """
    if labels is None:
        axes.scatter(*points.T, s=size / 2, c=BLUE, alpha=0.7, linewidths=0)
        return
    from matplotlib.markers import MarkerStyle

    known = marks(max(classes, int(labels.max(initial=0)) + 1))
    styles = [MarkerStyle(marker) for _, marker in known]
    paths = [style.get_path().transformed(style.get_transform()) for style in styles]
    drawn = axes.scatter(
        *points.T, s=size, c=[known[i][0] for i in labels], alpha=0.9, linewidths=0.3,
        edgecolors="white",
    )  # fmt: skip
    drawn.set_paths([paths[i] for i in labels])


def legend_marks(axes, names: Sequence[str]) -> list:
    """A legend handle for each class."""
    return [
        axes.scatter([], [], s=50, c=colour, marker=marker, label=shortened(name, 20), lw=0)
        for (colour, marker), name in zip(marks(len(names)), names, strict=True)
    ]
