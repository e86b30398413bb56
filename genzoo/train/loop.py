"""The training loop. It only orders side effects; the step itself is one compiled program.

The order within a pass, and why:

1. stop, if asked to: before new work is begun, and only between calls, so that a resumed run makes
   the same calls as a straight one;
2. next inputs: they follow from the step alone, so nothing is lost by stopping before;
3. step: asynchronous, the host goes on at once;
4. log: reads back the sums of the calls since the last report, the only wait for the device;
5. save: after the log, so that a state with a fault streak is known for what it is;
6. pictures: last, since they may take long and a kill in them must not cost the save.

Saves and the first picture come by the clock too. When is asked once a pass, and answered to all
processes alike; neither changes a bit of the state.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, NoReturn

import jax
import jax.numpy as jnp

from genzoo.core.bounds import AtLeast, AtMost
from genzoo.core.errors import Interrupted, UserError
from genzoo.core.types import Batch
from genzoo.runtime.stopping import Stop
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.state import TrainState
from genzoo.train.step import is_latest
from genzoo.train.writers import Progress

_log = logging.getLogger("genzoo")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """When what happens, in steps; `steps` and `save_every` are multiples of steps_per_call."""

    steps: Annotated[int, AtLeast(1), AtMost(2**31 - 1), "Length of the run."]
    batch_size: Annotated[int, AtLeast(1), "Examples in a step, on all devices together."]
    steps_per_call: Annotated[int, AtLeast(1), "Steps in one call of the compiled program."] = 1
    log_every: Annotated[int, AtLeast(1), "Steps between lines of metrics."] = 100
    save_every: Annotated[int, AtLeast(1), "Steps between checkpoints."] = 1000
    save_minutes: Annotated[
        float, AtLeast(0), "Longest time between checkpoints; 0 goes by steps alone."
    ] = 10.0
    picture_minutes: Annotated[
        float, AtLeast(0), "Latest time of the first grid of samples; 0 goes by steps alone."
    ] = 2.0
    fault_limit: Annotated[
        int, AtLeast(1), "Steps in a row without a finite loss after which the run ends."
    ] = 10


def picture_steps(total: int, first: int) -> set[int]:
    """About log-spaced steps from `first` on, a factor of sqrt(10) apart, and the last one."""
    steps, at = {total}, float(first)
    while first and at < total:
        steps.add(round(at))
        at *= math.sqrt(10)
    return steps


class _Clock:
    """What is due by time: a save, and the first picture. Asks as `Stop.reached` takes wishes: each
    process by its own clock, and every process has counted as many saves and pictures."""

    def __init__(self, settings: LoopSettings, *, drawn: bool):
        self._save_after = 60 * settings.save_minutes or math.inf
        self._draw_after = 60 * settings.picture_minutes or math.inf
        self._saves, self._drawn = 0, drawn
        self._began = self._saved_at = time.monotonic()

    def wishes(self) -> tuple[int, int]:
        """(number of the save that is due, 1 if a picture is due), 0 for what is not."""
        now = time.monotonic()
        save = now - self._saved_at >= self._save_after
        draw = not self._drawn and now - self._began >= self._draw_after
        return (self._saves + 1) * save, int(draw)

    def grants(self, granted: tuple[int, int]) -> tuple[bool, bool]:
        """(whether to save, whether to draw). What is granted may have been done meanwhile."""
        save, draw = granted
        return save > self._saves, bool(draw) and not self._drawn

    def saved(self) -> None:
        """Counts a save, for whatever reason it was made."""
        self._saves += 1
        self._saved_at = time.monotonic()

    def drew(self) -> None:
        """Notes that there is a picture."""
        self._drawn = True


class _Foresight:
    """Says once, after a hundred steps or a minute, how long the run will take."""

    def __init__(self, first: int):
        self._first, self._told = first, False
        self._began, self._apart = time.monotonic(), 0.0

    def leave_out(self, seconds: float) -> None:
        """Takes time that was not spent on steps out of the rate."""
        self._apart += seconds

    def look(self, state: TrainState, step: int, progress: Progress) -> None:
        """To be called after each call."""
        spent = time.monotonic() - self._began - self._apart
        if self._told or (step - self._first < _ENOUGH and spent < _LONG_ENOUGH):
            return
        jax.block_until_ready(state)  # once in a run: else it would be the rate of the host
        self._told = True
        spent = time.monotonic() - self._began - self._apart
        progress.foresee(self._first, step, spent / (step - self._first))


_ENOUGH, _LONG_ENOUGH = 100, 60.0  # steps or seconds after which their rate is known


class _Sums:
    """Metrics since the last report: sums on the device, as many however many calls went by."""

    def __init__(self, report: Callable[[dict], dict]):
        self._sums, self._report = None, report
        self._start, self._first = time.perf_counter(), None

    def add(self, step_before: int, sums) -> None:
        if self._sums is None:
            self._first, self._sums = step_before, sums
        else:
            self._sums = _added(self._sums, sums)

    def leave_out(self, seconds: float) -> None:
        """Takes time that was not spent on steps out of the rate."""
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
    checkpoints: Checkpoints,
    writers: list,
    progress: Progress,
    pictures: Callable[[TrainState, int], None],
    picture_at: set[int],
    report: Callable[[dict], dict],
    stop: Stop,
) -> TrainState:
    """Runs from the state's step to `settings.steps`.

    call: the compiled program of steps_per_call steps; donates the state it is given. inputs: what
    it takes, from the state's step on. pictures: called with (state, step) at `picture_at`, as soon
    after as a call ends. report: what is logged of the averaged metrics. stop: asked once a pass;
    a signal within is answered here. Raises Interrupted when stopped by a signal, UserError when
    too many steps in a row were not finite.

    What is due by time comes as soon after as a call ends; a picture by time only where there are
    others to come and there was none yet.
    """
    step = int(state.step)
    stride = settings.steps_per_call
    sums, foresight = _Sums(report), _Foresight(step)
    clock = _Clock(settings, drawn=not picture_at or min(picture_at) <= step)
    with stop.gently():
        while step < settings.steps:
            if number := stop.reached(*clock.wishes()):
                leave(state, number, checkpoints, settings)
            save_now, draw_now = clock.grants(stop.granted)
            state, measured = call(state, next(inputs))
            sums.add(step, measured)
            before, step = step, step + stride

            def due(every: int, before=before, step=step) -> bool:
                return step // every > before // every or step >= settings.steps

            if due(settings.log_every):
                values = sums.read(step, settings.batch_size)
                faults = jax.device_get(state.faults)
                values["nonfinite_steps"] = float(faults.total)
                for writer in writers:
                    writer.write(step, values)
                progress.report(step, values, checkpoints.last_saved)
                _check(faults, settings)
            foresight.look(state, step, progress)
            if save_now or due(settings.save_every):
                _check(jax.device_get(state.faults), settings)
                checkpoints.save(state)
                clock.saved()
            if draw_now or any(before < at <= step for at in picture_at):
                jax.block_until_ready(state)  # steps under way are not the pictures' time
                began = time.perf_counter()
                try:
                    pictures(state, step)
                except Interrupted:
                    if step >= settings.steps:  # else the next pass answers it by a save
                        checkpoints.wait()
                        raise
                clock.drew()
                seconds = time.perf_counter() - began
                sums.leave_out(seconds)
                foresight.leave_out(seconds)
    checkpoints.wait()
    return state


def leave(
    state: TrainState, number: int, checkpoints: Checkpoints, settings: LoopSettings
) -> NoReturn:
    """Saves and raises Interrupted, for the signal of that number."""
    step = int(state.step)
    _log.info("%s: saving step %d.", signal.Signals(number).name, step)
    _check(jax.device_get(state.faults), settings)
    checkpoints.save(state)
    checkpoints.wait()
    raise Interrupted(number, step)


def _check(faults, settings: LoopSettings) -> None:
    if faults.streak >= settings.fault_limit:
        first, limit = int(faults.since), settings.fault_limit
        raise UserError(
            f"{limit} steps in a row ({first} to {first + limit - 1}) had a non-finite loss or "
            "gradient; none of them changed the model. Lower optimizer.learning_rate or "
            "optimizer.clip, and train again: the run goes on from its last checkpoint.",
            agreed=True,
        )
