"""Noise schedules in continuous time: the processes of the score SDE, EDM, VDM and straight paths.

Each gives alpha(t) and sigma(t) in closed form, t in [0, 1] with 0 the data, and the SDE with these
marginals (Song et al. 2021, eq. 5; Kingma et al. 2021, appendix A):

    dx = f(t) x dt + g(t) dw,   f = alpha' / alpha,   g^2 = -sigma^2 dlogsnr/dt            (1)

All are written so that nothing cancels in float32. With B(t) the integral of beta from 0 to t,

    variance preserving:      alpha^2 = exp(-B),  sigma^2 = 1 - exp(-B),  SNR = 1 / expm1(B) (2)
    sub-variance preserving:  alpha^2 = exp(-B),  sigma = 1 - exp(-B),
                              SNR = 1 / (4 sinh^2(B / 2))                                    (3)

At t = 0 every schedule is exactly the data, alpha = 1 and sigma = 0. Where sigma has a positive
limit at 0, it jumps, as in Song et al. 2021, appendix C. Slopes at 0 are the limits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.errors import UserError
from genzoo.core.types import Broadcast, Values
from genzoo.math.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class _LinearBeta(Schedule):
    # What the two schedules with beta(t) = beta_min + t (beta_max - beta_min) share.
    beta_min: float = 0.1
    beta_max: float = 20.0
    nearest: float = 1e-3

    def __post_init__(self):
        if min(self.beta_min, self.beta_max) <= 0:
            raise UserError(
                f"beta_min = {self.beta_min:g} and beta_max = {self.beta_max:g} must be above 0."
            )

    def beta(self, t: Values) -> Values:
        """beta(t) of Song et al. 2021, eq. 32; shape of t."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Broadcast, s: Broadcast = 0.0) -> Broadcast:
        """The integral of beta from s to t: B(t) - B(s); shape of t."""
        return (t - s) * (self.beta_min + (t + s) * (self.beta_max - self.beta_min) / 2)

    def time_of_integral(self, integral: Values) -> Values:
        """The t with B(t) = integral: the positive root of the quadratic, without cancellation."""
        # Beyond B(1) there is no such time, not even a root if beta decreases, and an infinite
        # integral would be divided by an infinite root.
        slope, whole = self.beta_max - self.beta_min, (self.beta_min + self.beta_max) / 2
        inside = integral < whole
        integral = jnp.where(inside, integral, 0)
        least = min(self.beta_min, self.beta_max)  # at a root of 0 the slope is infinite
        root = jnp.sqrt(jnp.maximum(self.beta_min**2 + 2 * slope * integral, least**2))
        t = jnp.clip(2 * integral / (self.beta_min + root), 0, 1)
        return jnp.where(inside, t, 1)

    def alpha(self, t: Values) -> Values:
        """exp(-B / 2), equations (2) and (3)."""
        return jnp.exp(-self.integral(t) / 2)

    def drift_rate(self, t: Values) -> Values:
        """-beta / 2."""
        return -self.beta(t) / 2


@dataclass(frozen=True, kw_only=True)
class VariancePreserving(_LinearBeta):
    """Equation (2): the VP SDE (Song et al. 2021, eq. 11 and 33), the limit of DDPM's table."""

    def sigma(self, t: Values) -> Values:
        """sqrt(1 - alpha^2)."""
        return jnp.sqrt(-jnp.expm1(-self.integral(t)))

    def logsnr(self, t: Values) -> Values:
        """-log(expm1(B)), written so that it does not overflow."""
        integral = self.integral(t)
        return -integral - jnp.log(-jnp.expm1(-integral))

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """B = log(1 + exp(-logsnr)), then the quadratic."""
        return self.time_of_integral(jax.nn.softplus(-logsnr))

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(f alpha, -alpha alpha' / sigma); sigma'(0) is infinite.

        The derivative of expm1 would have an error of 1e-7 of its largest value.
        """
        alpha = self.alpha(t)
        rate = self.drift_rate(t) * alpha
        return rate, -alpha * rate / self.sigma(t)

    def diffusion_square(self, t: Values) -> Values:
        """beta(t)."""
        return self.beta(t)

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """(1 - exp(B_s - B_t)) / (1 - exp(-B_t))."""
        change = jnp.expm1(-self.integral(t, s))
        return jnp.minimum(change / jnp.expm1(-self.integral(t)), 1)


@dataclass(frozen=True, kw_only=True)
class SubVariancePreserving(_LinearBeta):
    """Equation (3): the sub-VP SDE (Song et al. 2021, eq. 12 and 29), variance below that of VP."""

    def sigma(self, t: Values) -> Values:
        """1 - alpha^2."""
        return -jnp.expm1(-self.integral(t))

    def logsnr(self, t: Values) -> Values:
        """-2 log(2 sinh(B / 2))."""
        integral = self.integral(t)
        return -integral - 2 * jnp.log(-jnp.expm1(-integral))

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """B = 2 arcsinh(exp(-logsnr / 2) / 2), then the quadratic."""
        # Beyond the end, where the exponential would overflow, the time is 1 for every value.
        least = self.logsnr(jnp.ones((), logsnr.dtype)) - 1
        logsnr = jnp.where(logsnr < least, least, logsnr)
        return self.time_of_integral(2 * jnp.arcsinh(jnp.exp(-logsnr / 2) / 2))

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(f alpha, -2 alpha alpha')."""
        alpha = self.alpha(t)
        rate = self.drift_rate(t) * alpha
        return rate, -2 * alpha * rate

    def diffusion_square(self, t: Values) -> Values:
        """beta (1 - exp(-2 B))."""
        return -self.beta(t) * jnp.expm1(-2 * self.integral(t))

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """sinh((B_t + B_s) / 2) sinh((B_t - B_s) / 2) / sinh^2(B_t / 2), from expm1."""
        whole = jnp.expm1(-self.integral(t))
        both = jnp.expm1(-self.integral(t) - self.integral(s))
        return jnp.minimum(both / whole * (jnp.expm1(-self.integral(t, s)) / whole), 1)


@dataclass(frozen=True, kw_only=True)
class VarianceExploding(Schedule):
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t for t > 0: the VE SDE.

    Song et al. 2021, eq. 9 and 31: the limit of NCSN's geometric noise levels. Jumps to sigma = 0
    at t = 0.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    nearest: float = 1e-5

    @property
    def log_ratio(self) -> float:
        """log(sigma_max / sigma_min)."""
        return float(np.log(self.sigma_max / self.sigma_min))

    def alpha(self, t: Values) -> Values:
        """1."""
        return jnp.ones_like(t)

    def _above_zero(self, t: Values) -> Values:
        return self.sigma_min * jnp.exp(self.log_ratio * t)

    def sigma(self, t: Values) -> Values:
        """The geometric path, 0 at t = 0."""
        return jnp.where(t > 0, self._above_zero(t), 0)

    def logsnr(self, t: Values) -> Values:
        """-2 log sigma, linear in t."""
        return jnp.where(t > 0, -2 * (float(np.log(self.sigma_min)) + self.log_ratio * t), jnp.inf)

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """The inverse of this line; 0 for all values above its limit at t = 0."""
        return jnp.clip(-(logsnr / 2 + float(np.log(self.sigma_min))) / self.log_ratio, 0, 1)

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(0, sigma log(sigma_max / sigma_min)), with its limit at t = 0."""
        return jnp.zeros_like(t), self.log_ratio * self._above_zero(t)

    def drift_rate(self, t: Values) -> Values:
        """0."""
        return jnp.zeros_like(t)

    def diffusion_square(self, t: Values) -> Values:
        """2 sigma^2 log(sigma_max / sigma_min), with its limit at t = 0."""
        return 2 * self.log_ratio * jnp.square(self._above_zero(t))

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """1 - (sigma_s / sigma_t)^2."""
        return jnp.where(s > 0, -jnp.expm1(-2 * self.log_ratio * (t - s)), 1)


@dataclass(frozen=True, kw_only=True)
class LinearNoise(Schedule):
    """alpha = 1, sigma = sigma_max t: EDM's sigma(t) = t (Karras et al. 2022, table 1).

    Time is counted in units of sigma_max. Samplers stop at sigma_min.
    """

    sigma_max: float = 80.0
    sigma_min: float = 0.002

    @property
    def nearest(self) -> float:
        """The time at which sigma is sigma_min."""
        return self.sigma_min / self.sigma_max

    def alpha(self, t: Values) -> Values:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Values) -> Values:
        """sigma_max t."""
        return self.sigma_max * t

    def logsnr(self, t: Values) -> Values:
        """-2 log sigma."""
        return -2 * jnp.log(self.sigma(t))

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """exp(-logsnr / 2) / sigma_max."""
        inside = -logsnr / 2 < float(np.log(self.sigma_max))
        t = jnp.exp(jnp.where(inside, -logsnr / 2, 0)) / self.sigma_max
        return jnp.where(inside, jnp.clip(t, 0, 1), 1)

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(0, sigma_max)."""
        return jnp.zeros_like(t), jnp.full_like(t, self.sigma_max)

    def drift_rate(self, t: Values) -> Values:
        """0."""
        return jnp.zeros_like(t)

    def diffusion_square(self, t: Values) -> Values:
        """2 sigma sigma'."""
        return 2 * self.sigma_max**2 * t

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """1 - (s / t)^2, factored."""
        return (t - s) / t * ((t + s) / t)


@dataclass(frozen=True, kw_only=True)
class Straight(Schedule):
    """alpha = 1 - t, sigma = scale t: conditional optimal transport and rectified flow.

    Lipman et al. 2023, eq. 22 with sigma_min = 0; Liu et al. 2023. Both count time from the noise.
    An eps must be bounded (`prediction.bounded`). JiT's scale is the side of an image over 256.
    """

    scale: float = 1.0
    nearest: float = 1e-3
    farthest: float = 1 - 1e-3

    def alpha(self, t: Values) -> Values:
        """1 - t."""
        return 1 - t

    def sigma(self, t: Values) -> Values:
        """scale t."""
        return self.scale * jnp.asarray(t)

    def logsnr(self, t: Values) -> Values:
        """2 log((1 - t) / (scale t)); -inf at t = 1."""
        return 2 * (jnp.log1p(-t) - jnp.log(t)) - 2 * float(np.log(self.scale))

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """sigmoid(-logsnr / 2 - log scale)."""
        return jax.nn.sigmoid(-logsnr / 2 - float(np.log(self.scale)))

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(-1, scale)."""
        return -jnp.ones_like(t), self.scale * jnp.ones_like(t)

    def drift_rate(self, t: Values) -> Values:
        """-1 / (1 - t); -inf at t = 1."""
        return -1 / (1 - t)

    def diffusion_square(self, t: Values) -> Values:
        """2 scale^2 t / (1 - t); inf at t = 1."""
        return 2 * self.scale**2 * t / (1 - t)

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """1 - q^2 with q = (1 - t) s / (t (1 - s)), factored as (1 - q) (1 + q)."""
        whole = t * (1 - s)
        return jnp.minimum((t - s) / whole * ((t * (1 - s) + s * (1 - t)) / whole), 1)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): a quarter circle, variance preserving.

    Salimans & Ho 2022; the trigonometric interpolant of Albergo & Vanden-Eijnden 2023, eq. 5.
    """

    nearest: float = 1e-3
    farthest: float = 1 - 1e-3

    def alpha(self, t: Values) -> Values:
        """The cosine, written as a sine of 1 - t so that it is exactly 0 at t = 1."""
        return jnp.sin(jnp.pi / 2 * (1 - t))

    def sigma(self, t: Values) -> Values:
        """The sine."""
        return jnp.sin(jnp.pi / 2 * t)

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """tan(pi t / 2) = exp(-logsnr / 2)."""
        # Measured from the nearer end, so that the exponential cannot overflow.
        noisy = logsnr < 0
        part = 2 / jnp.pi * jnp.arctan(jnp.exp(jnp.where(noisy, logsnr, -logsnr) / 2))
        return jnp.where(noisy, 1 - part, part)

    def rates(self, t: Values) -> tuple[Values, Values]:
        """pi / 2 (-sigma, alpha)."""
        return -jnp.pi / 2 * self.sigma(t), jnp.pi / 2 * self.alpha(t)

    def drift_rate(self, t: Values) -> Values:
        """-pi / 2 tan(pi t / 2); -inf at t = 1."""
        return -jnp.pi / 2 * self.sigma(t) / self.alpha(t)

    def diffusion_square(self, t: Values) -> Values:
        """pi tan(pi t / 2) = -2 f, as for every variance-preserving schedule; inf at t = 1."""
        return jnp.pi * self.sigma(t) / self.alpha(t)

    def one_minus_ratio(self, t: Broadcast, s: Broadcast) -> Broadcast:
        """1 - tan^2 s / tan^2 t = sin(t - s) sin(t + s) / (sin t cos s)^2, angles in units of t."""
        whole = self.sigma(t) * self.alpha(s)
        both = self.sigma(jnp.minimum(t + s, (1 - t) + (1 - s)))  # sin x = sin(pi - x)
        return jnp.minimum(self.sigma(t - s) / whole * (both / whole), 1)


@dataclass(frozen=True, kw_only=True)
class OfLogsnr(Schedule):
    """Variance preserving with logsnr = -gamma(t) for t > 0 (Kingma et al. 2021, eq. 3-5).

    alpha^2 = sigmoid(-gamma(t)), sigma^2 = sigmoid(gamma(t)). Jumps to sigma = 0 at t = 0.

    gamma: strictly increasing, elementwise on [] or [B]. It may close over traced parameters, as
    VDM's learned schedule does: gradients flow to them through every function.
    """

    gamma: Callable[[Values], Values]
    nearest: float = 1e-5

    def alpha(self, t: Values) -> Values:
        """sqrt(sigmoid(-gamma)), 1 at t = 0."""
        return jnp.where(t > 0, jnp.exp(jax.nn.log_sigmoid(-self.gamma(t)) / 2), 1)

    def sigma(self, t: Values) -> Values:
        """sqrt(sigmoid(gamma)), 0 at t = 0."""
        return jnp.where(t > 0, jnp.exp(jax.nn.log_sigmoid(self.gamma(t)) / 2), 0)

    def logsnr(self, t: Values) -> Values:
        """-gamma, inf at t = 0."""
        return jnp.where(t > 0, -self.gamma(t), jnp.inf)

    def time_of_logsnr(self, logsnr: Values) -> Values:
        """By bisection; 0 for all values above the limit at t = 0."""
        t = super().time_of_logsnr(logsnr)
        return jnp.where(logsnr < -self.gamma(jnp.zeros((), logsnr.dtype)), t, 0)

    def rates(self, t: Values) -> tuple[Values, Values]:
        """(-sigma^2, alpha^2) gamma' / 2 times (alpha, sigma), with the limits at t = 0."""
        t = jnp.asarray(t)
        gamma, rate = jax.jvp(self.gamma, (t,), (jnp.ones_like(t),))
        log_alpha, log_sigma = (jax.nn.log_sigmoid(v) / 2 for v in (-gamma, gamma))
        alpha_rate = -jnp.exp(log_alpha + 2 * log_sigma) * rate / 2
        return alpha_rate, jnp.exp(log_sigma + 2 * log_alpha) * rate / 2

    def diffusion_square(self, t: Values) -> Values:
        """sigma^2 gamma', with its limit at t = 0."""
        t = jnp.asarray(t)
        gamma, rate = jax.jvp(self.gamma, (t,), (jnp.ones_like(t),))
        return jax.nn.sigmoid(gamma) * rate

    def drift_rate(self, t: Values) -> Values:
        """-sigma^2 gamma' / 2."""
        return -self.diffusion_square(t) / 2


def linear_gamma(low: float = -13.3, high: float = 5.0) -> Callable[[Values], Values]:
    """gamma(t) = low + (high - low) t, with VDM's ends (Kingma et al. 2021, section 6)."""
    return lambda t: low + (high - low) * t


ALL: tuple[Schedule, ...] = (
    VariancePreserving(),
    SubVariancePreserving(),
    VarianceExploding(),
    LinearNoise(),
    Straight(),
    Cosine(),
    OfLogsnr(gamma=linear_gamma()),
)
