"""The order of the training data: a pure function of (seed, epoch, position).

The endless stream of a run consists of epochs, each a permutation of the whole set. Position p
is place p % size of epoch p // size; nothing is dropped and batches may span two epochs. The step
is therefore the only iterator state of a run, and the order does not depend on the batch size or
the number of processes.
"""

import functools

import numpy as np

_WORD = (1 << 64) - 1


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch: int64 [size], read-only.

    NumPy guarantees that the raw stream of a bit generator never changes, but does not guarantee
    this for `Generator.permutation`; hence a stable argsort of 64-bit words of Philox(seed, epoch).
    """
    # A plain list of one large and one small number would go through float64 and lose bits.
    key = np.array([seed & _WORD, epoch & _WORD], np.uint64)
    words = np.random.Philox(key=key).random_raw(size)
    order = np.argsort(words, kind="stable")
    order.setflags(write=False)  # every caller gets the same array from the cache
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
