"""SIGTERM and Ctrl-C: how they end this process.

A Python signal handler runs in the main thread, between two bytecodes. It therefore does not run
while that thread is in C code, such as a compilation or a read that hangs, and an exception that it
raises may land in a callback of JAX or of the garbage collector, which swallows it, or in C++ code,
which crashes. So no exception is raised here. The handler in C, which runs at once whatever the
main thread does, writes the number of the signal to a socket (`signal.set_wakeup_fd`). A thread
that reads this socket ends the process with `os._exit`, which skips everything that could hang or
crash. That loses nothing: whatever is written to disk survives a kill at any moment.

Only training has something to lose, the steps since its last checkpoint. It holds the end back
(`held`) until its loop has saved them. Where its main thread waits for something that may take long
or hang, it says how the watching thread can save in its place (`interruptible`). With several
processes one signal must end all of them, so that the end is always held back until they agree.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

from genzoo.core.errors import Interrupted, ending

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_CLOSE = 0  # no signal has this number
_POLL = 0.05  # seconds between looks at the main thread, once a signal has come
_LEAVE_AFTER = 0.5  # seconds that the main thread has before the watching thread saves instead
_TIDY = 1.0  # seconds for closing files and threads after the end is no longer held back
_STDERR = 2


class Signals:
    """The signals of this process, from `start` to `close` or the end of the process.

    A signal ends the process at once with exit code 75 (SIGTERM) or 130 (Ctrl-C) unless something
    holds the end back; then `number` tells loops to stop. A second signal always ends it at once.
    Only one may be started at a time, and only in the main thread. One that is not started, such as
    that of a notebook, receives nothing.
    """

    def __init__(self):
        self.number: int | None = None  # the first signal received
        self._holds = 0
        self._received_at = self._entered_at = 0.0
        self._free_at: float | None = None  # when the end was first seen not to be held back
        self._leave: Callable[[int], object] | None = None
        self._leave_after = _LEAVE_AFTER
        self._turn = threading.Lock()  # held by whoever may use or donate the state of a run
        self._outcome: tuple[int, str] | None = None  # exit code and message, once they are known

    def __enter__(self) -> "Signals":
        self.start()
        return self

    def __exit__(self, *_):
        self.close()

    def start(self) -> None:
        """Handles the signals from now on, except those that this process was started to ignore, as
        shells start the background jobs of a script."""
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # Without a handler in Python there is none in C.
        heard = [n for n in _NUMBERS if signal.getsignal(n) != signal.SIG_IGN]
        self._before = {n: signal.signal(n, lambda number, frame: None) for n in heard}
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Gives the signals back to whoever handled them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        self._writer.send(bytes([_CLOSE]))
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def hold(self) -> None:
        """Holds the end back until the main thread ends the process by itself."""
        self._holds += 1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A context that holds the end back. After it, the process has a second to end by itself;
        an exception that leaves it decides how it ends."""
        self._holds += 1
        try:
            yield
        except BaseException as error:
            self.settle(*ending(error)[:2])
            raise
        finally:
            self._holds -= 1

    @contextlib.contextmanager
    def interruptible(
        self, leave: Callable[[int], object], after: float = _LEAVE_AFTER
    ) -> Iterator[None]:
        """A context, within `held`, in which the main thread may be busy for long.

        If it still is `after` seconds after both a signal and its entry, another thread calls
        `leave(number)`, which saves and raises, and the process ends. The main thread must not
        change what is saved, and it cannot leave the context meanwhile.
        """
        with self._turn:
            self._leave, self._leave_after = leave, after
            self._entered_at = time.monotonic()
        try:
            yield
        finally:
            with self._turn:
                self._leave = None

    def settle(self, code: int, message: str = "") -> None:
        """Fixes the exit code of the process, and what remains to be said, for the case that its
        end hangs or is hastened by a signal."""
        self._outcome = code, message

    def leave(self) -> None:
        """Ends the process with its exit code, if that is settled.

        To be called last: Python would first give the signals back to their default actions, and
        one that comes then would end finished work with an exit code of its own.
        """
        if self._outcome is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self._outcome[0])

    def _watch(self) -> None:
        while True:
            self._reader.settimeout(None if self.number is None else _POLL)
            try:
                numbers = self._reader.recv(64)
            except TimeoutError:
                numbers = b""
            for number in numbers:
                if number == _CLOSE:
                    return
                if number in _NUMBERS:
                    self._receive(number)
            if self.number is not None:
                self._look()

    def _receive(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.number is not None:
            _exit(
                Interrupted(number).code,
                f"genzoo: Ended at once by a second signal, {name}; what had been saved is kept.",
            )
        self._received_at = time.monotonic()
        self.number = number
        if not self._holds:
            self._end()
        _say(
            f"genzoo: {name}: the run stops after the current step, batch or compilation. A second "
            "signal ends it at once."
        )

    def _look(self) -> None:
        """Ends the process if the main thread has had its time."""
        now = time.monotonic()
        if not self._holds:
            self._free_at = self._free_at or now
            if now - self._free_at > _TIDY:
                self._end()
            return
        self._free_at = None
        waited = now - max(self._received_at, self._entered_at)
        if self._leave is None or waited < self._leave_after:
            return
        if self._turn.acquire(blocking=False):
            if self._leave is None:
                self._turn.release()
                return
            # Not by this thread, which watches for a second signal. The turn is never given back.
            leave, self._leave = self._leave, None
            threading.Thread(target=self._leave_by, args=[leave], daemon=True).start()

    def _leave_by(self, leave: Callable[[int], object]) -> None:
        try:
            leave(self.number)
        except BaseException as error:
            self.settle(*ending(error)[:2])
        self._end()

    def _end(self) -> None:
        _exit(*(self._outcome or ending(Interrupted(self.number))[:2]))


def _exit(code: int, text: str) -> None:
    if text:
        _say(text)
    os._exit(code)


def _say(text: str) -> None:
    """Writes to standard error, past Python's buffer and its lock, which a main thread that cannot
    write would hold; nothing if it would block."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [_STDERR], [], 0)[1]:
            os.write(_STDERR, f"{text}\n".encode())
