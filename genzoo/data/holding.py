"""Decoding a whole set at the start: in threads, with a progress bar, into memory if wanted.

Every record is decoded once, so that unreadable ones are known before the first step.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from genzoo.data.pixels import BadImage

MEMORY_LIMIT = 1 << 30
"""Bytes of decoded records up to which a set is held in memory, unless another limit is given."""


def decode_all(
    decode: Callable[[int], np.ndarray],
    count: int,
    shape: tuple[int, int, int],
    *,
    title: str,
    keep: bool,
) -> tuple[np.ndarray | None, dict[int, str]]:
    """(all records as uint8 [count, *shape], or None without `keep`; the problems).

    decode: index -> uint8 `shape`; called from several threads. title: of the progress bar. The
    problems give, by index, the reason for each record that failed with BadImage.
    """
    from tqdm import tqdm

    images = np.zeros((count, *shape), np.uint8) if keep else None
    problems: dict[int, str] = {}

    def one(index: int) -> None:
        try:
            pixels = decode(index)
        except BadImage as reason:
            problems[index] = str(reason)
            return
        if images is not None:
            images[index] = pixels

    threads = min(16, os.cpu_count() or 1)
    # Work is split into spans: one future per record would need more memory than small images.
    span = max(1, min(256, count // (4 * threads)))

    def many(start: int) -> int:
        stop = min(start + span, count)
        for index in range(start, stop):
            one(index)
        return stop - start

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        with tqdm(total=count, desc=title, unit="image", disable=None) as bar:
            for done in pool.map(many, range(0, count, span)):
                bar.update(done)
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt no further span starts
    return images, dict(sorted(problems.items()))
