"""DPM-Solver (Lu et al. 2022a) and DPM-Solver++ (Lu et al. 2022b): the single-step methods.

Equations (1), (2) and (4) of genzoo.math.exponential, expanded around the start of a move. The
derivatives are estimated by differences from predictions inside the move, at lambda_t + r h, with
r1 = 1/2 for order 2 and r1, r2 = 1/3, 2/3 for order 3 (algorithms 1 and 2 of the first paper, 1 of
the second):

    order 1: x_s = line(s) = alpha_s x_0 + sigma_s eps, which is DDIM                           (1)
    order 2: x_1 = line(t_1),  x_s = line(s) + reach phi_1(z) (f_1 - f_0) / (2 r1)              (2)
    order 3: x_1 = line(t_1),  x_2 = line(t_2) + reach_2 phi_2(z_2) (r2 / r1) (f_1 - f_0),
             x_s = line(s) + reach phi_2(z) (f_2 - f_0) / r2                                    (3)

Orders observed on mixtures: 1, 2 and 3. The move to s = 0 has order 1 and ends in the predicted
data. Schedulers that spread a move over several grid steps (diffusers) take r from that grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genzoo.core.types import Examples, Keys, Scalar
from genzoo.math import exponential
from genzoo.math.exponential import Form, Move, phi
from genzoo.math.gaussian import q_sample
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Memoryless
from genzoo.samplers.predictor import Predict, Prediction


def time_inside(schedule: Schedule, s: Scalar, move: Move, part: float) -> Scalar:
    """The time [] at which a fraction `part` of the move to s is complete, measured in lambda.

    A move from pure noise has no finite length. The result is then some time near s, and the
    prediction there is multiplied by 0.
    """
    return schedule.time_of_logsnr(schedule.logsnr(s) - 2 * (1 - part) * move.h)


@dataclass(frozen=True, kw_only=True)
class SingleStep(Memoryless):
    """DPM-Solver-1, 2, 3 (form NOISE) and DPM-Solver++ 1, 2S, 3S (form DATA).

    order: 1, 2 or 3, which is also the number of evaluations. From pure noise a move has order 1.
    """

    schedule: Schedule
    form: Form = exponential.DATA
    order: int = 2

    @property
    def evaluations(self) -> int:
        """One per order."""
        return self.order

    def inner(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """Even divisions of the move in lambda: its midpoint, or its two thirds."""
        move = self.form.move(self.schedule, t, s)
        parts = [index / self.order for index in range(1, self.order)]
        return [time_inside(self.schedule, s, move, part) for part in parts]

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
        """One move; deterministic."""
        del x, keys
        line = self._line(seen, s)
        if self.order == 1:
            return line, memory
        move = self.form.move(self.schedule, t, s)
        bend = self._second if self.order == 2 else self._third
        return line + move.reach * bend(predict, seen, t, s, move), memory

    def _line(self, seen: Prediction, s: Scalar) -> Examples:
        return q_sample(self.schedule, seen.x_0, s, seen.eps)

    def _second(self, predict, seen, t, s, move) -> Examples:
        (middle,) = self.inner(t, s)
        inside = predict(self._line(seen, middle), middle)
        # Equation (2), 2 r1 = 1.
        return phi(1, move.z) * (self.form.predicted(inside) - self.form.predicted(seen))

    def _third(self, predict, seen, t, s, move) -> Examples:
        # Equation (3), r2 / r1 = 2.
        initial = self.form.predicted(seen)
        first, second = self.inner(t, s)
        difference = self.form.predicted(predict(self._line(seen, first), first)) - initial
        shorter = self.form.move(self.schedule, t, second)
        x = self._line(seen, second) + 2 * shorter.reach * phi(2, shorter.z) * difference
        return 1.5 * phi(2, move.z) * (self.form.predicted(predict(x, second)) - initial)
