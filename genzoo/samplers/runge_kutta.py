"""Runge-Kutta methods for the probability-flow ODE, and Euler's method with fresh noise.

With a scale c(t) and a clock u(t), y = x / c follows dy/du, which a prediction gives:

    noise ratio:  c = alpha,          u = sigma / alpha,            dy/du = eps                (1)
                  (Karras et al. 2022, with their sigma as the clock; x / alpha is their x)
    straight:     c = alpha + sigma,  u = sigma / (alpha + sigma),  dy/du = eps - x_0          (2)
                  (finite where alpha(1) = 0; on straight paths it is the velocity ODE in t)

A constant prediction moves along the line of DDIM in any coordinate:

    c_s (y_t + (u_s - u_t) dy/du) = alpha_s x_0 + sigma_s eps                                  (3)

so every method is written as that line, given by the prediction at t, plus a correction for the
change of slope. Nothing large cancels where alpha_t is small, and (2) never divides by alpha_t.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Examples, Keys, Scalar
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Memoryless
from genzoo.samplers.predictor import Predict, Prediction


@dataclass(frozen=True)
class Coordinate:
    """The scaled state y = x / c and the clock u in which an ODE is solved, as functions.

    scale, clock: (schedule, t []) -> c, u []; u is 0 at the data and increases with t.
    logsnr: u -> the logsnr at which the clock shows u. slope: a prediction -> dy/du [B, ...].
    middle: (u_t, u_s) -> the clock value that DPM2 takes as the midpoint.
    """

    scale: Callable[[Schedule, Scalar], Scalar]
    clock: Callable[[Schedule, Scalar], Scalar]
    logsnr: Callable[[Scalar], Scalar]
    slope: Callable[[Prediction], Examples]
    middle: Callable[[Scalar, Scalar], Scalar]

    def time(self, schedule: Schedule, clock: Scalar) -> Scalar:
        """The t at which the clock shows this value."""
        return schedule.time_of_logsnr(self.logsnr(clock))


NOISE_RATIO = Coordinate(
    scale=lambda schedule, t: schedule.alpha(t),
    clock=lambda schedule, t: schedule.sigma(t) / schedule.alpha(t),
    logsnr=lambda u: -2 * jnp.log(u),
    slope=lambda seen: seen.eps,
    middle=lambda u, v: jnp.sqrt(u) * jnp.sqrt(v),
)
STRAIGHT = Coordinate(
    scale=lambda schedule, t: schedule.alpha(t) + schedule.sigma(t),
    clock=lambda schedule, t: schedule.sigma(t) / (schedule.alpha(t) + schedule.sigma(t)),
    logsnr=lambda u: 2 * (jnp.log1p(-u) - jnp.log(u)),
    slope=lambda seen: seen.eps - seen.x_0,
    middle=lambda u, v: (u + v) / 2,
)


def coordinate_of(schedule: Schedule) -> Coordinate:
    """The published coordinate (1), unless alpha(1) is 0 or close to it.

    There its clock would start at infinity, or at 20,000 for the cosine table, and the first step
    would magnify any small change of the prediction over it: Heun's method in 20 steps gives
    saturated images.
    """
    return STRAIGHT if schedule.ends_in_noise else NOISE_RATIO


def line(schedule: Schedule, seen: Prediction, s: Scalar) -> Examples:
    """Equation (3): x_s [B, ...] if the prediction `seen` were exact; s is a scalar."""
    return schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * seen.eps


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """An explicit method in Butcher's notation.

    Stage i is at the fraction nodes[i] of the step, and nodes[0] is 0. rows[i] weights the slopes
    before it, and `weights` those of the whole step.
    """

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


def _change(weights: tuple[float, ...], slopes: list[Examples]) -> Examples | float:
    # sum_j w_j (k_j - k_0): the part that the line of the first slope k_0 lacks.
    terms = zip(weights[1:], slopes[1:], strict=True)
    return sum(w * (k - slopes[0]) for w, k in terms if w)


@dataclass(frozen=True, kw_only=True)
class RungeKutta(Memoryless):
    """One step of a tableau in the coordinate of the schedule.

    The end is the predicted x_0, which is Euler's step to u = 0.
    """

    schedule: Schedule
    tableau: ClassVar[Tableau]

    @property
    def evaluations(self) -> int:
        """One per stage."""
        return len(self.tableau.nodes)

    def _place(self, coordinate: Coordinate, u_t: Scalar, u_s: Scalar, node: float) -> Scalar:
        # The clock value at a stage.
        del coordinate
        return u_t + node * (u_s - u_t)

    def inner(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The times of the stages after the first."""
        schedule, coordinate = self.schedule, coordinate_of(self.schedule)
        u_t, u_s = (coordinate.clock(schedule, v) for v in (t, s))

        def time(node: float) -> Scalar:
            # The time at the end of the step is known; elsewhere it is that of the clock value.
            place = self._place(coordinate, u_t, u_s, node)
            return s if node == 1 else coordinate.time(schedule, place)

        return [time(node) for node in self.tableau.nodes[1:]]

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
        """One step; no randomness."""
        del x, keys
        schedule, tableau, coordinate = self.schedule, self.tableau, coordinate_of(self.schedule)
        u_t, u_s = (coordinate.clock(schedule, v) for v in (t, s))

        def arrive(at: Scalar, weights: tuple[float, ...]) -> Examples:
            change = coordinate.scale(schedule, at) * (u_s - u_t) * _change(weights, slopes)
            return line(schedule, seen, at) + change

        slopes = [coordinate.slope(seen)]
        for at, row in zip(self.inner(t, s), tableau.rows[1:], strict=True):
            slopes.append(coordinate.slope(predict(arrive(at, row), at)))
        return arrive(s, tableau.weights), memory


class Euler(RungeKutta):
    """Order 1: equation (3) alone, which is DDIM with eta = 0."""

    tableau = Tableau(nodes=(0,), rows=((),), weights=(1,))


class Heun(RungeKutta):
    """Order 2, the trapezoidal rule: EDM's deterministic sampler (Karras et al. 2022, alg. 1)."""

    tableau = Tableau(nodes=(0, 1), rows=((), (1,)), weights=(1 / 2, 1 / 2))


class Midpoint(RungeKutta):
    """Order 2, with the slope at the midpoint in u."""

    tableau = Tableau(nodes=(0, 1 / 2), rows=((), (1 / 2,)), weights=(0, 1))


class DPM2(Midpoint):
    """Order 2, with the slope at the midpoint in log u: `dpm_2` of k-diffusion.

    k-diffusion's sigma is our u. The method is DPM-Solver-2 (Lu et al. 2022, algorithm 1) without
    the last step to the data. In the straight coordinate, where log u has no meaning of its own, it
    is `Midpoint`.
    """

    def _place(self, coordinate: Coordinate, u_t: Scalar, u_s: Scalar, node: float) -> Scalar:
        del node
        return coordinate.middle(u_t, u_s)


class RK4(RungeKutta):
    """Order 4, the classical method of Kutta 1901."""

    tableau = Tableau(
        nodes=(0, 1 / 2, 1 / 2, 1),
        rows=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
        weights=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    )


@dataclass(frozen=True, kw_only=True)
class EulerAncestral(Memoryless):
    """Euler's step to slightly less noise than at s, then fresh noise up to s.

    This is `euler_ancestral` of k-diffusion, in y = x / alpha and u = sigma / alpha:

        u_up = min(u_s, eta u_s sqrt(1 - u_s^2 / u_t^2)),  u_down^2 = u_s^2 - u_up^2           (4)

    Multiplied by alpha_s, x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z with d = alpha_s
    u_up, which is eta times the posterior deviation (math/gaussian.py, eq. 3), because
    u_s^2 / u_t^2 is the ratio of SNRs. So for eta <= 1 it is DDIM with this eta and preserves the
    marginals on every schedule, even at alpha_t = 0. For larger eta, d is capped at sigma_s, where
    all of the noise is fresh.
    """

    schedule: Schedule
    eta: float = 1.0

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
        """One draw."""
        del predict
        schedule, share = self.schedule, self.eta**2
        # The fresh and the kept fraction of sigma_s^2. The latter is not computed as 1 - fresh:
        # where nothing is kept, a rounding error there would grow to its square root.
        fresh = jnp.minimum(share * gaussian.one_minus_ratio(schedule, t, s), 1)
        ratio = jnp.exp(schedule.logsnr(t) - schedule.logsnr(s))
        kept = jnp.maximum(1 - share + share * ratio, 0)
        noise = streams.normal(keys, x.shape[1:], x.dtype)
        mixed = jnp.sqrt(kept) * seen.eps + jnp.sqrt(fresh) * noise
        return schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * mixed, memory
