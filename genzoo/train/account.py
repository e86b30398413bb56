"""Where the time of a run goes: seconds by kind of work."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

STEPS = "steps"
"""The kind of all time that is spent on nothing else."""


@dataclass(kw_only=True)
class Account:
    """The time since `began`, by kind of work. Times that overlap are counted once, for the inner
    kind."""

    began: float = field(default_factory=lambda: time.perf_counter())
    _spent: dict[str, float] = field(default_factory=dict)
    _inner: float = 0.0  # seconds counted inside the innermost open kind

    @contextlib.contextmanager
    def on(self, kind: str) -> Iterator[None]:
        """Counts the time of the block as this kind, also if it raises."""
        start, outer, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            self._spent[kind] = self._spent.get(kind, 0.0) + whole - self._inner
            self._inner = outer + whole

    def settle(self, kind: str) -> None:
        """Counts all time so far that is of no kind as this kind."""
        rest = self.seconds()[STEPS]
        self._spent[kind] = self._spent.get(kind, 0.0) + rest

    def seconds(self) -> dict[str, float]:
        """The seconds of each kind until now, which add up to all of the time."""
        rest = time.perf_counter() - self.began - sum(self._spent.values())
        return {STEPS: max(0.0, rest), **self._spent}
