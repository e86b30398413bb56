"""Straight and spherical paths against rotations in a known plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.math import paths

T = np.linspace(0, 1, 11)


def plane(seed, width=6):
    """Two orthonormal vectors."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, 2)))
    return basis.T


@pytest.mark.parametrize("angle", [1e-3, 0.4, np.pi / 2, 2.5, np.pi - 1e-3])
def test_slerp_is_a_rotation_with_the_norm_going_linearly(compiled, float64, angle):
    u, w = plane(0)
    a, b = 2.0 * u, 5.0 * (np.cos(angle) * u + np.sin(angle) * w)
    actual = compiled(paths.slerp)(jnp.asarray(a), jnp.asarray(b), jnp.asarray(T))
    turned = np.cos(T * angle)[:, None] * u + np.sin(T * angle)[:, None] * w
    np.testing.assert_allclose(actual, (2 + 3 * T)[:, None] * turned, atol=1e-12)


def test_lerp_is_straight(compiled, float64):
    a, b = np.random.default_rng(1).normal(size=(2, 3, 4))
    actual = compiled(paths.lerp)(jnp.asarray(a), jnp.asarray(b), jnp.asarray(T))
    expected = np.stack([a + t * (b - a) for t in T], axis=1)
    np.testing.assert_allclose(actual, expected, atol=1e-14)


@pytest.mark.parametrize("path", [paths.lerp, paths.slerp], ids=lambda path: path.__name__)
def test_ends_are_exact_and_rows_do_not_touch_each_other(compiled, path):
    a, b = np.random.default_rng(2).normal(size=(2, 5, 7)).astype(np.float32)
    actual = compiled(path)(jnp.asarray(a), jnp.asarray(b), jnp.asarray(T, jnp.float32))
    assert actual.shape == (5, 11, 7)
    np.testing.assert_array_equal(actual[:, 0], a)
    np.testing.assert_array_equal(actual[:, -1], b)
    alone = compiled(path)(jnp.asarray(a[3]), jnp.asarray(b[3]), jnp.asarray(T, jnp.float32))
    np.testing.assert_allclose(alone, actual[3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0, -1.0, -2.0])
def test_slerp_of_zero_parallel_and_opposite_vectors_is_straight(compiled, factor):
    a = np.random.default_rng(3).normal(size=(1, 9)).astype(np.float32)
    t = jnp.asarray(T, jnp.float32)
    for one, other in ((a, factor * a), (factor * a, a)):
        actual = compiled(paths.slerp)(jnp.asarray(one), jnp.asarray(other), t)
        straight = one + np.asarray(t)[:, None] * (other - one)
        np.testing.assert_allclose(actual[0], straight, rtol=1e-5, atol=1e-6)


def test_slerp_in_float32_is_accurate_at_small_angles(compiled):
    u, w = plane(4)
    for angle in (3e-4, 4e-4, 1e-2):  # the first is taken for parallel
        b = (np.cos(angle) * u + np.sin(angle) * w).astype(np.float32)
        actual = compiled(paths.slerp)(
            jnp.asarray(u, jnp.float32), jnp.asarray(b), jnp.asarray([0.3], jnp.float32)
        )
        exact = np.cos(0.3 * angle) * u + np.sin(0.3 * angle) * w
        np.testing.assert_allclose(actual[0], exact, atol=3e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slopes_of_slerp_are_differences_and_finite_everywhere(float64, dtype):
    a, b = np.random.default_rng(5).normal(size=(2, 6))

    @jax.jit
    def slopes(a, b):
        def total(a, b):
            return (paths.slerp(a, b, jnp.asarray(T, dtype)) * jnp.asarray(weights, dtype)).sum()

        return jax.grad(total, argnums=(0, 1))(a.astype(dtype), b.astype(dtype))

    weights = np.random.default_rng(6).normal(size=(len(T), 6))
    step = 1e-6 * np.eye(6)
    difference = np.array(
        [((paths.slerp(a + d, b, T) - paths.slerp(a - d, b, T)) * weights).sum() for d in step]
    )
    rounding = 1e-8 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(slopes(a, b)[0], difference / 2e-6, rtol=rounding, atol=rounding)
    # Where the path is straight, so are its derivatives.
    straight = ((1 - T) @ weights, T @ weights)
    for one, other in ((a, a), (a, 3 * a), (a, -a), (a, 0 * a), (0 * a, a), (0 * a, 0 * a)):
        for actual, expected in zip(slopes(one, other), straight, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
