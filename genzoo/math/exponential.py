"""Exponential integrators for diffusion: phi functions, and the flow in log SNR that they solve.

With lambda = log(alpha / sigma) and h = lambda_s - lambda_t, the probability-flow ODE has a
solution that is exact up to an integral of the prediction (DPM-Solver, Lu et al. 2022a, eq. 3.4;
DPM-Solver++, Lu et al. 2022b, eq. 8 and, for eta = 1, its section 5):

    data:  x_s = sigma_s / sigma_t x_t + alpha_s int_0^h exp(u - h) x_0(lambda_t + u) du        (1)
    noise: x_s = alpha_s / alpha_t x_t - sigma_s int_0^h exp(h - u) eps(lambda_t + u) du        (2)
    SDE:   x_s = sigma_s / sigma_t exp(-eta h) x_t + sigma_s sqrt(1 - exp(-2 eta h)) z
                 + (1 + eta) alpha_s int_0^h exp((1 + eta)(u - h)) x_0(lambda_t + u) du         (3)

Expanding a prediction f around lambda_t leaves integrals of powers, which are the phi functions:

    phi_k(z) = int_0^1 exp((1 - u) z) u^(k - 1) / (k - 1)! du,
    phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z,   phi_1(z) = (exp(z) - 1) / z
    integral = scale h sum_k phi_{k+1}(z) h^k f^(k)(lambda_t),   z = rate h                     (4)

with (scale, rate) = (alpha_s, -1), (-sigma_s, 1), ((1 + eta) alpha_s, -(1 + eta)). The terms
without a derivative are DDIM's line alpha_s x_0 + sigma_s eps in both (1) and (2), and in (3) the
same line with part of eps drawn afresh. A method of higher order is therefore this line, which is
finite even from pure noise (lambda = -inf), plus `reach` times a correction made of differences of
f.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Examples, Scalar, Times, Values
from genzoo.math.prediction import Pair, pair_of_eps, pair_of_x_0
from genzoo.math.schedules import Schedule

# Below this |z| the series is used; the terms it leaves out are below the rounding of float64.
_NEAR, _TERMS = 2.0, 24


def phi(order: int, z: Values) -> Values:
    """phi_order(z) for order >= 1, shape of z: phi_1 = (exp(z) - 1) / z, phi_k(0) = 1 / k!.

    Computed by the recursion, and by the series near 0, where the recursion would cancel.
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

    z: []; nodes: r_1..r_m [], distinct and nonzero, in units of the move. (p - p(0)) / u has degree
    m - 1 and is interpolated at the nodes.
    """
    moments = [factorial(power + 1) * phi(power + 2, z) for power in range(len(nodes))]
    rhos = []
    for place, own in enumerate(nodes):
        others = [*nodes[:place], *nodes[place + 1 :]]
        # Coefficients, constant first, of the polynomial that is 1 at its own node, 0 at others.
        basis = [jnp.ones_like(z)]
        for other in others:
            raised, kept = [0, *basis], [*basis, 0]
            basis = [(a - other * b) / (own - other) for a, b in zip(raised, kept, strict=True)]
        rhos.append(sum(c * moment for c, moment in zip(basis, moments, strict=True)))
    return rhos


def gap(schedule: Schedule, t: Times, s: Times) -> Times:
    """h = lambda_s - lambda_t, [] or [B]; negative where s > t, inf from pure noise."""
    rough = (schedule.logsnr(s) - schedule.logsnr(t)) / 2
    # The difference of neighbouring values would keep few digits in float32.
    close = jnp.abs(rough) < 0.5
    ratio = jnp.where(close, schedule.one_minus_ratio(t, s), 0)
    return jnp.where(close, -jnp.log1p(-ratio) / 2, rough)


class Move(NamedTuple):
    """A move from t to s in one form: h, z = rate h, and reach = scale h of equation (4).

    Where the move is infinite, h is 1 and reach is 0: from pure noise every method takes DDIM's
    line.
    """

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
        """The move from time t to time s, both []."""
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
    """Equation (3), SDE-DPM-Solver++: eta = 1 is the reverse SDE, eta = 0 is equation (1).

    It solves dx = (f x - (1 + eta) / 2 g^2 score) dt + sqrt(eta) g dw, whose marginals are the same
    for every eta.
    """
    return Form(
        predicted=lambda pair: pair.x_0,
        complete=pair_of_x_0,
        scale=lambda alpha, sigma: (1 + eta) * alpha,
        rate=-(1.0 + eta),
    )


def reverse_sde_in_noise(eta: float) -> Form:
    """The same SDE with eps expanded: SDE-DPM-Solver ("sde-dpmsolver" of diffusers).

        x_s = alpha_s / alpha_t x_t - (1 + eta) sigma_s int_0^h exp(h - u) eps(lambda_t + u) du
              + sigma_s sqrt(eta (exp(2 h) - 1)) z                                             (5)

    eta = 0 is equation (2). The noise and the weight of eps grow with exp(h), so moves must be
    short.
    """
    return Form(
        predicted=lambda pair: pair.eps,
        complete=pair_of_eps,
        scale=lambda alpha, sigma: -(1 + eta) * sigma,
        rate=1.0,
    )


DATA = reverse_sde(0.0)
"""Equation (1): DPM-Solver++."""
