"""What the folder of a run holds for its report. A missing or damaged file is named, and the
rest is read all the same."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genzoo.core import strict_json
from genzoo.core.errors import UserError, cause
from genzoo.core.files import Unreadable, read_bytes

SCORES: Mapping[str, str] = {
    "eval.json": "Scores",
    "reconstruct.json": "Reconstruction",
    "probe.json": "Linear probe",
    "latents.json": "Latents",
    "interpolate.json": "Interpolation",
    "retrieve.json": "Retrieval",
}
"""File -> the title of what it holds."""
_GRID = re.compile(r"step_(\d{1,12})_(\w+)\.png")
_EVALUATED = ("distances.png", "nearest.png")
_SINGLE = re.compile(r"\d{6,}\.png")  # one sample of a folder
_LARGEST_JSON = 1 << 25  # bytes
_MOST_FOLDERS = 12
_MOST_GRIDS = 40
_FIRST = ("grid",)  # pictures that come before the others of their folder


@dataclass(frozen=True)
class Grid:
    """A sample grid drawn during training, from the params ("raw") or an average of them."""

    step: int
    weights: str
    path: Path


@dataclass(frozen=True)
class Drawn:
    """A picture of the workdir. name: of its file, without the ending. settings: those of the
    samples in its folder; empty for a picture of another mode."""

    name: str
    path: Path
    settings: Mapping = field(default_factory=dict)


@dataclass(kw_only=True)
class Folder:
    """The folder of a run. config: resolved; lines: of metrics.jsonl; starts: the record of each
    start; grids, drawn: its pictures; scores: title -> content; schedules: the curves of noise
    schedules; problems: what is missing or damaged, as sentences."""

    path: Path
    config: Mapping = field(default_factory=dict)
    data: Mapping = field(default_factory=dict)
    lines: Sequence[Mapping] = ()
    starts: Sequence[Mapping] = ()
    grids: Sequence[Grid] = ()
    drawn: Sequence[Drawn] = ()
    scores: Mapping[str, Mapping] = field(default_factory=dict)
    schedules: Mapping = field(default_factory=dict)
    steps: Sequence[int] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.absolute().name or "run"

    @property
    def family(self) -> str:
        """The name of the family; "" if unknown."""
        return str(section(self.config, "family").get("name", ""))

    @property
    def dataset(self) -> str:
        """The name of the data set; "" if unknown."""
        return str(section(self.config, "data").get("name", ""))

    @property
    def step(self) -> int:
        """The last step that the folder knows of."""
        known = [line["step"] for line in self.lines[-1:]] + [grid.step for grid in self.grids]
        return max([*known, *self.steps], default=0)

    @property
    def total(self) -> int:
        """The steps of the whole run; 0 if unknown."""
        total = section(self.config, "train").get("steps", 0)
        return total if type(total) is int else 0


def section(values: Mapping, name: str) -> Mapping:
    """A section of a config; empty if it is none."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def read(path: Path) -> Folder:
    """The content of a workdir. Raises UserError if it holds no run at all."""
    if not any((path / name).is_file() for name in ("config.json", "metrics.jsonl")):
        raise UserError(
            f"--workdir={path} holds no run (there is no config.json): give the workdir of a run, "
            "or train one with --config."
        )
    folder = Folder(path=path)
    folder.config = _json(folder, "config.json", needed=True)
    folder.data = _json(folder, "data.json")
    starts = _json(folder, "run.json").get("starts", ())
    folder.starts = [s for s in starts if isinstance(s, Mapping)] if _listed(starts) else []
    folder.steps = _checkpoints(path)
    folder.lines = _lines(folder)
    folder.grids = _grids(folder)
    folder.drawn = _pictures(folder)
    folder.scores = {
        title: found for name, title in SCORES.items() if (found := _json(folder, name))
    }
    return folder


def _listed(value: object) -> bool:
    return isinstance(value, list | tuple)


def _json(folder: Folder, name: str, needed: bool = False) -> Mapping:
    """The content of a JSON file in the folder; {} if it is missing or damaged."""
    path = folder.path / name
    if not path.is_file():
        if needed:
            folder.problems.append(f"{name} is missing: the settings of this run are unknown.")
        return {}
    try:
        content = strict_json.loads(read_bytes(path, _LARGEST_JSON))
    except (Unreadable, ValueError) as error:
        folder.problems.append(f"{name} cannot be read: {cause(error)}.")
        return {}
    if not isinstance(content, dict):
        folder.problems.append(f"{name} cannot be read: it does not hold a section.")
        return {}
    return content


def _lines(folder: Folder) -> list[dict]:
    """The readable lines of metrics.jsonl, in the order of their steps, each step once."""
    path = folder.path / "metrics.jsonl"
    if not path.is_file():
        if max(folder.steps, default=0) != 1:  # a fit in closed form is one step without metrics
            folder.problems.append("metrics.jsonl is missing: there are no curves.")
        return []
    try:
        *whole, rest = read_bytes(path).split(b"\n")
    except Unreadable as reason:
        folder.problems.append(f"metrics.jsonl cannot be read: {reason}.")
        return []
    lines, wrong = {}, []
    for number, content in enumerate(whole, start=1):
        line = _line(content)
        if line is None:
            wrong.append(number)
        else:
            lines[line["step"]] = line
    if (line := _line(rest)) is not None:  # otherwise a kill cut it off
        lines[line["step"]] = line
    if wrong:
        shown = ", ".join(map(str, wrong[:5])) + (" and others" if len(wrong) > 5 else "")
        what = "lines" if len(wrong) > 1 else "line"
        folder.problems.append(
            f"metrics.jsonl: {what} {shown} cannot be read and {'are' if wrong[1:] else 'is'} "
            "left out."
        )
    return [lines[step] for step in sorted(lines)]


def _line(content: bytes) -> dict | None:
    try:
        line = strict_json.loads(content)
    except ValueError:
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


def number(value: object) -> float:
    """A number from a file; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _grids(folder: Folder) -> list[Grid]:
    place = folder.path / "samples" / "training"
    grids = []
    for path in _listing(folder, place):
        if match := _GRID.fullmatch(path.name):
            grids.append(Grid(int(match[1]), match[2], path))
    grids.sort(key=lambda grid: (grid.step, grid.weights))
    if len(grids) > _MOST_GRIDS:  # the first, the last, and evenly between them
        steps = sorted({grid.step for grid in grids})
        most = max(2, _MOST_GRIDS // len({grid.weights for grid in grids}))
        kept = {steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)}
        grids = [grid for grid in grids if grid.step in kept]
        folder.problems.append(f"Of {len(steps)} steps with sample grids {len(kept)} are shown.")
    return grids


def _listing(folder: Folder, place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir()) if place.is_dir() else []
    except OSError as error:
        inside = place.relative_to(folder.path)
        folder.problems.append(f"{inside} cannot be listed: {cause(error)}.")
        return []


def _pictures(folder: Folder) -> list[Drawn]:
    """The pictures of all modes: first those of evaluations and in `samples/` itself, then those of
    every call of `--mode=sample`, the newest first."""
    top = _listing(folder, folder.path / "samples")
    evaluated = [folder.path / name for name in _EVALUATED]
    drawn = [Drawn(p.stem, p) for p in (*evaluated, *top) if p.suffix == ".png" and p.is_file()]
    calls = [p for p in top if p.is_dir() and not p.is_symlink()]
    calls = [p for p in calls if p.name not in ("training", "latest")]
    calls.sort(key=_age, reverse=True)
    if len(calls) > _MOST_FOLDERS:
        left = len(calls) - _MOST_FOLDERS
        folder.problems.append(f"{left} older folders of samples are not shown.")
    for call in calls[:_MOST_FOLDERS]:
        inside = f"samples/{call.name}"
        settings = _json(folder, f"{inside}/settings.json")
        files = [p for p in _listing(folder, call) if p.suffix == ".png"]
        files = [p for p in files if not _SINGLE.fullmatch(p.name)]
        files.sort(key=lambda p: (p.stem not in _FIRST, p.stem))
        drawn += [Drawn(p.stem, p, {**settings, "folder": inside}) for p in files]
        curves = _json(folder, f"{inside}/schedule.json")
        if curves and not folder.schedules:
            folder.schedules = curves
    return drawn


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _checkpoints(path: Path) -> list[int]:
    place = path / "checkpoints"
    try:
        names = [p.name for p in place.iterdir()] if place.is_dir() else []
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isdecimal() and len(name) < 12)
