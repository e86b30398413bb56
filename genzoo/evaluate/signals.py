"""Pictures of models of signals: samples beside data as lines, and their spectra.

Pure functions of NumPy arrays, like those of points in `plane`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genzoo.evaluate.figures import BLUE, FAINT, INK, RED, blank, marks, save, shortened

_ROWS = 6  # the most samples that are shown
_WIDE, _TALL, _SPECTRUM = 430, 84, 210  # pixels of a panel of lines, its height; of the spectrum
_LEFT, _RIGHT, _GAP, _ABOVE, _BELOW = 112, 20, 24, 64, 52
_LOST = 1e-6  # of the highest power; lower values are not shown


def save_samples(
    path: Path,
    data: np.ndarray,
    samples: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
    classes: Sequence[str] = (),
    *,
    channels: Sequence[str] = (),
    axis: str = "sample",
) -> None:
    """Up to six samples [M, L, C] beside signals of the data [N, L, C], and mean power spectra.

    There is one line for each channel, and all panels have the frame of the data. The spectra below
    are those of all data and all samples.

    labels: the classes of both, integers [N] and [M]; each row then shows one class. The panel
    beside a sample is empty if no signal of the data is left for it. classes: the class names.
    channels: the channel names. axis: the label of the axis L.
    """
    places, names = _side_by_side(len(data), len(samples), labels, classes)
    width = _LEFT + 2 * _WIDE + _GAP + _RIGHT
    height = _ABOVE + len(places) * (_TALL + 6) + _BELOW + _SPECTRUM + _ABOVE + 12
    figure = blank(width, height)
    low, high = np.quantile(data, (0.001, 0.999))
    margin = 0.08 * max(high - low, 1e-6)
    count = data.shape[-1]
    palette = [BLUE, RED][:count] if count <= 2 else [colour for colour, _ in marks(count)]
    columns = (("signals of the data", data), ("samples", samples))
    for column, (source, values) in enumerate(columns):
        drawn = sum(pair[column] is not None for pair in places)
        for row, pair in enumerate(places):
            x, y = _LEFT + column * (_WIDE + _GAP), height - _ABOVE - (row + 1) * (_TALL + 6)
            axes = _axes(figure, x, y, _WIDE, _TALL)
            for channel in range(count) if pair[column] is not None else ():
                axes.plot(values[pair[column], :, channel], color=palette[channel], lw=1.1)
            axes.set_xlim(0, data.shape[1] - 1)
            axes.set_ylim(low - margin, high + margin)
            axes.locator_params(axis="y", nbins=3)
            if row == 0:
                shown = "" if drawn == len(values) else f"{drawn} of "
                axes.set_title(f"{shown}{len(values)} {source}", fontsize=11)
            if column:
                axes.set_yticklabels([])
            elif names[row]:
                axes.set_ylabel(shortened(names[row]), rotation=0, ha="right", va="center",
                                color=INK, fontsize=10, labelpad=12)  # fmt: skip
            if row < len(places) - 1:
                axes.set_xticklabels([])
            else:
                axes.set_xlabel(axis, color=INK, fontsize=10)
    if channels and places:
        lines = [
            axes.plot([], [], color=colour, label=name)[0]
            for colour, name in zip(palette, channels, strict=True)
        ]
        figure.legend(
            handles=lines, loc="upper right", ncols=min(count, 6), frameon=False,
            fontsize=9,
        )  # fmt: skip
    _spectra(_axes(figure, _LEFT, _BELOW, 2 * _WIDE + _GAP, _SPECTRUM), data, samples)
    save(figure, path)


def spectrum(signals: np.ndarray) -> np.ndarray:
    """The mean power of signals [N, L, C] at 0, 1, ... L // 2 periods per signal: [L // 2 + 1].

    Each value includes the negative frequency, so the sum is the mean square of the signals.
    """
    length = signals.shape[1]
    power = np.square(np.abs(np.fft.rfft(signals.astype(np.float64), axis=1) / length)).mean((0, 2))
    both = np.full(len(power), 2.0)  # the frequency and its negative
    both[0] = 1
    if length % 2 == 0:
        both[-1] = 1
    return power * both


def _spectra(axes, data: np.ndarray, samples: np.ndarray) -> None:
    known, made = spectrum(data), spectrum(samples)
    axes.plot(known, color=INK, lw=2.4, alpha=0.35, label="data")
    axes.plot(made, color=BLUE, lw=1.2, marker="o", ms=2.5, label="samples")
    axes.set_yscale("log")
    top = max(known.max(), 1e-30)
    axes.set_ylim(_LOST * top, 3 * top)
    axes.set_xlim(0, len(known) - 1)
    axes.set_title("mean power spectrum", fontsize=11)
    axes.set_xlabel("periods per signal", color=INK, fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def _side_by_side(
    known: int,
    made: int,
    labels: tuple[np.ndarray, np.ndarray] | None,
    classes: Sequence[str],
) -> tuple[list[tuple[int | None, int]], list[str]]:
    """(index in the data, index in the samples) of each row, and the names of the rows. The former
    is None where no signal of the data is left for the sample.

    With labels, both signals of a row have the same class, and the rows cycle through the classes.
    """
    if labels is None:
        labels, classes = (np.zeros(known, int), np.zeros(made, int)), ("",)
    rows = []
    for k in np.unique(labels[1]):
        name = classes[k] if k < len(classes) else f"class {k}"
        data, samples = (np.flatnonzero(label == k)[:_ROWS] for label in labels)
        rows += [
            (turn, k, (int(data[turn]) if turn < len(data) else None, int(sample)), name)
            for turn, sample in enumerate(samples)
        ]
    rows = sorted(rows, key=lambda row: row[:2])[:_ROWS]
    return [pair for _, _, pair, _ in rows], [name for *_, name in rows]


def _axes(figure, x: float, y: float, wide: float, tall: float):
    width, height = figure.get_size_inches() * figure.dpi
    axes = figure.add_axes((x / width, y / height, wide / width, tall / height))
    axes.tick_params(labelsize=8, colors=FAINT)
    axes.spines[:].set_color("#bbbbbb")
    return axes
