"""Keeps `run.json` of a training: when it begins, once a minute, and when it ends."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import jax

from genzoo.core import tree
from genzoo.core.errors import UserError, cause
from genzoo.experiment import Experiment
from genzoo.runtime.agreement import is_first
from genzoo.runtime.compilation import counted
from genzoo.runtime.cost import peak_memory_bytes
from genzoo.train.account import Account
from genzoo.train.claim import Claim
from genzoo.train.starts import Origin, Start
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir

_EVERY = 60.0  # seconds
_log = logging.getLogger("genzoo")


@dataclass(kw_only=True)
class Recording:
    """The record of one start, kept by the first process. What cannot be written costs a warning
    and not the run. claim: nothing is written once it is lost. reached: the newest step."""

    place: Workdir
    claim: Claim
    account: Account
    origin: Origin
    reached: int
    _start: Start | None = field(default=None, init=False)
    _facts: dict = field(default_factory=dict, init=False)
    _written: float = field(default=-math.inf, init=False)

    def begin(
        self,
        experiment: Experiment,
        state: TrainState,
        lowered: jax.stages.Lowered | None = None,
    ) -> None:
        """Writes the first entry. lowered: the training program, whose operations are counted;
        None for a family that is fitted in closed form."""
        if not is_first():
            return
        self._facts["parameters"] = tree.count(state.params)
        if lowered is not None:
            stride = experiment.config.train.steps_per_call
            updater = experiment.updater(experiment.config.train.accumulate)
            flops = updater.flops_of_step(counted(lowered), stride)
            self._facts["flops_per_step"] = flops if math.isfinite(flops) else None
        self._start = Start(self.place.path, self.origin, self.reached)
        self._write()

    def write(self, step: int, values: Mapping[str, object]) -> None:
        """As a writer of metrics: notes the step, and writes it once a minute."""
        del values
        self.reached = step
        if time.monotonic() - self._written >= _EVERY:
            self._write()

    def close(self) -> None:
        """Writes the last entry."""
        self._write()

    def _write(self) -> None:
        if self._start is None:
            return
        try:
            self.claim.check()
        except UserError:  # which ends the run; this is the folder of another one, or of none
            return
        self._written = time.monotonic()
        try:
            memory = peak_memory_bytes()
            self._start.write(self.reached, self.account, peak_memory_bytes=memory, **self._facts)
        except OSError as error:
            _log.warning("%s: run.json was not written: %s.", self.place.path, cause(error))
