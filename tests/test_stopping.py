"""Loops check for a signal; the exit code says how a run ended. Real signals and processes are in
tests/trust/test_stop_signals.py."""

import signal

import pytest

from genzoo.core.errors import Interrupted, UserError, ending
from genzoo.runtime.signals import Signals
from genzoo.runtime.stopping import Stop


def test_a_check_ends_the_work():
    stop = Stop()
    stop.check()
    assert stop.reached() is None
    stop.signals.number = signal.SIGTERM
    assert stop.reached() == signal.SIGTERM
    with pytest.raises(Interrupted) as caught:
        stop.check()
    assert caught.value.agreed and caught.value.signal == signal.SIGTERM


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Interrupted(signal.SIGTERM, 8), 75, "Stopped by SIGTERM at step 8, saved."),
        (Interrupted(signal.SIGINT), 130, "Stopped by SIGINT; what had been saved is kept."),
        (UserError("one", "two"), 2, "one\ngenzoo: two"),
    ],
)
def test_the_exit_code_says_how_it_ended(error, code, words):
    assert ending(error)[:2] == (code, f"genzoo: {words}")


def test_handlers_are_given_back():
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with Signals():
        assert all(signal.getsignal(n) != b for n, b in zip(numbers, before, strict=True))
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
