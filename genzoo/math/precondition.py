"""EDM's preconditioning as a prediction kind (Karras et al. 2022, section 5 and table 1).

With sigma' = sigma / alpha and x' = x_t / alpha, which is x_0 + sigma' eps for every schedule, a
network F with inputs and outputs of unit variance gives the denoiser

    D = c_skip x' + c_out F(c_in x', c_noise)                                             (1)
    c_skip = sigma_data^2 / (sigma'^2 + sigma_data^2)
    c_out  = sigma' sigma_data / sqrt(sigma'^2 + sigma_data^2)
    c_in   = 1 / sqrt(sigma'^2 + sigma_data^2),   c_noise = log(sigma') / 4               (2)

F is a rotation of the scaled pair, F = (sigma' x_0 - sigma_data^2 eps) / (sigma_data root) with
root = sqrt(sigma'^2 + sigma_data^2). With numerator and denominator multiplied by alpha, it holds
at alpha = 0 and at sigma = 0 too, where it is x_0 / sigma_data and -eps.
"""

from collections.abc import Callable

import jax.numpy as jnp

from genzoo.core.types import Examples, Times, broadcast
from genzoo.math.prediction import Kind, Pair
from genzoo.math.schedules import Schedule


def _scales(schedule: Schedule, t: Times, sigma_data: float) -> tuple[Times, Times, Times]:
    # alpha, sigma and the standard deviation of x_t, for data of standard deviation sigma_data.
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha, sigma, jnp.sqrt(jnp.square(sigma) + jnp.square(alpha * sigma_data))


def preconditioned(sigma_data: float = 0.5) -> Kind:
    """The kind in which the network's output F stands for the denoiser (1).

    The conversions are exact inverses at every t. sigma_data: the standard deviation of the data.
    """

    def to_pair(output: Examples, x_t: Examples, schedule: Schedule, t: Times) -> Pair:
        # Solves the 2 x 2 system of x_t and F. Its determinant is sigma'^2 + sigma_data^2 > 0, so
        # no difference is divided by a small sigma or alpha.
        alpha, sigma, root = (broadcast(v, x_t) for v in _scales(schedule, t, sigma_data))
        unit = x_t / root
        x_0 = sigma_data / root * (alpha * sigma_data * unit + sigma * output)
        return Pair(x_0, (sigma * unit - alpha * sigma_data * output) / root)

    def from_pair(pair: Pair, schedule: Schedule, t: Times) -> Examples:
        scales = _scales(schedule, t, sigma_data)
        alpha, sigma, root = (broadcast(v, pair.x_0) for v in scales)
        return (sigma * pair.x_0 / sigma_data - alpha * sigma_data * pair.eps) / root

    return Kind(to_pair, from_pair)


def input_scale(sigma_data: float = 0.5) -> Callable[[Schedule, Times], Times]:
    """(schedule, t) -> c_in / alpha, the factor of x_t before the network.

    It is the inverse of the standard deviation of x_t: shape of t, finite at alpha = 0.
    """
    return lambda schedule, t: 1 / _scales(schedule, t, sigma_data)[2]


def noise_level(schedule: Schedule, t: Times) -> Times:
    """c_noise of (2), the noise level that the network sees. Not at alpha = 0 or sigma = 0."""
    return -schedule.logsnr(t) / 8
