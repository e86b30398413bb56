"""Quantisers without a codebook, whose codes are the points of a grid: FSQ and LFQ.

Finite scalar quantisation (Mentzer et al. 2024, "Finite Scalar Quantization: VQ-VAE Made Simple")
rounds every channel z_i to one of s_i steps:

    b_i = h_i tanh(z_i + artanh(o_i / h_i)) - o_i,   h_i = (s_i - 1)(1 - 1e-3) / 2           (1)
    d_i = round(b_i) + floor(s_i / 2) in 0..s_i - 1,   q_i = round(b_i) / floor(s_i / 2)     (2)
    index = sum_i d_i s_1 .. s_{i-1}                                                         (3)

with o_i = 1/2 for an even s_i and 0 for an odd one, so that z_i = 0 is at b_i = 0.

Lookup-free quantisation (Yu et al. 2024, "Language Model Beats Diffusion") keeps the sign of every
channel, q_i = 1 or -1; bit i of the index is set where z_i > 0. A code c is chosen softly with

    p(c | z) = softmax_c(-|z - c|^2 / T) = prod_i sigmoid(4 c_i z_i / T)                     (4)

and its loss is the entropy of p(. | z), averaged over all vectors z, minus the entropy of the
average of p: each vector should be sure of its code, and all codes should be used.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from genzoo.core.types import Array, ArrayLike, Scalar

Rows = Float[ArrayLike, "*shape D"]
Index = Int[ArrayLike, "*shape"]
Weights = Float[ArrayLike, "*shape"] | Bool[ArrayLike, "*shape"]

_WITHIN = 1e-3  # how far (1) stays within half a step of the outer ones, where rounding has ties


def _steps(steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(s_i, floor(s_i / 2))."""
    steps = np.asarray(steps)
    return steps, steps // 2


def bounded_scalars(z: Rows, steps: Sequence[int]) -> Rows:
    """Equation (1) in the unit of q: b_i / floor(s_i / 2), between about -1 and 1. steps: s_i >= 3,
    one for each channel."""
    steps, half = _steps(steps)
    height = (steps - 1) * (1 - _WITHIN) / 2
    offset = np.where(steps % 2, 0.0, 0.5)
    shift = np.arctanh(offset / height)
    reached = height * jnp.tanh(z + shift) - offset
    return (reached / half).astype(z.dtype)


def scalar_index(bounded: Rows, steps: Sequence[int]) -> Index:
    """Equations (2) and (3) for vectors from `bounded_scalars`: int32."""
    steps, half = _steps(steps)
    digits = jnp.clip(jnp.round(bounded * half).astype(jnp.int32) + half, 0, steps - 1)
    radix = np.cumprod([1, *steps[:-1]])
    return (digits * radix).sum(-1).astype(jnp.int32)


def scalar_code(index: Index, steps: Sequence[int]) -> Rows:
    """The code q of equation (2) at an index, float32."""
    steps, half = _steps(steps)
    radix = np.cumprod([1, *steps[:-1]])
    digits = index[..., None] // radix % steps
    return ((digits - half) / half).astype(jnp.float32)


def sign_index(z: Rows) -> Index:
    """The index of the signs of z, int32; a zero counts as negative. D is at most 31."""
    return ((z > 0) * (1 << np.arange(z.shape[-1]))).sum(-1).astype(jnp.int32)


def sign_code(index: Index, width: int) -> Rows:
    """The signs q, float32, of `width` channels at an index."""
    bits = index[..., None] >> np.arange(width) & 1
    return (2 * bits - 1).astype(jnp.float32)


def choice_entropy(z: Rows, temperature: Scalar) -> Float[ArrayLike, "*shape"]:
    """The entropy of (4) in nats, from 0 to D log 2: the sum of those of its independent bits."""
    apart = jnp.abs(4 * z / temperature)  # of the two log-probabilities of a bit
    return (jax.nn.softplus(-apart) + apart * jax.nn.sigmoid(-apart)).sum(-1)


def mean_choice(z: Rows, temperature: Scalar, weights: Weights | None = None) -> Float[Array, " K"]:
    """The average of (4) over all vectors, for the K = 2^D codes in the order of their indices.

    Exact, and no array of K numbers for each vector is made: (4) is a product of the probabilities
    of the lower and the upper bits, so that its sum over vectors is a product of two matrices.
    weights: of the vectors, such as 0 for padding.
    """
    width = z.shape[-1]
    rows = z.reshape(-1, width)
    weights = jnp.ones(len(rows)) if weights is None else weights.reshape(-1).astype(rows.dtype)
    rows = jnp.where(weights[:, None] > 0, rows, 0)
    low = width // 2

    def choices(rows: Array) -> Array:
        codes = sign_code(jnp.arange(1 << rows.shape[-1]), rows.shape[-1])
        apart, one = 4 * rows / temperature, (codes > 0).astype(rows.dtype).T
        return jnp.exp(jax.nn.log_sigmoid(apart) @ one + jax.nn.log_sigmoid(-apart) @ (1 - one))

    upper, lower = choices(rows[:, low:]), choices(rows[:, :low])
    summed = (upper * weights[:, None]).T @ lower
    return summed.reshape(-1) / weights.sum()


def entropy_loss(
    z: Float[ArrayLike, "B *grid D"],
    temperature: Scalar,
    mask: Float[ArrayLike, " B"] | None = None,
) -> Float[ArrayLike, " B"]:
    """The loss of LFQ in nats for each example [B], whose average over those with a mask of 1 is
    the mean entropy minus the entropy of the mean."""
    each = choice_entropy(z, temperature)
    weights = None
    if mask is not None:
        weights = jnp.broadcast_to(mask.reshape(-1, *[1] * (each.ndim - 1)), each.shape)
    mean = mean_choice(z, temperature, weights)
    # The smallest normal number keeps the derivative finite where a mean has underflowed to 0.
    spread = -(mean * jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))).sum()
    return each.reshape(len(each), -1).mean(-1) - spread
