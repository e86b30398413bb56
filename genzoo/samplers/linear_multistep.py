"""Linear multistep methods, which reuse the slopes of earlier steps: one evaluation per step.

With the coordinate y(u) of runge_kutta.py, the slopes k_j at earlier times t_j (t_0 = t) and the
Lagrange polynomials L_j through the places v_j of these times in some variable v:

    y_s = y_t + sum_j w_j k_j,   w_j = integral from u_t to u_s of L_j(v(u)) du                (1)

    LMS     v = u: the linear multistep sampler of k-diffusion, rho-AB of Zhang & Chen 2023
    DEIS    v = t: tAB-DEIS of Zhang & Chen 2023, eq. 14-15; diffusers uses v = logsnr / 2
    PLMS    w_j = (u_s - u_t) b_j with the Adams-Bashforth b_j of even steps in v = u, whatever
            the actual steps: pseudo linear multistep (Liu et al. 2022, eq. 9 and 12)

The w_j sum to u_s - u_t, so (1) is the line of DDIM plus a correction by differences of slopes.
The first steps have fewer slopes and a lower order. Their error is made a fixed number of times,
but it is of second order in the size of these steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genzoo.core.types import ArrayLike, Count, Examples, Flag, Keys, Scalar, Stack, Values
from genzoo.math.schedules import Schedule
from genzoo.samplers.dpm_multistep import FEW
from genzoo.samplers.loop import EndsInData
from genzoo.samplers.predictor import Predict, Prediction
from genzoo.samplers.runge_kutta import NOISE_RATIO, Coordinate, Heun, coordinate_of, line

Places = Float[ArrayLike, " K"]
"""The variable v at K times."""
Nodes = Float[ArrayLike, " Q"]
"""The nodes of a quadrature, or their weights."""


class Memory(NamedTuple):
    """The memory of a linear multistep method.

    slopes: [K - 1, B, ...] of earlier steps, the newest first. places: [K - 1], theirs in the
    variable v. known: int32 [], how many of them are known so far. left: int32 [], steps still to
    be taken, including this one. gentle: bool [], whether the last steps have a lower order.
    """

    slopes: Stack
    places: Places
    known: Count
    left: Count
    gentle: Flag


def lagrange(places: Places, known: Count, at: Nodes) -> Float[ArrayLike, "K Q"]:
    """The Lagrange polynomials L_j at the points `at` [Q]: [K, Q].

    places: [K], of which only the first `known` count; the L_j of the others are 0.
    """
    counts = jnp.arange(len(places)) < known
    others = counts[None, :] & ~jnp.eye(len(places), dtype=bool)
    apart = jnp.where(others, places[:, None] - places[None, :], 1)
    factors = (at[:, None, None] - places[None, None, :]) / apart
    return jnp.where(counts, jnp.where(others, factors, 1).prod(-1), 0).T


def gauss_legendre(nodes: int, start: Scalar, end: Scalar) -> tuple[Nodes, Nodes]:
    """(places [Q], weights [Q]) of Gauss-Legendre quadrature with Q = `nodes` from start to end.

    start, end: scalars. Exact for polynomials of degree 2 Q - 1.
    """
    places, weights = (v.astype(start.dtype) for v in np.polynomial.legendre.leggauss(nodes))
    half = (end - start) / 2
    return (start + end) / 2 + half * places, half * weights


@dataclass(frozen=True, kw_only=True)
class LinearMultistep(EndsInData):
    """Shared by the methods: equation (1) with the weights of a subclass."""

    schedule: Schedule
    order: int
    lower_order_final: ClassVar[bool | None] = False
    evaluations: ClassVar[int] = 1

    def _coordinate(self) -> Coordinate:
        return coordinate_of(self.schedule)

    def _place(self, t: Scalar) -> Scalar:
        # The variable v at time t.
        return self._coordinate().clock(self.schedule, t)

    def _weights(self, t: Scalar, s: Scalar, places: Places, known: Count) -> Places:
        # The w_j [K] of equation (1); places [K] begin with that of t.
        raise TypeError(f"{type(self).__name__} does not define its weights")

    def init(self, x: Examples, steps: Count) -> Memory:
        """A memory without slopes."""
        before, gentle = self.order - 1, self.lower_order_final
        return Memory(
            slopes=jnp.zeros((before, *x.shape), x.dtype),
            places=jnp.zeros(before, x.dtype),
            known=jnp.zeros((), jnp.int32),
            left=jnp.asarray(steps, jnp.int32),
            gentle=jnp.asarray(steps < FEW if gentle is None else gentle),
        )

    def _move(
        self, seen: Prediction, t: Scalar, s: Scalar, memory: Memory
    ) -> tuple[Examples, Memory]:
        # x_s, and the memory extended by the slope at t.
        coordinate = self._coordinate()
        slope = coordinate.slope(seen)
        places = jnp.append(self._place(t), memory.places)
        used = memory.known + 1
        used = jnp.where(memory.gentle, jnp.minimum(used, memory.left), used)
        weights = self._weights(t, s, places, used)
        # Not a dot product, which accelerators would compute with fewer digits.
        terms = zip(weights[1:], memory.slopes, strict=True)
        change = sum((w * (k - slope) for w, k in terms), jnp.zeros_like(slope))
        x = line(self.schedule, seen, s) + coordinate.scale(self.schedule, s) * change
        slopes = jnp.concatenate([slope[None], memory.slopes])[: self.order - 1]
        known = jnp.minimum(memory.known + 1, self.order - 1)
        left = memory.left - 1
        return x, Memory(slopes, places[: self.order - 1], known, left, memory.gentle)

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
        """One step, of the order that the memory allows."""
        del predict, x, keys
        return self._move(seen, t, s, memory)


@dataclass(frozen=True, kw_only=True)
class LMS(LinearMultistep):
    """The polynomial in u, integrated exactly: Adams-Bashforth with variable steps.

    This is `lms` of k-diffusion. It ends with its own polynomial at u = 0, as k-diffusion and
    diffusers do. Where alpha(1) = 0 it runs in the straight coordinate, in which t = 1 is not a
    special case.
    """

    order: int = 4

    def _weights(self, t: Scalar, s: Scalar, places: Places, known: Count) -> Places:
        end = self._place(s)
        at, weights = gauss_legendre((self.order + 1) // 2, places[0], end)
        return (lagrange(places, known, at) * weights).sum(-1)

    def finish(self, seen: Prediction, x: Examples, t: Scalar, memory: Memory) -> Examples:
        """Equation (1) up to u = 0, where y is x."""
        del x
        return self._move(seen, t, jnp.zeros_like(t), memory)[0]


Variable = Callable[[Values, Values], Values]
"""(t, logsnr at t) -> the variable v in which DEIS fits a polynomial to eps."""


def in_time(t: Values, logsnr: Values) -> Values:
    """v = t: tAB-DEIS as published."""
    del logsnr
    return t


def in_logsnr(t: Values, logsnr: Values) -> Values:
    """v = logsnr / 2: the polynomial in log(sigma / alpha) of diffusers' DEIS."""
    del t
    return logsnr / 2


@dataclass(frozen=True, kw_only=True)
class DEIS(LinearMultistep):
    """The diffusion exponential integrator sampler, by default tAB-DEIS of order 3.

    The polynomial in t (`in_time`) is integrated against du by quadrature in lambda = logsnr / 2,
    du = -exp(-lambda) dlambda. The slope is always eps. It ends in the predicted data.

    At t = 1 with alpha = 0 the first step has one slope and is the line of DDIM; the noise ratio is
    limited to that of the schedule's `farthest`. diffusers differs in its variable (`in_logsnr`),
    ends at the first noise level of its table, and lowers the order of the last two of fewer than
    15 steps, which is lower_order_final = None here.

    lower_order_final: whether the last steps have orders ..., 2, 1; None means below 15 steps.
    """

    order: int = 3
    variable: Variable = in_time
    lower_order_final: bool | None = False
    nodes: ClassVar[int] = 16  # errors of 1e-12 for a step over a factor of 100 in u

    def _coordinate(self) -> Coordinate:
        return NOISE_RATIO

    def _logsnr(self, t: Scalar) -> Scalar:
        return self.schedule.logsnr(jnp.minimum(t, self.schedule.farthest))

    def _place(self, t: Scalar) -> Scalar:
        return self.variable(t, self._logsnr(t))

    def _weights(self, t: Scalar, s: Scalar, places: Places, known: Count) -> Places:
        start, end = self._logsnr(t) / 2, self._logsnr(s) / 2
        at, weights = gauss_legendre(self.nodes, start, end)
        times = self.schedule.time_of_logsnr(2 * at)
        values = lagrange(places, known, self.variable(times, 2 * at))
        return (values * (-jnp.exp(-at) * weights)).sum(-1)


# Row k holds the b_j for k + 1 known slopes, the newest first.
_ADAMS_BASHFORTH = np.array(
    [
        [1, 0, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
)


@dataclass(frozen=True, kw_only=True)
class PLMS(LinearMultistep):
    """Pseudo linear multistep (Liu et al. 2022), as in latent diffusion and diffusers' PNDM.

    (The latter with skip_prk_steps.) The first step is a pseudo improved Euler step, which takes
    two evaluations; then two, three and four slopes are used. The end is the same formula at u = 0.

    The coefficients are those of even steps in u. On such a grid the order is 4 once started, and 3
    with the method's own start. On any other smooth grid, such as those even in t or in logsnr, it
    is 2: the line of DDIM is exact, but the slopes are weighted as if they were elsewhere.

    Published with a table's alpha and the slope eps; where alpha(1) = 0 it runs in the straight
    coordinate. The inner slope of the first step is not kept, as in both of these codes.
    """

    order: ClassVar[int] = 4
    evaluations_to_start: ClassVar[int] = 1

    def inner_to_start(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The end of the step."""
        del t
        return (s,)

    def _weights(self, t: Scalar, s: Scalar, places: Places, known: Count) -> Places:
        row = jnp.asarray(_ADAMS_BASHFORTH, places.dtype)[known - 1]
        return (self._place(s) - places[0]) * row

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
        """One step; the first is Heun's, which is the pseudo improved Euler step."""
        after, kept = self._move(seen, t, s, memory)

        def start() -> Examples:
            return Heun(schedule=self.schedule)(predict, seen, x, t, s, keys, ())[0]

        return jax.lax.cond(memory.known == 0, start, lambda: after), kept

    def finish(self, seen: Prediction, x: Examples, t: Scalar, memory: Memory) -> Examples:
        """The same formula at u = 0."""
        del x
        return self._move(seen, t, jnp.zeros_like(t), memory)[0]


@dataclass(frozen=True, kw_only=True)
class FPNDM(PLMS):
    """F-PNDM (Liu et al. 2022, algorithm 2): PLMS started by a pseudo Runge-Kutta method.

    The first three steps have order 4 and take four evaluations each, so four slopes are known from
    the fourth step on. It is diffusers' PNDM scheduler without `skip_prk_steps`.

        k_2 = slope at (t + s) / 2 from x moved there along k_1,  k_3 likewise along k_2,
        k_4 = slope at s from x moved there along k_3,  k = (k_1 + 2 k_2 + 2 k_3 + k_4) / 6

    The midpoint is that of time: for even steps in u = t this is Kutta's classical method, and the
    whole method has order 4. The inner slopes are not kept.
    """

    evaluations_to_start: ClassVar[int] = 3
    starting_steps: ClassVar[int] = 3

    def inner_to_start(self, t: Scalar, s: Scalar) -> Sequence[Scalar]:
        """The midpoint in time twice, and the end."""
        middle = (t + s) / 2
        return (middle, middle, s)

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
        """One step; the first three take four evaluations."""
        del x, keys
        after, kept = self._move(seen, t, s, memory)
        coordinate, (middle, _, _) = self._coordinate(), self.inner_to_start(t, s)
        first = coordinate.slope(seen)

        def along(slope: Examples, at: Scalar) -> Examples:
            du = self._place(at) - self._place(t)
            change = coordinate.scale(self.schedule, at) * du * (slope - first)
            return line(self.schedule, seen, at) + change

        def start() -> Examples:
            second = coordinate.slope(predict(along(first, middle), middle))
            third = coordinate.slope(predict(along(second, middle), middle))
            fourth = coordinate.slope(predict(along(third, s), s))
            return along((first + 2 * second + 2 * third + fourth) / 6, s)

        return jax.lax.cond(memory.known < self.starting_steps, start, lambda: after), kept
