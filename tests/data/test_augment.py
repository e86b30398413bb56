"""Augmentation against flips, turns and rolls by NumPy, analytic warps and exact statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from genzoo.core import streams
from genzoo.data.augment import Augmentation, Operations, vectors_of, warp

NAMES = ("x_flip", "y_flip", "scale", "angle", "stretch", "direction")
RNG = np.random.default_rng(0)


AUGMENTATION = Augmentation(p=0.6)
augment = jax.jit(AUGMENTATION)


@jax.jit
def apply(x, done):
    """Compiled once for all tests; the call is also tested without compilation."""
    return Augmentation().apply(x, done)


def images(*shape):
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def operations(count, **given):
    """The given operations, the same for all `count` examples; all others are off."""
    nothing = {name: np.zeros(count, np.float32) for name in NAMES}
    nothing |= {name: np.zeros(count, bool) for name in NAMES[:2]}
    nothing |= {"shift": np.zeros((count, 2), np.float32)}
    done = {k: np.broadcast_to(v, nothing[k].shape).astype(nothing[k].dtype)
            for k, v in given.items()}  # fmt: skip
    return jax.tree.map(jnp.asarray, Operations(**(nothing | done)))


def waves(x, y, height, width):
    """A smooth image at any position: cosines that are even about the first and the last pixel, so
    that extending the image by reflection continues the same cosines."""
    first = np.cos(2 * np.pi * x / (width - 1)) * np.cos(np.pi * y / (height - 1))
    second = np.cos(np.pi * x / (width - 1)) + np.cos(2 * np.pi * y / (height - 1))
    return np.stack([first, second / 2], -1)


def places(height, width):
    """(x, y) of every pixel relative to the middle, [H, W, 2], and the middle."""
    middle = np.array([width - 1, height - 1]) / 2
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], -1) - middle, middle


def stack(cases):
    """Several `operations` as one batch."""
    each = [operations(1, **case) for case in cases]
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), *each)


@pytest.mark.parametrize("height, width, channels", [(16, 16, 1), (15, 18, 3)])
def test_flips_turns_and_whole_shifts_are_numpys(height, width, channels):
    x, edge = images(height, width, channels), 45
    wide = np.pad(x, ((edge, edge), (edge, edge), (0, 0)), mode="reflect")

    def shifted(right, down):
        rolled = np.roll(wide, (down, right), (0, 1))[edge:-edge, edge:-edge]
        return {"shift": np.array([right / width, down / height]) / 0.125}, rolled, 2e-4

    cases = [  # operations, expected result, tolerance
        ({}, x, 0),
        ({"x_flip": True}, x[:, ::-1], 0),
        ({"y_flip": True}, x[::-1], 0),
        ({"x_flip": True, "y_flip": True}, x[::-1, ::-1], 0),
        ({"angle": np.pi}, x[::-1, ::-1], 2e-5),
        ({"angle": np.pi, "x_flip": True}, x[::-1], 2e-5),
        shifted(3, 0),
        shifted(0, -2),
        shifted(-4, 5),
        shifted(40, -33),  # up to the third reflection
    ]
    if height == width:  # anticlockwise on screen
        cases += [({"angle": k * np.pi / 2}, np.rot90(x, k), 2e-5) for k in (1, -1)]
    seen = np.asarray(apply(np.stack(len(cases) * [x]), stack([done for done, _, _ in cases])))
    for image, (done, expected, tolerance) in zip(seen, cases, strict=True):
        np.testing.assert_allclose(image, expected, rtol=0, atol=tolerance, err_msg=str(done))


def matrix(angle=0.0, along=1.0, across=1.0):
    """The stretch by `along` in the anticlockwise direction `angle`, and by `across` across it."""
    e, n = np.array([np.cos(angle), -np.sin(angle)]), np.array([np.sin(angle), np.cos(angle)])
    return along * np.outer(e, e) + across * np.outer(n, n)


def turn(angle):
    """The matrix of an anticlockwise rotation on screen, where y points down."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


# (operations, matrix and shift from old to new positions, tolerance)
WARPS = [
    ({"scale": 1.5}, 2**0.3 * np.eye(2), (0, 0), 1e-3),
    ({"scale": -1.5}, 2**-0.3 * np.eye(2), (0, 0), 1e-2),
    ({"angle": 0.8}, turn(0.8), (0, 0), 1e-3),
    ({"stretch": 1.0}, np.diag([2**0.2, 2**-0.2]), (0, 0), 1e-2),
    ({"stretch": 1.0, "direction": np.pi / 2}, np.diag([2**-0.2, 2**0.2]), (0, 0), 1e-2),
    ({"stretch": 1.0, "direction": 0.6}, matrix(0.6, 2**0.2, 2**-0.2), (0, 0), 1e-2),
    ({"shift": [0.3, -0.7]}, np.eye(2), (0.0375, -0.0875), 1e-3),
    (
        {"scale": 0.8, "angle": -2.0, "stretch": -0.7, "direction": 1.9, "shift": [0.4, -1.3]},
        matrix(1.9, 2**-0.14, 2**0.14) @ turn(-2.0) * 2**0.16,
        (0.05, -0.1625),
        1e-2,
    ),
]


def test_each_operation_and_all_together_are_the_analytic_warp():
    height, width = 29, 36
    q, middle = places(height, width)
    x = waves(*np.moveaxis(q + middle, -1, 0), height, width).astype(np.float32)
    seen = np.asarray(apply(np.stack(len(WARPS) * [x]), stack([done for done, *_ in WARPS])))
    for image, (done, forward, shift, tolerance) in zip(seen, WARPS, strict=True):
        p = (q - np.array(shift) * [width, height]) @ np.linalg.inv(forward).T + middle
        expected = waves(p[..., 0], p[..., 1], height, width)
        np.testing.assert_allclose(image, expected, rtol=0, atol=tolerance, err_msg=str(done))
        assert np.abs(expected - x).max() > 0.1


def test_stripes_too_fine_for_a_shrunken_image_vanish():
    # Plain interpolation would sample every second stripe and give all black or all white. The
    # wider kernel has a zero at this frequency, because it reproduces polynomials (Strang and Fix).
    stripes = np.broadcast_to((-1.0) ** np.arange(32)[:, None], (1, 32, 32, 1)).astype(np.float32)
    x = np.concatenate([stripes, np.ones_like(stripes)])
    seen = jax.jit(warp)(x, jnp.asarray([2.0, 7.0])[:, None, None] * jnp.eye(2), jnp.zeros((2, 2)))
    np.testing.assert_allclose(seen[0], 0, atol=1e-5)
    np.testing.assert_allclose(seen[1], 1, atol=1e-5)


def test_vectors_mean_what_was_done():
    done = operations(
        1, x_flip=True, scale=0.5, angle=2.0, stretch=-1.5, direction=0.25, shift=[[3.0, 4.0]]
    )
    expected = [1, 0, 0.5, np.cos(2) - 1, np.sin(2), -1.5 * np.cos(0.25), -1.5 * np.sin(0.25), 3, 4]
    np.testing.assert_allclose(vectors_of(done)[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(vectors_of(operations(2, y_flip=True)), 2 * [[0, 1] + 7 * [0]])
    np.testing.assert_array_equal(vectors_of(operations(2)), np.zeros((2, 9)))


@pytest.mark.parametrize("call", [AUGMENTATION, augment], ids=["plain", "jit"])
def test_the_call_is_what_its_parts_are(call):
    x, key = images(6, 9, 8, 3), jax.random.key(7)
    seen, vectors = call(x, key)
    drawn = AUGMENTATION.draw(streams.per_example(key, jnp.arange(6)))
    np.testing.assert_allclose(seen, apply(x, drawn), atol=1e-5)
    np.testing.assert_allclose(vectors, vectors_of(drawn), atol=1e-6)
    assert vectors.shape == (6, Augmentation.vector_size)
    assert vectors.dtype == jnp.float32 and seen.dtype == jnp.float32
    # The vector of an example is zero if and only if it is unchanged bit for bit.
    touched = np.asarray(vectors != 0).any(1)
    np.testing.assert_array_equal(touched, (np.asarray(seen) != x).any((1, 2, 3)))
    assert set(touched) == {True, False}


def test_no_probability_is_no_change():
    x = images(6, 9, 8, 3)
    seen, vectors = Augmentation(p=0.0, mirror_all=False)(x, jax.random.key(0))
    np.testing.assert_array_equal(seen, x)
    np.testing.assert_array_equal(vectors, np.zeros((6, 9)))


def test_parameters_follow_their_laws():
    count, p = 20000, 0.3
    drawn = jax.jit(Augmentation(p=p).draw)(jax.random.split(jax.random.key(1), count))
    drawn = jax.tree.map(np.asarray, drawn)
    done = {name: getattr(drawn, name) != 0 for name in NAMES} | {"shift": drawn.shift[:, 0] != 0}
    odds = {name: p for name in done} | {"x_flip": 0.5, "y_flip": p / 2, "direction": p / 2}
    for name, probability in odds.items():
        spread = np.sqrt(probability * (1 - probability) / count)
        assert abs(done[name].mean() - probability) < 4 * spread, name
    for values in (drawn.scale, drawn.stretch, *drawn.shift.T):
        assert kstest(values[values != 0], "norm").pvalue > 1e-3
    for values in (drawn.angle, drawn.direction):
        assert kstest(values[values != 0] / np.pi, "uniform", (-1, 2)).pvalue > 1e-3
    # Shifts are along both axes or neither, and directions need a stretch; the rest is independent.
    np.testing.assert_array_equal(done["shift"], drawn.shift[:, 1] != 0)
    assert not (done["direction"] & ~done["stretch"]).any()
    alone = [done[name] for name in ("x_flip", "y_flip", "scale", "angle", "stretch", "shift")]
    values = [drawn.scale, drawn.angle, drawn.stretch, *drawn.shift.T]
    for columns in (alone, values):
        correlations = np.corrcoef(np.asarray(columns, np.float64))
        assert np.abs(correlations - np.eye(len(columns))).max() < 5 / np.sqrt(count)


def test_the_scale_of_an_image_is_log_normal():
    # The actual scale factor of the images, measured on a ramp.
    ramp = np.broadcast_to((np.arange(33) - 16)[None, :, None], (33, 33, 1)).astype(np.float32)
    drawn = operations(200)._replace(scale=jax.random.normal(jax.random.key(5), (200,)))
    seen = apply(np.broadcast_to(ramp, (200, 33, 33, 1)), drawn)
    factors = 2 / np.asarray(seen[:, 16, 17, 0] - seen[:, 16, 15, 0])
    assert kstest(np.log2(factors) / 0.2, "norm").pvalue > 1e-3


def test_rows_have_randomness_of_their_own():
    key = jax.random.key(2)
    x = np.repeat(images(1, 9, 8, 3), 6, 0)
    seen, vectors = augment(x, key)
    assert len(np.unique(np.asarray(vectors), axis=0)) == 6
    fewer = AUGMENTATION.draw(streams.per_example(key, jnp.arange(4)))
    np.testing.assert_allclose(vectors_of(fewer), vectors[:4], atol=1e-6)
    changed = x.copy()
    changed[1] = 0
    beside, _ = augment(changed, key)
    others = np.arange(6) != 1
    np.testing.assert_array_equal(beside[others], seen[others])
    assert not np.array_equal(augment(x, jax.random.key(3))[1], vectors)


def test_all_spatial_fields_of_a_record_are_changed_alike():
    both = Augmentation(p=0.6, fields=("x", "hint"))
    x, key = images(40, 12, 12, 3), jax.random.key(4)
    batch = {"x": x, "hint": x[..., :1], "low": x[:, ::2, ::2], "label": np.arange(40)}
    changed, vectors = jax.jit(both.records)(batch, key)
    alone, told = augment(x, key)
    np.testing.assert_allclose(changed["x"], alone, atol=1e-5)
    np.testing.assert_allclose(vectors, told, atol=1e-6)
    np.testing.assert_allclose(changed["hint"], changed["x"][..., :1], atol=1e-5)
    for name in ("low", "label"):
        np.testing.assert_array_equal(changed[name], batch[name])


def test_a_field_of_another_size_is_moved_by_the_same_part_of_its_sides():
    y, x = np.mgrid[:32, :32] / 32
    wave = np.sin(2 * np.pi * x) * np.cos(2 * np.pi * (y - 0.2)) + 0.3 * x
    fine = np.tile(wave.astype(np.float32)[None, :, :, None], (60, 1, 1, 1))
    means = fine.reshape(60, 16, 2, 16, 2, 1).mean((2, 4))
    both = Augmentation(p=0.5, scale=0.1, stretch=0.1, shift=0.06, fields=("x", "low"))
    changed, _ = jax.jit(both.records)({"x": fine, "low": means}, jax.random.key(0))
    after = np.asarray(changed["x"]).reshape(60, 16, 2, 16, 2, 1).mean((2, 4))
    inside = np.abs(after - changed["low"])[:, 5:-5, 5:-5]
    assert inside.max() < 0.03 and np.abs(after - means)[:, 5:-5, 5:-5].max() > 0.5
