"""What several processes that run one program decide alike.

Every function here is to be called by all processes in the same order; with one process each is
what it would be without the others.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from genzoo.core.errors import UserError

_ROOM = 4096  # bytes of a message that travel; all processes must send as many
T = TypeVar("T")


def alone() -> bool:
    """Whether there is no other process. Asks no device: some modes choose them later."""
    return not jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this is the process that writes what there is one of: logs, pictures, manifests."""
    return jax.process_index() == 0


def agreed(work: Callable[[], T]) -> T:
    """What `work` gives in this process. Where it ends in a UserError in one process, it does so in
    all of them: none goes on to wait for one that has left."""
    if alone():
        return work()
    result, problems = None, ()
    try:
        result = work()
    except UserError as error:
        problems = error.problems
    said = np.zeros(_ROOM, np.uint8)
    text = "\n".join(problems).encode()[:_ROOM]
    said[: len(text)] = np.frombuffer(text, np.uint8)
    for row in multihost_utils.process_allgather(said):
        if row.any():
            text = bytes(row[row > 0]).decode(errors="ignore")
            raise UserError(*text.split("\n"), agreed=True)
    return result


def by_first(work: Callable[[], object]) -> None:
    """`work` done by the first process alone, the others waiting for it; its UserError is
    everybody's."""
    agreed(lambda: work() if is_first() else None)


def of_first(work: Callable[[], int]) -> int:
    """The int32 that `work` gives in the first process."""
    found = agreed(lambda: work() if is_first() else 0)
    if alone():
        return found
    return int(multihost_utils.broadcast_one_to_all(np.int32(found)))
