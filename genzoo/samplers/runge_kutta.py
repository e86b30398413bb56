"""Runge-Kutta methods for the probability-flow ODE, and Euler's method with fresh noise.

With a scale c(t) and a clock u(t), y = x / c moves along dy/du, which a prediction gives:

    noise ratio:  c = alpha,          u = sigma / alpha,            dy/du = eps                (1)
                  (Karras et al. 2022, with their sigma as the clock; x / alpha is their x)
    straight:     c = alpha + sigma,  u = sigma / (alpha + sigma),  dy/du = eps - x_0          (2)
                  (finite where alpha(1) = 0; on straight paths it is the velocity ODE in t)

A constant prediction moves on the line of DDIM, whatever the coordinate:

    c_s (y_t + (u_s - u_t) dy/du) = alpha_s x_0 + sigma_s eps                                  (3)

so every method is written as that line, drawn by the prediction at t, and a correction by how the
slope changes. Nothing large cancels where alpha_t is small, nor is alpha_t ever divided by in (2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Array, Keys
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.loop import Memoryless
from genzoo.samplers.predictor import Predict, Prediction


@dataclass(frozen=True)
class Coordinate:
    """The y = x / c and the u in which an ODE is solved; functions of times [] of their shape.

    scale, clock: (schedule, t) -> c, u; u is 0 at the data and rises with t.
    logsnr: u -> the logsnr where the clock shows u. slope: a prediction -> dy/du [B, ...].
    middle: (u_t, u_s) -> the clock value that DPM2 takes for the middle.
    """

    scale: Callable[[Schedule, Array], Array]
    clock: Callable[[Schedule, Array], Array]
    logsnr: Callable[[Array], Array]
    slope: Callable[[Prediction], Array]
    middle: Callable[[Array, Array], Array]

    def time(self, schedule: Schedule, clock: Array) -> Array:
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
    """(1), the published one, unless alpha(1) is 0 or next to it. There its clock would begin at
    infinity, or at 20,000 for the cosine table, and the first step would magnify whatever little
    the prediction changes over it: Heun's method in 20 steps gives saturated images."""
    return STRAIGHT if schedule.ends_in_noise else NOISE_RATIO


def line(schedule: Schedule, seen: Prediction, s: Array) -> Array:
    """Equation (3): x_s [B, ...] if the prediction `seen` were true; s is a scalar."""
    return schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * seen.eps


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """An explicit method in Butcher's notation: stage i stands at the part nodes[i] of the step,
    rows[i] weigh the slopes before it, `weights` those of the step. nodes[0] is 0."""

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


def _change(weights: tuple[float, ...], slopes: list[Array]) -> Array | float:
    # sum_j w_j (k_j - k_0): what the line of the first slope k_0 does not know.
    terms = zip(weights[1:], slopes[1:], strict=True)
    return sum(w * (k - slopes[0]) for w, k in terms if w)


@dataclass(frozen=True, kw_only=True)
class RungeKutta(Memoryless):
    """One step of a tableau in the coordinate of the schedule; the end is the predicted x_0, which
    is Euler's step to u = 0."""

    schedule: Schedule
    tableau: ClassVar[Tableau]

    @property
    def evaluations(self) -> int:
        """One per stage."""
        return len(self.tableau.nodes)

    def _place(self, coordinate: Coordinate, u_t: Array, u_s: Array, node: float) -> Array:
        # The clock value of a stage.
        del coordinate
        return u_t + node * (u_s - u_t)

    def inner(self, t: Array, s: Array) -> Sequence[Array]:
        """The times of the stages after the first."""
        schedule, coordinate = self.schedule, coordinate_of(self.schedule)
        u_t, u_s = (coordinate.clock(schedule, v) for v in (t, s))

        def time(node: float) -> Array:
            # The end of the step is known as a time; elsewhere the clock is turned back into one.
            place = self._place(coordinate, u_t, u_s, node)
            return s if node == 1 else coordinate.time(schedule, place)

        return [time(node) for node in self.tableau.nodes[1:]]

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Array,
        t: Array,
        s: Array,
        keys: Keys,
        memory: Any,
    ) -> tuple[Array, Any]:
        """One step; no randomness."""
        del x, keys
        schedule, tableau, coordinate = self.schedule, self.tableau, coordinate_of(self.schedule)
        u_t, u_s = (coordinate.clock(schedule, v) for v in (t, s))

        def arrive(at: Array, weights: tuple[float, ...]) -> Array:
            change = coordinate.scale(schedule, at) * (u_s - u_t) * _change(weights, slopes)
            return line(schedule, seen, at) + change

        slopes = [coordinate.slope(seen)]
        for at, row in zip(self.inner(t, s), tableau.rows[1:], strict=True):
            slopes.append(coordinate.slope(predict(arrive(at, row), at)))
        return arrive(s, tableau.weights), memory


class Euler(RungeKutta):
    """Order 1: equation (3) alone, that is DDIM with eta = 0."""

    tableau = Tableau(nodes=(0,), rows=((),), weights=(1,))


class Heun(RungeKutta):
    """Order 2, the trapezoid: EDM's deterministic sampler (Karras et al. 2022, algorithm 1)."""

    tableau = Tableau(nodes=(0, 1), rows=((), (1,)), weights=(1 / 2, 1 / 2))


class Midpoint(RungeKutta):
    """Order 2, the slope in the middle of u."""

    tableau = Tableau(nodes=(0, 1 / 2), rows=((), (1 / 2,)), weights=(0, 1))


class DPM2(Midpoint):
    """Order 2, the slope in the middle of log u: `dpm_2` of k-diffusion, whose sigma is our u. It
    is DPM-Solver-2 (Lu et al. 2022, algorithm 1) with the last step to the data left out.

    In the straight coordinate, whose log u has no meaning of its own, it is `Midpoint`.
    """

    def _place(self, coordinate: Coordinate, u_t: Array, u_s: Array, node: float) -> Array:
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
    """Euler's step to a little less noise than at s, and fresh noise up to s: k-diffusion's
    `euler_ancestral`, in y = x / alpha and u = sigma / alpha

        u_up = min(u_s, eta u_s sqrt(1 - u_s^2 / u_t^2)),  u_down^2 = u_s^2 - u_up^2           (4)

    Times alpha_s that is x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z with d = alpha_s u_up:
    eta times the posterior deviation (math/gaussian.py, eq. 3), because u_s^2 / u_t^2 is the ratio
    of SNRs. So for eta <= 1 it is DDIM with this eta, and the marginals are kept on every schedule,
    at alpha_t = 0 too. Beyond that d stops at sigma_s, where all of the noise is fresh.
    """

    schedule: Schedule
    eta: float = 1.0

    def __call__(
        self,
        predict: Predict,
        seen: Prediction,
        x: Array,
        t: Array,
        s: Array,
        keys: Keys,
        memory: Any,
    ) -> tuple[Array, Any]:
        """One draw."""
        del predict
        schedule, share = self.schedule, self.eta**2
        # Of sigma_s^2: what is fresh, and what is kept, which is not 1 - fresh because a rounding
        # error of that would become its square root where nothing is kept.
        fresh = jnp.minimum(share * gaussian.one_minus_ratio(schedule, t, s), 1)
        ratio = jnp.exp(schedule.logsnr(t) - schedule.logsnr(s))
        kept = jnp.maximum(1 - share + share * ratio, 0)
        noise = streams.normal(keys, x.shape[1:], x.dtype)
        mixed = jnp.sqrt(kept) * seen.eps + jnp.sqrt(fresh) * noise
        return schedule.alpha(s) * seen.x_0 + schedule.sigma(s) * mixed, memory
