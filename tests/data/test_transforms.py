"""Conversion of bytes to floats and back, and random flips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.data.transforms import coin, mirrored, to_float, to_uint8

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


def test_those_of_the_coin_are_mirrored_about_half():
    images = np.arange(400 * 2 * 3 * 1).reshape(400, 2, 3, 1)
    which = np.asarray(coin(jax.random.key(0), 400))
    assert which.shape == (400,) and 150 < which.sum() < 250
    flipped = np.asarray(jax.jit(mirrored)(images, which))
    np.testing.assert_array_equal(flipped[which], images[which][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~which], images[~which])
