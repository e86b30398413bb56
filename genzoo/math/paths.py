"""Paths between two points of a latent space: straight, and along the sphere.

With the angle theta between a and b, u = a / |a| and v = b / |b|:

    lerp(t)  = (1 - t) a + t b                                                               (1)
    slerp(t) = [(1 - t) |a| + t |b|] [sin((1 - t) theta) u + sin(t theta) v] / sin(theta)    (2)
    theta    = 2 atan2(|u - v|, |u + v|)                                                     (3)

(2): Shoemake 1985, "Animating Rotation with Quaternion Curves", for unit vectors; White 2016,
"Sampling Generative Networks", for latent spaces, where the norms of normal vectors lie close
together and the straight way leads through points nearer to the origin than any of them. Here the
norm goes linearly from one to the other. (3), unlike the arc cosine, is accurate at every angle
(Kahan 2006, "How Futile are Mindless Assessments of Roundoff").
"""

import jax.numpy as jnp
from jaxtyping import Float

from genzoo.core.types import ArrayLike, Floats

Points = Float[ArrayLike, "*lead D"]
Path = Float[ArrayLike, "*lead T D"]


def lerp(a: Points, b: Points, t: Float[ArrayLike, " T"]) -> Path:
    """Equation (1): a, b [..., D] and times t [T] in [0, 1] -> [..., T, D]; a at 0 and b at 1 to
    the bit."""
    t = jnp.asarray(t)[:, None]
    return (1 - t) * a[..., None, :] + t * b[..., None, :]


def slerp(a: Points, b: Points, t: Float[ArrayLike, " T"]) -> Path:
    """Equation (2): a, b [..., D] and times t [T] in [0, 1] -> [..., T, D]; a at 0 and b at 1 to
    the bit.

    The straight path (1) where (2) says nothing: one of the two is zero, or they point the same
    way, where it is the limit of (2), or opposite ways, where (2) could turn in any plane. There
    its derivatives by a and b are those of (1).
    """
    straight = lerp(a, b, t)
    a, b, t = a[..., None, :], b[..., None, :], jnp.asarray(t)[:, None]
    norm_a, norm_b = _norm(a), _norm(b)
    u, v = (x / jnp.where(norm > 0, norm, 1) for x, norm in ((a, norm_a), (b, norm_b)))
    apart, together = _norm(u - v), _norm(u + v)
    theta = 2 * jnp.arctan2(apart, jnp.where(apart + together > 0, together, 1))
    # Within the root of the rounding error of parallel, (1) and (2) differ by the rounding error.
    turning = jnp.sin(theta) > jnp.sqrt(jnp.finfo(theta.dtype).eps)
    turning &= (norm_a > 0) & (norm_b > 0) & (t > 0) & (t < 1)
    theta = jnp.where(turning, theta, 1)
    direction = (jnp.sin((1 - t) * theta) * u + jnp.sin(t * theta) * v) / jnp.sin(theta)
    return jnp.where(turning, ((1 - t) * norm_a + t * norm_b) * direction, straight)


def _norm(x: Floats) -> Floats:
    # With the slope 0 at 0, where that of the root is infinite.
    square = jnp.square(x).sum(-1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
