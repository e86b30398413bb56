"""Wrappers of predictors: clipping and dynamic thresholding against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import StraightLine, every_schedule, few

from genzoo.samplers.predictor import (
    Prediction,
    clipped,
    dynamic_threshold,
    unchanged,
)

SCHEDULES = pytest.mark.parametrize(
    "schedule", few(every_schedule(), (0, 4)), ids=lambda s: type(s).__name__
)
TIME = 0.6
X = np.random.default_rng(0).normal(size=(3, 4, 4, 2))
EXTRA = np.random.default_rng(1).normal(size=X.shape)


def affine(schedule, scale):
    """x_0 = scale x_t, with the matching noise."""

    def predict(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Prediction(scale * x, (1 - alpha * scale) * x / sigma, jnp.asarray(EXTRA))

    return predict


def explains(schedule, seen):
    """x_t recomputed from the prediction."""
    alpha, sigma = (float(f(jnp.float64(TIME))) for f in (schedule.alpha, schedule.sigma))
    return alpha * np.asarray(seen.x_0) + sigma * np.asarray(seen.eps)


@SCHEDULES
def test_clipped_is_the_clipped_data_and_the_noise_that_explains_x_t(compiled, float64, schedule):
    seen = compiled(clipped(affine(schedule, 1.5), schedule))(X, jnp.float64(TIME))
    np.testing.assert_allclose(seen.x_0, np.clip(1.5 * X, -1, 1), rtol=1e-12)
    np.testing.assert_allclose(explains(schedule, seen), X, rtol=1e-9)
    np.testing.assert_array_equal(seen.extra, EXTRA)


@SCHEDULES
def test_clipping_leaves_a_prediction_within_range_alone(compiled, float64, schedule):
    inner = affine(schedule, 0.1)
    seen, before = (
        compiled(p)(X, jnp.float64(TIME)) for p in (clipped(inner, schedule), inner)
    )
    np.testing.assert_allclose(seen.x_0, before.x_0, rtol=1e-12)
    np.testing.assert_allclose(seen.eps, before.eps, rtol=1e-9)


@SCHEDULES
@pytest.mark.parametrize(("quantile", "largest"), [(0.9, np.inf), (0.995, 1.3), (0.5, np.inf)])
def test_dynamic_threshold_is_imagens(compiled, float64, schedule, quantile, largest):
    # Saharia et al. 2022, section 2.3, one example at a time.
    size = np.array([0.05, 1.0, 3.0])[:, None, None, None]
    wrap = dynamic_threshold(quantile, largest)
    seen = compiled(wrap(affine(schedule, 1.5), schedule))(X * size, jnp.float64(TIME))
    for row, x_0 in zip(1.5 * X * size, np.asarray(seen.x_0), strict=True):
        s = min(max(np.quantile(np.abs(row), quantile), 1), largest)
        np.testing.assert_allclose(x_0, np.clip(row, -s, s) / s, rtol=1e-12)
    np.testing.assert_allclose(explains(schedule, seen), X * size, rtol=1e-9)


def test_unchanged_is_the_predictor_itself():
    predict = affine(StraightLine(), 0.3)
    assert unchanged(predict, StraightLine()) is predict
