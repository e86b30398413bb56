"""Predictors, and wrappers that turn one predictor into another: clipping and thresholding.

A predictor is a function (x_t [B, ...], t [] or [B]) -> Prediction. This module knows no network: a
family supplies a predictor, and a test supplies an exact denoiser.

Wrappers apply in this order, from the inside out: guidance (guidance.py), which may leave the range
of the data; clipping or thresholding, which restores it; the known part (inpainting.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from genzoo.core.types import Count, Examples, Times, broadcast
from genzoo.math import prediction
from genzoo.math.schedules import Schedule


class Prediction(NamedTuple):
    """The data and the noise predicted from x_t. extra: the network's variance output, if any."""

    x_0: Examples
    eps: Examples
    extra: Examples | None = None

    @property
    def pair(self) -> prediction.Pair:
        """The prediction without `extra`, for conversions between kinds."""
        return prediction.Pair(self.x_0, self.eps)


Predict = Callable[[Examples, Times], Prediction]
Rows = Callable[[Times], Count]
"""t [] or [B] -> the network rows that a prediction at t takes per example: int32 []."""


def one_row(t: Times) -> Count:
    """One row: a prediction without guidance."""
    del t
    return jnp.ones((), jnp.int32)


Wrapper = Callable[[Predict, Schedule], Predict]


def _with_x_0(
    schedule: Schedule, seen: Prediction, x_0: Examples, x_t: Examples, t: Times
) -> Prediction:
    return Prediction(*prediction.pair_of_x_0(x_0, x_t, schedule, t), extra=seen.extra)


def unchanged(predict: Predict, schedule: Schedule) -> Predict:
    """The predictor itself."""
    del schedule
    return predict


def clipped(predict: Predict, schedule: Schedule) -> Predict:
    """x_0 clipped to [-1, 1], with eps made consistent with it (Ho et al. 2020)."""

    def predict_clipped(x: Examples, t: Times) -> Prediction:
        seen = predict(x, t)
        return _with_x_0(schedule, seen, jnp.clip(seen.x_0, -1, 1), x, t)

    return predict_clipped


def dynamic_threshold(quantile: float = 0.995, largest: float = jnp.inf) -> Wrapper:
    """Dynamic thresholding: x_0 clipped to [-q, q] per example and divided by q.

    q is the given quantile of |x_0| in the example, limited to [1, largest] (Saharia et al. 2022,
    section 2.3).
    """

    def wrap(predict: Predict, schedule: Schedule) -> Predict:
        def predict_thresholded(x: Examples, t: Times) -> Prediction:
            seen = predict(x, t)
            size = jnp.abs(seen.x_0).reshape(seen.x_0.shape[0], -1)
            q = jnp.clip(jnp.quantile(size, quantile, axis=-1), 1, largest)
            q = broadcast(q, seen.x_0)
            return _with_x_0(schedule, seen, jnp.clip(seen.x_0, -q, q) / q, x, t)

        return predict_thresholded

    return wrap
