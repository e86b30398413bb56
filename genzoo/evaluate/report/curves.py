"""The curves of a run, from the lines of `metrics.jsonl`."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from genzoo.evaluate.report import words
from genzoo.evaluate.report.charts import Chart, Line, smoothed
from genzoo.evaluate.report.folder import Folder, number, section
from genzoo.evaluate.report.parts import Charts, Prose, Section

_QUARTER = re.compile(r"(.+)_q([0-3])")
_TITLES = ("least noise", "", "", "most noise")
_HIDDEN = ("step", "steps_per_second", "nonfinite_steps")
_MOST = 16  # charts of other metrics
_MOST_RUNS = 8


def series(lines: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """Metric -> its value in every line [N], NaN where it is missing; metrics that are numbers
    only."""
    names = dict.fromkeys(name for line in lines for name in line)
    values = {k: np.array([number(line.get(k)) for line in lines]) for k in names}
    return {name: each for name, each in values.items() if np.isfinite(each).any()}


def curves_section(folder: Folder) -> Section:
    """Loss, loss by quarter of t, gradient norm, learning rate, throughput, and all others."""
    found = series(folder.lines)
    if not found:
        return Section("curves", "Curves")
    x = np.array([line["step"] for line in folder.lines], float)
    main, quarters, others = [], {}, []
    for name, y in found.items():
        if match := _QUARTER.fullmatch(name):
            quarters.setdefault(match[1], {})[int(match[2])] = y
    if "loss" in found:
        main.append(Chart(title="Loss", lines=both("loss", x, found["loss"])))
    for name, parts in quarters.items():
        # The last quarter of t holds the most noise.
        lines = [
            Line(f"q{i} {_TITLES[i]}".strip(), x, smoothed(parts[i]), rank=i) for i in sorted(parts)
        ]
        main.append(Chart(title=f"{words.titled(name)} by quarter of t, smoothed", lines=lines))
    last = ("gradient_norm", "learning_rate", "examples_per_second")
    rest = [n for n in found if n not in (*_HIDDEN, *last, "loss") and not _QUARTER.fullmatch(n)]
    for name in [*rest[:_MOST], *(n for n in last if n in found)]:
        y = found[name]
        raw = name == "learning_rate" or len(x) < 2
        lines = [Line("", x, y)] if raw else both(name, x, y)
        title = words.capital(words.titled(name))
        others.append(Chart(title=title, lines=lines, log=name != "learning_rate"))
    blocks: list = [Charts(main)] if main else []
    if others:
        blocks.append(Charts(others))
    notes = []
    if len(rest) > _MOST:
        notes.append(f"{len(rest) - _MOST} more metrics are in metrics.jsonl.")
    faults = found.get("nonfinite_steps", np.zeros(1))
    if (count := np.nanmax(faults)) > 0:
        notes.append(f"{count:.0f} steps had a non-finite loss or gradient and were skipped.")
    if notes:
        blocks.append(Prose(notes, quiet=True))
    every = section(folder.config, "train").get("log_every")
    mean = f"the mean of {every} steps" if isinstance(every, int) and every > 1 else "one report"
    lead = f"Faint: {mean}. Strong: a moving average."
    return Section("curves", "Curves", blocks, lead)


def both(name: str, x: np.ndarray, y: np.ndarray) -> list[Line]:
    """The raw values behind their smoothed line."""
    return [Line(name, x, y, faint=True), Line(name, x, smoothed(y))]


def compared(folders: Sequence[Folder], names: Sequence[str]) -> list[Chart]:
    """One chart for each metric that several runs have, with a smoothed line for each run."""
    found = [series(folder.lines) for folder in folders]
    charts = []
    for name in dict.fromkeys(["loss", *(n for each in found for n in each)]):
        having = [i for i, each in enumerate(found) if name in each]
        if name in _HIDDEN or len(having) < 2 or _QUARTER.fullmatch(name):
            continue
        lines = []
        for i in having[:_MOST_RUNS]:
            x = np.array([line["step"] for line in folders[i].lines], float)
            y = found[i][name]
            lines.append(
                Line(shortened(names[i]), x, y if name == "learning_rate" else smoothed(y), rank=i)
            )
        title = words.capital(words.titled(name))
        charts.append(Chart(title=title, lines=lines, log=name != "learning_rate"))
    return charts[:_MOST]


def shortened(name: str) -> str:
    """A name that fits beside a chart."""
    return name if len(name) <= 20 else name[:19] + "…"


def schedules(content: Mapping) -> list[Chart]:
    """The charts of `schedule.json`: beta, alpha_bar and log-SNR over t for every schedule."""
    t, named = content.get("t"), section(content, "schedules")
    if not isinstance(t, list) or not named:
        return []
    x = np.array([number(value) for value in t])
    titles = {
        "beta": "β, noise added by a step",
        "alpha_bar": "ᾱ, signal that is left",
        "logsnr": "log-SNR",
    }
    charts = []
    for key, title in titles.items():
        lines = []
        for rank, (name, curves) in enumerate(list(named.items())[:8]):
            y = curves.get(key) if isinstance(curves, Mapping) else None
            if isinstance(y, list) and len(y) == len(x):
                lines.append(
                    Line(shortened(str(name)), x, np.array([number(v) for v in y]), rank=rank)
                )
        if lines:
            charts.append(Chart(title=title, lines=lines, x_label="t", log=key == "beta"))
    return charts
