"""The one sampling loop: a step is handed the predictor and takes x from time t to s < t.

    step(predict, x, t, s, keys, memory) -> x, memory

The loop is a single `lax.scan`: one compile whatever the number of steps, and the trajectory is
kept only when asked for. Every example has its own key, so that a sample does not depend on the
batch it is drawn in.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.types import Array, Keys
from genzoo.samplers.predictor import Predict


class Step(Protocol):
    """How a sampler moves. Frozen; its fields are hyperparameters and the schedule."""

    evaluations: int  # network evaluations per step

    def init(self, x: Array) -> Any:
        """The memory before the first step (multistep methods keep earlier predictions)."""

    def __call__(
        self, predict: Predict, x: Array, t: Array, s: Array, keys: Keys, memory: Any
    ) -> tuple[Array, Any]:
        """x at time s from x [B, ...] at time t; t > s >= 0 are scalars. s = 0 is the last step:
        it must be well defined there without evaluating the predictor at 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """A step and the times it visits.

    times: float64 [S + 1], falling from the starting time to the end; unroll: steps of the scan
    written out, which trades compile time for a little speed on accelerators.
    """

    step: Step
    times: np.ndarray
    unroll: int = 1

    @property
    def evaluations(self) -> int:
        """NFE: how often the predictor is evaluated per sample."""
        return self.step.evaluations * (len(self.times) - 1)

    def __call__(
        self, predict: Predict, x: Array, keys: Keys, *, trajectory: bool = False
    ) -> Array | tuple[Array, Array]:
        """x at the end from x [B, ...] at times[0]; with `trajectory` all states [S, B, ...]."""
        times = jnp.asarray(self.times, x.dtype)

        def move(carry, index):
            x, memory = carry
            here = streams.fold(keys, index)
            x, memory = self.step(predict, x, times[index], times[index + 1], here, memory)
            return (x, memory), (x if trajectory else None)

        start = (x, self.step.init(x))
        indices = jnp.arange(len(self.times) - 1)
        (x, _), states = jax.lax.scan(move, start, indices, unroll=self.unroll)
        return (x, states) if trajectory else x
