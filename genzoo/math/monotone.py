"""The learned noise schedules of variational diffusion models (Kingma et al. 2021, appendix H).

gamma(t) = -logsnr(t) rises from gamma_0 at t = 0 to gamma_1 at t = 1:

    gamma(t) = gamma_0 + (gamma_1 - gamma_0) (q(t) - q(0)) / (q(1) - q(0))                      (1)
    q(t) = t                                                                          `linear`
    q(t) = l1(t) + l3(sigmoid(l2(l1(t)))), positive weights, 1 -> 1, 1 -> 1024 -> 1   `monotone`

The end points are learned from the whole bound. The continuous-time bound does not depend on the
shape between them; the paper trains this shape to reduce the variance of the estimate. Positive
weights are the softplus of parameters. The authors take absolute values instead, which have a
corner at 0, where gamma is not strictly increasing. As in their code, l3 is a mean over the hidden
units. A schedule is `init` (key -> params, a plain dict) and a function (params, t of any shape) ->
gamma of that shape.
"""

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Key, Scalar, Tree, Values


def init_linear(key: Key, *, gamma_min: float = -13.3, gamma_max: float = 5.0) -> Tree:
    """Params of `linear` with these end points; nothing is random."""
    del key
    return {
        "start": jnp.asarray(gamma_min, jnp.float32),
        "range": _inverse_softplus(gamma_max - gamma_min),
    }


def linear(params: Tree, t: Values) -> Values:
    """Equation (1) with q(t) = t: gamma at t, from two learned numbers."""
    return params["start"] + jax.nn.softplus(params["range"]) * t


def init_monotone(
    key: Key, *, gamma_min: float = -13.3, gamma_max: float = 5.0, units: int = 1024
) -> Tree:
    """Params of `monotone` with these end points, initially close to a straight line.

    With 1024 units it is within 0.2 % of gamma_max - gamma_min of the line, and its slope within 1
    %.
    """
    weights, biases, out = jax.random.normal(key, (3, units))
    return init_linear(key, gamma_min=gamma_min, gamma_max=gamma_max) | {
        "l1": {"kernel": _inverse_softplus(1.0), "bias": jnp.asarray(-0.5, jnp.float32)},
        "l2": {"kernel": weights, "bias": biases},
        "l3": {"kernel": out},
    }


def monotone(params: Tree, t: Values) -> Values:
    """Equation (1) with the monotone network: gamma at t.

    Its slope is a sum of positive terms, so it stays positive under rounding.
    """
    t = jnp.asarray(t)
    return linear(params, _rise(params, t) / _rise(params, jnp.ones((), t.dtype)))


def _rise(params: Tree, t: Values) -> Values:
    # q(t) - q(0). sigmoid(x) - sigmoid(y) = (1 - exp(y - x)) sigmoid(x) sigmoid(-y) has only
    # positive factors, so nothing cancels, and it is exactly 0 at t = 0.
    slope = jax.nn.softplus(params["l1"]["kernel"])
    inner = jax.nn.softplus(params["l2"]["kernel"])
    outer = jax.nn.softplus(params["l3"]["kernel"])
    at_zero = inner * params["l1"]["bias"] + params["l2"]["bias"]
    further = inner * slope * t[..., None]
    change = -jnp.expm1(-further) * jax.nn.sigmoid(at_zero + further) * jax.nn.sigmoid(-at_zero)
    return slope * t + (outer * change).mean(-1)


def _inverse_softplus(value: float) -> Scalar:
    # In float64: log(exp(value) - 1) without overflow.
    return jnp.asarray(value + np.log(-np.expm1(-value)), jnp.float32)
