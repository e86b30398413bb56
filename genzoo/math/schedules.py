"""Noise schedules: a schedule is two functions of time, alpha(t) and sigma(t); all else follows.

    x_t = alpha(t) x_0 + sigma(t) eps,   t in [0, 1]: 0 is data, 1 is noise            (1)
    logsnr(t) = log(alpha(t)^2 / sigma(t)^2), strictly falling                         (2)

A DDPM table (Ho et al. 2020) is one such schedule: knots at t = n / T, n = 0..T, straight lines in
log alpha between them, so that samplers of continuous time serve it too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.errors import UserError
from genzoo.core.types import Array


class Schedule:
    """The interface of every schedule. A subclass writes `alpha` and `sigma`, and where it has a
    closed or more stable form, `logsnr` and `time_of_logsnr`."""

    def alpha(self, t: Array) -> Array:
        """Signal scale at time t, same shape as t."""
        raise TypeError(f"{type(self).__name__} does not define alpha(t)")

    def sigma(self, t: Array) -> Array:
        """Noise scale at time t, same shape as t."""
        raise TypeError(f"{type(self).__name__} does not define sigma(t)")

    def logsnr(self, t: Array) -> Array:
        """Equation (2), same shape as t; +inf where sigma is 0."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time_of_logsnr(self, logsnr: Array) -> Array:
        """The inverse of `logsnr`, by bisection on [0, 1]; same shape as its argument."""

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            later = self.logsnr(middle) > logsnr
            return jnp.where(later, middle, low), jnp.where(later, high, middle)

        bounds = jnp.zeros_like(logsnr), jnp.ones_like(logsnr)
        return sum(jax.lax.fori_loop(0, 60, halve, bounds)) / 2

    def rates(self, t: Array) -> tuple[Array, Array]:
        """(d alpha / dt, d sigma / dt), by forward differentiation; same shape as t."""
        ones = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (ones,))[1], jax.jvp(self.sigma, (t,), (ones,))[1]

    def one_minus_ratio(self, t: Array, s: Array) -> Array:
        """1 - SNR(t) / SNR(s) for s < t, in (0, 1]; 1 at s = 0, where SNR is infinite."""
        return -jnp.expm1(self.logsnr(t) - self.logsnr(s))


@dataclass(frozen=True, kw_only=True, eq=False)
class TableSchedule(Schedule):
    """A DDPM table of T noise levels; variance preserving: alpha^2 + sigma^2 = 1.

    beta: float64 [T], the variance that step n = 1..T adds is beta[n - 1], in (0, 1).
    """

    beta: np.ndarray

    def __post_init__(self):
        if not np.all((self.beta > 0) & (self.beta < 1)):
            raise UserError(
                f"a noise table of {len(self.beta)} steps would have betas from "
                f"{self.beta.min():.4g} to {self.beta.max():.4g}, which must lie inside (0, 1): "
                "take more steps or smaller betas."
            )

    @property
    def steps(self) -> int:
        """T, the number of steps of the table."""
        return len(self.beta)

    @cached_property
    def log_alpha(self) -> np.ndarray:
        """float64 [T + 1]: log alpha at n = 0..T, from sums of logarithms (no cancellation)."""
        return np.concatenate([[0.0], np.cumsum(np.log1p(-self.beta)) / 2])

    @property
    def alpha_bar(self) -> np.ndarray:
        """float64 [T]: alpha_bar of Ho et al. at n = 1..T, that is alpha^2."""
        return np.exp(2 * self.log_alpha[1:])

    def step_of(self, t: Array) -> Array:
        """The step n in [0, T] as a float; snapped to an integer within rounding of one."""
        position = t * self.steps
        nearest = jnp.round(position)
        snapped = jnp.where(jnp.abs(position - nearest) < 1e-3, nearest, position)
        # Exactly `snapped` in value; its slope is that of t * T at the knots too, where the
        # rounding alone would make every rate 0.
        return position + jax.lax.stop_gradient(snapped - position)

    def time_of(self, n: Array) -> Array:
        """The time t = n / T of step n."""
        return jnp.asarray(n) / self.steps

    def _line_of(self, t: Array) -> tuple[Array, Array]:
        # The knot where the straight line through t begins, and how far along it t is.
        position = self.step_of(t)
        lower = jnp.clip(jnp.floor(position), 0, self.steps - 1).astype(jnp.int32)
        return lower, position - lower

    def _interpolated(self, values: np.ndarray, t: Array) -> Array:
        t = jnp.asarray(t)
        lower, part = self._line_of(t)
        knots = jnp.asarray(values, t.dtype)
        return (1 - part) * knots[lower] + part * knots[lower + 1]

    def _log_alpha_at(self, t: Array) -> Array:
        return self._interpolated(self.log_alpha, t)

    def alpha(self, t: Array) -> Array:
        """exp(log alpha), exact at the knots."""
        return jnp.exp(self._log_alpha_at(t))

    def sigma(self, t: Array) -> Array:
        """sqrt(1 - alpha^2) without cancellation near t = 0."""
        return jnp.sqrt(-jnp.expm1(2 * self._log_alpha_at(t)))

    def logsnr(self, t: Array) -> Array:
        """2 log alpha - log(1 - alpha^2)."""
        twice = 2 * self._log_alpha_at(t)
        return twice - jnp.log(-jnp.expm1(twice))

    def rates(self, t: Array) -> tuple[Array, Array]:
        """(alpha', sigma'), at a knot those of the line that begins there; sigma'(0) is infinite.

        Closed form, because differences of float32 knots and of 1 - alpha^2 would cancel.
        """
        t = jnp.asarray(t)
        slopes = jnp.asarray(np.diff(self.log_alpha) * self.steps, t.dtype)
        alpha_rate = self.alpha(t) * slopes[self._line_of(t)[0]]
        return alpha_rate, -self.alpha(t) * alpha_rate / self.sigma(t)

    def one_minus_ratio(self, t: Array, s: Array) -> Array:
        """(1 - alpha_t^2 / alpha_s^2) / sigma_t^2, which is the same where alpha^2 + sigma^2 = 1.

        log alpha_t - log alpha_s is half of -beta for neighbouring steps, thousands of times
        smaller than its terms: what their rounding to float32 leaves out is a second table.
        """
        rounded = self.log_alpha.astype(jnp.asarray(t).dtype)
        rest = self.log_alpha - rounded
        change = self._interpolated(rounded, t) - self._interpolated(rounded, s)
        change += self._interpolated(rest, t) - self._interpolated(rest, s)
        # Rounding may exceed 1 by an ulp when s is near 0; a variance must not turn negative.
        return jnp.minimum(jnp.expm1(2 * change) / jnp.expm1(2 * self._log_alpha_at(t)), 1)

    def time_of_logsnr(self, logsnr: Array) -> Array:
        """Closed form: alpha^2 = sigmoid(logsnr), then the straight lines are inverted."""
        log_alpha = jax.nn.log_sigmoid(logsnr) / 2
        falling = jnp.asarray(self.log_alpha, log_alpha.dtype)[::-1]
        times = jnp.arange(self.steps, -1, -1, dtype=log_alpha.dtype) / self.steps
        return jnp.interp(log_alpha, falling, times)


def linear(steps: int, first: float = 1e-4, last: float = 0.02) -> TableSchedule:
    """Ho et al. 2020: beta linear from `first` to `last` at T = 1000; for another T both are scaled
    by 1000 / T (Nichol & Dhariwal 2021), so that alpha_bar_T stays about the same."""
    scale = 1000 / steps
    return TableSchedule(beta=np.linspace(first * scale, last * scale, steps, dtype=np.float64))


def scaled_linear(steps: int, first: float = 8.5e-4, last: float = 0.012) -> TableSchedule:
    """Rombach et al. 2022: sqrt(beta) linear; defaults are those of Stable Diffusion at T = 1000,
    scaled by 1000 / T for another T."""
    scale = 1000 / steps
    roots = np.linspace(np.sqrt(first * scale), np.sqrt(last * scale), steps, dtype=np.float64)
    return TableSchedule(beta=roots**2)


def cosine(steps: int, offset: float = 0.008, largest: float = 0.999) -> TableSchedule:
    """Nichol & Dhariwal 2021, eq. 17: alpha_bar = f(n / T) / f(0) with
    f(u) = cos^2((u + offset) / (1 + offset) pi / 2), each beta clipped at `largest`."""
    u = np.arange(steps + 1, dtype=np.float64) / steps
    f = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    return TableSchedule(beta=np.minimum(1 - f[1:] / f[:-1], largest))


def sigmoid(
    steps: int, first: float = 1e-4, last: float = 0.02, width: float = 6.0
) -> TableSchedule:
    """beta = first + (last - first) sigmoid(u), u linear in [-width, width] (Xu et al. 2022,
    GeoDiff; "sigmoid" of diffusers), both ends scaled by 1000 / T for T other than 1000."""
    scale = 1000 / steps
    gate = 1 / (1 + np.exp(-np.linspace(-width, width, steps, dtype=np.float64)))
    return TableSchedule(beta=scale * (first + (last - first) * gate))


Maker = Callable[[int], TableSchedule]
TABLES: tuple[Maker, ...] = (linear, scaled_linear, cosine, sigmoid)
