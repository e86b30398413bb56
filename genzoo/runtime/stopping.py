"""SIGTERM and SIGINT as a request that all processes of a run read alike, and so do wishes.

A signal reaches one process and not the others, or each at another moment. If each acted on its
own, one would save while another waits for it in the next step. So in several processes a signal
only raises a flag, and at every pass of a loop the flags of all are joined on the devices. What is
due by the clock, which no two processes read alike, travels with them.
"""

import contextlib
import signal
from collections.abc import Iterator
from functools import cached_property
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genzoo.core.errors import Interrupted

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """While in force, a signal ends the work by `Interrupted`: at once where nothing is to be
    saved or agreed on, else where a loop asks. A second SIGINT ends it at once in any case."""

    def __init__(self):
        self.number: int | None = None  # the signal that this process was sent
        self.granted: tuple[int, ...] = ()  # see `reached`
        self._agreed: int | None = None
        self._pending: jax.Array | None = None
        self._gentle = 0
        self.several = False  # whether other processes take part: a signal waits to be agreed on

    def __enter__(self) -> "Stop":
        self._before = {n: signal.signal(n, self._set) for n in _NUMBERS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: FrameType | None):
        if number == signal.SIGINT and self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        if not self._gentle and not self.several:
            raise Interrupted(number, agreed=False)

    @contextlib.contextmanager
    def gently(self) -> Iterator[None]:
        """Within, a signal waits until a loop asks for it."""
        self._gentle += 1
        try:
            yield
        finally:
            self._gentle -= 1

    def reached(self, *wishes: int) -> int | None:
        """The signal that all processes are to stop for now, or None. To be asked once a pass.

        wishes: whole numbers, at least 0, as many from every process; the greatest of each is then
        `granted` to all processes alike. In several processes both answers are those of the pass
        before: so the devices have the next step to do while the host waits for the flags, which
        come after the step before. A wish may thus be granted once more than it was needed.
        """
        if not self.several:
            self.granted = wishes
            return self.number
        if self._agreed is None:
            before, self._pending = self._pending, self._joined(*wishes)
            # At the first pass there is nothing to keep busy.
            number, *granted = np.asarray(self._pending if before is None else before).tolist()
            self.granted = (*granted, *[0] * len(wishes))[: len(wishes)]
            self._agreed = number or None
        return self._agreed

    def check(self) -> None:
        """Raises Interrupted in all processes alike where one was told to stop. For loops that wait
        for every result anyway."""
        if self.several and self._agreed is None:
            self._agreed = int(self._joined()[0]) or None
        number = self._agreed if self.several else self.number
        if number is not None:
            raise Interrupted(number)

    def _joined(self, *wishes: int) -> jax.Array:
        local = np.tile(np.int32([self.number or 0, *wishes]), (jax.local_device_count(), 1))
        everywhere = (jax.device_count(), local.shape[1])
        return self._most(jax.make_array_from_process_local_data(self._each, local, everywhere))

    @cached_property
    def _each(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))

    @cached_property
    def _most(self):
        whole = NamedSharding(self._each.mesh, PartitionSpec())
        return jax.jit(lambda flags: flags.max(0), out_shardings=whole)
