"""The Gaussian diffusion process: marginals, transitions, posteriors, reverse variances, KL.

For s < t, with r = exp(logsnr(t) - logsnr(s)) (Kingma et al. 2021, appendix A):

    q(x_t | x_0)      = N(alpha_t x_0, sigma_t^2)                                             (1)
    q(x_t | x_s)      = N(alpha_{t|s} x_s, sigma_{t|s}^2),
                        alpha_{t|s} = alpha_t / alpha_s,  sigma_{t|s}^2 = sigma_t^2 (1 - r)   (2)
    q(x_s | x_t, x_0) = N(alpha_{t|s} sigma_s^2 / sigma_t^2 x_t + alpha_s (1 - r) x_0,
                          sigma_s^2 (1 - r))                                                  (3)

For neighbouring steps of a DDPM table, (3) is the posterior of Ho et al. 2020, eq. 6-7, and
sigma_{t|s}^2 is beta. 1 - r comes from the schedule, which can compute it accurately when s is
close to t and r is nearly 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Broadcast, Examples, Floats, Times, broadcast
from genzoo.math.schedules import Schedule


class Gaussian(NamedTuple):
    """A diagonal Gaussian: mean [B, ...], variance broadcastable to it."""

    mean: Examples
    variance: Floats


def q_sample(schedule: Schedule, x_0: Examples, t: Times, eps: Examples) -> Examples:
    """x_t of equation (1) from the noise eps; x_0, eps [B, ...], t [B] or []."""
    alpha, sigma = (broadcast(v, x_0) for v in (schedule.alpha(t), schedule.sigma(t)))
    return alpha * x_0 + sigma * eps


def marginal(schedule: Schedule, x_0: Examples, t: Times) -> Gaussian:
    """q(x_t | x_0), equation (1)."""
    return Gaussian(
        broadcast(schedule.alpha(t), x_0) * x_0, broadcast(jnp.square(schedule.sigma(t)), x_0)
    )


def one_minus_ratio(schedule: Schedule, t: Times, s: Times) -> Times:
    """1 - r = 1 - SNR(t) / SNR(s) for s < t, in (0, 1]; 1 at s = 0 where the SNR is infinite."""
    return schedule.one_minus_ratio(t, s)


def transition_variance(schedule: Schedule, t: Times, s: Times) -> Times:
    """sigma_{t|s}^2 of equation (2): beta of a DDPM table for neighbouring steps. Shape of t."""
    return jnp.square(schedule.sigma(t)) * one_minus_ratio(schedule, t, s)


def transition(schedule: Schedule, x_s: Examples, t: Times, s: Times) -> Gaussian:
    """q(x_t | x_s), equation (2), for s < t."""
    scale = schedule.alpha(t) / schedule.alpha(s)
    return Gaussian(
        broadcast(scale, x_s) * x_s, broadcast(transition_variance(schedule, t, s), x_s)
    )


def posterior_variance(schedule: Schedule, t: Times, s: Times) -> Times:
    """sigma_s^2 (1 - r) of equation (3): "beta tilde" of Ho et al.; 0 at s = 0. Shape of t."""
    return jnp.square(schedule.sigma(s)) * one_minus_ratio(schedule, t, s)


def posterior_scales(schedule: Schedule, t: Times, s: Times) -> tuple[Times, Times]:
    """The coefficients of x_t and x_0 in the mean of (3), shape of t; (0, 1) at s = 0."""
    from_x_t = (
        schedule.alpha(t)
        / schedule.alpha(s)
        * jnp.square(schedule.sigma(s) / schedule.sigma(t))
    )
    return from_x_t, schedule.alpha(s) * one_minus_ratio(schedule, t, s)


def posterior(schedule: Schedule, x_0: Examples, x_t: Examples, t: Times, s: Times) -> Gaussian:
    """q(x_s | x_t, x_0), equation (3), for s < t; at s = 0 it is x_0 with variance 0."""
    from_x_t, from_x_0 = posterior_scales(schedule, t, s)
    return Gaussian(
        broadcast(from_x_t, x_t) * x_t + broadcast(from_x_0, x_0) * x_0,
        broadcast(posterior_variance(schedule, t, s), x_t),
    )


def _floored_posterior_log_variance(schedule: Schedule, t: Times, s: Times) -> Times:
    # At s = 0 the posterior variance is 0, and the decoder needs a positive one. Ho et al. take
    # that of the sampling step before, which ends at the present t.
    at_end = s <= 0
    earlier = jnp.where(at_end, jnp.minimum(2 * t, 1), t)
    return jnp.log(posterior_variance(schedule, earlier, jnp.where(at_end, t, s)))


@dataclass(frozen=True)
class ReverseVariance:
    """A rule for the variance of p_theta(x_s | x_t).

    log_variance: (schedule, t, s, extra) -> log variance, shape of t or of x. `extra` is the second
    half of the network's output if `learned`, else None.
    """

    log_variance: Callable[[Schedule, Times, Times, Examples | None], Floats]
    learned: bool = False


def _small(schedule, t, s, extra):
    del extra
    return _floored_posterior_log_variance(schedule, t, s)


def _large(schedule, t, s, extra):
    del extra
    floor = _floored_posterior_log_variance(schedule, t, s)
    return jnp.where(s <= 0, floor, jnp.log(transition_variance(schedule, t, s)))


def _learned(schedule, t, s, extra):
    del schedule, t, s
    return extra


def _learned_range(schedule, t, s, extra):
    low = broadcast(_floored_posterior_log_variance(schedule, t, s), extra)
    high = broadcast(jnp.log(transition_variance(schedule, t, s)), extra)
    part = (extra + 1) / 2
    return part * high + (1 - part) * low


FIXED_SMALL = ReverseVariance(_small)
"""The posterior variance (3): optimal if x_0 is a single point."""
FIXED_LARGE = ReverseVariance(_large)
"""The transition variance (2), "beta": optimal if x_0 is N(0, 1)."""
LEARNED = ReverseVariance(_learned, learned=True)
"""The network's own log variance."""
LEARNED_RANGE = ReverseVariance(_learned_range, learned=True)
"""Between small and large on a log scale (Nichol & Dhariwal 2021, eq. 15), outputs in [-1, 1]."""
REVERSE_VARIANCES = (FIXED_SMALL, FIXED_LARGE, LEARNED, LEARNED_RANGE)


def kl(
    mean_q: Broadcast, log_variance_q: Broadcast, mean_p: Broadcast, log_variance_p: Broadcast
) -> Broadcast:
    """KL(q || p) of diagonal Gaussians in nats, elementwise; arguments broadcast."""
    return 0.5 * (
        log_variance_p
        - log_variance_q
        + jnp.expm1(log_variance_q - log_variance_p)
        + jnp.square(mean_q - mean_p) * jnp.exp(-log_variance_p)
    )


def log_density(x: Broadcast, mean: Broadcast, log_variance: Broadcast) -> Broadcast:
    """log N(x; mean, exp(log_variance)) in nats, elementwise."""
    return -0.5 * (
        jnp.log(2 * jnp.pi) + log_variance + jnp.square(x - mean) * jnp.exp(-log_variance)
    )
