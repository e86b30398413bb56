"""The kinds of prediction of a diffusion network, and the conversions between them.

With x_t = alpha x_0 + sigma eps, every conversion goes through the pair (x_0, eps):

    eps                                     noise (Ho et al. 2020)
    x_0                                     data
    v        = alpha eps - sigma x_0        (Salimans & Ho 2022; alpha^2 + sigma^2 need not be 1)
    score    = -eps / sigma                 grad log q(x_t)
    velocity = alpha' x_0 + sigma' eps      dx_t / dt in our t: 0 is data
    mean     = E[x_s | x_t, x_0]            one step earlier on a table (Ho et al. 2020, eq. 8)

A network trained on any kind works with every sampler and every loss. Where alpha = 0, eps and the
score do not determine x_0: there they must be `bounded`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Examples, Floats, Times, broadcast
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule, TableSchedule


class Pair(NamedTuple):
    """Data and noise that make up one x_t, each [B, ...]."""

    x_0: Examples
    eps: Examples


@dataclass(frozen=True)
class Kind:
    """A kind of prediction: two functions, inverse to each other.

    to_pair: (output [B, ...], x_t [B, ...], schedule, t [B] or []) -> Pair
    from_pair: (Pair, schedule, t) -> output
    """

    to_pair: Callable[[Examples, Examples, Schedule, Times], Pair]
    from_pair: Callable[[Pair, Schedule, Times], Examples]


def _scales(schedule: Schedule, t: Times, like: Examples) -> tuple[Floats, Floats]:
    return broadcast(schedule.alpha(t), like), broadcast(schedule.sigma(t), like)


def pair_of_x_0(x_0: Examples, x_t: Examples, schedule: Schedule, t: Times) -> Pair:
    """The pair with data x_0: eps = (x_t - alpha x_0) / sigma. Undefined at sigma = 0."""
    alpha, sigma = _scales(schedule, t, x_t)
    return Pair(x_0, (x_t - alpha * x_0) / sigma)


def pair_of_eps(eps: Examples, x_t: Examples, schedule: Schedule, t: Times) -> Pair:
    """The pair with noise eps: x_0 = (x_t - sigma eps) / alpha. Undefined at alpha = 0."""
    alpha, sigma = _scales(schedule, t, x_t)
    return Pair((x_t - sigma * eps) / alpha, eps)


def _pair_of_v(v: Examples, x_t: Examples, schedule: Schedule, t: Times) -> Pair:
    # Solves the 2 x 2 system of x_t and v. Its determinant alpha^2 + sigma^2 is never 0.
    alpha, sigma = _scales(schedule, t, x_t)
    square = jnp.square(alpha) + jnp.square(sigma)
    return Pair((alpha * x_t - sigma * v) / square, (sigma * x_t + alpha * v) / square)


def _v_of_pair(pair: Pair, schedule: Schedule, t: Times) -> Examples:
    alpha, sigma = _scales(schedule, t, pair.eps)
    return alpha * pair.eps - sigma * pair.x_0


def _pair_of_score(score: Examples, x_t: Examples, schedule: Schedule, t: Times) -> Pair:
    return pair_of_eps(-broadcast(schedule.sigma(t), x_t) * score, x_t, schedule, t)


def _score_of_pair(pair: Pair, schedule: Schedule, t: Times) -> Examples:
    return -pair.eps / broadcast(schedule.sigma(t), pair.eps)


def _pair_of_velocity(velocity: Examples, x_t: Examples, schedule: Schedule, t: Times) -> Pair:
    alpha, sigma = _scales(schedule, t, x_t)
    alpha_rate, sigma_rate = (broadcast(rate, x_t) for rate in schedule.rates(t))
    determinant = alpha * sigma_rate - sigma * alpha_rate
    x_0 = (sigma_rate * x_t - sigma * velocity) / determinant
    return Pair(x_0, (alpha * velocity - alpha_rate * x_t) / determinant)


def _velocity_of_pair(pair: Pair, schedule: Schedule, t: Times) -> Examples:
    alpha_rate, sigma_rate = (broadcast(rate, pair.eps) for rate in schedule.rates(t))
    return alpha_rate * pair.x_0 + sigma_rate * pair.eps


def _of_mean(schedule: TableSchedule, t: Times, like: Examples) -> tuple[Floats, Floats]:
    scales = gaussian.posterior_scales(schedule, t, schedule.step_before(t))
    return tuple(broadcast(scale, like) for scale in scales)


def _pair_of_mean(mean: Examples, x_t: Examples, schedule: TableSchedule, t: Times) -> Pair:
    of_x_t, of_x_0 = _of_mean(schedule, t, x_t)
    return pair_of_x_0((mean - of_x_t * x_t) / of_x_0, x_t, schedule, t)


def _mean_of_pair(pair: Pair, schedule: TableSchedule, t: Times) -> Examples:
    of_x_t, of_x_0 = _of_mean(schedule, t, pair.x_0)
    x_t = gaussian.q_sample(schedule, pair.x_0, t, pair.eps)
    return of_x_t * x_t + of_x_0 * pair.x_0


EPS = Kind(pair_of_eps, lambda pair, schedule, t: pair.eps)
X_0 = Kind(pair_of_x_0, lambda pair, schedule, t: pair.x_0)
V = Kind(_pair_of_v, _v_of_pair)
SCORE = Kind(_pair_of_score, _score_of_pair)
VELOCITY = Kind(_pair_of_velocity, _velocity_of_pair)
MEAN = Kind(_pair_of_mean, _mean_of_pair)
"""mu_theta(x_t), for tables only. Its squared error is that of x_0 times the square of the second
of `gaussian.posterior_scales`; divided by twice the reverse variance, it is L_{n-1}."""
KINDS = (EPS, X_0, V, SCORE, VELOCITY)
"""The kinds that every schedule has."""


def bounded(kind: Kind, last: float) -> Kind:
    """`kind`, turned into a velocity as at the time `last` < 1 at all later times.

    This makes eps and score work from t = 1 on, where alpha(1) = 0. On the straight path it is the
    bounded division of Li & He 2025 ("Back to basics", table 1):

        velocity = (eps - x_t) / max(1 - t, 1 - last)                                          (1)

    The pair is the one that has this velocity and makes up x_t. `from_pair` inverts it at all
    times: after `last` the exact output is not the noise but x_t + (1 - last) (eps - x_0), whose
    velocity (1) is that of the path. A perfect network thus follows the flow. One that predicted
    E[eps | x_t], which is x_t at t = 1, would be too slow by the factor (1 - t) / (1 - last). An
    error in the output is divided by 1 - last at most, where the plain conversion divides by 0.
    """

    def to_pair(output: Examples, x_t: Examples, schedule: Schedule, t: Times) -> Pair:
        held = jnp.minimum(t, last)
        velocity = VELOCITY.from_pair(kind.to_pair(output, x_t, schedule, held), schedule, held)
        return VELOCITY.to_pair(velocity, x_t, schedule, t)

    def from_pair(pair: Pair, schedule: Schedule, t: Times) -> Examples:
        held = jnp.minimum(t, last)
        x_t = gaussian.q_sample(schedule, pair.x_0, t, pair.eps)
        velocity = VELOCITY.from_pair(pair, schedule, t)
        return kind.from_pair(VELOCITY.to_pair(velocity, x_t, schedule, held), schedule, held)

    return Kind(to_pair, from_pair)
