"""Pairing the noise of a batch with its data by optimal transport.

    pi = argmin over permutations of sum_i |x_i - y_pi(i)|^2 = argmax of sum_i <x_i, y_pi(i)>   (1)

Both marginals of a batch stay the same, but the straight paths from x to y cross less often, so the
velocity to be learned varies less and few sampling steps suffice (Tong et al. 2024, OT-CFM;
Pooladian et al. 2023, multisample flow matching).
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int32

from genzoo.core.types import Array, Examples, PerExample


def optimal_assignment(
    x: Examples, y: Examples, mask: PerExample | None = None
) -> Int32[Array, " B"]:
    """The permutation pi of (1), int32 [B]: y[pi] is paired with x.

    x, y: [B, ...], where B is the whole batch, on however many devices; pairing it in parts would
    give another, worse pairing. mask: 1 for an example and 0 for padding. Examples are paired with
    each other and padding with padding, so that padding does not change the pairs of the examples.

    Exact up to rounding, by the Hungarian algorithm: B^3 sequential operations inside the compiled
    step. No gradient flows, since a permutation has none.
    """
    x, y = (jax.lax.stop_gradient(v).reshape(v.shape[0], -1) for v in (x, y))
    x, y = (v.astype(jnp.promote_types(v.dtype, jnp.float32)) for v in (x, y))
    # The sum of the squares is the same for every permutation; without it less is lost to rounding.
    cost = -jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    if mask is not None:
        cost = _apart(cost, mask > 0)
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    return jnp.zeros(cost.shape[0], jnp.int32).at[rows].set(columns.astype(jnp.int32))


def _apart(cost: Float[Array, "B B"], real: Bool[Array, " B"]) -> Float[Array, "B B"]:
    # The costs [B, B] of pairs of examples as they are, and of the others such that two pairs of an
    # example and padding always cost more than the two pairs that do not mix them.
    both, mixed = real[:, None] & real[None, :], real[:, None] ^ real[None, :]
    least = jnp.where(both, cost, jnp.inf).min(initial=0)
    most = jnp.where(both, cost, -jnp.inf).max(initial=0)
    return jnp.where(both, cost, jnp.where(mixed, most + (most - least) + 1, most))
