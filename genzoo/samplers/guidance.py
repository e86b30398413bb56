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

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genzoo.core.types import Array, broadcast
from genzoo.math import prediction
from genzoo.math.schedules import Schedule
from genzoo.samplers.predictor import Predict, Prediction

Scale = float | Array | Callable[[Array], Array]
"""A guidance scale: a number, one per example [B], or a function of t ([] or [B], shape kept)."""


def elsewhere(function: Callable, ours: Schedule, theirs: Schedule) -> Callable:
    """(x_t, t) on our schedule -> what a function of (x_t, t) on theirs says of it: a predictor or
    a log-probability, asked at its own time of the same logsnr and shown x at its own scale.

    The data and the noise that x is made of are the same on both. A noise level that their schedule
    does not reach is taken for its nearest.
    """

    def scale(schedule: Schedule, t: Array) -> Array:
        return jnp.hypot(schedule.alpha(t), schedule.sigma(t))

    def asked(x, t):
        there = theirs.time_of_logsnr(ours.logsnr(t))
        there = jnp.clip(there, theirs.nearest, theirs.farthest)
        return function(x * broadcast(scale(theirs, there) / scale(ours, t), x), there)

    return asked


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

    def both(x, t):
        return conditional(x, t), unconditional(x, t)

    return _guided(conditional, both, guidance_scale, schedule, rescale)


def doubled(
    predict: Callable[[Array, Array, Any], Prediction],
    condition: Any,
    null: Any,
    guidance_scale: Scale,
    schedule: Schedule,
    *,
    rescale: float = 0.0,
) -> Predict:
    """`classifier_free` with one call of the network on 2 B rows instead of two calls on B.

    predict: (x, t, condition) -> Prediction. condition: labels [B], or a tree of arrays [B, ...];
    null: the same tree without a condition, each leaf broadcast to the other's shape. The two rows
    of an example lie side by side, so that they stay on one device where the batch is sharded.
    """

    def paired(on: Array, off: Array) -> Array:
        pairs = jnp.stack([on, jnp.broadcast_to(jnp.asarray(off, on.dtype), on.shape)], axis=1)
        return pairs.reshape(-1, *on.shape[1:])

    def both(x, t):
        times = jnp.repeat(t, 2) if jnp.ndim(t) else t
        seen = predict(paired(x, x), times, jax.tree.map(paired, condition, null))
        pairs = jax.tree.map(lambda rows: rows.reshape(-1, 2, *rows.shape[1:]), seen)
        return tuple(jax.tree.map(lambda rows, side=side: rows[:, side], pairs) for side in (0, 1))

    def alone(x, t):
        return predict(x, t, condition)

    return _guided(alone, both, guidance_scale, schedule, rescale)


def autoguided(main: Predict, guide: Predict, guidance_scale: Scale, schedule: Schedule) -> Predict:
    """Equation (1) away from a weaker predictor: a smaller or less trained network with the same
    condition (Karras et al. 2024). `extra` is that of the main one."""
    return classifier_free(main, guide, guidance_scale, schedule)


def classifier_guided(
    predict: Predict,
    log_prob: Callable[[Array, Array], Array],
    guidance_scale: Scale,
    schedule: Schedule,
) -> Predict:
    """eps - scale sigma grad log p(y | x_t), and the x_0 that goes with it: x_0 + scale
    sigma^2 / alpha grad (Dhariwal & Nichol 2021, algorithm 2, for any schedule). 0 is off.

    log_prob: (x_t, t) -> [B] in nats, row i of x_t alone in row i, by a classifier trained on noisy
    data. With an unconditional predictor and the exact classifier it is (1) with the same scale.

    At alpha = 0 nothing can be told from x_t, grad is 0 and what 0 / 0 stands for is lost: there
    x_0 and eps are left as they are. Close to it 1 / alpha magnifies every error of the classifier:
    begin at `schedule.farthest`, or let the scale be 1 or 0 beyond some time.
    """

    def guided(x, t):
        seen = predict(x, t)
        slope = jax.grad(lambda x: log_prob(x, t).sum())(x)
        scale = _scale_at(guidance_scale, t, x)
        alpha, sigma = (broadcast(f(t), x) for f in (schedule.alpha, schedule.sigma))
        change = jnp.where(alpha > 0, scale * sigma * slope, 0)
        x_0 = seen.x_0 + change * sigma / jnp.where(alpha > 0, alpha, 1)
        return Prediction(x_0, seen.eps - change, seen.extra)

    return guided


def _scale_at(guidance_scale: Scale, t: Array, like: Array) -> Array:
    value = guidance_scale(jnp.asarray(t)) if callable(guidance_scale) else guidance_scale
    return broadcast(jnp.asarray(value, like.dtype), like)


def _guided(
    alone: Predict,
    both: Callable[[Array, Array], tuple[Prediction, Prediction]],
    guidance_scale: Scale,
    schedule: Schedule,
    rescale: float,
) -> Predict:
    # alone: the predictor leaned towards; both: that one and the other, in one go or two.
    def mixed(x, t):
        on, off = both(x, t)
        scale = _scale_at(guidance_scale, t, x)
        x_0, eps = (b + scale * (a - b) for a, b in zip(on[:2], off[:2], strict=True))
        if rescale:
            x_0 = _deviation_of(on.x_0, x_0, rescale)
            eps = prediction.pair_of_x_0(x_0, x, schedule, t).eps
        return Prediction(x_0, eps, on.extra)

    def guided(x, t):
        if callable(guidance_scale) and jnp.ndim(scale := guidance_scale(jnp.asarray(t))) == 0:
            return jax.lax.cond(scale == 1, alone, mixed, x, t)
        return mixed(x, t)

    return guided


def _deviation_of(target: Array, x_0: Array, amount: float) -> Array:
    # x_0 times 1 or the ratio of deviations, or something between. One that is constant stays.
    axes = tuple(range(1, x_0.ndim))
    wanted, found = (values.std(axes, keepdims=True) for values in (target, x_0))
    ratio = jnp.where(found > 0, wanted / jnp.where(found > 0, found, 1), 1)
    return x_0 * (amount * ratio + (1 - amount))
