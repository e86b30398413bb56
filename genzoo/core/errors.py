"""The exceptions that end a run in a sentence: a mistake of the user's, and a stop on request."""

import difflib
import signal
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a file or the surroundings. Its text is shown as it is, exit code 2.

    The text is one or two sentences that name the key or the file and say what to do about it.
    Several independent problems may be given at once; each becomes a line. agreed: that every
    process of the run ends with the same words, so that one is enough to say them.
    """

    def __init__(self, *problems: str, agreed: bool = False):
        super().__init__("\n".join(problems))
        self.problems, self.agreed = problems, agreed


class Alone(Exception):
    """Other processes of this run did not come, or did not stay; its text is shown as it is. The
    same start may do better another time, so it is no mistake of the user's."""


class Interrupted(BaseException):
    """The work was asked to stop.

    It may be raised anywhere, like KeyboardInterrupt, so it is no Exception: who catches those, as
    logging does, must not swallow it. signal: the signal's number. step: of the checkpoint that a
    run has saved to go on from. agreed: that every process of the run stops now.
    """

    def __init__(self, number: int, step: int | None = None, agreed: bool = True):
        saved = "; what had been saved is kept." if step is None else f" at step {step}, saved."
        super().__init__(f"Stopped by {signal.Signals(number).name}{saved}")
        self.signal, self.agreed = number, agreed


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean X?' for the known name closest to `name`, or the list of all if none is."""
    known = sorted(known)
    if not known:
        return "there are none."
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are: {', '.join(known)}."
