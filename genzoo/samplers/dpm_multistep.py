"""DPM-Solver (Lu et al. 2022a) and DPM-Solver++ (Lu et al. 2022b): the multistep methods 2M, 3M.

Equations (1), (2) and (4) of genzoo.math.exponential with one evaluation per move: the derivatives
of f are estimated from the predictions of earlier moves. Let h be the length of this move in
lambda, h0 and h1 those of the previous two, r0 = h0 / h, r1 = h1 / h, and f, f', f'' the
predictions from newest to oldest. Then

    D = (f - f') / r0,   E = (f' - f'') / r1,   C = (D - E) / (r0 + r1)                         (1)
    2M: x_s = line(s) + reach phi_1(z) D / 2   ("midpoint"), or with phi_2(z) for phi_1(z) / 2  (2)
    3M: x_s = line(s) + reach (phi_2(z) (D + r0 C) + 2 phi_3(z) C)                              (3)

Newton's interpolation is f(lambda_t + u h) = f + u D + u (u + r0) C, so h df/dlambda = D + r0 C and
h^2 d2f/dlambda2 = 2 C, which equation (4) there multiplies by phi_3: hence (3). The third-order
method as published (3M of the second paper, its code and diffusers) multiplies C itself by phi_3,
which is half of what is needed, and so has order 2. Both are implemented here.

Observed on a 1-D mixture (sigma 20 to 0.02, Karras grid, 320 to 640 moves): order 2.00 for 2M, 2.92
for (3), 2.01 for 3M as published. With few moves, half the second difference has a damping effect.
On grids even in lambda the published form is the more accurate below 10 to 35 moves on that
mixture, and below 30 to 50 if its components have deviation 0.05, but hardly ever for smoother data
or in the form NOISE; the gain is a factor of 1.8 at best.

The first move has order 1 and the second at most 2. With fewer than 15 moves, the last two have
orders 2 and 1 ("lower_order_final"). The first move leaves an error of order h^2 at the end. It is
small where f hardly depends on lambda, at large noise: from sigma / alpha = 20 on a grid even in
lambda, it shows from some 300 moves on, where 3M falls back to order 2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Count, Examples, Flag, Keys, Scalar
from genzoo.math import exponential
from genzoo.math.exponential import Form, phi
from genzoo.math.gaussian import q_sample
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import EndsInData
from genzoo.samplers.predictor import Predict, Prediction

FEW = 15
"""With fewer moves than this, the last ones have a lower order, as in the published code."""


class History(NamedTuple):
    """The memory of a multistep method, newest first.

    values: earlier predictions [B, ...]. gaps: the lengths in lambda of the moves made from them,
    []. usable: int32 [], how many of them are available. left: int32 [], moves still to be made,
    including this one. gentle: bool [], whether the last moves have a lower order.
    """

    values: tuple[Examples, ...]
    gaps: tuple[Scalar, ...]
    usable: Count
    left: Count
    gentle: Flag

    @classmethod
    def empty(cls, x: Examples, steps: Count, length: int, gentle: bool | None) -> "History":
        """The history before the first of `steps` moves. gentle: None means below 15 moves."""
        if gentle is None:
            gentle = steps < FEW
        return cls(
            values=(jnp.zeros_like(x),) * length,
            gaps=(jnp.ones((), x.dtype),) * length,
            usable=jnp.zeros((), jnp.int32),
            left=jnp.asarray(steps, jnp.int32),
            gentle=jnp.asarray(gentle),
        )

    def order(self, highest: int) -> Count:
        """The order of this move: int32 []."""
        order = jnp.minimum(highest, self.usable + 1)
        return jnp.where(self.gentle, jnp.minimum(order, self.left), order)

    def after(self, value: Examples, schedule: Schedule, t: Scalar, s: Scalar) -> "History":
        """The history extended by the prediction `value` at t and the move from t to s.

        Pure noise is infinitely far away in lambda and is forgotten.
        """
        h = exponential.gap(schedule, t, s)
        length, finite = len(self.values), jnp.isfinite(h)
        h = jnp.where(finite, h, 1).astype(self.gaps[0].dtype) if length else h
        return self._replace(
            values=(value, *self.values)[:length],
            gaps=(h, *self.gaps)[:length],
            usable=jnp.where(finite, jnp.minimum(self.usable + 1, length), 0).astype(jnp.int32),
            left=self.left - 1,
        )


@dataclass(frozen=True, kw_only=True)
class Multistep(EndsInData):
    """DPM-Solver 2M and 3M (form NOISE) and DPM-Solver++ 2M and 3M (form DATA).

    From pure noise, and in the move after that, the order is 1.

    order: 1, 2 or 3. midpoint: which second-order method of equation (2). published: the
    third-order method as printed. lower_order_final: None means below 15 moves.
    """

    schedule: Schedule
    form: Form = exponential.DATA
    order: int = 2
    midpoint: bool = True
    published: bool = False
    lower_order_final: bool | None = None

    evaluations = 1

    def init(self, x: Examples, steps: Count) -> History:
        """An empty history."""
        return History.empty(x, steps, self.order - 1, self.lower_order_final)

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Examples,
        t: Scalar,
        s: Scalar,
        keys: Keys,
        memory: History,
    ) -> tuple[Examples, History]:
        """One move; deterministic."""
        del predict, x, keys
        bend, memory = self.bend(seen, t, s, memory)
        return q_sample(self.schedule, seen.x_0, s, seen.eps) + bend, memory

    def bend(
        self, seen: Prediction, t: Scalar, s: Scalar, memory: History
    ) -> tuple[Examples, History]:
        """The term that (2) and (3) add to the line [B, ...], and the history after the move."""
        value = self.form.predicted(seen)
        move = self.form.move(self.schedule, t, s)
        order, bend = memory.order(self.order), jnp.zeros_like(value)
        if self.order >= 2:
            r0 = memory.gaps[0] / move.h
            slope = (value - memory.values[0]) / r0
            weight = phi(1, move.z) / 2 if self.midpoint else phi(2, move.z)
            bend = jnp.where(order >= 2, weight * slope, bend)
        if self.order >= 3:
            r1 = memory.gaps[1] / move.h
            before = (memory.values[0] - memory.values[1]) / r1
            curve = (slope - before) / (r0 + r1)
            half = phi(3, move.z) * curve
            third = phi(2, move.z) * (slope + r0 * curve) + (half if self.published else 2 * half)
            bend = jnp.where(order >= 3, third, bend)
        return move.reach * bend, memory.after(value, self.schedule, t, s)
