"""The order of the data: pure, complete, independent of the batch size, and never changing."""

import numpy as np
import pytest

from genzoo.data import order


def philox_words(key: tuple[int, int], count: int) -> list[int]:
    """Philox-4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""
    mask, words = (1 << 64) - 1, []
    for block in range(1, count // 4 + 2):  # NumPy counts up before its first block
        c, k = [block, 0, 0, 0], list(key)
        for _ in range(10):
            a, b = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
            c = [(b >> 64) ^ c[1] ^ k[0], b & mask, (a >> 64) ^ c[3] ^ k[1], a & mask]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words += c
    return words[:count]


@pytest.mark.parametrize("seed, epoch, size", [(0, 0, 10), (7, 3, 101), (-1, 2, 33)])
def test_the_order_is_that_of_philox_written_out(seed, epoch, size):
    words = philox_words((seed & (2**64 - 1), epoch), size)
    expected = sorted(range(size), key=lambda i: words[i])
    np.testing.assert_array_equal(order.permutation(seed, epoch, size), expected)


@pytest.mark.parametrize("size", [1, 2, 17, 1000])
def test_every_epoch_is_a_permutation_and_no_two_are_alike(size):
    epochs = [order.permutation(5, epoch, size) for epoch in range(3)]
    for epoch in epochs:
        assert epoch.dtype == np.int64
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))
    if size > 10:
        assert not np.array_equal(epochs[0], epochs[1])
        assert not np.array_equal(epochs[0], order.permutation(6, 0, size))


def test_the_cached_order_cannot_be_spoilt():
    with pytest.raises(ValueError, match="read-only"):
        order.permutation(0, 0, 5)[0] = 3


@pytest.mark.parametrize("size, batch", [(10, 3), (10, 10), (7, 16), (5, 1), (100, 33)])
def test_the_stream_is_the_same_in_any_pieces(size, batch):
    whole = order.indices(3, 0, 200, size)
    pieces = [order.indices(3, start, batch, size) for start in range(0, 200 - batch, batch)]
    joined = np.concatenate(pieces)
    np.testing.assert_array_equal(joined, whole[: len(joined)])
    for epoch in range(200 // size):
        np.testing.assert_array_equal(
            whole[epoch * size : (epoch + 1) * size], order.permutation(3, epoch, size)
        )


def test_far_positions_cost_nothing():
    assert order.indices(0, 10**12, 4, 9).shape == (4,)
    assert order.indices(0, 5, 0, 9).shape == (0,)
