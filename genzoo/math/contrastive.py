"""Contrastive losses: NT-Xent, symmetric InfoNCE, and pairwise sigmoids.

Chen et al. 2020 (SimCLR: NT-Xent), Radford et al. 2021 (CLIP: InfoNCE in both directions, with a
learned temperature), Zhai et al. 2023 (SigLIP: every pair is a yes-or-no question). For N pairs of
embeddings a_i, b_i, all normalised to unit length:

    NT-Xent   -log of softmax over k != i of z_i . z_k / tau, at the partner of i,
              for the 2N embeddings z = (a_1, .., a_N, b_1, .., b_N)                            (1)
    InfoNCE   -1/2 (log softmax_j s a_i . b_j + log softmax_j s a_j . b_i) at j = i             (2)
    sigmoid   -sum_j log sigmoid(y_ij (s a_i . b_j + c)),  y_ij = 1 if i = j, else -1           (3)

If all embeddings are equal, (1) is ln(2N - 1) and (2) is ln N; (3) is ln 2 per pair at s = c = 0.

The losses compare each example with the whole batch. Inside a program over a sharded batch that is
the global batch: XLA gathers the embeddings, and the gradients are those of one device.
"""

import math

import jax
import jax.numpy as jnp

from genzoo.core.types import Array, Examples, PerExample, Scalar, Vectors

START_SCALE = math.log(1 / 0.07)
"""The initial log s of CLIP: a temperature of 0.07."""
LARGEST_SCALE = math.log(100.0)
"""CLIP's bound on log s."""
SIGMOID_START_SCALE, SIGMOID_START_BIAS = math.log(10.0), -10.0
"""The initial log s and c of SigLIP (section 3.2): at first nearly every pair counts as wrong."""


def unit(vectors: Examples) -> Examples:
    """The vectors [B, ..., D] divided by their lengths; the gradient at zero is finite."""
    square = jnp.square(vectors).sum(-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


def nt_xent(
    a: Vectors, b: Vectors, temperature: float, mask: PerExample | None = None
) -> PerExample:
    """Equation (1), the mean over the two views of each example, in nats [B].

    a, b: unit embeddings of two views. mask: 1 for examples, 0 for padding, with which no example
    is compared.
    """
    z = jnp.concatenate([a, b])
    count, both = len(a), len(z)
    logits = _product(z, z) / temperature
    allowed = ~jnp.eye(both, dtype=bool)
    if mask is not None:
        allowed &= (jnp.concatenate([mask, mask]) > 0)[None]
    logits = jnp.where(allowed, logits, -jnp.inf)
    partner = (jnp.arange(both) + count) % both
    losses = -_at(jax.nn.log_softmax(logits, -1), partner)
    return losses.reshape(2, count).mean(0)


def info_nce(a: Vectors, b: Vectors, scale: Scalar, mask: PerExample | None = None) -> PerExample:
    """Equation (2) in nats [B]. a, b, mask: as for `nt_xent`. scale: s, the inverse temperature."""
    logits = scale * _product(a, b)
    forth, back = (_own_row(x, mask) for x in (logits, logits.T))
    return (forth + back) / 2


def pairwise_sigmoid(
    a: Vectors, b: Vectors, scale: Scalar, bias: Scalar, mask: PerExample | None = None
) -> PerExample:
    """Equation (3), the sum over the partners j of example i, in nats [B]. bias: c."""
    logits = scale * _product(a, b) + bias
    sign = 2 * jnp.eye(len(a), dtype=logits.dtype) - 1
    losses = -jax.nn.log_sigmoid(sign * logits)
    if mask is not None:
        losses = jnp.where(mask[None] > 0, losses, 0)
    return losses.sum(-1)


@jax.custom_vjp
def bounded(value: Scalar, most: Scalar) -> Scalar:
    """min(value, most), whose gradient can still lead back below `most`.

    CLIP resets log s to its bound after each step. With a plain minimum the gradient beyond the
    bound would be zero for good.
    """
    return jnp.minimum(value, most)


def _bounded_forward(value: Scalar, most: Scalar) -> tuple[Array, Array]:
    return jnp.minimum(value, most), value >= most


def _bounded_backward(beyond: Array, gradient: Array) -> tuple[Array, None]:
    # A descent step follows the negative gradient, so that a negative one leads further up.
    return jnp.where(beyond & (gradient < 0), 0, gradient), None


bounded.defvjp(_bounded_forward, _bounded_backward)


def matched(a: Vectors, b: Vectors, first: int = 1, mask: PerExample | None = None) -> PerExample:
    """Whether b_i is among the `first` b_j nearest to a_i in angle: 1 or 0, [B].

    Another b_j at the same angle counts as further away, so that duplicates are not errors.
    """
    logits = _product(a, b)
    nearer = logits > jnp.diagonal(logits)[:, None]
    if mask is not None:
        nearer &= mask[None] > 0
    return (nearer.sum(-1) < first).astype(a.dtype)


def _own_row(logits: Array, mask: PerExample | None) -> Array:
    if mask is not None:
        logits = jnp.where(mask[None] > 0, logits, -jnp.inf)
    return -_at(jax.nn.log_softmax(logits, -1), jnp.arange(len(logits)))


def _at(values: Array, columns: Array) -> Array:
    return jnp.take_along_axis(values, columns[:, None], axis=-1)[:, 0]


def _product(a: Vectors, b: Vectors) -> Array:
    """All scalar products [N, M], exact also where matrix products round to bfloat16."""
    return jnp.einsum("nd,md->nm", a, b, precision=jax.lax.Precision.HIGHEST)
