"""Outputs for metrics: `metrics.jsonl`, TensorBoard event files and a line of progress.

`metrics.jsonl` is always written and is the source of truth for curves. TensorBoard files are
written if that package is installed; `weights_and_biases.py` is a further output.
"""

import importlib.util
import logging
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm.auto import tqdm

from genzoo.core import strict_json
from genzoo.core.errors import UserError, listed
from genzoo.core.files import beside, write_atomically

_log = logging.getLogger("genzoo")


class JsonLines:
    """Appends one JSON object per line.

    Lines of an existing file after `step` are dropped, so that a run resumed from an earlier
    checkpoint has every step once. If lines cannot be read, the file is kept as damaged-NAME.
    Raises UserError if there is something else in its place.
    """

    def __init__(self, path: Path, step: int):
        if os.path.lexists(path):
            lines, unreadable = read_lines(path)
            if unreadable:
                aside = beside(path, f"damaged-{path.name}")
                shutil.copy2(path, aside)
                _log.warning("%s: %s. It is kept as %s.", path, unreadable, aside.name)
            kept = [strict_json.dumps(line) + "\n" for line in lines if line["step"] <= step]
            write_atomically(path, "".join(kept))
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line and flushes it, so that a killed process loses nothing.

        Non-finite values become null: those who draw curves leave a gap there.
        """
        known = {k: _finite(v) for k, v in values.items()}
        self._file.write(strict_json.dumps({"step": step, **known}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _finite(value: float | list) -> float | list | None:
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return value if math.isfinite(value) else None


def read_lines(path: Path) -> tuple[list[dict], str]:
    """(the lines of `metrics.jsonl`, what is wrong with the others or ""). A last line that was cut
    off by a kill is left out. Raises UserError if the file cannot be read."""
    if not path.is_file():
        raise UserError(f"{path} is not a file: rename it, and start again.")
    try:
        *whole, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    numbered = enumerate(map(_line, [*whole, rest] if _line(rest) else whole), start=1)
    lines, wrong = [], []
    for number, line in numbered:
        lines += [line] if line else []
        wrong += [] if line else [str(number)]
    if not wrong:
        return lines, ""
    return lines, f"cannot read line {listed(wrong)}"


def _line(content: bytes) -> dict | None:
    """One line, or None if it cannot be read."""
    try:
        line = strict_json.loads(content)
    except ValueError:
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


class TensorBoard:
    """Scalars as TensorBoard events, without TensorFlow.

    TensorBoard's own writer is a thread, which would print a traceback of its own when the folder
    cannot be written. This one writes in the caller's thread and raises OSError there.
    """

    def __init__(self, directory: Path):
        # With a module of this name, tensorboard does not import TensorFlow.
        sys.modules.setdefault("tensorboard.compat.notf", sys)
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.0"
        self._records = RecordWriter((directory / name).open("wb"))
        self._add(file_version="brain.Event:2")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one event with all scalars; lists are only in `metrics.jsonl`."""
        numbers = {k: v for k, v in values.items() if not isinstance(v, list)}
        scalars = [self._summary.Value(tag=k, simple_value=v) for k, v in numbers.items()]
        self._add(step=step, summary=self._summary(value=scalars))

    def _add(self, **content) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Closes the file."""
        self._records.close()


class Nowhere:
    """The writer of all processes but the first, which does nothing."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def open_writers(workdir: Path, step: int, *, first_process: bool) -> list:
    """The writers of a run that starts or resumes at `step`."""
    if not first_process:
        return [Nowhere()]
    writers: list = [JsonLines(workdir / "metrics.jsonl", step)]
    if importlib.util.find_spec("tensorboard"):
        writers.append(TensorBoard(workdir / "tensorboard"))
    return writers


_SHOWN = (("loss", "loss", 4), ("gradient_norm", "gradient", 3))  # key, label, digits


def duration(seconds: float) -> str:
    """A duration in words: 3725 -> '1h02m', 95 -> '1m35s'."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 60}m{seconds % 60:02d}s" if seconds >= 60 else f"{seconds}s"


class Progress:
    """One line for each report, rewritten in place on a terminal.

    total: the steps of the run. unit: the word for one example.
    """

    def __init__(self, total: int, first_process: bool, unit: str = "example"):
        self._total, self._unit = total, unit
        self._silent = not first_process
        self._bar = None
        if first_process and sys.stderr.isatty():
            self._bar = tqdm(total=total, bar_format="{percentage:3.0f}%|{bar:20}| {desc}")

    def report(self, step: int, values: Mapping[str, float], saved: int | None) -> None:
        """Shows step/total, examples/s, loss, gradient norm, time left and last checkpoint.

        saved: the step of the last checkpoint, or None.
        """
        if self._silent:
            return
        rate = values["steps_per_second"]
        left = duration((self._total - step) / rate) if rate > 0 else "?"
        parts = [
            f"step {step}/{self._total}",
            f"{values['examples_per_second']:.0f} {self._unit}s/s",
            # Absent if every step since the last report was non-finite.
            *(f"{label} {values[k]:.{n}g}" for k, label, n in _SHOWN if k in values),
            f"{left} left",
            f"saved {'-' if saved is None else saved}",
        ]
        if values["nonfinite_steps"]:
            parts.append(f"non-finite steps {values['nonfinite_steps']:.0f}")
        line = "  ".join(parts)
        if self._bar is None:
            _log.info(line)
        else:
            self._bar.set_description_str(line, refresh=False)
            self._bar.update(step - self._bar.n)

    def estimate(self, first: int, step: int, seconds: float) -> None:
        """Shows how long the run will take.

        first: the step at which it resumed, or 0. step: the current step. seconds: the time of one
        step.
        """
        if self._silent or step >= self._total:
            return
        left, whole = (duration(seconds * n) for n in (self._total - step, self._total))
        run = "" if first else f"about {whole} in total, "
        line = f"{seconds:.3g} s per step: {run}{left} left, without pictures and checkpoints."
        if self._bar is None:
            _log.info(line)
        else:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Ends the line on the terminal."""
        if self._bar is not None:
            self._bar.close()
