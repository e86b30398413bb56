"""The training loop. It only orders side effects; the step itself is one compiled program.

The order within a pass, and why:

1. stop, if asked to: before new work is begun, and only between calls, so that a resumed run makes
   the same calls as a straight one;
2. next inputs: they follow from the step alone, so nothing is lost by stopping before;
3. step: asynchronous, the host goes on at once;
4. log: reads back the sums of the calls since the last report, the only wait for the device;
5. save: after the log, so that a state with a fault streak is known for what it is;
6. pictures: last, since they may take long and a kill in them must not cost the save.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, NoReturn

import jax

from genzoo.core.bounds import AtLeast, AtMost
from genzoo.core.errors import Interrupted, UserError
from genzoo.core.types import Batch
from genzoo.runtime.stopping import Stop
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.state import TrainState
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


class _Sums:
    """Metrics since the last report: sums on the device, as many however many calls went by."""

    def __init__(self, report: Callable[[dict], dict]):
        self._sums, self._report = None, report
        self._start, self._first = time.perf_counter(), None

    def add(self, step_before: int, sums) -> None:
        if self._sums is None:
            self._first, self._sums = step_before, sums
        else:
            self._sums = _ADD(self._sums, sums)

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
        return {"loss": math.nan, "gradient_norm": math.nan} | self._report(values) | rates


_ADD = jax.jit(lambda a, b: jax.tree.map(lambda x, y: x + y, a, b))


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
    """
    step = int(state.step)
    stride = settings.steps_per_call
    sums = _Sums(report)
    with stop.gently():
        while step < settings.steps:
            if number := stop.reached():
                leave(state, number, checkpoints, settings)
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
            if due(settings.save_every):
                _check(jax.device_get(state.faults), settings)
                checkpoints.save(state)
            if any(before < at <= step for at in picture_at):
                jax.block_until_ready(state)  # steps under way are not the pictures' time
                began = time.perf_counter()
                try:
                    pictures(state, step)
                except Interrupted:
                    if step >= settings.steps:  # else the next pass answers it by a save
                        checkpoints.wait()
                        raise
                sums.leave_out(time.perf_counter() - began)
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
