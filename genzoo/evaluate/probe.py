"""The linear probe: how well a linear function of a representation predicts the classes.

Multinomial logistic regression with weights W [D, C] and bias c [C] on standardised features,

    objective = mean_i -log softmax(W^T x_i + c)_{y_i} + l2 / 2 |W|^2,                       (1)

which is convex and has one solution, found by L-BFGS (Liu & Nocedal 1989) from zero.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genzoo.core.types import Array, Labels

_TINY = 1e-6  # of the largest deviation; features that vary less count as constant


class Standard(NamedTuple):
    """The mean and standard deviation [D] used to standardise features."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "Standard":
        """The statistics of features x [N, D]. Constant features keep their scale."""
        deviation = x.std(0, dtype=np.float64)
        varies = deviation > _TINY * deviation.max()
        return cls(x.mean(0, dtype=np.float64), np.where(varies, deviation, 1.0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Features [N, D] shifted and scaled."""
        mean, deviation = (value.astype(x.dtype) for value in self)
        return (x - mean) / deviation


class Probe(NamedTuple):
    """The solution of (1): weights [D, C] and bias [C].

    gradient: the largest absolute entry of the gradient at the solution. iterations: those of the
    solver.
    """

    weights: Array
    bias: Array
    gradient: Array
    iterations: Array


def objective(weights: Array, bias: Array, x: Array, labels: Labels, l2: float) -> Array:
    """Equation (1) for features x [N, D] and labels [N]."""
    losses = optax.softmax_cross_entropy_with_integer_labels(x @ weights + bias, labels)
    return losses.mean() + 0.5 * l2 * jnp.square(weights).sum()


def fit(
    x: Array,
    labels: Labels,
    *,
    classes: int,
    l2: float,
    tolerance: float = 1e-5,
    limit: int = 2000,
) -> Probe:
    """Minimises (1) for features x [N, D] and labels [N] of `classes` classes.

    tolerance: stops when no entry of the gradient exceeds it. limit: the most iterations. It also
    stops when steps no longer change the params.
    """
    solver = optax.lbfgs(memory_size=10)

    def value(params):
        return objective(*params, x, labels, l2)

    def largest(tree):
        return jnp.maximum(*(jnp.abs(part).max() for part in tree))

    value_and_gradient = optax.value_and_grad_from_state(value)

    def unfinished(carry):
        _, _, gradient, moved, done = carry
        return (largest(gradient) > tolerance) & moved & (done < limit)

    def step(carry):
        params, state, _, _, done = carry
        loss, gradient = value_and_gradient(params, state=state)
        updates, state = solver.update(
            gradient, state, params, value=loss, grad=gradient, value_fn=value
        )
        moved = largest(updates) > 0
        params = optax.apply_updates(params, updates)
        return params, state, optax.tree.get(state, "grad"), moved, done + 1

    params = (jnp.zeros((x.shape[1], classes), x.dtype), jnp.zeros(classes, x.dtype))
    start = (params, solver.init(params), jax.grad(value)(params), jnp.bool_(True), jnp.int32(0))
    params, _, gradient, _, done = jax.lax.while_loop(unfinished, step, start)
    return Probe(*params, largest(gradient), done)


def predict(probe: Probe, x: Array) -> Labels:
    """The most likely class [N] for features x [N, D]."""
    return (x @ probe.weights + probe.bias).argmax(-1)
