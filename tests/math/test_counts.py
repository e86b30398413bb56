"""Word counts: the multinomial against SciPy, and the forms in which networks see counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, log_softmax
from scipy.stats import multinomial

from genzoo.core import streams
from genzoo.math import counts

RNG = np.random.default_rng(0)
X = RNG.poisson(1.5, (5, 6)).astype(np.float32)
LOGITS = RNG.normal(size=(3, 5, 6)).astype(np.float32)


def test_the_multinomial_is_scipys_up_to_its_coefficient():
    model = counts.Multinomial()
    terms = model.log_prob({}, jnp.asarray(LOGITS), jnp.asarray(X))  # [3, 5, 6]
    p = np.exp(log_softmax(LOGITS.astype(np.float64), axis=-1))
    coefficient = gammaln(X.sum(-1) + 1) - gammaln(X + 1).sum(-1)
    for k in range(3):
        for i in range(5):
            exact = multinomial(X[i].sum(), p[k, i]).logpmf(X[i]) - coefficient[i]
            assert float(terms[k, i].sum()) == pytest.approx(exact, rel=1e-5)
    np.testing.assert_allclose(model.mean({}, LOGITS), p, rtol=1e-5)
    assert model.outputs(6) == 6 and not model.density
    np.testing.assert_array_equal(model.observe(X, X), X)
    np.testing.assert_allclose(model.inputs(X), np.log(1 + X), rtol=1e-6)


def test_samples_are_single_words_with_the_probabilities_of_the_mean():
    keys = streams.per_example(jax.random.key(0), jnp.arange(20_000))
    logits = np.broadcast_to(LOGITS[0, 0], (len(keys), 6))
    drawn = np.asarray(counts.Multinomial().sample({}, logits, keys))
    assert (drawn.sum(-1) == 1).all() and set(np.unique(drawn)) == {0.0, 1.0}
    p = np.exp(log_softmax(LOGITS[0, 0]))
    np.testing.assert_allclose(drawn.mean(0), p, atol=4 * 0.5 / 20_000**0.5)


def test_the_cross_entropy_is_per_word():
    log_p = log_softmax(LOGITS[0].astype(np.float64), axis=-1)
    expected = -(X * log_p).sum(-1) / X.sum(-1)
    np.testing.assert_allclose(counts.cross_entropy(X, LOGITS[0]), expected, rtol=1e-5)
    # Its minimum over all logits is the entropy of the words of the document.
    x = np.array([[2.0, 1.0, 1.0]], np.float32)
    at_best = counts.cross_entropy(x, np.log(x))
    np.testing.assert_allclose(at_best, 1.5 * np.log(2), rtol=1e-6)


def test_logarithms_of_unit_length():
    x = np.array([[1, 3, 0], [0, 0, 0]], np.float32)
    expected = np.array([[1, 2, 0], [0, 0, 0]]) / 5**0.5
    np.testing.assert_allclose(counts.log_scaled(x), expected, rtol=1e-6)
    slopes = jax.grad(lambda x: counts.log_scaled(x).sum())(jnp.asarray(x))
    assert np.isfinite(slopes).all()
    empty = np.zeros((1, 3), np.float32)
    assert float(counts.cross_entropy(empty, empty)[0]) == 0
