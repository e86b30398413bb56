"""How times are drawn in training: distributions over t in [0, 1], where 1 is noise.

Each is its quantile function t(u), strictly rising, so that one way of drawing u serves all: u
independent and uniform, or spread evenly over a batch (Kingma et al. 2021, appendix I.1). Those of
flow matching are stated in our t; where a paper counts from the noise, its u became 1 - u.

    uniform                     t = low + (high - low) u
    log-normal noise            log(sigma / alpha) ~ N(mean, deviation^2)   (Karras et al. 2022)
    logit-normal                log(t / (1 - t)) ~ N(mean, deviation^2)     (Esser et al. 2024)
    cosine map                  t / (1 - t) = tan(pi u / 2)                 (Esser et al. 2024)
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

# Half the step of jax.random.uniform in float32: u stays inside (0, 1), where quantiles are finite.
_EDGE = 2.0**-24


def _uniform(key: Key, shape: tuple[int, ...]) -> Floats:
    return jax.random.uniform(key, shape, jnp.float32)


def _inside(u: Values) -> Values:
    return jnp.clip(u, _EDGE, 1 - _EDGE)


class TimeDistribution:
    """The interface. A subclass writes `quantile`."""

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """t with P(time <= t) = u; u in (0, 1), any shape."""
        raise TypeError(f"{type(self).__name__} does not define quantile(u, schedule)")

    def draw(self, key: Key, count: int, schedule: Schedule) -> Float[Array, " {count}"]:
        """Times [count], float32, independent."""
        return self.quantile(_inside(_uniform(key, (count,))), schedule)


@dataclass(frozen=True, kw_only=True)
class UniformTimes(TimeDistribution):
    """Uniform in [low, high]; Song et al. 2021 (appendix C) begin at 1e-5."""

    low: float = 1e-5
    high: float = 1.0

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """A straight line; the schedule does not matter."""
        del schedule
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True, kw_only=True)
class AntitheticTimes(TimeDistribution):
    """Another distribution drawn with little variance: u_i = (u_0 + i / count) mod 1 with one
    uniform u_0, so that every batch covers all times; each time alone is distributed as before."""

    inner: TimeDistribution

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """That of `inner`."""
        return self.inner.quantile(u, schedule)

    def draw(self, key: Key, count: int, schedule: Schedule) -> Float[Array, " {count}"]:
        """Times [count], evenly spread in u; not independent of each other."""
        u = (_uniform(key, ()) + jnp.arange(count, dtype=jnp.float32) / count) % 1
        return self.quantile(_inside(u), schedule)


@dataclass(frozen=True, kw_only=True)
class LogNormalNoise(TimeDistribution):
    """log(sigma / alpha) normal, at the time when the schedule has that noise, kept between the
    schedule's `nearest` and `farthest`. Karras et al. 2022, table 1: -1.2 and 1.2."""

    mean: float = -1.2
    deviation: float = 1.2

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """From logsnr = -2 log(sigma / alpha)."""
        t = schedule.time_of_logsnr(-2 * (self.mean + self.deviation * ndtri(u)))
        return jnp.clip(t, schedule.nearest, schedule.farthest)


@dataclass(frozen=True, kw_only=True)
class LogitNormalTimes(TimeDistribution):
    """sigmoid of a normal: the middle of the path is drawn most (Esser et al. 2024, eq. 19). A
    larger mean means more noise. JiT (Li & He 2025), whose t counts from the noise and has mean
    -0.8, is mean = 0.8, deviation = 0.8 here."""

    mean: float = 0.0
    deviation: float = 1.0

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """sigmoid(mean + deviation z)."""
        del schedule
        return jax.nn.sigmoid(self.mean + self.deviation * ndtri(u))


@dataclass(frozen=True, kw_only=True)
class CosineMapTimes(TimeDistribution):
    """Straight paths at the noise that a cosine schedule has at uniform times: (1 - t) / t =
    cos(pi u / 2) / sin(pi u / 2), density 2 / (pi (1 - 2 t + 2 t^2)) (Esser et al. 2024, eq. 21).
    """

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """t = tan / (1 + tan) = sin / (sin + cos), finite at u = 1."""
        del schedule
        sine = jnp.sin(jnp.pi / 2 * u)
        return sine / (sine + jnp.sin(jnp.pi / 2 * (1 - u)))


def shift_time(t: Values, shift: float) -> Values:
    """shift t / (1 + (shift - 1) t), shape of t: multiplies sigma / alpha of a straight path by
    shift. An image of m pixels looks as noisy at the shifted time as one of n at t with shift =
    sqrt(m / n) (Esser et al. 2024, eq. 23); 1 is off; 1 / shift is the inverse."""
    return shift * t / (1 + (shift - 1) * t)


@dataclass(frozen=True, kw_only=True)
class Shifted(TimeDistribution):
    """Another distribution with `shift_time` after it."""

    inner: TimeDistribution
    shift: float

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """That of `inner`, shifted."""
        return shift_time(self.inner.quantile(u, schedule), self.shift)

    def draw(self, key: Key, count: int, schedule: Schedule) -> Float[Array, " {count}"]:
        """The draw of `inner`, shifted: spread evenly where that is."""
        return shift_time(self.inner.draw(key, count, schedule), self.shift)


@dataclass(frozen=True, kw_only=True)
class LikelihoodWeighted(TimeDistribution):
    """p(t) in proportion to g^2 / sigma^2 between `low` and the schedule's `farthest`: importance
    sampling of the likelihood's integral (Song et al. 2021b, section 4.3, for VP; here for every
    schedule, since g^2 / sigma^2 = -dlogsnr/dt means that logsnr is uniform). Then, with `span`,

        integral of g^2 / sigma^2 L(t) dt = span E[L(t)]                                      (1)
    """

    low: float = 1e-5

    def ends(self, schedule: Schedule) -> tuple[Scalar, Scalar]:
        """logsnr at `low` and at `farthest`, []."""
        return tuple(schedule.logsnr(jnp.asarray(t)) for t in (self.low, schedule.farthest))

    def span(self, schedule: Schedule) -> Scalar:
        """The difference of the ends, [], in (1)."""
        first, last = self.ends(schedule)
        return first - last

    def quantile(self, u: Values, schedule: Schedule) -> Values:
        """logsnr falls in a straight line with u."""
        first, last = (jnp.asarray(end, u.dtype) for end in self.ends(schedule))
        t = schedule.time_of_logsnr((1 - u) * first + u * last)
        return jnp.clip(t, self.low, schedule.farthest)
