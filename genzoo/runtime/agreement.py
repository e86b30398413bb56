"""Decisions on which all processes of one run must agree.

All processes must call these functions, and in the same order. With a single process each function
reduces to a plain call.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from genzoo.core.errors import UserError

_ROOM = 4096  # bytes per message; every process sends the same number
T = TypeVar("T")


def alone() -> bool:
    """Whether this is the only process. Touches no device: some modes choose devices later."""
    return not jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process writes the shared outputs: logs, pictures, manifests."""
    return jax.process_index() == 0


def agreed(work: Callable[[], T]) -> T:
    """The result of `work` in this process. If one process raises a UserError, all of them do, so
    that none is left waiting for a process that has gone."""
    if alone():
        return work()
    result, problems = None, ()
    try:
        result = work()
    except UserError as error:
        problems = error.problems
    message = np.zeros(_ROOM, np.uint8)
    text = "\n".join(problems).encode()[:_ROOM]
    message[: len(text)] = np.frombuffer(text, np.uint8)
    for row in multihost_utils.process_allgather(message):
        if row.any():
            text = bytes(row[row > 0]).decode(errors="ignore")
            raise UserError(*text.split("\n"), agreed=True)
    return result


def by_first(work: Callable[[], object]) -> None:
    """Runs `work` in the first process while the others wait. If it raises a UserError, all
    processes do."""
    agreed(lambda: work() if is_first() else None)


def of_first(work: Callable[[], int]) -> int:
    """The int32 that `work` returns in the first process."""
    value = agreed(lambda: work() if is_first() else 0)
    if alone():
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
