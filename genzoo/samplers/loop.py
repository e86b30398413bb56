"""The sampling loop: a step is handed the predictor and takes x from time t to time s.

    step(predict, seen, x, t, s, keys, memory) -> x, memory,   seen = predict(x, t)

Every method begins with the prediction at its current x and t, so the loop makes that prediction.
Every method ends in the data predicted last (at s = 0, `finish`). The predictor is therefore never
evaluated at t = 0, and the number of evaluations is exact. The loop compiles once for any number of
steps, which may be an argument of the compiled program. The trajectory is kept only on request.
Every example has its own key, so a sample does not depend on the batch it is drawn in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Int

from genzoo.core import streams
from genzoo.core.contract import Solution
from genzoo.core.types import Array, Count, Examples, Keys, Scalar, Series
from genzoo.samplers.predictor import Predict, Prediction, Rows, one_row


@runtime_checkable
class Step(Protocol):
    """One step of a sampler: a frozen object that holds hyperparameters and the schedule."""

    evaluations: int  # network evaluations per step, including `seen`; the end takes one
    evaluations_to_start: int  # additional evaluations in each of the first steps
    starting_steps: int  # the number of first steps with additional evaluations

    def inner(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The other times at which a step from t to s > 0 evaluates: evaluations - 1 of them."""

    def inner_to_start(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The times of the `evaluations_to_start` additional evaluations."""

    def init(self, x: Examples, steps: Count) -> Any:
        """The memory before the first of `steps` steps (multistep methods keep predictions)."""

    def before(
        self, x: Examples, t: Scalar, s: Scalar, keys: Keys, memory: Any
    ) -> tuple[Examples, Scalar]:
        """Where to evaluate the predictor: at (x, t) itself or at a slightly noisier point.

        The step, or the end, continues from there. keys: those of the step.
        """

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: Any,
    ) -> tuple[Examples, Any]:
        """x at time s > 0 from x [B, ...] at time t, and the new memory.

        t and s are scalars, with s < t except in inversion. seen: predict(x, t).
        """

    def finish(self, seen: Prediction, x: Examples, t: Scalar, memory: Any) -> Examples:
        """The data, from the last prediction."""


class EndsInData:
    """Shared by methods that evaluate at x and t unchanged and end in the predicted data."""

    evaluations_to_start = 0
    starting_steps = 1

    def inner(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """No other times."""
        del t, s
        return ()

    def inner_to_start(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """No other times."""
        del t, s
        return ()

    def before(
        self, x: Examples, t: Scalar, s: Scalar, keys: Keys, memory: Any
    ) -> tuple[Examples, Scalar]:
        """x and t unchanged."""
        del s, keys, memory
        return x, t

    def finish(self, seen: Prediction, x: Examples, t: Scalar, memory: Any) -> Examples:
        """The predicted x_0."""
        del x, t, memory
        return seen.x_0


class Memoryless(EndsInData):
    """Shared by methods that remember nothing between steps."""

    evaluations = 1

    def init(self, x: Examples, steps: Count) -> Any:
        """No memory."""
        del x, steps
        return ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """A step and the times it visits.

    times: [S + 1] from the starting time to the end, 0 for the data. steps: how many steps to take,
    None for all; an array lets one compiled program serve every number up to S. unroll: how many
    steps of the loop to unroll, which trades compile time for a little speed on accelerators.
    """

    step: Step
    times: Series
    steps: Count | None = None
    unroll: int = 1

    @property
    def start(self) -> Scalar:
        """The starting time."""
        return self.times[0]

    def __call__(
        self,
        predict: Predict,
        x: Examples,
        keys: Keys,
        *,
        trajectory: bool = False,
        rows: Rows = one_row,
    ) -> Solution:
        """Takes x [B, ...] from times[0] to the last time.

        trajectory: whether to return every state and every predicted x_0 along the way as well,
        [S, B, ...] each. rows: the network rows of one call to `predict`, for the count.
        """
        times = jnp.asarray(self.times, x.dtype)
        bound = len(self.times) - 1
        steps = bound if self.steps is None else self.steps

        def move(index, carry):
            x, memory, counts, kept = carry
            t, s = times[index], times[index + 1]
            step_keys = streams.fold(keys, index)
            x, t = self.step.before(x, t, s, step_keys, memory)
            seen = predict(x, t)

            def go(x, memory):
                return self.step(predict, seen, x, t, s, step_keys, memory)

            def end(x, memory):
                return self.step.finish(seen, x, t, memory), memory

            x, memory = jax.lax.cond(s > 0, go, end, x, memory)
            counts += self._counts(index, t, s, rows)
            if trajectory:
                kept = tuple(
                    jax.lax.dynamic_update_index_in_dim(buffer, value, index, 0)
                    for buffer, value in zip(kept, (x, seen.x_0), strict=True)
                )
            return x, memory, counts, kept

        kept = (jnp.zeros((bound, *x.shape), x.dtype),) * 2 if trajectory else ()
        start = (x, self.step.init(x, jnp.asarray(steps)), jnp.zeros(2, jnp.int32), kept)
        # A static number of steps becomes a scan, which can be unrolled; an array, a while loop.
        unroll = self.unroll if self.steps is None else None
        x, _, counts, kept = jax.lax.fori_loop(0, steps, move, start, unroll=unroll)
        states, predicted = kept if trajectory else (None, None)
        evaluations, network_rows = (jnp.broadcast_to(n, x.shape[:1]) for n in counts)
        return Solution(
            x=x,
            evaluations=evaluations,
            network_rows=network_rows,
            states=states,
            predicted=predicted,
        )

    def _counts(self, index: Count, t: Scalar, s: Scalar, rows: Rows) -> Int[Array, "2"]:
        # (evaluations, network rows) of the step from t to s, or of the end at s = 0.
        step = self.step
        moves, starts = s > 0, (s > 0) & (index < step.starting_steps)

        def total(times: Sequence[Scalar]) -> Count:
            return sum((rows(time) for time in times), jnp.zeros((), jnp.int32))

        evaluations = 1 + jnp.where(moves, step.evaluations - 1, 0)
        evaluations += jnp.where(starts, step.evaluations_to_start, 0)
        network_rows = rows(t) + jnp.where(moves, total(step.inner(t, s)), 0)
        network_rows += jnp.where(starts, total(step.inner_to_start(t, s)), 0)
        return jnp.stack([evaluations, network_rows]).astype(jnp.int32)
