"""Quantisers without a codebook against their definitions, all codes written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.math import implicit_codes


@pytest.mark.parametrize("steps", [(8, 5, 5, 5), (8, 6, 5), (4, 3), (7,), (256, 3)])
def test_every_code_of_a_grid_of_steps_has_its_index(steps):
    count = int(np.prod(steps))
    index = jnp.arange(count)
    codes = np.asarray(implicit_codes.scalar_code(index, steps))
    assert codes.shape == (count, len(steps)) and len(np.unique(codes, axis=0)) == count
    np.testing.assert_array_equal(implicit_codes.scalar_index(codes, steps), index)
    # The first channel changes fastest, and each has its steps at equal distances.
    for channel, size in enumerate(steps):
        expected = (np.arange(size) - size // 2) / (size // 2)
        np.testing.assert_allclose(np.unique(codes[:, channel]), expected, atol=1e-7)
    period = np.arange(count) // np.cumprod([1, *steps])[-2] % steps[-1]
    np.testing.assert_allclose(codes[:, -1] * (steps[-1] // 2), period - steps[-1] // 2, atol=1e-4)


@pytest.mark.parametrize("steps", [(8, 5, 5, 5), (4, 3), (256,)])
def test_bounded_vectors_round_to_every_step_and_to_no_other(steps):
    z = np.arctanh(np.linspace(-1 + 1e-9, 1 - 1e-9, 200_001))[:, None].repeat(len(steps), 1)
    bounded = np.asarray(implicit_codes.bounded_scalars(jnp.asarray(z, jnp.float32), steps))
    halves = np.array([size // 2 for size in steps])
    rounded = np.round(bounded * halves)
    for channel, size in enumerate(steps):
        expected = np.arange(size) - size // 2
        np.testing.assert_array_equal(np.unique(rounded[:, channel]), expected)
    assert (np.diff(bounded, axis=0) >= -1e-5).all()
    index = implicit_codes.scalar_index(bounded, steps)
    codes = implicit_codes.scalar_code(index, steps)
    np.testing.assert_allclose(codes * halves, rounded, atol=1e-4)


def test_zero_is_bounded_to_zero():
    zero = implicit_codes.bounded_scalars(jnp.zeros((1, 4)), (8, 5, 4, 3))
    np.testing.assert_allclose(zero, 0, atol=1e-6)
    # d b / d z = h (1 - tanh^2) = h - o^2 / h there.
    gradient = jax.grad(lambda z: implicit_codes.bounded_scalars(z, (8, 5)).sum())(jnp.zeros(2))
    h = np.array([7, 4]) * 0.999 / 2
    np.testing.assert_allclose(gradient, (h - np.array([0.5, 0]) ** 2 / h) / [4, 2], rtol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 5, 18])
def test_signs_are_the_bits_of_the_index(width):
    z = np.random.default_rng(0).normal(size=(50, width)).astype(np.float32)
    index = np.asarray(implicit_codes.sign_index(z))
    bits = [sum(1 << i for i, value in enumerate(row) if value > 0) for row in z]
    np.testing.assert_array_equal(index, bits)
    np.testing.assert_array_equal(implicit_codes.sign_code(index, width), np.sign(z))


def softmax_choice(z: np.ndarray, temperature: float) -> np.ndarray:
    """p(c | z) of every code, from squared distances: [N, K], the lowest bit changing fastest."""
    width = z.shape[-1]
    codes = np.array(list(itertools.product([-1, 1], repeat=width)))[:, ::-1]
    logits = -np.square(z[:, None] - codes).sum(-1).astype(np.float64) / temperature
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_the_soft_choice_is_the_softmax_of_all_distances(width):
    z = np.random.default_rng(1).normal(size=(4, 5, width)).astype(np.float32)
    p = softmax_choice(z.reshape(-1, width), 0.7)
    entropy = -(p * np.log(p)).sum(-1).reshape(4, 5)
    np.testing.assert_allclose(implicit_codes.choice_entropy(z, 0.7), entropy, rtol=1e-4)
    np.testing.assert_allclose(implicit_codes.mean_choice(z, 0.7), p.mean(0), rtol=1e-4)
    loss = implicit_codes.entropy_loss(z, 0.7)
    mean = p.mean(0)
    np.testing.assert_allclose(
        loss, entropy.mean(1) + (mean * np.log(mean)).sum(), rtol=1e-4, atol=1e-6
    )
    # Padding has no part, whatever it holds.
    padded = np.concatenate([z, np.full_like(z[:2], np.nan)])
    masked = implicit_codes.entropy_loss(padded, 0.7, jnp.array([1.0, 1, 1, 1, 0, 0]))
    np.testing.assert_allclose(masked[:4], loss, rtol=1e-5)


def test_the_loss_is_least_for_sure_vectors_that_use_all_codes():
    corners = np.array(list(itertools.product([-9, 9], repeat=3)), np.float32)[:, None]
    assert implicit_codes.entropy_loss(corners, 0.1).mean() == pytest.approx(-3 * np.log(2))
    same = jnp.full((8, 1, 3), 9.0)
    assert implicit_codes.entropy_loss(same, 0.1).mean() == pytest.approx(0, abs=1e-6)
    unsure = jnp.zeros((8, 1, 3))
    assert implicit_codes.entropy_loss(unsure, 0.1).mean() == pytest.approx(0, abs=1e-6)


def test_gradients_are_finite_where_probabilities_underflow():
    z = jnp.array([[[300.0, -300.0]], [[300.0, 1e-3]], [[0.0, 0.0]]])
    gradient = jax.grad(lambda z: implicit_codes.entropy_loss(z, 0.01).sum())(z)
    assert np.isfinite(gradient).all()
