"""A guide and a classifier whose schedule differs from that of the guided model, on Gaussians;
also at noise levels that their schedule does not reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few
from test_guidance import LABEL, NONE, PARTS, X, assert_explains, classifier, gaussian, mixture

from genzoo.core import streams
from genzoo.math import continuous, schedules
from genzoo.samplers import guidance
from genzoo.samplers.loop import Sampler
from genzoo.samplers.runge_kutta import Heun

MAINS = {
    "straight": continuous.Straight(),
    "cosine": continuous.Cosine(),
    "zero-terminal table": schedules.rescaled_to_zero_terminal(schedules.linear(1000)),
}
THEIRS = {"vp": continuous.VariancePreserving(), "sub_vp": continuous.SubVariancePreserving()}
ELSEWHERE = [(main, theirs, np.float32) for main in MAINS for theirs in THEIRS]
ELSEWHERE = pytest.mark.parametrize(
    ("main", "theirs", "dtype"), few([*ELSEWHERE, ("straight", "vp", np.float64)], (0, 5))
)


def sampled(predict, schedule, dtype):
    """Samples by Heun's method from noise at t = 1, where alpha is 0, and that noise."""
    x, keys = jnp.asarray(X, dtype), streams.per_example(streams.root(0), jnp.arange(len(X)))
    times = np.append(np.linspace(1, schedule.nearest**0.5, 100) ** 2, 0)
    sampler = Sampler(step=Heun(schedule=schedule), times=times)
    return jax.jit(lambda x: sampler(predict, x, keys).x)(x)


@ELSEWHERE
def test_a_guide_on_another_schedule_leads_where_its_own_would(float64, main, theirs, dtype):
    # Two Gaussians of one deviation, mixed by equation (1), are the Gaussian of the mixed mean,
    # whose flow from pure noise is mean + deviation x. What is left is mostly that "pure noise" of
    # theirs still has a signal of 1 / 150: it was NaN.
    schedule, other, (mean, deviation), w = MAINS[main], THEIRS[theirs], LABEL, 2.5
    weaker = guidance.elsewhere(gaussian(other, NONE[0], deviation), schedule, other)
    predict = guidance.autoguided(gaussian(schedule, mean, deviation), weaker, w, schedule)
    samples = sampled(predict, schedule, dtype)
    assert samples.dtype == dtype
    expected = w * mean + (1 - w) * NONE[0] + deviation * X
    np.testing.assert_allclose(samples, expected, atol=4e-3)


@ELSEWHERE
def test_a_classifier_on_another_schedule_leads_to_its_class(float64, main, theirs, dtype):
    schedule, other, (mean, deviation) = MAINS[main], THEIRS[theirs], PARTS[0]
    predict = guidance.classifier_guided(
        mixture(schedule), classifier(other), 1.0, schedule, theirs=other
    )
    samples = sampled(predict, schedule, dtype)
    assert samples.dtype == dtype
    np.testing.assert_allclose(samples, mean + deviation * X, atol=2e-4)


@pytest.mark.parametrize("end", ["farthest", "nearest"])
def test_beyond_their_levels_the_pair_still_makes_up_x(float64, end):
    # Ours reaches further than theirs at both ends: sigma from 0.002 to 80, and from 0.05 to 20.
    ours = continuous.LinearNoise()
    theirs = continuous.VarianceExploding(sigma_min=0.05, sigma_max=20.0)
    predict = guidance.elsewhere(gaussian(theirs, *LABEL), ours, theirs)
    t = jnp.asarray(getattr(ours, end))
    x = X * float(jnp.hypot(1, ours.sigma(t)))
    seen, exact = predict(x, t), gaussian(ours, *LABEL)(x, t)
    assert_explains(ours, seen, x, float(t))
    np.testing.assert_allclose(seen.x_0, exact.x_0, atol=0.01)
