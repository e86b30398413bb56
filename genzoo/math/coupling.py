"""Pairing the noise of a batch with its data by optimal transport (Tong et al. 2024, OT-CFM;
Pooladian et al. 2023, multisample flow matching).

    pi = argmin over permutations of sum_i |x_i - y_pi(i)|^2 = argmax of sum_i <x_i, y_pi(i)>   (1)

Both marginals of a batch stay as they are, but the straight paths from x to y cross less, so that
the velocity to be learned varies less and few steps suffice.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int32

from genzoo.core.types import Array, Examples


def optimal_assignment(x: Examples, y: Examples) -> Int32[Array, " B"]:
    """The permutation pi of (1), int32 [B]: y[pi] is paired with x. x, y: [B, ...], B the whole
    batch, whatever devices it lies on; in parts it would be another, worse pairing.

    Exact up to rounding, by the Hungarian algorithm: B^3 operations one after another, in the
    compiled step. It passes no gradient, as a permutation has none.
    """
    x, y = (jax.lax.stop_gradient(v).reshape(v.shape[0], -1) for v in (x, y))
    x, y = (v.astype(jnp.promote_types(v.dtype, jnp.float32)) for v in (x, y))
    # Without the squares, which every permutation sums alike, less is lost to rounding.
    cost = -jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros(cost.shape[0], jnp.int32).at[rows].set(columns.astype(jnp.int32))
