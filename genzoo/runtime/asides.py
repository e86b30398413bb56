"""What libraries log while they fail.

When a checkpoint cannot be written, Orbax raises an exception for us to handle, and logs some two
hundred lines of tracebacks from its threads beside it; so do asyncio and the pool of threads that
it uses. These lines are kept back. They are shown only with an exception that we cannot explain.
"""

import collections
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Iterator

_LIBRARIES = {"absl", "asyncio", "concurrent"}  # Orbax and Grain log as absl
_MOST = 50  # records kept


class Asides:
    """Keeps the last records that libraries have logged."""

    def __init__(self):
        self._kept: collections.deque[str] = collections.deque(maxlen=_MOST)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is not one of a library, which is kept. For a handler of logging."""
        if record.name.partition(".")[0] not in _LIBRARIES:
            return True
        self._kept.append(logging.Formatter("%(name)s: %(message)s\n").format(record))
        return False

    def keep(self, failure: tuple) -> None:
        """Keeps an exception that nobody caught: (its type, the exception, its traceback, ...)."""
        self._kept.append("".join(traceback.format_exception(*failure[:3])))

    def text(self) -> str:
        """All that was kept."""
        return "".join(self._kept)


@contextlib.contextmanager
def kept_aside() -> Iterator[Asides]:
    """A context in which genzoo logs bare messages to standard error, libraries log aside, and
    exceptions that nobody catches are kept, too."""
    asides, handler = Asides(), logging.StreamHandler(sys.stderr)
    handler.addFilter(asides)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    hooks = threading.excepthook, sys.unraisablehook, sys.excepthook
    threading.excepthook = sys.unraisablehook = asides.keep
    # Code in C++ prints what its callbacks raise by this hook, as TensorStore does.
    sys.excepthook = lambda *failure: asides.keep(failure)
    try:
        yield asides
    finally:
        threading.excepthook, sys.unraisablehook, sys.excepthook = hooks
