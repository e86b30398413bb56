"""Contrastive losses against independent NumPy code, and the values that equal logits give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit, log_softmax

from genzoo.math import contrastive


def units(count: int, seed: int, width: int = 6) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 256])
def test_equal_embeddings_give_the_values_of_chance(count):
    same = np.tile(units(1, 0), (count, 1))
    losses = contrastive.nt_xent(same, same, 0.5)
    np.testing.assert_allclose(losses, np.full(count, np.log(2 * count - 1)), atol=2e-6)
    losses = contrastive.info_nce(same, same, 14.3)
    np.testing.assert_allclose(losses, np.full(count, np.log(count)), atol=2e-6)
    losses = contrastive.pairwise_sigmoid(same, same, 0.0, 0.0)
    np.testing.assert_allclose(losses / count, np.full(count, np.log(2)), rtol=1e-6)


def test_published_constants():
    # reference: -log softmax over 2 * 256 - 1 equal logits
    same = np.tile(units(1, 0), (256, 1))
    losses = contrastive.nt_xent(same, same, 0.5)
    np.testing.assert_allclose(losses.mean(), 6.2363695902, rtol=1e-6)
    np.testing.assert_allclose(contrastive.START_SCALE, 2.6592600369, rtol=1e-10)
    np.testing.assert_allclose(contrastive.LARGEST_SCALE, 4.6051701860, rtol=1e-10)


def test_nt_xent_is_a_softmax_over_all_others():
    a, b = units(5, 1), units(5, 2)
    z = np.concatenate([a, b]).astype(np.float64)
    expected = np.zeros(10)
    for i in range(10):
        others = [k for k in range(10) if k != i]
        logs = log_softmax(z[others] @ z[i] / 0.3)
        expected[i] = -logs[others.index((i + 5) % 10)]
    losses = contrastive.nt_xent(a, b, 0.3)
    np.testing.assert_allclose(losses, (expected[:5] + expected[5:]) / 2, rtol=1e-5)


def test_info_nce_and_pairwise_sigmoid_against_numpy():
    a, b = units(5, 1), units(5, 2)
    logits = 9.0 * a.astype(np.float64) @ b.T
    rows, columns = log_softmax(logits, axis=1), log_softmax(logits, axis=0)
    expected = -(np.diag(rows) + np.diag(columns)) / 2
    np.testing.assert_allclose(contrastive.info_nce(a, b, 9.0), expected, rtol=1e-5)
    sign = 2 * np.eye(5) - 1
    expected = -log_expit(sign * (logits - 3.0)).sum(1)
    np.testing.assert_allclose(contrastive.pairwise_sigmoid(a, b, 9.0, -3.0), expected, rtol=1e-5)


@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_padding_is_not_compared(padding):
    a, b = units(3, 1), units(3, 2)
    filled = [np.concatenate([x, np.full((2, 6), padding, np.float32)]) for x in (a, b)]
    mask = jnp.asarray([1.0, 1, 1, 0, 0])
    for loss in (
        lambda a, b, mask=None: contrastive.nt_xent(a, b, 0.5, mask),
        lambda a, b, mask=None: contrastive.info_nce(a, b, 7.0, mask),
        lambda a, b, mask=None: contrastive.pairwise_sigmoid(a, b, 7.0, -1.0, mask),
        lambda a, b, mask=None: contrastive.matched(a, b, 1, mask),
    ):
        np.testing.assert_allclose(loss(*filled, mask)[:3], loss(a, b), rtol=1e-6)


def test_unit_vectors_and_their_gradient_at_zero():
    x = np.concatenate([np.zeros((1, 3)), 5 * units(2, 0, 3)]).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(contrastive.unit(x), axis=1), [0, 1, 1], atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: contrastive.unit(x).sum())(x)).all()


def test_the_scale_stops_at_its_bound_and_can_leave_it():
    value, most = jnp.float32(5.0), jnp.float32(4.6)
    assert contrastive.bounded(value, most) == most
    slope = jax.grad(lambda v, sign: sign * contrastive.bounded(v, most))
    assert slope(value, 1.0) == 1.0  # a step down
    assert slope(value, -1.0) == 0.0  # a step further up
    assert slope(jnp.float32(4.0), -1.0) == -1.0


def test_matches_count_nearer_embeddings_only():
    a = np.float32([[1, 0], [0, 1], [1, 0]])
    b = np.float32([[1, 0], [1, 0], [0.6, 0.8]])
    np.testing.assert_array_equal(contrastive.matched(a, b), [1, 0, 0])
    np.testing.assert_array_equal(contrastive.matched(a, b, 2), [1, 1, 0])
    np.testing.assert_array_equal(contrastive.matched(a, b, 3), [1, 1, 1])
