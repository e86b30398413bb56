"""UniPC (Zhao et al. 2023): a multistep predictor, UniP, and a corrector without evaluations, UniC.

Equations (1), (2) and (4) of genzoo.math.exponential. f is interpolated through the earlier
predictions (UniP-p: p of them) and, after the move, also through the new one (UniC-p: p + 1). r_j
is the position of f_j in units of the move: negative for earlier predictions, 1 for the new one.

    x_s = line(s) + reach sum_j rho_j (f_j - f_0) / r_j                                         (1)

with the weights of `exponential.weights`. The paper solves R rho = b / B(h) and multiplies by B(h),
which cancels; but for UniP-2 and UniC-1 it sets rho = 1/2 instead of solving:

    x_s = line(s) + scale B(z) / rate (f_j - f_0) / (2 r_j),   B = z (bh1) or exp(z) - 1 (bh2)  (2)

So UniP-2 with bh2 is DPM-Solver 2M, and UniP-3 is 3M with the whole second difference.

f is evaluated where the predictor arrives. The corrector then moves x and keeps f: the line of the
next move goes through the corrected x and this f. That takes one evaluation per move. The corrector
of a move runs when the next one begins; the last move has none, as published. It restarts from
where that move began, so any other change of x in between counts only by its effect on f. At s = 0
the data are those of the corrected x and f (for the form DATA: f itself).

Orders observed on mixtures: UniPC-1, 2, 3: 2, 3, 4; UniP alone: 1, 2, 3. The first moves have
orders 1, 2, ... (whose error remains, see dpm_multistep), and with lower_order_final the last ones
have ..., 2, 1. Here it is on by default for any number of moves, as published.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Count, Examples, Keys, Scalar
from genzoo.math import exponential
from genzoo.math.exponential import Form, Move, phi
from genzoo.math.gaussian import q_sample
from genzoo.math.prediction import Pair
from genzoo.math.schedules import Schedule
from genzoo.samplers.dpm_multistep import History
from genzoo.samplers.loop import EndsInData
from genzoo.samplers.predictor import Predict, Prediction


class Memory(NamedTuple):
    """The state between moves.

    history: the earlier predictions. pair: (x_0, eps) [B, ...], through which the last line went.
    order: int32 [], of the last move; 0 before the first and after a move from pure noise. before:
    [], the time at which that move began.
    """

    history: History
    pair: Pair
    order: Count
    before: Scalar


@dataclass(frozen=True, kw_only=True)
class UniPC(EndsInData):
    """UniPC-1, 2, 3 in the form DATA (as published for guidance) or NOISE.

    order: p. bh2: which B(h) of equation (2). corrector: without it, this is UniP.
    lower_order_final: None means below 15 moves. A move from pure noise has order 1 and is not
    corrected.
    """

    schedule: Schedule
    form: Form = exponential.DATA
    order: int = 2
    bh2: bool = True
    corrector: bool = True
    lower_order_final: bool | None = True

    evaluations = 1

    def init(self, x: Examples, steps: Count) -> Memory:
        """An empty memory."""
        nothing = jnp.zeros_like(x)
        return Memory(
            history=History.empty(x, steps, self.order, self.lower_order_final),
            pair=Pair(nothing, nothing),
            order=jnp.zeros((), jnp.int32),
            before=jnp.ones((), x.dtype),
        )

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: Memory,
    ) -> tuple[Examples, Memory]:
        """One move; deterministic."""
        del predict, x, keys
        value, pair = self.form.predicted(seen), self.corrected(seen, t, memory)
        move = self.form.move(self.schedule, t, s)
        history, order = memory.history, memory.history.order(self.order)
        earlier = self.order - 1
        nodes, values = _back(history.gaps, move.h)[:earlier], history.values[:earlier]
        bend = self._bend(move, value, values, nodes, order - 1)
        arrived = q_sample(self.schedule, pair.x_0, s, pair.eps) + move.reach * bend
        history = history.after(value, self.schedule, t, s)
        order = jnp.where(history.usable > 0, order, 0).astype(jnp.int32)
        return arrived, Memory(history, pair, order, t.astype(memory.before.dtype))

    def finish(self, seen: Prediction, x: Examples, t: Scalar, memory: Memory) -> Examples:
        """The data of the last prediction and the corrected x."""
        del x
        return self.corrected(seen, t, memory).x_0

    def _bend(self, move: Move, start: Examples, values, nodes, used: Count) -> Examples:
        # The sum of equation (1) over the first `used` (int32 []) nodes, or (2) if there is one.
        rises = [(f - start) / r for f, r in zip(values, nodes, strict=True)]
        bend = jnp.zeros_like(start)
        for count in range(1, len(nodes) + 1):
            weights = exponential.weights(move.z, nodes[:count])
            if count == 1:
                weights = [(phi(1, move.z) if self.bh2 else jnp.ones_like(move.z)) / 2]
            total = sum(rho * rise for rho, rise in zip(weights, rises[:count], strict=True))
            bend = jnp.where(used >= count, total, bend)
        return bend

    def corrected(self, seen: Prediction, t: Scalar, memory: Memory) -> Pair:
        """The pair of the prediction f and of x at t, corrected for the last move."""
        if not self.corrector:
            return seen.pair
        moved = memory.order > 0
        # Without a move to correct, the arithmetic must stay finite, derivatives included.
        t = jnp.where(moved, t, self.schedule.nearest)
        move = self.form.move(self.schedule, memory.before, t)
        value, (last, *older) = self.form.predicted(seen), memory.history.values
        nodes = [jnp.ones_like(move.z), *_back(memory.history.gaps[1:], move.h)]
        bend = self._bend(move, last, [value, *older], nodes, memory.order)
        x = q_sample(self.schedule, memory.pair.x_0, t, memory.pair.eps) + move.reach * bend
        pair = self.form.complete(value, x, self.schedule, t)
        return Pair(jnp.where(moved, pair.x_0, seen.x_0), jnp.where(moved, pair.eps, seen.eps))


def _back(gaps: tuple[Scalar, ...], h: Scalar) -> list[Scalar]:
    # r_j < 0 of earlier predictions, the newest first.
    nodes, total = [], 0.0
    for length in gaps:
        total = total + length
        nodes.append(-total / h)
    return nodes
