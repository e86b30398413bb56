"""Bytes to floats and back, and flips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.data.transforms import flip, to_float, to_stored, to_uint8

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


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_is_floating_already_stays_as_it_is(compiled, dtype):
    points = jnp.array([[-3.5, 0.1], [2.0, 300.0]], dtype)
    seen = (jax.jit(to_float) if compiled else to_float)(points)
    assert seen.dtype == dtype
    np.testing.assert_array_equal(seen, points)
    np.testing.assert_array_equal(to_float(np.asarray(points)), points)
    # Labels and levels of other integer types are levels still.
    np.testing.assert_array_equal(to_float(LEVELS.astype(np.int32)), to_float(LEVELS))


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_images_are_stored_as_bytes_and_all_else_as_it_is(make):
    values = np.linspace(-3, 3, 24, dtype=np.float32)
    image = to_stored(make(values.reshape(2, 2, 3, 2)))
    assert image.dtype == np.uint8 and isinstance(image, type(make(values)))
    np.testing.assert_array_equal(image, to_uint8(values).reshape(2, 2, 3, 2))
    for shape in ((12, 2), (2, 4, 3)):
        stored = to_stored(make(values.reshape(shape)))
        assert stored.dtype == np.float32 and isinstance(stored, type(make(values)))
        np.testing.assert_array_equal(stored, values.reshape(shape))
    assert to_stored(jnp.ones((3, 2), jnp.bfloat16)).dtype == np.float32


def test_flips_mirror_about_half_of_the_images():
    images = jnp.arange(400 * 2 * 3 * 1).reshape(400, 2, 3, 1)
    flipped = np.asarray(jax.jit(flip)(images, jax.random.key(0)))
    original, mirrored = np.asarray(images), np.asarray(images)[:, :, ::-1]
    is_mirrored = (flipped == mirrored).all((1, 2, 3))
    np.testing.assert_array_equal(is_mirrored, ~(flipped == original).all((1, 2, 3)))
    assert 150 < is_mirrored.sum() < 250
    np.testing.assert_array_equal(flip(images, jax.random.key(0)), flipped)
