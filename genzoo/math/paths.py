"""Paths between two points of a latent space: straight lines, and arcs along the sphere.

With the angle theta between a and b, u = a / |a| and v = b / |b|:

    lerp(t)  = (1 - t) a + t b                                                               (1)
    slerp(t) = [(1 - t) |a| + t |b|] [sin((1 - t) theta) u + sin(t theta) v] / sin(theta)    (2)
    theta    = 2 atan2(|u - v|, |u + v|)                                                     (3)

(2) is from Shoemake 1985, "Animating Rotation with Quaternion Curves", for unit vectors, and White
2016, "Sampling Generative Networks", for latent spaces: normal vectors have nearly equal norms, and
the straight line between two of them passes closer to the origin than any sample. Here the norm is
interpolated linearly. Unlike the arc cosine, (3) is accurate at every angle (Kahan 2006, "How
Futile are Mindless Assessments of Roundoff").
"""

import jax.numpy as jnp
from jaxtyping import Float

from genzoo.core.types import ArrayLike, Floats

Points = Float[ArrayLike, "*lead D"]
Path = Float[ArrayLike, "*lead T D"]


def lerp(a: Points, b: Points, t: Float[ArrayLike, " T"]) -> Path:
    """Equation (1): a, b [..., D], t [T] in [0, 1] -> [..., T, D]; exactly a at 0 and b at 1."""
    t = jnp.asarray(t)[:, None]
    return (1 - t) * a[..., None, :] + t * b[..., None, :]


def slerp(a: Points, b: Points, t: Float[ArrayLike, " T"]) -> Path:
    """Equation (2): a, b [..., D], t [T] in [0, 1] -> [..., T, D]; exactly a at 0 and b at 1.

    Falls back to the straight path (1) where (2) is undefined or degenerate: if a or b is zero, if
    they point the same way, where (1) is the limit of (2), or if they point opposite ways, where
    (2) could turn in any plane. There the derivatives with respect to a and b are those of (1).
    """
    straight = lerp(a, b, t)
    a, b, t = a[..., None, :], b[..., None, :], jnp.asarray(t)[:, None]
    norm_a, norm_b = _norm(a), _norm(b)
    u, v = (x / jnp.where(norm > 0, norm, 1) for x, norm in ((a, norm_a), (b, norm_b)))
    apart, together = _norm(u - v), _norm(u + v)
    theta = 2 * jnp.arctan2(apart, jnp.where(apart + together > 0, together, 1))
    # For an angle to parallel below the root of the rounding error, (1) and (2) agree to rounding.
    turning = jnp.sin(theta) > jnp.sqrt(jnp.finfo(theta.dtype).eps)
    turning &= (norm_a > 0) & (norm_b > 0) & (t > 0) & (t < 1)
    theta = jnp.where(turning, theta, 1)
    direction = (jnp.sin((1 - t) * theta) * u + jnp.sin(t * theta) * v) / jnp.sin(theta)
    return jnp.where(turning, ((1 - t) * norm_a + t * norm_b) * direction, straight)


def _norm(x: Floats) -> Floats:
    # The gradient at 0 is set to 0, where that of the square root is infinite.
    square = jnp.square(x).sum(-1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
