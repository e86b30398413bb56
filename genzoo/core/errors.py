"""The one exception that is the user's to mend, and the sentence-making that goes with it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a file or the surroundings. Its text is shown as it is, exit code 2.

    The text is one or two sentences that name the key or the file and say what to do about it.
    Several independent problems may be given at once; each becomes a line.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean X?' for the known name closest to `name`, or the list of all if none is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are: {', '.join(known)}."
