"""Noise schedules: a schedule is two functions of time, alpha(t) and sigma(t); all else follows.

    x_t = alpha(t) x_0 + sigma(t) eps,   t in [0, 1]: 0 is data, 1 is noise            (1)
    logsnr(t) = log(alpha(t)^2 / sigma(t)^2), strictly decreasing                      (2)

A DDPM table (Ho et al. 2020) is one such schedule: it has knots at t = n / T, n = 0..T, and log
alpha is linear between them, so continuous-time samplers work with it too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int, Real

from genzoo.core.errors import UserError
from genzoo.core.types import Array, ArrayLike, Broadcast, Values


class Schedule:
    """The interface of every schedule. Times are [] or [B].

    A subclass defines `alpha` and `sigma`, and overrides what it knows in a closed or more stable
    form.

    t = 0 is exactly the data: alpha(0) = 1, sigma(0) = 0, logsnr(0) = inf, by a jump if need be.
    All functions of time are differentiable from `nearest` to `farthest`. The slope of sigma may be
    infinite at 0, and those of log alpha and logsnr where alpha is 0.

    nearest: the smallest time at which samplers call a predictor; 1 / T for a table.
    farthest: the largest time whose logsnr is finite; below 1 if alpha(1) = 0.
    ends_in_noise: whether almost nothing of the data is left at t = 1, alpha(1) < 1e-3, so that
        sigma / alpha becomes extremely large there.
    """

    nearest: float = 1e-3
    farthest: float = 1.0

    @property
    def ends_in_noise(self) -> bool:
        """For a process in closed form: whether alpha(1) = 0."""
        return self.farthest < 1

    def alpha(self, t: Values) -> Values:
        """Signal scale at time t, same shape as t."""
        raise TypeError(f"{type(self).__name__} does not define alpha(t)")

    def sigma(self, t: Values) -> Values:
        """Noise scale at time t, same shape as t."""
        raise TypeError(f"{type(self).__name__} does not define sigma(t)")

    def logsnr(self, t: Values) -> Values:
        """Equation (2), same shape as t; +inf where sigma is 0."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """The inverse of `logsnr`, by bisection on [0, 1]; same shape as its argument.

        Any value is allowed, infinities included: a value beyond an end gives that end, with slope
        0. Elsewhere the slope is that of the inverse function, also with respect to parameters of
        the schedule.
        """
        target = jax.lax.stop_gradient(logsnr)

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            later = self.logsnr(middle) > target
            return jnp.where(later, middle, low), jnp.where(later, high, middle)

        bounds = jnp.zeros_like(target), jnp.ones_like(target)
        t = jax.lax.stop_gradient(sum(jax.lax.fori_loop(0, 60, halve, bounds)) / 2)
        return self._with_slope(logsnr, t)

    def _with_slope(self, logsnr: Values, t: Values) -> Values:
        # The inverse t, with the slopes of one step of Newton's method from there.
        inside = (t > 0) & (t < 1) & jnp.isfinite(logsnr)
        safe_t = jnp.where(inside, t, (self.nearest + self.farthest) / 2)
        level, rate = jax.jvp(self.logsnr, (safe_t,), (jnp.ones_like(safe_t),))
        step = (jnp.where(inside, logsnr, level) - level) / jax.lax.stop_gradient(rate)
        return t + jnp.where(inside, step - jax.lax.stop_gradient(step), 0)

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(d alpha / dt, d sigma / dt), by forward differentiation; same shape as t."""
        ones = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (ones,))[1], jax.jvp(self.sigma, (t,), (ones,))[1]

    def drift_rate(self, t: Values) -> Values:
        """f = alpha' / alpha of the SDE dx = f x dt + g dw with these marginals; shape of t."""
        t = jnp.asarray(t)
        return jax.jvp(lambda t: jnp.log(self.alpha(t)), (t,), (jnp.ones_like(t),))[1]

    def diffusion_square(self, t: Values) -> Values:
        """g^2 = -sigma^2 dlogsnr/dt = 2 sigma sigma' - 2 f sigma^2 of the same SDE; shape of t.

        Kingma et al. 2021, appendix A. Undefined at t = 0, unless a subclass gives the limit.
        """
        t = jnp.asarray(t)
        slope = jax.jvp(self.logsnr, (t,), (jnp.ones_like(t),))[1]
        return -jnp.square(self.sigma(t)) * slope

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """1 - SNR(t) / SNR(s) for s < t, in (0, 1]; 1 at s = 0, where SNR is infinite."""
        return -jnp.expm1(self.logsnr(t) - self.logsnr(s))


@dataclass(frozen=True, kw_only=True, eq=False)
class TableSchedule(Schedule):
    """A DDPM table of T noise levels; variance preserving: alpha^2 + sigma^2 = 1.

    beta: float64 [T] in (0, 1); step n = 1..T adds the variance beta[n - 1].
    reaches_zero: the last beta is 1, so that alpha(1) = 0; in the interval before it alpha itself,
        not its logarithm, is linear. See `rescaled_to_zero_terminal`.
    """

    beta: Float64[np.ndarray, " T"]
    reaches_zero: bool = False

    def __post_init__(self):
        inside = (self.beta > 0) & (self.beta < 1)
        if self.reaches_zero:
            inside[-1] = self.beta[-1] == 1
        if not np.all(inside):
            raise UserError(
                f"a noise table of {len(self.beta)} steps would have betas from "
                f"{self.beta.min():.4g} to {self.beta.max():.4g}, which must lie inside (0, 1): "
                "use more steps or smaller betas."
            )

    @property
    def steps(self) -> int:
        """T, the number of steps of the table."""
        return len(self.beta)

    @property
    def nearest(self) -> float:
        """1 / T, the first step."""
        return 1 / self.steps

    @property
    def farthest(self) -> float:
        """1, or the step before it if alpha(1) = 0."""
        return 1 - self.reaches_zero / self.steps

    @property
    def ends_in_noise(self) -> bool:
        """Judged by the last alpha: 0.0064 for the linear table, 0.00005 for the cosine one."""
        return bool(self.log_alpha[-1] < np.log(1e-3))

    @cached_property
    def log_alpha(self) -> Float64[np.ndarray, " knots"]:
        """log alpha at n = 0..T, float64 [T + 1]; the last is -inf if alpha(1) = 0.

        Computed from sums of logarithms, without cancellation.
        """
        last = -np.inf if self.reaches_zero else np.log1p(-self.beta[-1])
        return np.concatenate([[0.0], np.cumsum(np.append(np.log1p(-self.beta[:-1]), last)) / 2])

    @cached_property
    def _finite_log_alpha(self) -> Float64[np.ndarray, " knots"]:
        # log alpha without the fade to 0 in the last interval of a table that reaches it.
        return np.append(self.log_alpha[:-1], self.log_alpha[-1 - self.reaches_zero])

    @property
    def alpha_bar(self) -> Float64[np.ndarray, " T"]:
        """alpha_bar = alpha^2 of Ho et al. at n = 1..T, float64 [T]."""
        return np.exp(2 * self.log_alpha[1:])

    def step_of(self, t: Values) -> Values:
        """The step n in [0, T] as a float, snapped to an integer within rounding of one."""
        position = t * self.steps
        nearest = jnp.round(position)
        snapped = jnp.where(jnp.abs(position - nearest) < 1e-3, nearest, position)
        # The value is exactly `snapped`, but the slope is that of t * T even at the knots, where
        # rounding alone would make every rate 0.
        return position + jax.lax.stop_gradient(snapped - position)

    def time_of(self, n: Real[ArrayLike, "*same"]) -> Values:
        """The time t = n / T of step n."""
        return jnp.asarray(n) / self.steps

    def step_before(self, t: Values) -> Values:
        """The time one step before t, exactly 0 before the first step; shape of t."""
        s = t - 1 / self.steps
        return jnp.where(s < 0.5 / self.steps, 0, s)

    def _line_of(self, t: Values) -> tuple[Int[Array, "*same"], Values]:
        # The knot where the line through t begins, and the position of t along the line.
        position = self.step_of(t)
        lower = jnp.clip(jnp.floor(position), 0, self.steps - 1).astype(jnp.int32)
        return lower, position - lower

    def _interpolated(self, values: Float[np.ndarray, " knots"], t: Values) -> Values:
        t = jnp.asarray(t)
        lower, part = self._line_of(t)
        knots = jnp.asarray(values, t.dtype)
        return (1 - part) * knots[lower] + part * knots[lower + 1]

    def _parts(self, t: Values) -> tuple[Values, Values]:
        # alpha = exp(first) * second; the second is 1 except in an interval that ends in alpha = 0.
        finite = self._interpolated(self._finite_log_alpha, t)
        if not self.reaches_zero:
            return finite, 1.0
        lower, part = self._line_of(jnp.asarray(t))
        return finite, jnp.where(lower == self.steps - 1, 1 - part, 1)

    def _variance(self, t: Values) -> Values:
        # 1 - exp(2 finite) fade^2, without cancellation near t = 0.
        finite, fade = self._parts(t)
        return -jnp.expm1(2 * finite) + jnp.exp(2 * finite) * (1 - fade) * (1 + fade)

    def alpha(self, t: Values) -> Values:
        """exp(log alpha), exact at the knots."""
        finite, fade = self._parts(t)
        return jnp.exp(finite) * fade

    def sigma(self, t: Values) -> Values:
        """sqrt(1 - alpha^2) without cancellation near t = 0."""
        return jnp.sqrt(self._variance(t))

    def logsnr(self, t: Values) -> Values:
        """2 log alpha - log(1 - alpha^2); -inf where alpha is 0."""
        finite, fade = self._parts(t)
        return 2 * finite + 2 * jnp.log(fade) - jnp.log(self._variance(t))

    def drift_rate(self, t: Values) -> Values:
        """The slope of log alpha: -beta T / 2 for small beta, -inf where alpha is 0.

        At a knot it is the slope of the line that begins there.
        """
        t = jnp.asarray(t)
        slopes = jnp.asarray(np.diff(self._finite_log_alpha) * self.steps, t.dtype)
        lower = self._line_of(t)[0]
        if not self.reaches_zero:
            return slopes[lower]
        fading = -self.steps / self._parts(t)[1]
        return jnp.where(lower == self.steps - 1, fading, slopes[lower])

    def diffusion_square(self, t: Values) -> Values:
        """-2 f, as for every variance-preserving schedule."""
        return -2 * self.drift_rate(t)

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(alpha', sigma'), at a knot those of the line that begins there; sigma'(0) is infinite.

        In closed form, because differences of float32 knots and of 1 - alpha^2 would cancel.
        """
        alpha_rate = self.alpha(t) * self.drift_rate(t)
        if self.reaches_zero:  # 0 times -inf there, but alpha is linear with known slope
            last = float(-self.steps * np.exp(self.log_alpha[-2]))
            lower = self._line_of(jnp.asarray(t))[0]
            alpha_rate = jnp.where(lower == self.steps - 1, last, alpha_rate)
        return alpha_rate, -self.alpha(t) * alpha_rate / self.sigma(t)

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """(1 - alpha_t^2 / alpha_s^2) / sigma_t^2, equivalent because alpha^2 + sigma^2 = 1.

        For neighbouring steps log alpha_t - log alpha_s is half of -beta, thousands of times
        smaller than its terms. What rounding these to float32 leaves out is kept in a second table.
        """
        exact = self._finite_log_alpha
        rounded = exact.astype(jnp.asarray(t).dtype)
        rest = exact - rounded
        change = self._interpolated(rounded, t) - self._interpolated(rounded, s)
        change += self._interpolated(rest, t) - self._interpolated(rest, s)
        fall = -jnp.expm1(2 * change)
        if self.reaches_zero:
            fade = self._parts(t)[1] / self._parts(s)[1]
            fall += jnp.exp(2 * change) * (1 - fade) * (1 + fade)
        # Rounding may exceed 1 by an ulp when s is near 0; a variance must not become negative.
        return jnp.minimum(fall / self._variance(t), 1)

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """In closed form: alpha^2 = sigmoid(logsnr), then the lines are inverted."""
        log_alpha = jax.nn.log_sigmoid(logsnr) / 2
        falling = jnp.asarray(self._finite_log_alpha, log_alpha.dtype)[::-1]
        times = jnp.arange(self.steps, -1, -1, dtype=log_alpha.dtype) / self.steps
        t = jnp.interp(log_alpha, falling, times)
        if not self.reaches_zero:
            return t
        below = jnp.minimum(log_alpha - falling[0], 0)
        return jnp.where(below < 0, 1 - jnp.exp(below) / self.steps, t)


def linear(steps: int, first: float = 1e-4, last: float = 0.02) -> TableSchedule:
    """beta linear from `first` to `last` at T = 1000 (Ho et al. 2020).

    For another T both are scaled by 1000 / T (Nichol & Dhariwal 2021), so that alpha_bar_T stays
    about the same.
    """
    scale = 1000 / steps
    return TableSchedule(beta=np.linspace(first * scale, last * scale, steps, dtype=np.float64))


def scaled_linear(steps: int, first: float = 8.5e-4, last: float = 0.012) -> TableSchedule:
    """sqrt(beta) linear (Rombach et al. 2022); the defaults are Stable Diffusion's at T = 1000.

    For another T the ends are scaled by 1000 / T.
    """
    scale = 1000 / steps
    roots = np.linspace(np.sqrt(first * scale), np.sqrt(last * scale), steps, dtype=np.float64)
    return TableSchedule(beta=roots**2)


def cosine(steps: int, offset: float = 0.008, largest: float = 0.999) -> TableSchedule:
    """alpha_bar = f(n / T) / f(0) (Nichol & Dhariwal 2021, eq. 17), each beta clipped at `largest`.

    f(u) = cos^2((u + offset) / (1 + offset) pi / 2).
    """
    u = np.arange(steps + 1, dtype=np.float64) / steps
    f = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    return TableSchedule(beta=np.minimum(1 - f[1:] / f[:-1], largest))


def sigmoid(
    steps: int, first: float = 1e-4, last: float = 0.02, width: float = 6.0
) -> TableSchedule:
    """beta = first + (last - first) sigmoid(u), u linear in [-width, width].

    Xu et al. 2022, GeoDiff; "sigmoid" of diffusers. Both ends are scaled by 1000 / T for T other
    than 1000.
    """
    scale = 1000 / steps
    gate = 1 / (1 + np.exp(-np.linspace(-width, width, steps, dtype=np.float64)))
    return TableSchedule(beta=scale * (first + (last - first) * gate))


def rescaled_to_zero_terminal(table: TableSchedule) -> TableSchedule:
    """The table with alpha shifted and scaled so that its last value is 0 and its first stays.

    Lin et al. 2023, algorithm 1: t = 1 is pure noise, where predicting eps carries no information
    about x_0.
    """
    alpha = np.exp(table.log_alpha[1:])
    alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    beta = 1 - np.square(alpha / np.append(1.0, alpha[:-1]))
    return TableSchedule(beta=beta, reaches_zero=True)


Maker = Callable[[int], TableSchedule]
TABLES: tuple[Maker, ...] = (linear, scaled_linear, cosine, sigmoid)
