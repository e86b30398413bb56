"""The stochastic samplers of the score SDE (Song et al. 2021), for any schedule.

Predictors discretise the reverse SDE, and a Langevin corrector may act between their steps.

    forward  dx = f x dt + g dw,   f = alpha' / alpha,   g^2 = -sigma^2 dlogsnr/dt              (1)
    reverse  dx = (f x - g^2 score) dt + g dw,           score = -eps / sigma                   (2)
    flow     dx = (f x - g^2 score / 2) dt                                                      (3)

Ancestral sampling, the third predictor of the paper, is in `steps`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Count, Examples, Keys, Scalar, Times, broadcast, sum_per_example
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Memoryless, Step
from genzoo.samplers.predictor import Predict, Prediction


@dataclass(frozen=True, kw_only=True)
class _Reverse(Memoryless):
    # x_t = (1 + drift) x_s + sqrt(variance) z, reversed with the drift and the score at t.
    schedule: Schedule
    probability_flow: bool = False

    def increments(self, t: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
        """(drift, variance) of the forward step from s to t."""
        raise TypeError(f"{type(self).__name__} does not define increments(t, s)")

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
        """One step, s < t."""
        del predict
        schedule = self.schedule
        # At alpha = 0 the drift is infinite, so this step is the exact one for the predicted data.
        has_signal = schedule.alpha(t) > 0
        drift, variance = (jnp.where(has_signal, v, 0) for v in self.increments(t, s))
        score = -seen.eps / schedule.sigma(t)
        if self.probability_flow:
            moved = x - drift * x + variance / 2 * score
            exact = schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * seen.eps
        else:
            noise = streams.normal(keys, x.shape[1:], x.dtype)
            moved = x - drift * x + variance * score + jnp.sqrt(variance) * noise
            mean, spread = gaussian.posterior(schedule, seen.x_0, x, t, s)
            exact = mean + jnp.sqrt(spread) * noise
        return jnp.where(has_signal, moved, exact), memory


@dataclass(frozen=True, kw_only=True)
class EulerMaruyama(_Reverse):
    """x_s = x - (t - s) (f x - g^2 score) + g sqrt(t - s) z: equation (2) by Euler-Maruyama.

    probability_flow: Euler's method for (3) instead. Where f (t - s) is not small, as near t = 1 on
    straight paths, the step is inaccurate. From alpha = 0 itself, where f is infinite, it is a draw
    from the posterior, or DDIM's line.
    """

    def increments(self, t: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
        """(f, g^2) times t - s."""
        rates = self.schedule.drift_rate(t), self.schedule.diffusion_square(t)
        return tuple((t - s) * rate for rate in rates)


@dataclass(frozen=True, kw_only=True)
class ReverseDiffusion(_Reverse):
    """x_s = x - (alpha_{t|s} - 1) x + sigma_{t|s}^2 score + sigma_{t|s} z.

    This is the exact transition from s to t, reversed (Song et al. 2021, appendix E). Unlike
    Euler's method it is bounded. probability_flow: half the score and no noise (appendix D.3). From
    alpha = 0 it is a draw from the posterior, or DDIM's line.
    """

    def increments(self, t: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
        """(alpha_{t|s} - 1, sigma_{t|s}^2): for neighbours in a table, sqrt(1 - beta) - 1, beta."""
        scale = self.schedule.alpha(t) / self.schedule.alpha(s)
        return scale - 1, gaussian.transition_variance(self.schedule, t, s)


@runtime_checkable
class Corrector(Protocol):
    """Moves x at a fixed noise level towards the distribution whose score is predicted."""

    steps: int  # network evaluations

    def __call__(
        self, predict: Predict, x: Examples, t: Scalar, s: Scalar, keys: Keys
    ) -> Examples:
        """x at the same time s, which the predictor has reached from t."""


@dataclass(frozen=True, kw_only=True)
class _Langevin:
    # Equation (4); a subclass sets the length of the step.
    schedule: Schedule
    snr: float = 0.16
    steps: int = 1

    def length_square(self, score: Examples, noise: Examples, s: Scalar) -> Times:
        """(|z| / |score|)^2 of equation (4), [] or [B]."""
        raise TypeError(f"{type(self).__name__} does not define length_square(score, noise, s)")

    def __call__(
        self, predict: Predict, x: Examples, t: Scalar, s: Scalar, keys: Keys
    ) -> Examples:
        """`steps` steps of equation (4), with keys folded with 0, 1, ..."""
        schedule = self.schedule
        shrunk = jnp.square(schedule.alpha(t) / schedule.alpha(s))

        def correct(index, x):
            score = -predict(x, s).eps / schedule.sigma(s)
            noise = streams.normal(streams.fold(keys, index), x.shape[1:], x.dtype)
            size = 2 * shrunk * self.snr**2 * self.length_square(score, noise, s)
            size = broadcast(size, x)
            return x + size * score + jnp.sqrt(2 * size) * noise

        return jax.lax.fori_loop(0, self.steps, correct, x)


@dataclass(frozen=True, kw_only=True)
class Langevin(_Langevin):
    """x <- x + e score + sqrt(2 e) z,   e = 2 alpha (snr |z| / |score|)^2                      (4)

    (Song et al. 2021, algorithms 4 and 5), with alpha = (alpha_t / alpha_s)^2: 1 if the variance
    explodes, 1 - beta if it is preserved. The norms are those of each example, so that a sample
    does not depend on its batch; the published code averages them over the batch. In one or two
    dimensions |score| is near 0 too often for this rule; use `AnnealedLangevin` there.

    snr: the paper's signal-to-noise ratio of a step. steps: how many at each noise level.
    """

    def length_square(self, score: Examples, noise: Examples, s: Scalar) -> Times:
        """As in equation (4), [B]; 0 where the score is 0."""
        del s
        lengths = sum_per_example(jnp.square(noise)), sum_per_example(jnp.square(score))
        return jnp.where(lengths[1] > 0, lengths[0] / jnp.where(lengths[1] > 0, lengths[1], 1), 0)


@dataclass(frozen=True, kw_only=True)
class AnnealedLangevin(_Langevin):
    """Equation (4) with e = 2 alpha (snr sigma_s)^2: the annealed dynamics of Song & Ermon 2019.

    This is "ald" in the score SDE's code. It equals `Langevin` where |score| is |z| / sigma.
    """

    def length_square(self, score: Examples, noise: Examples, s: Scalar) -> Times:
        """sigma_s^2."""
        del score, noise
        return jnp.square(self.schedule.sigma(s))


@dataclass(frozen=True, kw_only=True)
class PredictorCorrector:
    """A step of any kind, then the corrector at the time s that it reached.

    Song et al. 2021, algorithm 1. It ends as the predictor does, without a corrector. After a step
    from alpha(t) = 0 the corrector evaluates but does not move, because its step size is 0.
    """

    predictor: Step
    corrector: Corrector

    @property
    def evaluations(self) -> int:
        """The predictor's and the corrector's."""
        return self.predictor.evaluations + self.corrector.steps

    def inner(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The predictor's, and the corrector's at s."""
        return [*self.predictor.inner(t, s), *[s] * self.corrector.steps]

    def inner_to_start(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The predictor's."""
        return self.predictor.inner_to_start(t, s)

    @property
    def evaluations_to_start(self) -> int:
        """The predictor's."""
        return self.predictor.evaluations_to_start

    @property
    def starting_steps(self) -> int:
        """The predictor's."""
        return self.predictor.starting_steps

    def init(self, x: Examples, steps: Count) -> Any:
        """The predictor's memory."""
        return self.predictor.init(x, steps)

    def before(
        self, x: Examples, t: Scalar, s: Scalar, keys: Keys, memory: Any
    ) -> tuple[Examples, Scalar]:
        """Where the predictor evaluates."""
        return self.predictor.before(x, t, s, streams.fold(keys, 0), memory)

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
        """One step with keys folded with 0, and its correction with keys folded with 1."""
        x, memory = self.predictor(predict, seen, x, t, s, streams.fold(keys, 0), memory)
        return self.corrector(predict, x, t, s, streams.fold(keys, 1)), memory

    def finish(self, seen: Prediction, x: Examples, t: Scalar, memory: Any) -> Examples:
        """The predictor's end."""
        return self.predictor.finish(seen, x, t, memory)
