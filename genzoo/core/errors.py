"""Exceptions that end a run with a message instead of a traceback."""

import difflib
import errno
import signal
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

_LISTED = 10  # problems listed one by one; the rest are counted
_NAMED = 40  # names that a hint lists
_ENVIRONMENT = (  # faults of the machine, not of the program
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO,
    errno.ENAMETOOLONG,
)  # fmt: skip


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

    It is no Exception, so that code that catches exceptions does not swallow it. number: that of
    the signal, kept as `signal`; `code` is the exit code for it. step: of the checkpoint saved on
    the way out, if any. agreed: whether all processes stop now.
    """

    def __init__(self, number: int, step: int | None = None, agreed: bool = True):
        saved = "; what had been saved is kept." if step is None else f" at step {step}, saved."
        super().__init__(f"Stopped by {signal.Signals(number).name}{saved}")
        self.signal, self.agreed = number, agreed
        self.code = 75 if number == signal.SIGTERM else 130


def ending(error: BaseException, workdir: Path | None = None) -> tuple[int, str, bool]:
    """(exit code, message, whether all processes end in the same way) for an exception that ends
    the program."""
    if isinstance(error, UserError):
        return 2, "\n".join(f"genzoo: {p}" for p in error.problems), error.agreed
    if isinstance(error, Interrupted):
        return error.code, f"genzoo: {error}", error.agreed
    if isinstance(error, Alone):
        return 1, f"genzoo: {error}", False
    if isinstance(error, KeyboardInterrupt):
        return 130, "genzoo: Stopped by Ctrl-C. What had been saved is kept.", False
    if explained(error):
        message = (
            f"genzoo: {error.filename or workdir}: {error.strerror}. Make room or give another "
            "folder, and start again: a run resumes from its last checkpoint."
        )
        return 2, message, False
    return 1, "".join(traceback.format_exception(error)), False


def explained(error: BaseException) -> bool:
    """Whether the message for an exception explains it without a traceback."""
    if isinstance(error, OSError):
        return error.errno in _ENVIRONMENT
    return isinstance(error, UserError | Interrupted | Alone | KeyboardInterrupt)


def nearest(name: str, known: Iterable[str], ordered: bool = False) -> str:
    """'did you mean X?' with the known name closest to `name`, or the list if none is close.
    ordered: whether the names are listed in their order, instead of sorted."""
    known = [*filter(None, known)]  # an empty name means a default
    known = known if ordered else sorted(known)
    if not known:
        return "there are none."
    for close in difflib.get_close_matches(name, known, cutoff=0.6):
        # Letters in common do not make 'zirconia' a misspelt 'iron'.
        alike = difflib.SequenceMatcher(None, close, name).ratio() >= 0.75
        if alike or close[:1].casefold() == name[:1].casefold() or name in close or close in name:
            return f"did you mean {close!r}?"
    return f"known are: {listed(known, _NAMED)}."


def listed(things: Iterable[object], most: int = 3, separator: str = ", ") -> str:
    """The first `most` things, and how many more there are."""
    shown = [str(thing) for thing in things]
    more = len(shown) - most
    return separator.join(shown[:most]) + (f" and {more} more" if more > 0 else "")


def cause(error: BaseException) -> str:
    """Why something failed, without the file and the number in the text of an OSError."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def abridged(problems: Sequence[str]) -> list[str]:
    """The first ten of the problems, and a sentence that counts the others."""
    more = len(problems) - _LISTED
    return [*problems[:_LISTED], *([f"And {more} more."] if more > 0 else [])]


def refuse(problems: Sequence[str]) -> None:
    """Raises a UserError with the `abridged` problems, if there are any."""
    if problems:
        raise UserError(*abridged(problems))
