"""Exponential integrators of diffusion: phi functions, and the flow that they solve in log SNR.

With lambda = log(alpha / sigma) and h = lambda_s - lambda_t, the probability-flow ODE is solved
exactly but for an integral over what is predicted (DPM-Solver, Lu et al. 2022a, eq. 3.4;
DPM-Solver++, Lu et al. 2022b, eq. 8 and, for eta = 1, its section 5):

    data:  x_s = sigma_s / sigma_t x_t + alpha_s int_0^h exp(u - h) x_0(lambda_t + u) du        (1)
    noise: x_s = alpha_s / alpha_t x_t - sigma_s int_0^h exp(h - u) eps(lambda_t + u) du        (2)
    SDE:   x_s = sigma_s / sigma_t exp(-eta h) x_t + sigma_s sqrt(1 - exp(-2 eta h)) z
                 + (1 + eta) alpha_s int_0^h exp((1 + eta)(u - h)) x_0(lambda_t + u) du         (3)

A prediction f that is expanded around lambda_t gives integrals of powers, and those are

    phi_k(z) = int_0^1 exp((1 - u) z) u^(k - 1) / (k - 1)! du,
    phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z,   phi_1(z) = (exp(z) - 1) / z
    integral = scale h sum_k phi_{k+1}(z) h^k f^(k)(lambda_t),   z = rate h                     (4)

with (scale, rate) = (alpha_s, -1), (-sigma_s, 1), ((1 + eta) alpha_s, -(1 + eta)). The terms
without a derivative are, in (1) and in (2) alike, the line alpha_s x_0 + sigma_s eps of DDIM, and
in (3) the same line with a part of eps drawn afresh. So a method of higher order is that line,
finite from pure noise on (lambda = -inf), plus `reach` times a bend made of differences of f.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Examples, Scalar, Times, Values
from genzoo.math.prediction import Pair, pair_of_eps, pair_of_x_0
from genzoo.math.schedules import Schedule

# Below this |z| the series is used, whose terms left out are under the rounding of float64.
_NEAR, _TERMS = 2.0, 24


def phi(order: int, z: Values) -> Values:
    """phi_order(z), order >= 1, shape of z: phi_1 = (exp(z) - 1) / z, phi_k(0) = 1 / k!.

    By the recursion, and by the series near 0, where the recursion would cancel.
    """
    z = jnp.asarray(z)
    near = jnp.abs(z) < _NEAR
    small, large = jnp.where(near, z, 0), jnp.where(near, _NEAR, z)
    series = jnp.zeros_like(z)
    for power in reversed(range(_TERMS)):
        series = series * small + 1 / factorial(power + order)
    value = jnp.expm1(large) / large
    for lower in range(1, order):
        value = (value - 1 / factorial(lower)) / large
    return jnp.where(near, series, value)


def weights(z: Scalar, nodes: Sequence[Scalar]) -> list[Scalar]:
    """rho_1..rho_m [] such that, for every polynomial p of degree m or less,

        int_0^1 exp((1 - u) z) (p(u) - p(0)) du = sum_j rho_j (p(r_j) - p(0)) / r_j.

    z: []; nodes: r_1..r_m [], distinct and not 0, in units of the move. (p - p(0)) / u is of degree
    m - 1 and is interpolated in them.
    """
    moments = [factorial(power + 1) * phi(power + 2, z) for power in range(len(nodes))]
    found = []
    for place, own in enumerate(nodes):
        others = [*nodes[:place], *nodes[place + 1 :]]
        # Coefficients, the constant first, of the polynomial that is 1 at its own node, 0 at others
        basis = [jnp.ones_like(z)]
        for other in others:
            raised, kept = [0, *basis], [*basis, 0]
            basis = [(a - other * b) / (own - other) for a, b in zip(raised, kept, strict=True)]
        found.append(sum(c * moment for c, moment in zip(basis, moments, strict=True)))
    return found


def gap(schedule: Schedule, t: Times, s: Times) -> Times:
    """h = lambda_s - lambda_t, [] or [B]; negative where s > t, inf from pure noise."""
    rough = (schedule.logsnr(s) - schedule.logsnr(t)) / 2
    # In float32 the difference of neighbours would be left with few digits.
    close = jnp.abs(rough) < 0.5
    ratio = jnp.where(close, schedule.one_minus_ratio(t, s), 0)
    return jnp.where(close, -jnp.log1p(-ratio) / 2, rough)


class Move(NamedTuple):
    """One move of a form: h (1 where it is infinite), z = rate h, and reach = scale h of equation
    (4), which is 0 where h is infinite: from pure noise every method takes the line of DDIM."""

    h: Scalar
    z: Scalar
    reach: Scalar


@dataclass(frozen=True, kw_only=True)
class Form:
    """Equation (1), (2) or (3): which prediction is expanded, and the kernel that weights it.

    predicted: pair -> f [B, ...]. complete: (f, x, schedule, t) -> the pair with this f that makes
    up x. scale: (alpha_s, sigma_s) -> scale. rate: z / h.
    """

    predicted: Callable[[Pair], Examples]
    complete: Callable[[Examples, Examples, Schedule, Times], Pair]
    scale: Callable[[Scalar, Scalar], Scalar]
    rate: float

    def move(self, schedule: Schedule, t: Scalar, s: Scalar) -> Move:
        """The move from time t to time s; both []."""
        h = gap(schedule, t, s)
        finite = jnp.isfinite(h)
        h = jnp.where(finite, h, 1)
        scale = self.scale(schedule.alpha(s), schedule.sigma(s))
        return Move(h, self.rate * h, jnp.where(finite, scale * h, 0))


NOISE = Form(
    predicted=lambda pair: pair.eps,
    complete=pair_of_eps,
    scale=lambda alpha, sigma: -sigma,
    rate=1.0,
)
"""Equation (2): DPM-Solver."""


def reverse_sde(eta: float) -> Form:
    """Equation (3): SDE-DPM-Solver++ of dx = (f x - (1 + eta) / 2 g^2 score) dt + sqrt(eta) g dw,
    whose marginals are the same for every eta: 1 is the reverse SDE, 0 is equation (1)."""
    return Form(
        predicted=lambda pair: pair.x_0,
        complete=pair_of_x_0,
        scale=lambda alpha, sigma: (1 + eta) * alpha,
        rate=-(1.0 + eta),
    )


def reverse_sde_in_noise(eta: float) -> Form:
    """The same SDE solved with eps expanded, SDE-DPM-Solver ("sde-dpmsolver" of diffusers):

        x_s = alpha_s / alpha_t x_t - (1 + eta) sigma_s int_0^h exp(h - u) eps(lambda_t + u) du
              + sigma_s sqrt(eta (exp(2 h) - 1)) z                                             (5)

    0 is equation (2). Its noise and the part of eps grow with exp(h), so that moves must be short.
    """
    return Form(
        predicted=lambda pair: pair.eps,
        complete=pair_of_eps,
        scale=lambda alpha, sigma: -(1 + eta) * sigma,
        rate=1.0,
    )


DATA = reverse_sde(0.0)
"""Equation (1): DPM-Solver++."""
