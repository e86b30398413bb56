"""Guidance combines predictors into one that moves towards a condition or away from a guide.

    guided = off + w (on - off), in x_0 and in eps alike                                       (1)

off is the prediction to move away from, on the one to move towards, and w = guidance_scale: 1 turns
guidance off, 0 gives `off` itself. x_0 and eps of one x_t lie on a line, so mixing both is the same
as mixing one and solving for the other, and it works at alpha = 0 too. In terms of scores, (1) is
the density p_off^(1-w) p_on^w at each noise level. These densities are not the diffusion of any
single density: samples with w > 1 are sharper than "p(y|x)^w".

    classifier-free  on: conditional, off: unconditional (Ho & Salimans 2022; their w is ours - 1)
    autoguidance     on: the model, off: a weaker version of it (Karras et al. 2024)
    classifier       on - off = grad log p(y | x_t) of a classifier (Dhariwal & Nichol 2021)

Clipping or thresholding wraps the guided predictor, never the other way round: it is the guided x_0
that leaves the range of the data (Saharia et al. 2022, section 2.3).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genzoo.core.conditions import Conditions, without
from genzoo.core.types import (
    Count,
    Examples,
    Factors,
    Flag,
    Floats,
    PerExample,
    Scalar,
    Times,
    broadcast,
)
from genzoo.math import prediction
from genzoo.math.schedules import Schedule
from genzoo.samplers.predictor import Predict, Prediction, Rows

Scale = Factors | Callable[[Times], Factors]
"""A guidance scale: a number, one per example [B], or a function of t ([] or [B], same shape)."""


def elsewhere(predict: Predict, ours: Schedule, theirs: Schedule) -> Predict:
    """A predictor on our schedule, made from one on theirs.

    It evaluates their predictor at the time of equal logsnr on their schedule, with x rescaled to
    that schedule. The data and the noise that make up x are the same.

    A noise level that their schedule does not reach is replaced by the nearest one that it does.
    The pair predicted there does not make up x_t, so it is moved to the nearest pair that does.
    Near the noise this keeps x_0 and adjusts eps; near the data it is the other way round.
    """

    def predict_elsewhere(x: Examples, t: Times) -> Prediction:
        seen = predict(*_on_theirs(x, t, ours, theirs))
        return Prediction(*_nearest_pair(seen.x_0, seen.eps, x, ours, t), seen.extra)

    return predict_elsewhere


def _on_theirs(
    x: Examples, t: Times, ours: Schedule, theirs: Schedule
) -> tuple[Examples, Times]:
    # x at the scale of their schedule, and the time of equal logsnr on it.
    def scale(schedule: Schedule, t: Times) -> Times:
        return jnp.hypot(schedule.alpha(t), schedule.sigma(t))

    their_t = theirs.time_of_logsnr(ours.logsnr(t))
    their_t = jnp.clip(their_t, theirs.nearest, theirs.farthest)
    return x * broadcast(scale(theirs, their_t) / scale(ours, t), x), their_t


def _nearest_pair(
    x_0: Examples, eps: Examples, x: Examples, schedule: Schedule, t: Times
) -> tuple[Examples, Examples]:
    # The pair nearest to (x_0, eps) with alpha x_0 + sigma eps = x.
    alpha, sigma = (broadcast(f(t), x) for f in (schedule.alpha, schedule.sigma))
    rest = (x - alpha * x_0 - sigma * eps) / (jnp.square(alpha) + jnp.square(sigma))
    return x_0 + alpha * rest, eps + sigma * rest


def within(scale: Scale, low: Scalar, high: Scalar, off: Scalar = 1.0) -> Scale:
    """`scale` at times low <= t <= high and `off` elsewhere (Kynkäänniemi et al. 2024).

    off: 1 means no guidance between predictors, 0 means none by a classifier. Their interval of
    sigma, or one of logsnr, becomes one of time by `Schedule.time_of_logsnr`.
    """

    def scale_at(t: Times) -> Factors:
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
    """Equation (1) for a conditional and an unconditional predictor. `extra` is the conditional's.

    Where the scale is a function of time and equals 1 at a scalar t, the unconditional predictor is
    not run. rescale: phi of Lin et al. 2023, section 3.4, in [0, 1]: how far the standard deviation
    of each guided x_0 over its example is pulled back to the conditional's; eps follows from x_t.
    (They rescale the network's output, v; at zero terminal SNR, where it matters most, that is
    -x_0.)
    """

    def mixed(x: Examples, t: Times) -> Prediction:
        on, off = conditional(x, t), unconditional(x, t)
        scale = _scale_at(guidance_scale, t, x)
        x_0, eps = (b + scale * (a - b) for a, b in zip(on[:2], off[:2], strict=True))
        return _rescaled(on, x_0, eps, x, t, schedule, rescale)

    return _unless_off(conditional, mixed, [guidance_scale])


class GuidanceStep(NamedTuple):
    """One step of `composed`: the conditions that enter together, and their guidance scale."""

    names: frozenset[str]
    scale: Scale


def composed(
    predict: Callable[[Examples, Times, Conditions], Prediction],
    conditions: Conditions,
    steps: Sequence[GuidanceStep],
    schedule: Schedule,
    *,
    rescale: float = 0.0,
    negative: Conditions | None = None,
) -> Predict:
    """Guidance over several conditions (Liu et al. 2022; Brooks et al. 2023, section 3.2):

        guided = e_0 + sum_k scale_k (e_k - e_{k-1})                                           (2)

    e_k: the prediction with the conditions of steps 1 .. k present and those of later steps absent.
    A condition in no step is always present. With one step, or equal scales, (2) is equation (1).
    negative: conditions that replace absent ones of the same names.

    All branches run in one call of the network on (K + 1) B rows. The rows of an example are
    adjacent, so that they stay on one device where the batch is sharded. rescale: as in
    `classifier_free`. `extra` is that of the branch with all conditions. This branch runs alone
    where every scale is a function of time and equals 1 at a scalar t.
    """
    branches = [conditions]  # from all present to none
    for step in reversed(steps):
        off = without(branches[-1], step.names)
        stand_in = {k: v for k, v in (negative or {}).items() if k in step.names}
        branches.append({**off, **stand_in})
    count = len(branches)

    def together(*rows):
        return jnp.stack(rows, axis=1).reshape(-1, *rows[0].shape[1:])

    def mixed(x: Examples, t: Times) -> Prediction:
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

    def alone(x: Examples, t: Times) -> Prediction:
        return predict(x, t, conditions)

    return _unless_off(alone, mixed, [step.scale for step in steps])


def autoguided(main: Predict, guide: Predict, guidance_scale: Scale, schedule: Schedule) -> Predict:
    """Equation (1) away from a weaker predictor (Karras et al. 2024).

    guide: a smaller or less trained network with the same condition. `extra` is that of `main`.
    """
    return classifier_free(main, guide, guidance_scale, schedule)


def classifier_guided(
    predict: Predict,
    log_prob: Callable[[Examples, Times], PerExample],
    guidance_scale: Scale,
    schedule: Schedule,
    *,
    theirs: Schedule | None = None,
) -> Predict:
    """Guidance by a classifier: eps - scale sigma grad log p(y | x_t), and the matching x_0.

    That is x_0 + scale sigma^2 / alpha grad (Dhariwal & Nichol 2021, algorithm 2, for any
    schedule). A scale of 0 turns guidance off.

    log_prob: (x_t, t) -> [B] in nats, where row i depends on row i of x_t alone, by a classifier
    trained on noisy data. With an unconditional predictor and the exact classifier this is (1) with
    the same scale. theirs: the classifier's schedule, None for the same one. With its own schedule
    it is evaluated as in `elsewhere`, and beyond its noisiest level x_0 changes as at that level.

    At alpha = 0 of the same schedule x_t carries no information, grad is 0, and the limit of 0 / 0
    is lost: x_0 and eps stay unchanged there. Close to it, 1 / alpha magnifies every error of the
    classifier: start at `schedule.farthest`, or let the scale be 1 or 0 beyond some time.
    """

    def guided(x: Examples, t: Times) -> Prediction:
        seen, scale = predict(x, t), _scale_at(guidance_scale, t, x)
        noisy, time = (x, t) if theirs is None else _on_theirs(x, t, schedule, theirs)
        slope = jax.grad(lambda x: log_prob(x, time).sum())(noisy)
        own = schedule if theirs is None else theirs
        alpha, sigma = (broadcast(f(time), x) for f in (own.alpha, own.sigma))
        eps = jnp.where(alpha > 0, -scale * sigma * slope, 0)
        x_0 = -eps * sigma / jnp.where(alpha > 0, alpha, 1)
        if theirs is not None:  # the two changes must cancel in x_t on our schedule too
            x_0, eps = _nearest_pair(x_0, eps, jnp.zeros_like(x), schedule, t)
        return Prediction(seen.x_0 + x_0, seen.eps + eps, seen.extra)

    return guided


def _scale_at(guidance_scale: Scale, t: Times, like: Examples) -> Floats:
    value = guidance_scale(jnp.asarray(t)) if callable(guidance_scale) else guidance_scale
    return broadcast(jnp.asarray(value, like.dtype), like)


def _rescaled(
    on: Prediction,
    x_0: Examples,
    eps: Examples,
    x: Examples,
    t: Times,
    schedule: Schedule,
    amount: float,
) -> Prediction:
    if amount:
        x_0 = _deviation_of(on.x_0, x_0, amount)
        eps = prediction.pair_of_x_0(x_0, x, schedule, t).eps
    return Prediction(x_0, eps, on.extra)


def rows_of(branches: int, scales: Sequence[Scale]) -> Rows:
    """The network rows of a guided prediction, or 1 where guidance is switched off.

    branches: the number of steps of `composed` plus one, or 2 for `classifier_free`.
    """

    def rows(t: Times) -> Count:
        off = _off(scales, t)
        all_rows = jnp.full((), branches, jnp.int32)
        return all_rows if off is None else jnp.where(off, 1, all_rows)

    return rows


def _off(scales: Sequence[Scale], t: Times) -> Flag | None:
    """Whether every scale is 1 at a scalar t: bool [].

    None where guidance is never switched off, because a scale is a number or one per example.
    """
    if jnp.ndim(t) or not all(callable(scale) for scale in scales):
        return None
    values = [scale(jnp.asarray(t)) for scale in scales]
    if any(jnp.ndim(value) for value in values):
        return None
    return jnp.all(jnp.stack(values) == 1)


def _unless_off(alone: Predict, mixed: Predict, scales: Sequence[Scale]) -> Predict:
    """`alone` where all guidance is off, else `mixed`."""

    def guided(x: Examples, t: Times) -> Prediction:
        off = _off(scales, t)
        return mixed(x, t) if off is None else jax.lax.cond(off, alone, mixed, x, t)

    return guided


def _deviation_of(target: Examples, x_0: Examples, amount: float) -> Examples:
    # x_0 times a blend of 1 and the ratio of standard deviations. A constant x_0 is unchanged.
    axes = tuple(range(1, x_0.ndim))
    wanted, current = (values.std(axes, keepdims=True) for values in (target, x_0))
    ratio = jnp.where(current > 0, wanted / jnp.where(current > 0, current, 1), 1)
    return x_0 * (amount * ratio + (1 - amount))
