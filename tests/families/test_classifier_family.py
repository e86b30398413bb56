"""The classifier with networks whose outputs are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core.contract import Context, Encodes, Variables, capabilities
from genzoo.families.classifier import PENULTIMATE, Classifier
from genzoo.math import continuous, times

SCHEDULE = continuous.VariancePreserving()


class Linear:
    """logits = x w - time / 1000; its features are x."""

    def __init__(self):
        self.seen = []

    def init(self, key, x, time, conditions):
        return {"w": jnp.eye(x.shape[-1])}

    def apply(self, params, x, time, conditions, *, train=False, key=None):
        self.seen.append((x, time, train))
        return x @ params["w"] + jnp.zeros_like(time)[:, None]

    def features(self, params, x, time, conditions, names):
        assert names == (PENULTIMATE,)
        self.seen.append((x, time, False))
        return None, {PENULTIMATE: 2 * x}


def make(**changes):
    parts = {
        "network": Linear(), "schedule": SCHEDULE, "times": times.UniformTimes(), "noisy": False
    }  # fmt: skip
    return Classifier(**{**parts, **changes})


def context_of(x, labels, train=True):
    return Context(
        batch={"x": x, "label": labels}, key=jax.random.key(0), step=jnp.int32(0), stats={},
        train=train,
    )  # fmt: skip


def test_a_plain_classifier_scores_what_it_sees():
    family = make()
    params = family.init(jax.random.key(0), {"x": jnp.zeros((1, 3))}).params
    x, labels = jnp.eye(3) * 4, jnp.asarray([0, 1, 0])
    losses, aux = family.loss(params, context_of(x, labels))
    expected = np.log(np.exp(4.0) + 2) - np.array([4.0, 4.0, 0.0])
    np.testing.assert_allclose(losses, expected, rtol=1e-6, atol=1e-6)  # sums of logits of 4
    np.testing.assert_array_equal(aux.metrics["accuracy"], [1, 1, 0])
    seen, time, train = family.network.seen[-1]
    np.testing.assert_array_equal(seen, x)
    assert not np.any(time) and train


def test_a_noisy_classifier_is_shown_every_level_and_told_it():
    family = make(noisy=True)
    x, labels = jnp.zeros((4000, 3)), jnp.zeros(4000, jnp.int32)
    _, aux = family.loss({"w": jnp.eye(3)}, context_of(x, labels))
    seen, time, _ = family.network.seen[-1]
    sigma = np.asarray(SCHEDULE.sigma(time / 1000))
    scaled = np.asarray(seen) / sigma[:, None]
    assert abs(scaled.std() - 1) < 0.02
    assert 0 < time.min() < 10 and 990 < time.max() <= 1000
    shares = [aux.metrics[f"accuracy_q{q}"].weights.mean() for q in range(4)]
    np.testing.assert_allclose(shares, 0.25, atol=0.03)


def test_guidance_gets_the_log_probability_at_its_time():
    family = make(noisy=True)
    x, labels = jnp.asarray([[1.0, 2.0, 0.0]]), jnp.asarray([1])
    of = family.log_prob({"w": jnp.eye(3)}, labels)
    assert float(of(x, jnp.float32(0.3))[0]) == pytest.approx(
        2 - np.log(np.exp(1) + np.exp(2) + 1), rel=1e-5
    )
    np.testing.assert_allclose(family.network.seen[-1][1], [300], rtol=1e-6)


def test_the_representation_is_what_goes_into_the_last_layer():
    family = make()
    assert isinstance(family, Encodes) and capabilities(family) == ("encode",)
    x = jnp.ones((2, 3))
    keys = jax.random.split(jax.random.key(0), 2)
    features = family.encode(Variables(params={}), {"x": x}, keys)
    np.testing.assert_array_equal(features, 2 * x)
    assert not np.any(family.network.seen[-1][1])
