"""Distributions of the training times t in [0, 1], where 1 is noise.

Each is given by its quantile function t(u), which is strictly increasing, so the same ways of
drawing u serve all of them: independent and uniform, or spread evenly over a batch (Kingma et al.
2021, appendix I.1). The distributions of flow matching are stated in our t: where a paper counts
time from the noise, its u is our 1 - u.

    uniform                     t = low + (high - low) u
    log-normal noise            log(sigma / alpha) ~ N(mean, deviation^2)   (Karras et al. 2022)
    logit-normal                log(t / (1 - t)) ~ N(mean, deviation^2)     (Esser et al. 2024)
    cosine map                  t / (1 - t) = tan(pi u / 2)                 (Esser et al. 2024)
    mode                        t = u + scale (u - sin^2(pi u / 2))         (Esser et al. 2024)
    likelihood weighted         p(t) ~ g^2 / sigma^2 = -dlogsnr/dt          (Song et al. 2021b)
    shifted                     t' / (1 - t') = shift t / (1 - t)           (Esser et al. 2024)

Esser et al. 2024 is Stable Diffusion 3; Song et al. 2021b is "Maximum likelihood training of
score-based diffusion models".
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Float

from genzoo.core.types import Array, Floats, Key, Scalar, Values
from genzoo.math.schedules import Schedule

# Half the spacing of jax.random.uniform in float32: u stays inside (0, 1), where quantiles are
# finite.
_EDGE = 2.0**-24


def _uniform(key: Key, shape: tuple[int, ...]) -> Floats:
    return jax.random.uniform(key, shape, jnp.float32)


def inside(u: Values) -> Values:
    """Uniform numbers kept off both ends of [0, 1), shape of u: no time is exactly 0 or 1."""
    return jnp.clip(u, _EDGE, 1 - _EDGE)


class TimeDistribution:
    """The interface of a distribution of times. A subclass defines `quantile`."""

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """The t with P(time <= t) = u, for u in (0, 1) of any shape."""
        raise TypeError(f"{type(self).__name__} does not define quantile(u, schedule)")

    def draw(self, key: Key, count: int, schedule: Schedule) -> Float[Array, " {count}"]:
        """Independent times [count], float32."""
        return self.quantile(inside(_uniform(key, (count,))), schedule)


@dataclass(frozen=True, kw_only=True)
class UniformTimes(TimeDistribution):
    """Uniform on [low, high]; Song et al. 2021 (appendix C) start at 1e-5."""

    low: float = 1e-5
    high: float = 1.0

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """Linear in u; the schedule does not matter."""
        del schedule
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True, kw_only=True)
class AntitheticTimes(TimeDistribution):
    """Draws from another distribution with low variance: u is spread evenly over the batch.

    u_i = (u_0 + i / count) mod 1 with one uniform u_0, so every batch covers all times. Each time
    on its own is distributed as in `inner`.
    """

    inner: TimeDistribution

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """The quantile of `inner`."""
        return self.inner.quantile(u, schedule)

    def draw(self, key: Key, count: int, schedule: Schedule) -> Float[Array, " {count}"]:
        """Times [count], evenly spread in u and therefore not independent."""
        u = (_uniform(key, ()) + jnp.arange(count, dtype=jnp.float32) / count) % 1
        return self.quantile(inside(u), schedule)


@dataclass(frozen=True, kw_only=True)
class LogNormalNoise(TimeDistribution):
    """log(sigma / alpha) is normal; Karras et al. 2022, table 1, use mean -1.2 and deviation 1.2.

    t is the time at which the schedule has that noise, clipped to the schedule's `nearest` and
    `farthest`.
    """

    mean: float = -1.2
    deviation: float = 1.2

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """The time of logsnr = -2 log(sigma / alpha)."""
        t = schedule.time_of_logsnr(-2 * (self.mean + self.deviation * ndtri(u)))
        return jnp.clip(t, schedule.nearest, schedule.farthest)


@dataclass(frozen=True, kw_only=True)
class LogitNormalTimes(TimeDistribution):
    """Sigmoid of a normal: favours the middle of the path (Esser et al. 2024, eq. 19).

    A larger mean means more noise. JiT (Li & He 2025) counts t from the noise and uses mean -0.8,
    which is mean = 0.8, deviation = 0.8 here.
    """

    mean: float = 0.0
    deviation: float = 1.0

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """sigmoid(mean + deviation z)."""
        del schedule
        return jax.nn.sigmoid(self.mean + self.deviation * ndtri(u))


@dataclass(frozen=True, kw_only=True)
class CosineMapTimes(TimeDistribution):
    """Times of straight paths that have the noise of a cosine schedule at uniform times.

    (1 - t) / t = cos(pi u / 2) / sin(pi u / 2), with density 2 / (pi (1 - 2 t + 2 t^2)) (Esser et
    al. 2024, eq. 21).
    """

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """t = tan / (1 + tan) = sin / (sin + cos), finite at u = 1."""
        del schedule
        sine = jnp.sin(jnp.pi / 2 * u)
        return sine / (sine + jnp.sin(jnp.pi / 2 * (1 - u)))


@dataclass(frozen=True, kw_only=True)
class ModeTimes(TimeDistribution):
    """Favours the middle of the path for scale > 0, both ends for scale < 0 (Esser et al. 2024).

    Their equation 20, t = 1 - u - scale (cos^2(pi u / 2) - 1 + u), with our u as their 1 - u. The
    density is 1 / (1 + scale) at both ends and 1 / (1 + scale (1 - pi / 2)) at t = 1/2. It rises
    strictly with u for -1 < scale < 2 / (pi - 2) = 1.7519; they try scales from -1 to 1.75 and
    report 1.29.
    """

    scale: float = 1.29

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """t(u) as above; the schedule does not matter."""
        del schedule
        return u + self.scale * (u - jnp.square(jnp.sin(jnp.pi / 2 * u)))


def shift_time(t: Values, shift: float) -> Values:
    """Multiplies sigma / alpha of a straight path by `shift`: shift t / (1 + (shift - 1) t).

    Shape of t. An image of m pixels looks as noisy at the shifted time as one of n pixels at t if
    shift = sqrt(m / n) (Esser et al. 2024, eq. 23). A shift of 1 changes nothing; 1 / shift is the
    inverse.
    """
    # In this form t = 1 stays exactly 1; rounding of the form above could exceed it.
    return shift * t / ((1 - t) + shift * t)


@dataclass(frozen=True, kw_only=True)
class Shifted(TimeDistribution):
    """Another distribution followed by `shift_time`."""

    inner: TimeDistribution
    shift: float

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """The quantile of `inner`, shifted."""
        return shift_time(self.inner.quantile(u, schedule), self.shift)

    def draw(self, key: Key, count: int, schedule: Schedule) -> Float[Array, " {count}"]:
        """Times [count] of `inner`, shifted; evenly spread if those of `inner` are."""
        return shift_time(self.inner.draw(key, count, schedule), self.shift)


@dataclass(frozen=True, kw_only=True)
class LikelihoodWeighted(TimeDistribution):
    """p(t) proportional to g^2 / sigma^2 between `low` and the schedule's `farthest`.

    This is importance sampling of the likelihood's integral (Song et al. 2021b, section 4.3, for
    VP). Since g^2 / sigma^2 = -dlogsnr/dt, it makes logsnr uniform, which serves every schedule.
    With `span`,

        integral of g^2 / sigma^2 L(t) dt = span E[L(t)]                                      (1)
    """

    low: float = 1e-5

    def ends(self, schedule: Schedule) -> tuple[Scalar, Scalar]:
        """logsnr at `low` and at `farthest`, both []."""
        return tuple(schedule.logsnr(jnp.asarray(t)) for t in (self.low, schedule.farthest))

    def span(self, schedule: Schedule) -> Scalar:
        """The difference of the ends, [], as in (1)."""
        first, last = self.ends(schedule)
        return first - last

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """logsnr decreases linearly with u."""
        first, last = (jnp.asarray(end, u.dtype) for end in self.ends(schedule))
        t = schedule.time_of_logsnr((1 - u) * first + u * last)
        return jnp.clip(t, self.low, schedule.farthest)
