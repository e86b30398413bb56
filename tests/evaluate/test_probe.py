"""The linear probe against SciPy on the same objective; voting and neighbours by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from genzoo.evaluate import probe
from genzoo.evaluate.neighbours import METRICS, Neighbours, vote


def blobs(seed, count=90, spread=1.0):
    """(x [N, 4], labels [N]) around three corners."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    return 4.0 * np.eye(4)[labels] + spread * random.normal(size=(count, 4)), labels


FIT = jax.jit(probe.fit, static_argnames=("classes", "l2", "tolerance"))


def run(x, labels, **settings):
    return FIT(jnp.asarray(x), jnp.asarray(labels, jnp.int32), classes=3, **settings)


def test_the_solution_is_that_of_an_independent_solver(float64):
    x, labels = blobs(0, spread=3.0)
    found = run(x, labels, l2=0.01, tolerance=1e-9)

    def loss(flat):
        weights, bias = flat[:12].reshape(4, 3), flat[12:]
        logits = x @ weights + bias
        picked = logits[np.arange(len(x)), labels]
        return (logsumexp(logits, axis=1) - picked).mean() + 0.005 * (weights**2).sum()

    exact = minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(found.weights.ravel(), exact.x[:12], atol=1e-5)
    # Only differences of biases matter; both solvers start at zero and keep the sum at 0.
    np.testing.assert_allclose(found.bias, exact.x[12:], atol=1e-5)
    assert found.gradient < 1e-9 and found.iterations < 100
    slopes = jax.grad(probe.objective, argnums=(0, 1))(
        found.weights, found.bias, jnp.asarray(x), jnp.asarray(labels), 0.01
    )
    assert max(np.abs(s).max() for s in slopes) == pytest.approx(float(found.gradient), abs=1e-12)


def test_separable_blobs_are_told_apart_in_float32():
    x, labels = blobs(1, spread=0.3)
    x = probe.Standard.of(x)(x.astype(np.float32))
    found = run(x, labels, l2=1e-3)
    assert (np.asarray(probe.predict(found, jnp.asarray(x))) == labels).all()
    assert found.gradient <= 1e-5 and found.weights.dtype == jnp.float32


def test_labels_without_any_relation_are_guessed_by_the_commonest():
    labels = np.array([0] * 60 + [2] * 30)
    found = run(np.zeros((90, 4), np.float32), labels, l2=1e-3)
    assert (np.asarray(probe.predict(found, jnp.zeros((5, 4)))) == 0).all()
    shares = jax.nn.softmax(found.bias)
    np.testing.assert_allclose(shares, [2 / 3, 0, 1 / 3], atol=2e-4)


def test_standardising_leaves_what_is_constant_alone():
    x = np.random.default_rng(2).normal(size=(500, 3)) * [5, 0, 0.1] + [1, 2, 3]
    found = probe.Standard.of(x)(x)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(0), [1, 0, 1], atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("batch", [1, 7, 60])
def test_neighbours_in_batches_are_those_of_brute_force(metric, batch):
    random = np.random.default_rng(3)
    queries, candidates = random.normal(size=(5, 6)), random.normal(size=(60, 6))
    candidates[17] = 0
    found = Neighbours.none(5, 4)
    for start in range(0, 60, batch):
        rows = np.arange(start, min(start + batch, 60))
        found = found.with_batch(metric, queries, candidates[rows], rows)
    for i, q in enumerate(queries):
        if metric == "euclidean":
            exact = [np.sqrt(((q - x) ** 2).sum()) for x in candidates]
        else:
            lengths = [np.sqrt((q @ q) * (x @ x)) for x in candidates]
            exact = [1 - (q @ x) / n if n else 1 for x, n in zip(candidates, lengths, strict=True)]
        order = np.argsort(exact)[:4]
        np.testing.assert_array_equal(found.index[i], order)
        np.testing.assert_allclose(found.distance[i], np.array(exact)[order], rtol=1e-9)


def test_nobody_is_his_own_neighbour_and_many_queries_are_cut_into_blocks():
    x = np.random.default_rng(4).normal(size=(1500, 2)).astype(np.float32)
    rows = np.arange(len(x))
    found = Neighbours.none(len(x), 1).with_batch("euclidean", x, x, rows, own=rows)
    distance = np.abs(x[:, None] - x[None]).astype(np.float64)
    distance = np.sqrt(np.square(distance).sum(-1)) + 1e9 * np.eye(len(x))
    np.testing.assert_array_equal(found.index[:, 0], distance.argmin(1))


def test_too_few_candidates_leave_places_empty():
    found = Neighbours.none(1, 3).with_batch("euclidean", np.zeros((1, 2)), np.eye(2), np.arange(2))
    np.testing.assert_array_equal(found.index, [[0, 1, -1]])
    assert np.isinf(found.distance[0, 2])


def test_votes():
    labels = np.array([[1, 2, 2], [0, 1, 2], [2, 0, 0], [1, 1, 2]])
    np.testing.assert_array_equal(vote(labels, 3), [2, 0, 0, 1])
    even = np.array([[2, 1, 1, 2, 0], [0, 1, 1, 2, 2]])
    np.testing.assert_array_equal(vote(even, 3), [2, 1])
