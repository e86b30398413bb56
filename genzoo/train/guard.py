"""Keeps a run that diverges from losing its good states.

* A state is not saved while a streak of non-finite steps lasts, nor if one of its arrays is not
  finite: such an array never heals, so the run ends.
* A state is doubtful if steps before it were not finite, since the save before, or if one of its
  arrays has exploded. It is saved with these doubts beside it, and the newest checkpoint without
  doubts is kept besides.
* After `fault_limit` non-finite steps in a row the run ends, with what `Inquiry` finds out.

The counters and the sizes of the arrays are the same on every process, so that all decide alike.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import tree
from genzoo.core.errors import UserError, listed
from genzoo.core.types import Array
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.state import Faults, TrainState

EXPLODED = 1e4
"""A magnitude that no param of a trained network comes near: most stay below 10."""
_log = logging.getLogger("genzoo")


def sizes(state: TrainState) -> dict[str, float]:
    """The largest magnitude in each array of the params, stats and averages, by path; NaN or
    infinite if the array holds such a number."""
    parts = {"params": state.params, "stats": state.stats, "averages": state.averages}
    arrays = {k: v for k, v in tree.by_path(parts).items() if jnp.issubdtype(v.dtype, jnp.inexact)}
    arrays = {k: v for k, v in arrays.items() if v.size}
    if not arrays:
        return {}
    # Replicated as the step is, so that every process reads all of it.
    largest = jax.jit(_largest, out_shardings=state.step.sharding)([*arrays.values()])
    return dict(zip(arrays, jax.device_get(largest).tolist(), strict=True))


def _largest(arrays: Sequence[Array]) -> Array:
    return jnp.stack([jnp.abs(x).max().astype(jnp.float32) for x in arrays])


def broken(sizes: Mapping[str, float]) -> list[str]:
    """The arrays that hold NaN or infinity."""
    return [path for path, size in sizes.items() if not np.isfinite(size)]


def exploded(sizes: Mapping[str, float]) -> list[str]:
    """The arrays that have exploded, as "PATH (up to SIZE)", the largest first. Those of the stats
    may be sums over many examples and do not count."""
    large = {k: v for k, v in sizes.items() if v > EXPLODED and not k.startswith("stats/")}
    return [f"{k} (up to {large[k]:.1e})" for k in sorted(large, key=large.get, reverse=True)]


class Inquiry(Protocol):
    """Finds out about non-finite steps. Every process calls it at the same steps."""

    def skipped(self, first: int, last: int) -> None:
        """Reports the cause of non-finite steps among first .. last, as far as the data show it."""

    def explained(self, state: TrainState, first: int) -> list[str]:
        """Sentences for the user on a streak that began at step `first` and ended the run: what the
        step saw, where the numbers went wrong, and what to change."""


@dataclass(kw_only=True)
class Guard:
    """Saves the good states of a run, and ends a run that has none any more.

    checkpoints: where states are saved. limit: non-finite steps in a row after which the run ends.
    total: the non-finite steps before this start. inquiry: finds the causes.
    """

    checkpoints: Checkpoints
    limit: int
    total: int = 0
    inquiry: Inquiry | None = None
    _told: int = field(default=-1, init=False)

    def check(self, state: TrainState) -> Faults:
        """The counters of non-finite steps, on the host. Raises UserError if they reach the
        limit."""
        faults = jax.device_get(state.faults)
        if faults.streak >= self.limit:
            raise self._ended(state, int(faults.since), self.limit)
        return faults

    def save(self, state: TrainState) -> bool:
        """Starts to save the state; False, and nothing is saved, while a streak lasts. Raises
        UserError if a save is not possible or the state is not finite."""
        faults = self.check(state)
        if faults.streak:
            if faults.since != self._told:
                _log.warning(
                    "Step %d had a non-finite loss or gradient, and so had all since: nothing is "
                    "saved until a step is finite.",
                    faults.since,
                )
            self._told = faults.since
            return False
        found = sizes(state)
        if bad := broken(found):
            raise self._spoiled(int(state.step), bad)
        doubts = []
        if exploding := exploded(found):
            doubts.append(f"its arrays have exploded: {listed(exploding)}")
        if faults.total > self.total:
            count = int(faults.total - self.total)
            doubts.append(f"{count} of the steps since the last checkpoint were not finite")
        self.checkpoints.save(state, doubts)
        self.total = int(faults.total)
        return True

    def unfinished(self, state: TrainState) -> UserError:
        """The error for a run whose last steps were not finite, so that it has no state to save."""
        faults = jax.device_get(state.faults)
        return self._ended(state, int(faults.since), int(faults.streak))

    def _ended(self, state: TrainState, first: int, count: int) -> UserError:
        self.checkpoints.wait()
        good = f"The last good step is {first - 1}" if first else "No step before them was finite"
        last = first + count - 1
        steps = f"steps in a row ({first} to {last})" if count > 1 else f"step ({first})"
        what = (
            f"{count} {steps} had a non-finite loss or gradient; none of them changed the model. "
            f"{good}, and {self._newest()}."
        )
        default = [
            "Lower optimizer.learning_rate or optimizer.clip, and train again: the run resumes "
            "from its last checkpoint."
        ]
        causes = self.inquiry.explained(state, first) if self.inquiry else default
        return UserError(what, *causes, agreed=True)

    def _spoiled(self, step: int, bad: Sequence[str]) -> UserError:
        self.checkpoints.wait()
        good = self.checkpoints.newest_sound()
        back = "" if good is None else f" and go back with --config.train.resume_from={good}"
        return UserError(
            f"After step {step - 1} not all arrays of the model are finite: {listed(bad)}. This "
            f"state is not saved; {self._newest()}. Lower optimizer.learning_rate{back}.",
            agreed=True,
        )

    def _newest(self) -> str:
        good = self.checkpoints.newest_sound()
        if good is None:
            return "no good state had been saved"
        return f"the last good checkpoint is that of step {good}"
