"""The exceptions that end a run in a sentence: a mistake of the user's, and a stop on request."""

import difflib
import signal
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a file or the surroundings. Its text is shown as it is, exit code 2.

    The text is one or two sentences that name the key or the file and say what to do about it.
    Several independent problems may be given at once; each becomes a line.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class Interrupted(Exception):
    """The run was asked to stop, has saved, and can be resumed. signal: the signal's number."""

    def __init__(self, number: int, step: int):
        super().__init__(f"Stopped by {signal.Signals(number).name} at step {step}, saved.")
        self.signal = number


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean X?' for the known name closest to `name`, or the list of all if none is."""
    known = sorted(known)
    if not known:
        return "there are none."
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are: {', '.join(known)}."
