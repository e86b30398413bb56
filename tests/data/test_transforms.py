"""Bytes to floats and back, and flips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.data.transforms import flip, to_float, to_uint8

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("compiled", [False, True])
def test_all_levels_survive(compiled):
    there, back = (jax.jit(to_float), jax.jit(to_uint8)) if compiled else (to_float, to_uint8)
    floats = there(LEVELS)
    assert floats.dtype == jnp.float32 and floats[0] == -1 and floats[-1] == 1
    assert back(floats).dtype == jnp.uint8
    np.testing.assert_array_equal(back(floats), LEVELS)
    in_numpy = to_uint8(np.asarray(floats))
    assert isinstance(in_numpy, np.ndarray)
    np.testing.assert_array_equal(in_numpy, LEVELS)


def test_values_outside_are_clipped_and_others_rounded():
    values = np.array([-7.0, -1.0, -1 + 0.51 / 127.5, 0.999, 1.0, 3.0])
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 1, 255, 255, 255])
    np.testing.assert_array_equal(to_uint8(jnp.asarray(values)), [0, 0, 1, 255, 255, 255])


def test_flips_mirror_about_half_of_the_images():
    images = jnp.arange(400 * 2 * 3 * 1).reshape(400, 2, 3, 1)
    flipped = np.asarray(jax.jit(flip)(images, jax.random.key(0)))
    original, mirrored = np.asarray(images), np.asarray(images)[:, :, ::-1]
    is_mirrored = (flipped == mirrored).all((1, 2, 3))
    np.testing.assert_array_equal(is_mirrored, ~(flipped == original).all((1, 2, 3)))
    assert 150 < is_mirrored.sum() < 250
    np.testing.assert_array_equal(flip(images, jax.random.key(0)), flipped)
