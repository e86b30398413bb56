"""The training loop. It only orders side effects; the step itself is one compiled program.

The order within a pass, and the reasons:

1. stop, if asked to: before new work starts, and only between calls, so that a resumed run makes
   the same calls as an uninterrupted one;
2. next inputs: they depend on the step alone, so stopping earlier loses nothing;
3. step: asynchronous, so the host continues at once;
4. log: reads the sums of the calls since the last report, and only here waits for the device; a
   measurement of samples, which can take long, is part of it, so that a step has one line;
5. save: after the log, so that a run that must stop because of faults stops before saving; a save
   that falls into a streak of non-finite steps waits for its end (see `guard`);
6. pictures: last, because they can take long and a kill during them must not cost the checkpoint.

Inputs may never come, and pictures may take minutes. While the loop waits for either, the state
does not change, so that a signal then saves it without the loop (`Stop.interruptible`).

Saves and the first picture are also triggered by the clock. All processes agree on these times once
in every pass. Neither changes the state.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NoReturn

import jax
import jax.numpy as jnp

from genzoo.core.bounds import AtLeast, AtMost, Limit
from genzoo.core.errors import Interrupted
from genzoo.core.types import Batch
from genzoo.runtime.stopping import Stop
from genzoo.train.account import Account
from genzoo.train.guard import Guard
from genzoo.train.state import TrainState
from genzoo.train.step import is_latest
from genzoo.train.writers import Progress

INPUTS_LATE = 10.0
"""Seconds after a signal at which one of several processes no longer waits for its inputs."""
_log = logging.getLogger("genzoo")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The schedule of a run, in steps; `steps` and `save_every` are multiples of steps_per_call."""

    steps: Annotated[int, AtLeast(1), AtMost(2**31 - 1), "Length of the run, in steps."]
    batch_size: Annotated[int, AtLeast(1), Limit(2**24), "Examples in a step, over all devices."]
    steps_per_call: Annotated[
        int, AtLeast(1), Limit(100_000), "Steps in each call of the compiled program."
    ] = 1
    log_every: Annotated[
        int, AtLeast(1), Limit(2**31 - 1), "Steps between lines of metrics."
    ] = 100
    save_every: Annotated[
        int, AtLeast(1), Limit(2**31 - 1), "Steps between checkpoints."
    ] = 1000
    save_minutes: Annotated[
        float, AtLeast(0), Limit(1e6), "Maximum minutes between checkpoints; 0 for no limit."
    ] = 10.0
    picture_minutes: Annotated[
        float,
        AtLeast(0),
        Limit(1e6),
        "Minutes until the first grid of samples at the latest; 0 for no limit.",
    ] = 2.0
    evaluate_every: Annotated[
        int,
        AtLeast(0),
        Limit(2**31 - 1),
        "Steps between measurements of eval.distances, a multiple of log_every; 0 for none.",
    ] = 0
    fault_limit: Annotated[
        int, AtLeast(1), Limit(1_000_000), "Non-finite steps in a row after which the run stops."
    ] = 10


def picture_steps(total: int, first: int) -> set[int]:
    """Roughly log-spaced steps from `first` on, a factor of sqrt(10) apart, and the last step."""
    steps, at = {total}, float(first)
    while first and at < total:
        steps.add(round(at))
        at *= math.sqrt(10)
    return steps


class _Clock:
    """Decides when a save or the first picture is due by time.

    Each process makes its `wishes` by its own clock, for `Stop.reached` to combine. All processes
    count the same saves and pictures.
    """

    def __init__(self, settings: LoopSettings, *, drawn: bool):
        self._save_after = 60 * settings.save_minutes or math.inf
        self._draw_after = 60 * settings.picture_minutes or math.inf
        self._saves, self._drawn = 0, drawn
        self._began = self._saved_at = time.monotonic()

    def wishes(self) -> tuple[int, int]:
        """(number of the save that is due, 1 if a picture is due), with 0 for what is not due."""
        now = time.monotonic()
        save = now - self._saved_at >= self._save_after
        draw = not self._drawn and now - self._began >= self._draw_after
        return (self._saves + 1) * save, int(draw)

    def grants(self, granted: tuple[int, int]) -> tuple[bool, bool]:
        """(whether to save, whether to draw), except for what was done since the wish was made."""
        save, draw = granted
        return save > self._saves, bool(draw) and not self._drawn

    def saved(self) -> None:
        """Records that a checkpoint was saved, for any reason."""
        self._saves += 1
        self._saved_at = time.monotonic()

    def drew(self) -> None:
        """Records that a picture was drawn."""
        self._drawn = True


class _Estimate:
    """Reports once, after a hundred steps or a minute, how long the run will take."""

    def __init__(self, first: int):
        self._first, self._reported = first, False
        self._began, self._excluded = time.monotonic(), 0.0

    def leave_out(self, seconds: float) -> None:
        """Excludes time that was not spent on steps from the rate."""
        self._excluded += seconds

    def update(self, state: TrainState, step: int, progress: Progress) -> None:
        """Call it after each call of the program."""
        spent = time.monotonic() - self._began - self._excluded
        if self._reported or (step - self._first < _ENOUGH_STEPS and spent < _ENOUGH_SECONDS):
            return
        jax.block_until_ready(state)  # once in a run: otherwise this is only the host's rate
        self._reported = True
        spent = time.monotonic() - self._began - self._excluded
        progress.estimate(self._first, step, spent / (step - self._first))


_ENOUGH_STEPS, _ENOUGH_SECONDS = 100, 60.0  # after either, the rate is known well enough


class _Sums:
    """Metrics since the last report, summed on the device, so that memory use is constant."""

    def __init__(self, report: Callable[[dict], dict]):
        self._sums, self._report = None, report
        self._start, self._first = time.perf_counter(), None

    def add(self, step_before: int, sums) -> None:
        if self._sums is None:
            self._first, self._sums = step_before, sums
        else:
            self._sums = _added(self._sums, sums)

    def leave_out(self, seconds: float) -> None:
        """Excludes time that was not spent on steps from the rate."""
        self._start += seconds

    def read(self, step: int, batch_size: int) -> dict[str, float | list]:
        sums = jax.device_get(self._sums)
        now = time.perf_counter()
        rate = (step - self._first) / max(now - self._start, 1e-9)
        values = {k: total / weight for k, (total, weight) in sums.items() if weight > 0}
        self._sums, self._start = None, now
        rates = {"steps_per_second": rate, "examples_per_second": rate * batch_size}
        return self._report(values) | rates


@jax.jit
def _added(before: dict, now: dict) -> dict:
    return {
        name: now[name] if is_latest(name) else jax.tree.map(jnp.add, before[name], now[name])
        for name in now
    }


def train(
    state: TrainState,
    call: Callable[[TrainState, Batch], tuple[TrainState, dict]],
    inputs: Iterator[Batch],
    *,
    settings: LoopSettings,
    guard: Guard,
    writers: list,
    progress: Progress,
    pictures: Callable[[TrainState, int], None],
    picture_at: set[int],
    report: Callable[[dict], dict],
    stop: Stop,
    account: Account | None = None,
    evaluate: Callable[[TrainState, int], dict[str, float]] | None = None,
) -> TrainState:
    """Trains from the step of `state` to `settings.steps` and returns the final state.

    call: the compiled program of steps_per_call steps, which donates its state. inputs: its inputs,
    from the step of `state` on. pictures: called with (state, step) after the call that reaches a
    step in `picture_at`. report: averaged metrics -> what is logged. guard: saves the states. stop:
    checked once in every pass. account: of where the time goes. evaluate: returns further values to
    log every evaluate_every steps. Raises Interrupted after a signal,
    and UserError after too many non-finite steps in a row, or if the last one is not finite.

    What is due by time happens at the end of the current call. A picture is due by time only if
    pictures are planned and none has been drawn yet.
    """
    step, owed, account = int(state.step), False, account or Account()
    stride = settings.steps_per_call
    reported, skipped = step, guard.total
    sums, estimate = _Sums(report), _Estimate(step)
    clock = _Clock(settings, drawn=not picture_at or min(picture_at) <= step)

    def apart(kind: str, work: Callable[[TrainState, int], dict | None]) -> dict:
        # Work between steps, which may take minutes; a signal ends it.
        jax.block_until_ready(state)  # pending steps are not its time
        began = time.perf_counter()
        leaving = partial(leave, state, guard=guard)
        try:
            with account.on(kind), stop.interruptible(leaving):
                found = work(state, step)
        except Interrupted:
            if step >= settings.steps:  # otherwise the next pass saves and stops
                guard.checkpoints.wait()
                raise
            found = None
        seconds = time.perf_counter() - began
        sums.leave_out(seconds)
        estimate.leave_out(seconds)
        return found or {}

    with stop.gently():
        while step < settings.steps:
            if number := stop.reached(*clock.wishes()):
                leave(state, number, guard)
            save_now, draw_now = clock.grants(stop.granted)
            leaving = partial(leave, state, guard=guard)
            with account.on("data"), stop.interruptible(leaving, alone_after=INPUTS_LATE):
                batch = next(inputs)
            state, measured = call(state, batch)
            sums.add(step, measured)
            before, step = step, step + stride

            def due(every: int, before=before, step=step) -> bool:
                return step // every > before // every or step >= settings.steps

            if due(settings.log_every):
                values = sums.read(step, settings.batch_size)
                faults = jax.device_get(state.faults)
                values["nonfinite_steps"] = float(faults.total)
                if evaluate and settings.evaluate_every and due(settings.evaluate_every):
                    values |= apart("evaluation", evaluate)
                for writer in writers:
                    writer.write(step, values)
                progress.report(step, values, guard.checkpoints.last_saved)
                guard.check(state)
                if faults.total > skipped and guard.inquiry:
                    guard.inquiry.skipped(reported, step)
                reported, skipped = step, faults.total
            estimate.update(state, step, progress)
            if save_now or owed or due(settings.save_every):
                jax.block_until_ready(state)  # pending steps are not time for saving
                with account.on("saving"):
                    owed = not guard.save(state)
                if not owed:
                    clock.saved()
            if draw_now or any(before < at <= step for at in picture_at):
                apart("pictures", pictures)
                clock.drew()
        if owed:
            raise guard.unfinished(state)
        with account.on("saving"):
            guard.checkpoints.wait()
    return state


def leave(state: TrainState, number: int, guard: Guard) -> NoReturn:
    """Saves the state and raises Interrupted; in a streak of non-finite steps, without saving.
    number: that of the signal."""
    step = int(state.step)
    _log.info("%s: stopping at step %d.", signal.Signals(number).name, step)
    saved = guard.save(state)
    guard.checkpoints.wait()
    raise Interrupted(number, step if saved else None)
