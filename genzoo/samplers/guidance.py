"""Guidance: predictors in, a predictor out that leans towards a condition or away from a guide.

    guided = off + w (on - off), in x_0 and in eps alike                                       (1)

off: what is leaned away from, on: what is leaned towards, w = guidance_scale: 1 is off, 0 is `off`
itself. As x_0 and eps of one x_t lie on a line, mixing both is mixing either and solving for the
other, and it holds at alpha = 0 too. In scores it is the density p_off^(1-w) p_on^w of each noise
level, which is no diffusion of any one density: samples of w > 1 are sharper than "p(y|x)^w".

    classifier-free  on: conditional, off: unconditional (Ho & Salimans 2022; their w is ours - 1)
    autoguidance     on: the model, off: a weaker version of it (Karras et al. 2024)
    classifier       on - off = grad log p(y | x_t) of a classifier (Dhariwal & Nichol 2021)

A guided predictor is wrapped by clipping or thresholding, never the other way round: it is the
guided x_0 that leaves the range of the data (Saharia et al. 2022, section 2.3).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genzoo.core.conditions import Conditions, without
from genzoo.core.types import Array, broadcast
from genzoo.math import prediction
from genzoo.math.schedules import Schedule
from genzoo.samplers.predictor import Predict, Prediction, Rows

Scale = float | Array | Callable[[Array], Array]
"""A guidance scale: a number, one per example [B], or a function of t ([] or [B], shape kept)."""


def elsewhere(predict: Predict, ours: Schedule, theirs: Schedule) -> Predict:
    """A predictor on our schedule from one on theirs: it is asked at its own time of the same
    logsnr and shown x at its own scale. The data and the noise that x is made of are the same.

    A noise level that their schedule does not reach is taken for its nearest. The pair from there
    does not make up x_t; it is moved to the nearest one that does. So near the noise x_0 is kept
    and eps follows, near the data it is the other way round.
    """

    def asked(x, t):
        shown, there = _there(x, t, ours, theirs)
        seen = predict(shown, there)
        return Prediction(*_made_up(seen.x_0, seen.eps, x, ours, t), seen.extra)

    return asked


def _there(x: Array, t: Array, ours: Schedule, theirs: Schedule) -> tuple[Array, Array]:
    # x at their scale, and their time.
    def scale(schedule: Schedule, t: Array) -> Array:
        return jnp.hypot(schedule.alpha(t), schedule.sigma(t))

    there = theirs.time_of_logsnr(ours.logsnr(t))
    there = jnp.clip(there, theirs.nearest, theirs.farthest)
    return x * broadcast(scale(theirs, there) / scale(ours, t), x), there


def _made_up(x_0: Array, eps: Array, x: Array, schedule: Schedule, t: Array) -> tuple[Array, Array]:
    # The pair nearest to (x_0, eps) with alpha x_0 + sigma eps = x.
    alpha, sigma = (broadcast(f(t), x) for f in (schedule.alpha, schedule.sigma))
    rest = (x - alpha * x_0 - sigma * eps) / (jnp.square(alpha) + jnp.square(sigma))
    return x_0 + alpha * rest, eps + sigma * rest


def within(scale: Scale, low: float, high: float, off: float = 1.0) -> Scale:
    """`scale` at times low <= t <= high, `off` at all others (Kynkäänniemi et al. 2024): 1 is no
    guidance between predictors, 0 none by a classifier.

    Their interval of sigma, or one of logsnr, is one of time by `Schedule.time_of_logsnr`.
    """

    def scale_at(t: Array) -> Array:
        inside = (t >= low) & (t <= high)
        value = jnp.asarray(scale(t) if callable(scale) else scale, t.dtype)
        return jnp.where(inside, value, jnp.full_like(value, off))

    return scale_at


def classifier_free(
    conditional: Predict,
    unconditional: Predict,
    guidance_scale: Scale,
    schedule: Schedule,
    *,
    rescale: float = 0.0,
) -> Predict:
    """Equation (1) of a conditional and an unconditional predictor. `extra` is the conditional's.

    Where the scale is a function of time and 1 at a scalar t, the unconditional one is not run.
    rescale: phi of Lin et al. 2023, section 3.4, in [0, 1]: how far the deviation of each guided
    x_0 over its example is drawn back to the conditional's; eps follows from x_t. (They do so with
    the network's output, v; at zero terminal SNR, where it matters most, that is -x_0.)
    """

    def mixed(x, t):
        on, off = conditional(x, t), unconditional(x, t)
        scale = _scale_at(guidance_scale, t, x)
        x_0, eps = (b + scale * (a - b) for a, b in zip(on[:2], off[:2], strict=True))
        return _rescaled(on, x_0, eps, x, t, schedule, rescale)

    return _unless_off(conditional, mixed, [guidance_scale])


class Lean(NamedTuple):
    """One step of `composed`: the conditions that come in together, and their guidance scale."""

    names: frozenset[str]
    scale: Scale


def composed(
    predict: Callable[[Array, Array, Conditions], Prediction],
    conditions: Conditions,
    steps: Sequence[Lean],
    schedule: Schedule,
    *,
    rescale: float = 0.0,
    negative: Conditions | None = None,
) -> Predict:
    """Guidance over several conditions (Liu et al. 2022; Brooks et al. 2023, section 3.2):

        guided = e_0 + sum_k scale_k (e_k - e_{k-1})                                           (2)

    e_k: what is predicted with the conditions of steps 1 .. k present and those of later steps
    absent. A condition in no step is present in all of them. With one step, or equal scales, it is
    equation (1). negative: conditions that stand in for absent ones of the same names.

    All branches run in one call of the network on (K + 1) B rows. Those of an example lie side by
    side, so that they stay on one device where the batch is sharded. rescale: as above; `extra`
    is that of the branch with all conditions, which runs alone where every scale is a function of
    time and 1 at a scalar t.
    """
    branches = [conditions]  # from all present to none
    for step in reversed(steps):
        off = without(branches[-1], step.names)
        stand_in = {k: v for k, v in (negative or {}).items() if k in step.names}
        branches.append({**off, **stand_in})
    count = len(branches)

    def together(*rows: Array) -> Array:
        return jnp.stack(rows, axis=1).reshape(-1, *rows[0].shape[1:])

    def mixed(x, t):
        times = jnp.repeat(t, count) if jnp.ndim(t) else t
        seen = predict(jnp.repeat(x, count, axis=0), times, jax.tree.map(together, *branches))
        rows = jax.tree.map(lambda r: r.reshape(-1, count, *r.shape[1:]), seen)
        each = [jax.tree.map(lambda r, i=i: r[:, i], rows) for i in range(count)]
        on, off = each[0], each[-1]
        x_0, eps = off[:2]
        for more, less, step in zip(each[-2::-1], each[:0:-1], steps, strict=True):
            scale = _scale_at(step.scale, t, x)
            x_0 = x_0 + scale * (more.x_0 - less.x_0)
            eps = eps + scale * (more.eps - less.eps)
        return _rescaled(on, x_0, eps, x, t, schedule, rescale)

    def alone(x, t):
        return predict(x, t, conditions)

    return _unless_off(alone, mixed, [step.scale for step in steps])


def autoguided(main: Predict, guide: Predict, guidance_scale: Scale, schedule: Schedule) -> Predict:
    """Equation (1) away from a weaker predictor: a smaller or less trained network with the same
    condition (Karras et al. 2024). `extra` is that of the main one."""
    return classifier_free(main, guide, guidance_scale, schedule)


def classifier_guided(
    predict: Predict,
    log_prob: Callable[[Array, Array], Array],
    guidance_scale: Scale,
    schedule: Schedule,
    *,
    theirs: Schedule | None = None,
) -> Predict:
    """eps - scale sigma grad log p(y | x_t), and the x_0 that goes with it: x_0 + scale
    sigma^2 / alpha grad (Dhariwal & Nichol 2021, algorithm 2, for any schedule). 0 is off.

    log_prob: (x_t, t) -> [B] in nats, row i of x_t alone in row i, by a classifier trained on noisy
    data. With an unconditional predictor and the exact classifier it is (1) with the same scale.
    theirs: the classifier's schedule, None for the same. It is then asked as in `elsewhere`, and
    beyond its noisiest level the change of x_0 is the one found there.

    At alpha = 0 of the same schedule nothing can be told from x_t, grad is 0 and what 0 / 0 stands
    for is lost: there x_0 and eps are left as they are. Close to it 1 / alpha magnifies every error
    of the classifier: begin at `schedule.farthest`, or let the scale be 1 or 0 beyond some time.
    """

    def guided(x, t):
        seen, scale = predict(x, t), _scale_at(guidance_scale, t, x)
        shown, there = (x, t) if theirs is None else _there(x, t, schedule, theirs)
        slope = jax.grad(lambda x: log_prob(x, there).sum())(shown)
        asked = schedule if theirs is None else theirs
        alpha, sigma = (broadcast(f(there), x) for f in (asked.alpha, asked.sigma))
        eps = jnp.where(alpha > 0, -scale * sigma * slope, 0)
        x_0 = -eps * sigma / jnp.where(alpha > 0, alpha, 1)
        if theirs is not None:  # changes that cancel in x_t, at our time too
            x_0, eps = _made_up(x_0, eps, jnp.zeros_like(x), schedule, t)
        return Prediction(seen.x_0 + x_0, seen.eps + eps, seen.extra)

    return guided


def _scale_at(guidance_scale: Scale, t: Array, like: Array) -> Array:
    value = guidance_scale(jnp.asarray(t)) if callable(guidance_scale) else guidance_scale
    return broadcast(jnp.asarray(value, like.dtype), like)


def _rescaled(
    on: Prediction, x_0: Array, eps: Array, x: Array, t: Array, schedule: Schedule, amount: float
) -> Prediction:
    if amount:
        x_0 = _deviation_of(on.x_0, x_0, amount)
        eps = prediction.pair_of_x_0(x_0, x, schedule, t).eps
    return Prediction(x_0, eps, on.extra)


def rows_of(branches: int, scales: Sequence[Scale]) -> Rows:
    """What a prediction of `composed` takes, of so many branches (its steps and one), or one of
    `classifier_free`, of 2."""

    def rows(t: Array) -> Array:
        off = _off(scales, t)
        every = jnp.full((), branches, jnp.int32)
        return every if off is None else jnp.where(off, 1, every)

    return rows


def _off(scales: Sequence[Scale], t: Array) -> Array | None:
    """Whether every scale is 1 at a scalar t, bool []; None where that cannot switch anything off,
    because a scale is a number, or is one for each example."""
    if jnp.ndim(t) or not all(callable(scale) for scale in scales):
        return None
    values = [scale(jnp.asarray(t)) for scale in scales]
    if any(jnp.ndim(value) for value in values):
        return None
    return jnp.all(jnp.stack(values) == 1)


def _unless_off(alone: Predict, mixed: Predict, scales: Sequence[Scale]) -> Predict:
    """`alone` where all guidance is off, else `mixed`."""

    def guided(x, t):
        off = _off(scales, t)
        return mixed(x, t) if off is None else jax.lax.cond(off, alone, mixed, x, t)

    return guided


def _deviation_of(target: Array, x_0: Array, amount: float) -> Array:
    # x_0 times 1 or the ratio of deviations, or something between. One that is constant stays.
    axes = tuple(range(1, x_0.ndim))
    wanted, found = (values.std(axes, keepdims=True) for values in (target, x_0))
    ratio = jnp.where(found > 0, wanted / jnp.where(found > 0, found, 1), 1)
    return x_0 * (amount * ratio + (1 - amount))
