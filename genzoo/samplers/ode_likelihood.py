"""The exact log-likelihood of a diffusion or flow model by the instantaneous change of variables.

Chen et al. 2018; Grathwohl et al. 2019; Song et al. 2021, section 4.3:

    dx/dt = velocity(x, t) = alpha' x_0 + sigma' eps,   d log p_t(x_t)/dt = -div velocity       (1)

(1) is solved in y = x / (alpha + sigma) over a clock (`adaptive.flow`), where it reads
dy = v dclock and d log p(y) = -div v dclock. In D dimensions, log p(x) = log p(y) - D log(alpha +
sigma), so

    log p(x_end) = log p(x_start) + D log (alpha + sigma)_start / (alpha + sigma)_end
                   + the integral of div v from end to start                                    (2)

The result is the density at the time `end`, of data that contain the noise sigma(end).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float

from genzoo.core.types import (
    ArrayLike,
    Count,
    Counts,
    Examples,
    Floats,
    Keys,
    PerExample,
    Scalar,
    Stack,
    Times,
    Tree,
    broadcast,
    sum_per_example,
)
from genzoo.math import gaussian
from genzoo.math.schedules import Schedule
from genzoo.samplers.adaptive import Derivative, clock, flow, solve
from genzoo.samplers.predictor import Predict

Field = Callable[[Examples], Examples]
"""[B, ...] -> the same shape, where every row depends on its own row alone."""
Trace = Callable[[Field, Examples], tuple[Examples, PerExample]]
"""(field, x [B, ...]) -> (field(x), its divergence [B]): `divergence_exact`, or `hutchinson`."""


def _contracted(
    f: Field, x: Examples, tangents: Stack
) -> tuple[Examples, Float[ArrayLike, "K B"]]:
    # f(x), evaluated once, and v . J v for each tangent v of [K, B, ...]: [K, B].
    value, pushed = jax.vmap(lambda v: jax.jvp(f, (x,), (v,)), out_axes=(None, 0))(tangents)
    return value, (tangents * pushed).reshape(*tangents.shape[:2], -1).sum(-1)


def divergence_exact(f: Field, x: Examples) -> tuple[Examples, PerExample]:
    """(f(x), sum_i df_i/dx_i [B]) for x [B, ...], by one forward derivative per dimension.

    All derivatives are taken at once, so this is for few dimensions.
    """
    size = x[0].size
    basis = jnp.eye(size, dtype=x.dtype).reshape(size, 1, *x.shape[1:])
    value, each = _contracted(f, x, jnp.broadcast_to(basis, (size, *x.shape)))
    return value, each.sum(0)


def divergence_hutchinson(
    f: Field, x: Examples, probes: Stack
) -> tuple[Examples, PerExample]:
    """(f(x), mean over probes of v . J v [B]), by one forward derivative per probe.

    Unbiased for probes v [K, B, ...] with E v v^T = I (Hutchinson 1990).
    """
    value, each = _contracted(f, x, probes)
    return value, each.mean(0)


def rademacher(
    keys: Keys, shape: tuple[int, ...], count: int = 1, dtype: DTypeLike = jnp.float32
) -> Stack:
    """Probes of random signs [K, B, *shape], column i from keys[i] alone.

    They give the smallest variance, which is 0 for a diagonal Jacobian.
    """
    draw = jax.vmap(lambda key: jax.random.rademacher(key, (count, *shape), dtype), out_axes=1)
    return draw(keys)


def hutchinson(probes: Stack) -> Trace:
    """The trace estimated with these probes [K, B, ...].

    They stay the same along the whole path, so the integrand is smooth (Grathwohl et al. 2019,
    section 3.1).
    """
    return lambda f, x: divergence_hutchinson(f, x, probes)


def runge_kutta(
    derivative: Derivative, y: Tree, t0: Times, t1: Times, steps: Count
) -> Tree:
    """Integrates y from t0 to t1 by even steps of the classical fourth-order method.

    y: a tree of leaves [B, ...]. t0, t1: [] or [B]. Each step takes 4 evaluations.
    """
    leaves = jax.tree.leaves(y)
    dtype = jnp.result_type(*leaves)
    t0, t1 = (jnp.broadcast_to(jnp.asarray(t, dtype), leaves[0].shape[:1]) for t in (t0, t1))
    ahead = jnp.asarray([0, 0.5, 0.5, 1], dtype)
    weights = jnp.asarray([1, 2, 2, 1], dtype) / 6

    def along(y, size, slope):
        return jax.tree.map(lambda a, b: a + broadcast(size, a) * b, y, slope)

    def move(index, y):
        size = (t1 - t0) / steps

        def stage(i, carry):
            slope, end = carry
            # In this form the last time is exactly t1.
            part = (index + ahead[i]) / steps
            slope = derivative(along(y, ahead[i] * size, slope), (1 - part) * t0 + part * t1)
            return slope, along(end, weights[i] * size, slope)

        return jax.lax.fori_loop(0, 4, stage, (jax.tree.map(jnp.zeros_like, y), y))[1]

    return jax.lax.fori_loop(0, steps, move, y)


class LogLikelihood(NamedTuple):
    """A log density in two terms, in nats per example [B]; NaN where the solver gave up.

    prior: the log density of the latent. change: the change of log density along the flow.
    evaluations: int32 [B], of the predictor together with its forward derivatives. latent:
    [B, ...], x at the time `start`.
    """

    prior: PerExample
    change: PerExample
    evaluations: Counts
    latent: Examples

    @property
    def log_prob(self) -> PerExample:
        """log p(x) in nats [B]."""
        return self.prior + self.change


def log_likelihood(
    predict: Predict,
    schedule: Schedule,
    x: Examples,
    trace: Trace,
    *,
    start: Scalar | None = None,
    end: Scalar | None = None,
    rtol: Scalar = 1e-5,
    atol: Scalar = 1e-5,
    prior_variance: Floats = 1.0,
    steps: Count | None = None,
    largest: int = 10_000,
) -> LogLikelihood:
    """Equation (2) for x [B, ...] taken as x_t at the time `end`, integrated to the time `start`.

    start, end: times, 1 >= start > end > 0; None for the schedule's `farthest` and `nearest`.
    prior_variance: v of the prior N(0, sigma^2 + alpha^2 v) at `start`, the variance of the data
    (broadcastable to x). v = 1 gives N(0, 1) if the variance is preserved; if alpha = 1 it gives
    Song et al.'s N(0, sigma_max^2), except that the variance of the data is added.
    steps: None for the adaptive solver with its tolerances; a number for that many even steps of
    Runge-Kutta, 4 evaluations each, whose cost is known in advance.
    largest: the most evaluations of the adaptive solver per row.
    """
    start = jnp.asarray(schedule.farthest if start is None else start, x.dtype)
    end = jnp.asarray(schedule.nearest if end is None else end, x.dtype)
    field = flow(predict, schedule, start, end)

    def derivative(state, ticks):
        return trace(lambda y: field(y, ticks), state[0])

    scale, scale_end = (schedule.alpha(t) + schedule.sigma(t) for t in (start, end))
    state = x / scale_end, jnp.zeros(x.shape[:1], x.dtype)
    span = clock(schedule, end), clock(schedule, start)
    if steps is None:
        state, evaluations, _ = solve(
            derivative, state, *span, rtol=rtol, atol=atol, largest=largest
        )
    else:
        state = runge_kutta(derivative, state, *span, steps)
        evaluations = jnp.full(x.shape[:1], 4 * steps, jnp.int32)
    latent = scale * state[0]
    change = state[1] + x[0].size * jnp.log(scale / scale_end)
    variance = jnp.square(schedule.sigma(start)) + jnp.square(schedule.alpha(start)) * jnp.asarray(
        prior_variance, x.dtype
    )
    prior = sum_per_example(gaussian.log_density(latent, jnp.zeros_like(x), jnp.log(variance)))
    return LogLikelihood(prior, change, evaluations, latent)


MakeTrace = Callable[[Keys, Examples], Trace]
"""(keys [B], x [B, ...]) -> the trace to use for this x."""


def exact() -> MakeTrace:
    """`divergence_exact`, which needs no keys."""
    return lambda keys, x: divergence_exact


def random(probes: int = 1) -> MakeTrace:
    """`hutchinson` with this many probes of random signs."""
    return lambda keys, x: hutchinson(rademacher(keys, x.shape[1:], probes, x.dtype))


TRACES: Mapping[str, Callable[[int], MakeTrace]] = {
    "hutchinson": random,
    "exact": lambda probes: exact(),
}
"""By name: number of probes -> trace."""


@dataclass(frozen=True, kw_only=True)
class OdeLikelihood:
    """`log_likelihood` with its settings, as a family uses it.

    decoded: whether x_t at the time `end` stands for a latent, from which a decoder recovers the
    data, rather than for the data themselves.
    """

    trace: MakeTrace
    rtol: float = 1e-5
    atol: float = 1e-5
    prior_variance: float = 1.0
    steps: int | None = None
    end: float | None = None
    decoded: bool = False

    def __call__(
        self, predict: Predict, schedule: Schedule, x: Examples, keys: Keys
    ) -> LogLikelihood:
        """The log likelihood of x [B, ...] at the time `end`, or the schedule's `nearest`.

        Row i depends on keys[i] alone.
        """
        return log_likelihood(
            predict,
            schedule,
            x,
            self.trace(keys, x),
            end=self.end,
            rtol=self.rtol,
            atol=self.atol,
            prior_variance=self.prior_variance,
            steps=self.steps,
        )
