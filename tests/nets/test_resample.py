"""FIR resampling against SciPy's upfirdn, and the identities that define it."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import upfirdn

from genzoo.nets.parts.layers import double, halve
from genzoo.nets.parts.resample import fir_double, fir_halve, fir_smooth

TAPS = [(1, 3, 3, 1), (1, 1), (1, 5, 10, 10, 5, 1), (-1, 3, 3, -1)]
SIZES = [(12,), (8, 12), (2, 4, 6)]
QUICK = [*(((12,), taps) for taps in TAPS), ((8, 12), TAPS[0]), ((2, 4, 6), TAPS[2])]
EACH = pytest.mark.parametrize(
    ("size", "taps"),
    [
        pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product(SIZES, TAPS)
    ],
)


def drawn(size, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(dtype)


def along_each_axis(x, filtered):
    for axis in range(1, x.ndim - 1):
        x = np.apply_along_axis(filtered, axis, x)
    return x


@EACH
def test_they_are_scipy_upfirdn(size, taps):
    x, h, k = drawn(size, np.float64), np.asarray(taps) / np.sum(taps), len(taps)

    def halved(row):
        return upfirdn(h, row, down=1)[k // 2 :][: len(row) : 2]

    def doubled(row):
        return upfirdn(2 * h, row, up=2)[k // 2 - 1 :][: 2 * len(row)]

    def smoothed(row):
        return upfirdn(h, row)[k // 2 - 1 :][: len(row) + 1]

    with jax.enable_x64(True):
        for ours, theirs in ((fir_halve, halved), (fir_double, doubled), (fir_smooth, smoothed)):
            expected = along_each_axis(x, theirs)
            np.testing.assert_allclose(ours(x, taps), expected, atol=1e-12, err_msg=ours.__name__)


@pytest.mark.parametrize("size", SIZES)
def test_two_taps_are_means_and_copies(size):
    x = jnp.asarray(drawn(size))
    np.testing.assert_allclose(fir_halve(x, (1, 1)), halve(x), atol=1e-6)
    np.testing.assert_array_equal(fir_double(x, (1, 1)), double(x))


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("resample", [fir_halve, fir_double, fir_smooth])
def test_a_constant_map_stays_constant_away_from_the_edges(resample, taps):
    x = jnp.full((1, 16, 20, 2), 3.0)
    edge = len(taps) // 2
    inside = jax.jit(resample, static_argnums=1)(x, taps)[:, edge:-edge, edge:-edge]
    assert inside.size
    np.testing.assert_allclose(inside, 3.0, rtol=1e-6)


def test_outside_of_a_map_there_are_zeros():
    x = jnp.ones((1, 4, 1))
    np.testing.assert_allclose(fir_halve(x, (1, 3, 3, 1))[0, :, 0], [7 / 8, 7 / 8])
    ends = fir_double(x, (1, 3, 3, 1))[0, :, 0]
    np.testing.assert_allclose(ends, [3 / 4, 1, 1, 1, 1, 1, 1, 3 / 4])


@EACH
def test_doubling_is_the_adjoint_of_halving(size, taps):
    with jax.enable_x64(True):
        x = jnp.asarray(drawn(size, np.float64))
        y = jnp.cos(fir_halve(x, taps))
        transposed, = jax.linear_transpose(lambda x: fir_halve(x, taps), x)(y)
        chex.assert_trees_all_close(fir_double(y, taps), 2 ** len(size) * transposed, atol=1e-12)
        inner = jnp.vdot(y, fir_halve(x, taps)), jnp.vdot(fir_double(y, taps), x) / 2 ** len(size)
        np.testing.assert_allclose(*inner, rtol=1e-12)


@pytest.mark.parametrize("taps", [(1, 2, 1), (1, 2)])
def test_taps_that_have_no_middle_between_two_positions_are_refused(taps):
    with pytest.raises(ValueError, match="symmetric"):
        fir_halve(jnp.ones((1, 4, 1)), taps)
