"""Line charts as inline SVG, hand-made, whose colours come from the style sheet of the page.

Matplotlib would draw letters as paths and fix every colour and size. Here a plot fills whatever
width the page gives it: lines live in a stretched coordinate system of 1000 x 1000, and texts are
placed in per cent, so that letters keep the size and the typeface of the page.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

_MOST = 500
"""Points of a line; more are thinned to the extremes of each of half as many stretches."""
_APART = 7.5
"""Per cent of the height by which the names of two lines must be apart."""
_DECADES = 1.3
"""The ratio of the ends, in decades, from which positive values are drawn on a logarithmic axis."""


# Characters that look like others are written by their names.
NOTHING, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", " \N{MULTIPLICATION SIGN} "


@dataclass(frozen=True)
class Line:
    """A line through points (x, y); NaN leaves a gap. rank: which of the page's colours. faint:
    whether it holds the raw values behind a smoothed line."""

    name: str
    x: np.ndarray
    y: np.ndarray
    rank: int = 0
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over a shared axis. title: what y is, with its unit. about: a sentence for readers who
    do not see the chart; by default made from the lines. log: whether y may be logarithmic."""

    title: str
    lines: Sequence[Line]
    x_label: str = "step"
    about: str = ""
    log: bool = True

    @property
    def named(self) -> bool:
        """Whether it has several lines, with their names at the right."""
        return sum(not line.faint for line in self.lines) > 1

    @property
    def svg(self) -> Markup:
        """The markup."""
        return _drawn(self)

    @property
    def description(self) -> str:
        """What the chart shows, in words."""
        return self.about or "; ".join(_in_words(line) for line in self.lines if not line.faint)


def smoothed(y: np.ndarray, share: float = 0.08) -> np.ndarray:
    """The mean of y [N] around each place, over `share` of the length. The window is centred, so
    that the curve is not late, and shrinks towards both ends, so that a steep start stays steep.
    NaN counts for nothing."""
    count = len(y)
    place = np.arange(count)
    half = np.minimum(round(share * count / 2), np.minimum(place // 4, count - 1 - place))
    known = np.isfinite(y)
    sums, counts = (
        np.concatenate([[0.0], np.cumsum(each)]) for each in (np.where(known, y, 0.0), known)
    )
    first, last = place - half, place + half + 1
    with np.errstate(invalid="ignore"):
        return (sums[last] - sums[first]) / (counts[last] - counts[first])


def brief(value: float) -> str:
    """A number for reading, with about three digits: 0.0123, 1,800, 2.50 × 10⁻⁶."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e7 or size < 1e-4:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.replace('-', MINUS)}{TIMES}10{_raised(int(exponent))}"
    if size >= 1000 or float(value).is_integer():
        return f"{value:,.0f}".replace("-", MINUS)
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}".replace("-", MINUS)


def _raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _in_words(line: Line) -> str:
    known = np.isfinite(line.y)
    if not known.any():
        return f"{line.name}: no values"
    x, y = line.x[known], line.y[known]
    return (
        f"{line.name}: {brief(y[0])} at {brief(x[0])}, {brief(y[-1])} at {brief(x[-1])}, between "
        f"{brief(y.min())} and {brief(y.max())}"
    )


# --- axes -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """An axis from low to high. ticks: its marked values. names: their texts."""

    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = field(default=())

    def place(self, values: np.ndarray | float) -> np.ndarray:
        """The position of values between the ends, 0 to 1."""
        at, low, high = (
            np.log10(np.maximum(v, 1e-300)) if self.log else np.asarray(v, float)
            for v in (values, self.low, self.high)
        )
        return (at - low) / (high - low)


def axis(values: np.ndarray, *, log: bool = False, most: int = 5, tight: bool = False) -> Axis:
    """The axis of values, with about `most` round ticks; logarithmic if that is allowed and the
    values span more than a factor of twenty. tight: whether it ends with the values."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if log and low > 0 and math.log10(high / low) >= _DECADES:
        return _logarithmic(low, high, most)
    if not high > low:
        spread = abs(low) * 0.1 or 1.0
        low, high = low - spread, high + spread
    step = _round_step((high - low) / most)
    if not tight:
        margin = 0.04 * (high - low)
        # An axis that nearly reaches zero begins there.
        low = 0.0 if 0 <= low < 0.35 * high else low - margin
        high = high + margin
    first = math.ceil(low / step - 1e-9)
    ticks = tuple(n * step for n in range(first, math.floor(high / step + 1e-9) + 1))
    return Axis(low, high, False, ticks, tuple(_tick(t, step) for t in ticks))


def _logarithmic(low: float, high: float, most: int) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for marks in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**e for e in range(first, last + 1) for m in marks]
        ticks = [t for t in ticks if 0.9 * low <= t <= 1.1 * high]
        if len(ticks) <= most + 1:
            break
    else:
        every = -(-len(ticks) // most)
        ticks = ticks[::every]
    names = tuple(_tick(t, t) for t in ticks)
    return Axis(low * 0.93, high * 1.07, True, tuple(ticks), names)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)


def _tick(value: float, step: float) -> str:
    if abs(value) < step * 1e-9:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        mantissa = f"{value / 10.0**exponent:.3g}"
        power = f"10{_raised(exponent)}"
        return power if mantissa == "1" else f"{mantissa}·{power}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step * 10**digits, 6) % 1:  # a step of 2.5
        digits += 1
    return f"{value:,.{digits}f}".replace("-", MINUS)


# --- markup ---------------------------------------------------------------------------------------


def element(name: str, *inside: object, **attributes: object) -> Markup:
    """An element with escaped attributes and contents; `_` in names stands for `-`."""
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    )
    content = Markup("").join(escape(part) for part in inside)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), given, content)


def _percent(part: float) -> str:
    return f"{100 * float(part):.2f}%"


def _drawn(chart: Chart) -> Markup:
    lines = [line for line in chart.lines if len(line.x)]
    if not lines:
        return Markup("")
    x = axis(np.concatenate([line.x for line in lines]), most=4, tight=True)
    y = axis(np.concatenate([line.y for line in lines]), log=chart.log)
    parts = []
    for tick, name in zip(y.ticks, y.names, strict=True):
        at = _percent(1 - y.place(tick))
        parts.append(element("line", x1="0", x2="100%", y1=at, y2=at, class_="grid"))
        parts.append(element("text", name, x="0", y=at, dx="-8", dy="4", class_="tick y"))
    for tick, name in zip(x.ticks, x.names, strict=True):
        at = _percent(x.place(tick))
        parts.append(element("line", x1=at, x2=at, y1="100%", y2="100%", class_="mark"))
        parts.append(element("text", name, x=at, y="100%", dy="18", class_="tick x"))
    parts.append(element("line", x1="0", x2="100%", y1="100%", y2="100%", class_="base"))
    paths = [
        element(
            "path", d=_path(line, x, y), class_=f"line s{line.rank % 8}{' faint' * line.faint}",
            vector_effect="non-scaling-stroke",
        )
        for line in sorted(lines, key=lambda line: not line.faint)
    ]  # fmt: skip
    parts.append(
        element(
            "svg", *paths, viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%",
            height="100%", overflow="visible",
        )
    )  # fmt: skip
    parts += _named(lines, y)
    return element(
        "svg", *parts, class_="plot", role="img", aria_label=f"{chart.title}. {chart.description}",
        focusable="false",
    )  # fmt: skip


def _named(lines: Sequence[Line], y: Axis) -> list[Markup]:
    """The names of several lines at their right ends, moved apart where they would overlap."""
    ends = []
    for line in lines:
        known = np.flatnonzero(np.isfinite(line.y))
        if not line.faint and len(known) and line.name:
            ends.append([100 * (1 - float(y.place(line.y[known[-1]]))), line])
    if len(ends) < 2:
        return []
    ends.sort(key=lambda end: end[0])
    for before, after in itertools.pairwise(ends):
        after[0] = max(after[0], before[0] + _APART)
    if (over := ends[-1][0] - 100) > 0:  # push them back up
        ends[-1][0] -= over
        for after, before in itertools.pairwise(ends[::-1]):
            before[0] = min(before[0], after[0] - _APART)
    return [
        element(
            "text", line.name, x="100%", y=f"{at:.2f}%", dx="7", dy="4",
            class_=f"name s{line.rank % 8}",
        )
        for at, line in ends
    ]  # fmt: skip


def _path(line: Line, x: Axis, y: Axis) -> str:
    across, up = thinned(np.asarray(line.x, float), np.asarray(line.y, float))
    at = np.stack([1000 * x.place(across), 1000 * (1 - y.place(up))], axis=-1)
    pieces, drawing = [], False
    for (left, down), known in zip(at, np.isfinite(up), strict=True):
        if known:
            pieces.append(f"{'L' if drawing else 'M'}{left:.1f} {down:.1f}")
        drawing = bool(known)
    return "".join(pieces)


def thinned(x: np.ndarray, y: np.ndarray, most: int = _MOST) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` of the points, with the lowest and the highest of every stretch."""
    if len(x) <= most:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), most // 2):
        known = part[np.isfinite(y[part])]
        if len(known):
            kept |= {int(known[np.argmin(y[known])]), int(known[np.argmax(y[known])])}
        else:
            kept.add(int(part[0]))
    rows = np.array(sorted(kept))
    return x[rows], y[rows]
