"""Decoding a whole set at the start: in threads, with a progress bar, into memory if wanted.

Every record is decoded once, so that unreadable ones are known before the first step.
"""

import os
import queue
import threading
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from genzoo.data.pixels import BadImage
from genzoo.runtime.progress import Progress

MEMORY_LIMIT = 1 << 30
"""Bytes of decoded records up to which a set is held in memory, unless another limit is given."""


class Decoded(NamedTuple):
    """N decoded records. images: uint8 [N, *shape], or None if they are not kept. checksums: the
    CRC-32 of each, uint32 [N]. problems: by index, why a record is unusable."""

    images: np.ndarray | None
    checksums: np.ndarray
    problems: dict[int, str]


def decode_all(
    decode: Callable[[int], np.ndarray],
    count: int,
    shape: tuple[int, int, int],
    *,
    title: str,
    keep: bool,
) -> Decoded:
    """Decodes records 0 to count - 1. keep: whether the images are kept.

    decode: index -> uint8 `shape`; called from several threads. It raises BadImage for an unusable
    record; any other error is raised here. title: of the progress bar.
    """

    images = np.zeros((count, *shape), np.uint8) if keep else None
    checksums = np.zeros(count, np.uint32)
    problems: dict[int, str] = {}

    def one(index: int) -> None:
        try:
            pixels = decode(index)
        except BadImage as reason:
            problems[index] = str(reason)
            return
        checksums[index] = zlib.crc32(np.ascontiguousarray(pixels))
        if images is not None:
            images[index] = pixels

    count_threads = min(16, os.cpu_count() or 1)
    # Work is split into spans: handing over single records would take longer than small images.
    span = max(1, min(256, count // (4 * count_threads)))
    starts = iter(range(0, count, span))  # `next` of it is atomic
    ended: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        try:
            for start in starts:
                end = min(start + span, count)
                for index in range(start, end):
                    if stop.is_set():
                        return
                    one(index)
                ended.put(end - start)
        except BaseException as error:
            ended.put(error)

    # Daemons, since one that waits for a disk must not keep an interrupted process alive.
    threads = [
        threading.Thread(target=work, name="decode", daemon=True) for _ in range(count_threads)
    ]
    for thread in threads:
        thread.start()
    try:
        with Progress(count, title, "image") as bar:
            left = count
            while left:
                done = ended.get()
                if isinstance(done, BaseException):
                    raise done
                left -= done
                bar.update(done)
    finally:
        stop.set()
        for thread in threads:
            thread.join(1.0)
    return Decoded(images, checksums, dict(sorted(problems.items())))
