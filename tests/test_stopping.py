"""A request to stop takes effect whenever it comes."""

import logging
import os
import signal

import pytest

from genzoo.core.errors import Interrupted
from genzoo.runtime.stopping import Stop


def test_it_ends_the_work_at_once_and_nobody_swallows_it():
    class Sends(logging.Handler):
        def emit(self, record):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Exception:
                self.handleError(record)

    log = logging.Logger("aside")
    log.addHandler(Sends())
    with Stop(), pytest.raises(Interrupted) as caught:
        log.info("whoever catches every Exception, as handlers do, lets it through")
    assert caught.value.signal == signal.SIGTERM and not caught.value.agreed


def test_gently_it_waits_until_it_is_asked_for():
    with Stop() as stop, stop.gently():
        stop.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reached() == signal.SIGTERM
        with pytest.raises(Interrupted) as caught:
            stop.check()
    assert caught.value.agreed


def test_a_second_ctrl_c_ends_it_even_then():
    with Stop() as stop, stop.gently():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reached() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
