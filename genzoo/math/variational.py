"""Variational autoencoders: posteriors, KL terms, likelihood bounds, and weights of the KL.

    ELBO = E_q log p(x | z) - KL(q(z | x) || p(z)) <= log p(x)      (Kingma & Welling 2014)   (1)
    L_K  = E log 1/K sum_k w_k,  w_k = p(x, z_k) / q(z_k | x)       (Burda et al. 2016)       (2)
    L_1 = ELBO, L_K <= L_{K+1} <= log p(x)                                                    (3)
    active units: Cov_x(E_q[u]) > 0.01                              (Burda et al. 2016)       (4)

In training the KL may have a floor (`free_bits`) and a weight that depends on the step (`Warmup`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genzoo.core.types import ArrayLike, Count, Floats, PerExample, Scalar, Tree
from genzoo.math import gaussian
from genzoo.math.observation import bounded


class Diagonal(NamedTuple):
    """A diagonal Gaussian over the last axis, given by its mean and log variance."""

    mean: Floats
    log_variance: Floats


def diagonal(output: Floats) -> Diagonal:
    """The Gaussian given by a network's output [..., 2 D].

    The log variance is kept in (-14, 14) with a smooth bend: unbounded, it overflows on a bad
    batch.
    """
    mean, raw = jnp.split(output, 2, axis=-1)
    return Diagonal(mean, bounded(raw, low=-14.0, high=14.0))


def reparameterise(q: Diagonal, noise: Floats) -> Floats:
    """z = mean + std noise: a sample through which the gradient flows. Leading axes broadcast."""
    return q.mean + jnp.exp(0.5 * q.log_variance) * noise


def standard_kl(q: Diagonal) -> Floats:
    """KL(q || N(0, I)) in nats, elementwise."""
    return gaussian.kl(q.mean, q.log_variance, jnp.zeros(()), jnp.zeros(()))


def log_ratio(z: Floats, q: Diagonal, p: Diagonal) -> Floats:
    """log q(z) - log p(z) in nats, elementwise: a one-sample estimate of KL(q || p) if z ~ q."""
    return gaussian.log_density(z, *q) - gaussian.log_density(z, *p)


def log_mean_exp(log_weights: Floats, axis: int = 0) -> Floats:
    """log of the mean of exp over one axis: equation (2) from log weights [K, B]."""
    count = log_weights.shape[axis]
    return jax.nn.logsumexp(log_weights, axis=axis) - jnp.log(count)


def streamed_log_mean_exp(
    log_weights: Callable[[Count], tuple[Floats, Tree]], chunks: int
) -> tuple[PerExample, Tree]:
    """Equation (2) over chunks of samples, one after the other, in the memory of one chunk.

    log_weights: chunk number -> (log weights [K / chunks, B], a tree of values to be averaged).
    Returns (L_K [B], the tree of mean values).
    """

    def add(carry, index):
        total, values = carry
        chunk, chunk_values = log_weights(index)
        # logaddexp keeps the running sum relative to the largest weight so far.
        total = jnp.logaddexp(total, log_mean_exp(chunk))
        return (total, jax.tree.map(jnp.add, values, chunk_values)), None

    shapes = jax.eval_shape(log_weights, jnp.int32(0))
    start = (
        jnp.full(shapes[0].shape[1:], -jnp.inf, shapes[0].dtype),
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[1]),
    )
    (total, values), _ = jax.lax.scan(add, start, jnp.arange(chunks))
    return total - jnp.log(chunks), jax.tree.map(lambda v: v / chunks, values)


def free_bits(
    kl: Float[ArrayLike, "B D"], floor: float, mask: PerExample | None = None
) -> Float[ArrayLike, "B D"]:
    """The KL [B, D] with the batch mean of every unit at least `floor` nats.

    Kingma et al. 2016, eq. 15: a unit below the floor has no gradient, so nothing is gained by
    switching it off. mask: [B], 1 for an example and 0 for padding, which the mean leaves out
    whatever it holds.
    """
    real = None if mask is None else (mask > 0)[:, None]
    return jnp.where(jnp.mean(kl, 0, where=real) > floor, kl, floor)


Warmup = Callable[[Count], Scalar]
"""Step -> the weight of the KL."""


def constant() -> Warmup:
    """The full KL from the start."""
    return lambda step: jnp.ones(())


def linear(steps: int) -> Warmup:
    """From 0 to 1 over `steps` steps, then 1 (Bowman et al. 2016; Sonderby et al. 2016)."""
    return lambda step: jnp.minimum(step / steps, 1.0)


def cyclical(steps: int, share: float = 0.5) -> Warmup:
    """Cycles of `steps` steps: from 0 to 1 over a `share` of each, then 1 (Fu et al. 2019)."""
    return lambda step: jnp.minimum((step % steps) / (share * steps), 1.0)


def annealed(start: float, end: float, steps: int) -> Warmup:
    """From `start` to `end` along half a cosine over `steps` steps (Ramesh et al. 2021, A.2)."""

    def value(step: Count) -> Scalar:
        done = jnp.minimum(step / steps, 1.0) if steps else 1.0
        return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))

    return value


ACTIVE = 0.01
"""The variance of E_q[u] over the data above which a unit counts as active: equation (4)."""
