"""Stopping on SIGTERM or SIGINT at a point on which all processes of a run agree.

A signal may reach only one process, or each at a different moment. If each acted on its own, one
would save while another waits for it in the next step. With several processes a signal therefore
only sets a flag, and every pass of a loop combines the flags of all processes on the devices. Work
that is due by the clock, which differs between processes, is agreed on in the same way: as wishes.
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
    """A context in which a signal ends the work by raising `Interrupted`: at once if there is
    nothing to save or to agree on, otherwise when a loop checks for it. A second SIGINT always ends
    it at once."""

    def __init__(self):
        self.number: int | None = None  # the signal that this process received
        self.granted: tuple[int, ...] = ()  # see `reached`
        self._agreed: int | None = None
        self._pending: jax.Array | None = None
        self._gentle = 0
        self.several = False  # whether there are other processes, which must agree on a signal

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
        """A context in which a signal takes effect only when a loop checks for it."""
        self._gentle += 1
        try:
            yield
        finally:
            self._gentle -= 1

    def reached(self, *wishes: int) -> int | None:
        """The signal on which all processes must stop now, or None. Call it once per pass.

        wishes: integers of at least 0, the same number of them from every process. The maximum of
        each over all processes becomes `granted`. With several processes both results are those of
        the previous pass, so that the devices run the next step while the host waits for the flags.
        A wish may therefore be granted once more than needed.
        """
        if not self.several:
            self.granted = wishes
            return self.number
        if self._agreed is None:
            before, self._pending = self._pending, self._joined(*wishes)
            # The first pass has no earlier answer, and no step to overlap with.
            number, *granted = np.asarray(self._pending if before is None else before).tolist()
            self.granted = (*granted, *[0] * len(wishes))[: len(wishes)]
            self._agreed = number or None
        return self._agreed

    def check(self) -> None:
        """Raises Interrupted in all processes if any of them received a signal. For loops that
        already wait for every result."""
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
