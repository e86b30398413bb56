"""Exceptions that end a run with a message instead of a traceback."""

import difflib
import signal
from collections.abc import Iterable, Sequence

_LISTED = 10  # problems listed one by one; the rest are counted


class UserError(Exception):
    """A mistake in a config, a file or the environment. Its text is printed as it is; exit code 2.

    The text is one or two sentences that name the key or the file and give a remedy. Several
    independent problems may be given at once, one per line. agreed: whether all processes of the
    run end with the same message, so that only one needs to print it.
    """

    def __init__(self, *problems: str, agreed: bool = False):
        super().__init__("\n".join(problems))
        self.problems, self.agreed = problems, agreed


class Alone(Exception):
    """Other processes of this run failed to join, or were lost. Its text is printed as it is. A
    retry may succeed, so this is not a UserError."""


class Interrupted(BaseException):
    """The run was asked to stop by a signal.

    Like KeyboardInterrupt, it may be raised anywhere and is no Exception, so that code that catches
    exceptions, such as logging, does not swallow it. number: that of the signal, kept as `signal`.
    step: of the checkpoint saved on the way out, if any. agreed: whether all processes stop now.
    """

    def __init__(self, number: int, step: int | None = None, agreed: bool = True):
        saved = "; what had been saved is kept." if step is None else f" at step {step}, saved."
        super().__init__(f"Stopped by {signal.Signals(number).name}{saved}")
        self.signal, self.agreed = number, agreed


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean X?' with the known name closest to `name`, or the list if none is close."""
    known = sorted(known)
    if not known:
        return "there are none."
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are: {', '.join(known)}."


def abridged(problems: Sequence[str]) -> list[str]:
    """The first ten of the problems, and a sentence that counts the others."""
    more = len(problems) - _LISTED
    return [*problems[:_LISTED], *([f"And {more} more."] if more > 0 else [])]


def refuse(problems: Sequence[str]) -> None:
    """Raises a UserError with the `abridged` problems, if there are any."""
    if problems:
        raise UserError(*abridged(problems))
