"""Predictors, and what wraps a predictor into a predictor: clipping, thresholding, guidance.

A predictor is a function (x_t [B, ...], t []) -> Prediction. Nothing here knows a network: a
family hands one over, a test hands over an exact denoiser.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Array, broadcast
from genzoo.math import prediction
from genzoo.math.schedules import Schedule


class Prediction(NamedTuple):
    """What is believed of one x_t. extra: the variance output where the network has one."""

    x_0: Array
    eps: Array
    extra: Array | None = None


Predict = Callable[[Array, Array], Prediction]
Wrapper = Callable[[Predict, Schedule], Predict]


def _with_x_0(schedule: Schedule, seen: Prediction, x_0: Array, x_t: Array, t: Array) -> Prediction:
    return Prediction(*prediction.pair_of_x_0(x_0, x_t, schedule, t), extra=seen.extra)


def unchanged(predict: Predict, schedule: Schedule) -> Predict:
    """The predictor as it is."""
    del schedule
    return predict


def clipped(predict: Predict, schedule: Schedule) -> Predict:
    """x_0 clipped to [-1, 1], eps made consistent with it (Ho et al. 2020)."""

    def predict_clipped(x, t):
        seen = predict(x, t)
        return _with_x_0(schedule, seen, jnp.clip(seen.x_0, -1, 1), x, t)

    return predict_clipped


def dynamic_threshold(quantile: float = 0.995, largest: float = jnp.inf) -> Wrapper:
    """x_0 clipped per example to [-q, q] and divided by q, where q in [1, largest] is the given
    quantile of |x_0| (Saharia et al. 2022, section 2.3)."""

    def wrap(predict: Predict, schedule: Schedule) -> Predict:
        def predict_thresholded(x, t):
            seen = predict(x, t)
            size = jnp.abs(seen.x_0).reshape(seen.x_0.shape[0], -1)
            q = jnp.clip(jnp.quantile(size, quantile, axis=-1), 1, largest)
            q = broadcast(q, seen.x_0)
            return _with_x_0(schedule, seen, jnp.clip(seen.x_0, -q, q) / q, x, t)

        return predict_thresholded

    return wrap


def classifier_free(
    conditional: Predict, unconditional: Predict, guidance_scale: float, schedule: Schedule
) -> Predict:
    """unconditional + guidance_scale (conditional - unconditional) in eps; 1 is off, 0 is
    unconditional (Ho & Salimans 2022, whose w is guidance_scale - 1).

    x_0 is mixed in the same way, which is the same as solving for it, and holds at alpha = 0 too.
    """
    del schedule

    def predict(x, t):
        with_label, without = conditional(x, t), unconditional(x, t)
        x_0, eps = (
            off + guidance_scale * (on - off)
            for on, off in ((with_label.x_0, without.x_0), (with_label.eps, without.eps))
        )
        return Prediction(x_0, eps, with_label.extra)

    return predict
