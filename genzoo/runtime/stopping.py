"""Stopping on SIGTERM or SIGINT at a point on which all processes of a run agree.

A signal may reach only one process, or each at a different moment. If each acted on its own, one
would save while another waits for it in the next step. With several processes a signal therefore
only sets a flag (`Signals.number`), and every pass of a loop combines the flags of all processes on
the devices. Work that is due by the clock, which differs between processes, is agreed on in the
same way: as wishes.
"""

import contextlib
import math
from collections.abc import Callable
from functools import cached_property
from typing import NoReturn

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genzoo.core.errors import Interrupted
from genzoo.runtime.signals import Signals


class Stop:
    """When the loops of a run must stop. signals: those of this process; by default it gets none.

    A single process ends by itself at a signal, except in the contexts `gently`.
    """

    def __init__(self, signals: Signals | None = None):
        self.signals = signals or Signals()
        self.granted: tuple[int, ...] = ()  # see `reached`
        self.several = False  # whether there are other processes, which must agree on a signal
        self._agreed: int | None = None
        self._pending: jax.Array | None = None

    def among_several(self) -> None:
        """Says that there are other processes: from now on a signal takes effect only when all
        processes check for it."""
        self.several = True
        self.signals.hold()

    def gently(self) -> contextlib.AbstractContextManager[None]:
        """A context in which a signal takes effect only when a loop checks for it."""
        return self.signals.held()

    def interruptible(
        self, leave: Callable[[int], object], alone_after: float = math.inf
    ) -> contextlib.AbstractContextManager[None]:
        """A context, within `gently`, for work that may take long or hang and changes no state.

        leave: saves and raises Interrupted, given the number of the signal. Another thread calls it
        soon after a signal. With several processes it is not called, because none can save without
        the others; this process ends alone after `alone_after` seconds.
        """
        if not self.several:
            return self.signals.interruptible(leave)
        return self.signals.interruptible(_leave_alone, alone_after)

    def reached(self, *wishes: int) -> int | None:
        """The signal on which all processes must stop now, or None. Call it once per pass.

        wishes: integers of at least 0, the same number of them from every process. The maximum of
        each over all processes becomes `granted`. With several processes both results are those of
        the previous pass, so that the devices run the next step while the host waits for the flags.
        A wish may therefore be granted once more than needed.
        """
        if not self.several:
            self.granted = wishes
            return self.signals.number
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
        number = self._agreed if self.several else self.signals.number
        if number is not None:
            raise Interrupted(number)

    def _joined(self, *wishes: int) -> jax.Array:
        own = np.int32([self.signals.number or 0, *wishes])
        local = np.tile(own, (jax.local_device_count(), 1))
        everywhere = (jax.device_count(), local.shape[1])
        return self._most(jax.make_array_from_process_local_data(self._each, local, everywhere))

    @cached_property
    def _each(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))

    @cached_property
    def _most(self):
        whole = NamedSharding(self._each.mesh, PartitionSpec())
        return jax.jit(lambda flags: flags.max(0), out_shardings=whole)


def _leave_alone(number: int) -> NoReturn:
    raise Interrupted(number, agreed=False)
