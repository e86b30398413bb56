"""The order of the training data: a pure function of (seed, epoch, position).

The endless stream of a run is epoch after epoch, each a permutation of the whole set. Position p
lies in epoch p // size at place p % size; nothing is dropped and batches may span two epochs. So a
run needs no iterator state but its step, and the batch size or the number of processes changes
nothing of the order.
"""

import functools

import numpy as np

_WORD = (1 << 64) - 1


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch: int64 [size], read-only.

    NumPy promises that the raw stream of a bit generator never changes, and promises no such thing
    of `Generator.permutation`; hence a stable argsort of 64-bit words of Philox(seed, epoch).
    """
    # A plain list of one large and one small number would go through float64 and lose bits.
    key = np.array([seed & _WORD, epoch & _WORD], np.uint64)
    words = np.random.Philox(key=key).random_raw(size)
    order = np.argsort(words, kind="stable")
    order.setflags(write=False)  # the cache hands the same array to every caller
    return order


def indices(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """The records at positions start .. start + count - 1 of the endless stream: int64 [count]."""
    if size < 1:
        raise ValueError("An empty data set has no order.")
    parts = []
    position, end = start, start + count
    while position < end:
        epoch, place = divmod(position, size)
        part = permutation(seed, epoch, size)[place : place + end - position]
        parts.append(part)
        position += len(part)
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
