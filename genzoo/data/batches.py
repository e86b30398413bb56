"""Batches of uint8 records on the host: an endless shuffled stream, and one pass in order.

Step k of the stream is a pure function of (seed, batch_size, k), so a run resumes from its step
alone. When several processes train together, each reads its own rows of the same global batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genzoo.core.errors import UserError
from genzoo.data import order
from genzoo.data.source import ArraySource, Records, Source

_ENDLESS = 1 << 62  # steps; Grain wants a length, and this is the power of two below sys.maxsize


def fits_in_memory(source: Source) -> bool:
    """Whether the whole set is held in memory, so that it can be put on the device."""
    return isinstance(source, ArraySource)


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """The stream as a random-access sequence of batches, which Grain reads ahead in threads."""

    source: Source
    seed: int
    batch_size: int
    rows: np.ndarray

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, step: int) -> Records:
        start = step * self.batch_size
        batch = order.indices(self.seed, start, self.batch_size, len(self.source))
        return self.source.read(batch[self.rows])


def train_batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    read_ahead: int = 2,
    threads: int | None = None,
) -> Iterator[Records]:
    """The batches of steps start_step, start_step + 1, ... without end.

    batch_size: examples in the global batch. rows: the rows that this process reads; None for all.
    read_ahead: batches prepared in advance by `threads` background threads, at least one per thread
    (by default 1 thread for a set in memory, otherwise 8; 0 reads in the caller).

    Yields every field of the R records, such as `x` [R, ...] and `label` int32 [R]. Errors of the
    source are raised here. `close()` of the iterator ends the threads.
    """
    rows = _checked_rows(rows, batch_size)
    if len(source) == 0:
        raise UserError(f"{source.name} holds no examples to train on.")
    if threads is None:
        threads = 1 if fits_in_memory(source) else 8
    steps = _Steps(source=source, seed=seed, batch_size=batch_size, rows=rows)
    return _read(steps, start_step, threads, max(read_ahead, threads))


def _read(steps: _Steps, start: int, threads: int, buffer: int) -> Iterator[Records]:
    import grain  # takes over a second to import, and only training needs it

    batches = grain.MapDataset.source(steps)[start:].to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
    )
    reader = iter(batches)
    try:
        yield from reader
    finally:
        reader.close()


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    count: int | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[Records]:
    """The first `count` examples (None for all), once, in their original order.

    Every batch has `batch_size` rows, of which only `rows` are read if they are given. The last
    batch is padded by repeating the last example. Besides the fields a batch has `index` int32, the
    position in the set, and `mask` float32, 1 for an example and 0 for padding.
    """
    rows = _checked_rows(rows, batch_size)
    total = len(source) if count is None else min(count, len(source))
    if total < 1:
        raise UserError(f"{source.name} holds no examples to evaluate.")
    return _pass(source, batch_size, total, rows)


def _pass(source: Source, batch_size: int, total: int, rows: np.ndarray) -> Iterator[Records]:
    for start in range(0, total, batch_size):
        places = start + rows
        index = np.minimum(places, total - 1)
        yield {
            **source.read(index),
            "index": index.astype(np.int32),
            "mask": (places < total).astype(np.float32),
        }


def _checked_rows(rows: Sequence[int] | None, batch_size: int) -> np.ndarray:
    if batch_size < 1:
        raise UserError(f"The batch size is {batch_size}: it must be at least 1.")
    if rows is None:
        return np.arange(batch_size)
    rows = np.asarray(rows)
    if not len(rows) or rows.min() < 0 or rows.max() >= batch_size:
        raise ValueError(f"Rows {rows} do not lie in a batch of {batch_size}.")
    return rows
