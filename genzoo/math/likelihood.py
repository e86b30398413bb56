"""Likelihoods of 8-bit data and the variational bound of a diffusion model, term by term.

    -log p(x_0) <= L_T + sum_{n=2..T} L_{n-1} + L_0               (Ho et al. 2020, eq. 5)
    L_T     = KL(q(x_T | x_0) || N(0, I))                          `prior_kl`
    L_{n-1} = KL(q(x_{n-1} | x_n, x_0) || p(x_{n-1} | x_n))        `step_kl`
    L_0     = -log p(x_0 | x_1), a discretised Gaussian            `discretised_log_likelihood`

All in nats, summed over the dimensions of an example; `bits_per_dim` converts once, at the end.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from genzoo.core import streams
from genzoo.core.types import (
    Broadcast,
    Examples,
    Floats,
    Keys,
    PerExample,
    Times,
    Values,
    sum_per_example,
)
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule


def bits_per_dim(nats: Values, dimensions: int) -> Values:
    """Nats per example -> bits per dimension, for data on their original 256 levels."""
    return nats / (math.log(2) * dimensions)


def uniform_dequantised(images: Examples, keys: Keys) -> Examples:
    """Uniform dequantisation: x + (u - 1/2) / 127.5 with u uniform in [0, 1), [B, ...].

    Spreads data on the levels k / 127.5 - 1 evenly over their bins; example i depends on keys[i]
    alone (Theis et al. 2016, section 3.1).
    """
    return images + (streams.uniform(keys, images.shape[1:], images.dtype) - 0.5) / 127.5


def log_levels(dimensions: int) -> float:
    """D log 127.5 in nats, for D dimensions.

    If p is a density of `uniform_dequantised` data, E log p(x) - D log 127.5 is a lower bound on
    the log probability of the levels, by Jensen's inequality.
    """
    return dimensions * math.log(127.5)


def log_interval(low: Broadcast, high: Broadcast) -> Broadcast:
    """log(Phi(high) - Phi(low)) for low < high, elementwise, accurate in both tails.

    In the right tail both ends are mirrored, so that the numbers subtracted are small and their
    logarithms are known.
    """
    mirrored = low + high > 0
    low, high = jnp.where(mirrored, -high, low), jnp.where(mirrored, -low, high)
    top = log_ndtr(high)
    return top + jnp.log(-jnp.expm1(log_ndtr(low) - top))


def discretised_log_likelihood(x: Broadcast, mean: Broadcast, log_variance: Broadcast) -> Broadcast:
    """Log of the mass that N(mean, exp(log_variance)) gives the bin of x, in nats, elementwise.

    x: on the 256 levels k / 127.5 - 1. The bins are x +- 1 / 255, and the first and last extend to
    infinity (Ho et al. 2020, eq. 13), so the masses of the 256 levels sum to one.
    """
    inverse_std = jnp.exp(-0.5 * log_variance)
    low = (x - mean - 1 / 255) * inverse_std
    high = (x - mean + 1 / 255) * inverse_std
    # With a margin of a quarter of a level: rounding must not decide whether a bin is at an end.
    first, last = x < -1 + 0.5 / 255, x > 1 - 0.5 / 255
    # Values that `where` discards must be finite for the gradients: the end bins get finite ends.
    inside = log_interval(jnp.where(first, high - 1, low), jnp.where(last, low + 1, high))
    return jnp.where(first, log_ndtr(high), jnp.where(last, log_ndtr(-low), inside))


def log_level(x: Broadcast, noisy: Broadcast, log_variance: Broadcast) -> Broadcast:
    """log p(x | noisy) over the 256 levels k / 127.5 - 1, in nats, elementwise.

    The probabilities are proportional to N(noisy; level, exp(log_variance)) (Kingma et al. 2021,
    eq. 9). x: on the levels; only the index of its level is used. The levels are visited one after
    the other, so no array holds 256 values per number.

    A large precision multiplies every rounding error of a square, so no squares are formed. With
    the index n of the level nearest to `noisy`, d = 255 (noisy - level_n) and m = k - n,

        255^2 [(noisy - level_k)^2 - (noisy - level_n)^2] = 4 m (m - d).
    """
    # Broadcast, so that the loop accumulates gradients elementwise: the gradient of one number for
    # all would be summed over the batch, and over all devices, at every level.
    noisy, precision = jnp.broadcast_arrays(noisy, jnp.exp(-log_variance))
    nearest = jax.lax.stop_gradient(jnp.clip(jnp.round((noisy + 1) * 127.5), 0, 255))
    scaled = precision * (2 / 255**2)

    def exponent(number):  # 0 at the nearest level, which keeps the sum below at 1 or above
        # m - d = k + n - 255 - 255 noisy. Subtracting 256 noisy is exact where the difference is
        # small, so m - d is correct to its own rounding error, even halfway between two levels.
        apart = (number + nearest - 255 - 256 * noisy) + noisy
        return -scaled * (number - nearest) * apart

    @jax.checkpoint
    def add(total, number):
        return total + jnp.exp(exponent(number)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(noisy), jnp.arange(256, dtype=noisy.dtype))
    return exponent(jnp.round((x + 1) * 127.5)) - jnp.log(total)


def prior_kl(schedule: Schedule, x_0: Examples) -> PerExample:
    """L_T = KL(q(x_1 | x_0) || N(0, I)), at t = 1, in nats per example [B]."""
    mean, variance = gaussian.marginal(schedule, x_0, jnp.ones((), x_0.dtype))
    zero = jnp.zeros((), x_0.dtype)
    return sum_per_example(gaussian.kl(mean, jnp.log(variance), zero, zero))


def step_kl(
    schedule: Schedule,
    x_0: Examples,
    x_t: Examples,
    t: Times,
    s: Times,
    model_x_0: Examples,
    log_variance: Floats,
) -> PerExample:
    """L_{n-1} for one step t -> s, s > 0: KL(q(x_s | x_t, x_0) || p_theta(x_s | x_t)), [B] nats.

    p_theta has the posterior mean for the predicted `model_x_0` and the given log variance (shape
    of x_t or broadcastable).
    """
    truth = gaussian.posterior(schedule, x_0, x_t, t, s)
    model = gaussian.posterior(schedule, model_x_0, x_t, t, s)
    return sum_per_example(
        gaussian.kl(truth.mean, jnp.log(truth.variance), model.mean, log_variance)
    )


def bound_weight(schedule: Schedule, t: Times, s: Times, variance: Times) -> Times:
    """w, shape of t: L_{n-1} = w |x_0 - x_theta|^2 + const for a fixed reverse `variance`, s < t.

    The posterior mean changes by alpha_s (1 - r) per unit of x_0. sigma_t^2 / alpha_t^2 times w is
    the weight of |eps - eps_theta|^2, lambda_t of Ho et al. 2020, eq. 12: beta^2 / (2 variance
    alpha (1 - alpha_bar)). The weight on x_0 is finite at alpha_t = 0 too.
    """
    return jnp.square(gaussian.posterior_scales(schedule, t, s)[1]) / (2 * variance)
