"""Progress of work that someone waits for: a bar on a terminal, log lines elsewhere.

A line comes after two seconds, then every twenty. Both go to standard error, and only from the
first process. The lines come from a thread of their own, which reads a counter: the work is neither
slowed nor synchronised, and a first step that takes minutes is seen too.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
from tqdm import tqdm

from genzoo.runtime.agreement import alone

PATIENCE, EVERY = 2.0, 20.0
"""Seconds before the first line, and between lines."""
_log = logging.getLogger("genzoo")
_shown = threading.local()  # .depth: nested Progress contexts; only the outermost is shown
T = TypeVar("T")


class Progress:
    """The progress of `total` parts, 0 if their number is unknown. title: what is being done. unit:
    the word for one part. scaled: whether counts are shown with prefixes, as bytes are. Use it as a
    context. Work inside other work of the same thread is not shown."""

    def __init__(self, total: int, title: str, unit: str = "", *, scaled: bool = False):
        self.total, self.title, self.unit, self.done = total, title, unit, 0
        self._scaled, self._bar, self._ended = scaled, None, threading.Event()

    def __enter__(self) -> "Progress":
        # Those of this thread: an abandoned generator may be closed by another one.
        self._counts = _shown.__dict__
        # Asking JAX for the number of the process would choose the devices, too early for some.
        self._counts["depth"] = self._counts.get("depth", 0) + 1
        if self._counts["depth"] > 1 or (not alone() and jax.process_index() != 0):
            return self
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self.total or None, desc=self.title, unit=self.unit or "it", delay=0.3,
                unit_scale=self._scaled, file=sys.stderr, dynamic_ncols=True,
            )  # fmt: skip
        else:
            threading.Thread(target=self._speak, name="progress", daemon=True).start()
        return self

    def update(self, count: int = 1) -> None:
        """Adds parts that are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    def __exit__(self, *_) -> None:
        self._counts["depth"] -= 1
        self._ended.set()
        if self._bar is not None:
            self._bar.close()

    def _speak(self) -> None:
        wait = PATIENCE
        while not self._ended.wait(wait):
            _log.info("%s", self.line)
            wait = EVERY

    @property
    def line(self) -> str:
        """The state in words: "sampling: 128 of 2,000 images"."""
        shown = tqdm.format_sizeof(self.done) if self._scaled else f"{self.done:,}"
        if self.total:
            whole = tqdm.format_sizeof(self.total) if self._scaled else f"{self.total:,}"
            shown += f" of {whole}"
        if self._scaled:
            return f"{self.title}: {shown}{self.unit}"
        several = {"": "", "batch": " batches"}.get(self.unit, f" {self.unit}s")
        return f"{self.title}: {shown}{several}"


def tracked(parts: Iterable[T], title: str, unit: str = "batch", total: int = 0) -> Iterator[T]:
    """The parts, with their progress: one counts as done when the next one is asked for."""
    total = total or (len(parts) if hasattr(parts, "__len__") else 0)
    with Progress(total, title, unit) as progress:
        for part in parts:
            yield part
            progress.update()


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Logs what is being waited for, such as "Compiling.", after two seconds, and the elapsed time
    every minute."""
    if not alone() and jax.process_index() != 0:
        yield
        return
    ended, began = threading.Event(), time.monotonic()

    def speak() -> None:
        if ended.wait(PATIENCE):
            return
        _log.info("%s", what)
        while not ended.wait(3 * EVERY):
            _log.info("%s %.0f s so far.", what, time.monotonic() - began)

    threading.Thread(target=speak, name="waiting", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
