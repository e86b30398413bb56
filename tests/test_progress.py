"""Progress: lines of the log only where work takes long, none from other processes, a bar on a
terminal, and never a word on standard output."""

import io
import logging
import re
import sys
import time

import pytest

from genzoo.runtime import progress
from genzoo.runtime.progress import Progress, tracked, waiting


@pytest.fixture
def quick(monkeypatch, caplog):
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    monkeypatch.setattr(progress, "EVERY", 0.05)
    caplog.set_level(logging.INFO, "genzoo")
    return caplog


def test_slow_work_is_told_in_lines_and_quick_work_is_not(quick, capsys):
    with Progress(2000, "sampling", "image") as bar:
        bar.update(128)
        time.sleep(0.2)
        bar.update(1872)
    told = quick.messages
    assert 2 <= len(told) <= 5 and set(told) == {"sampling: 128 of 2,000 images"}
    quick.clear()
    assert list(tracked(range(5), "counting")) == [0, 1, 2, 3, 4]
    with waiting("Compiling."):
        pass
    time.sleep(0.1)
    assert quick.messages == [] and capsys.readouterr().out == ""


def test_the_first_part_is_waited_for_aloud(quick):
    parts = tracked(iter("ab"), "features of test", total=2)
    assert next(parts) == "a"
    time.sleep(0.15)
    assert quick.messages[0] == "features of test: 0 of 2 batches"
    assert list(parts) == ["b"]


def test_a_wait_of_unknown_length_is_announced_and_repeated(quick):
    with waiting("Compiling; a large model takes minutes."):
        time.sleep(0.3)
    said = "Compiling; a large model takes minutes."
    assert quick.messages[0] == said and len(quick.messages) == 2
    assert re.fullmatch(re.escape(said) + r" \d+ s so far\.", quick.messages[1])
    assert Progress(0, "looking through x", "folder").line == "looking through x: 0 folders"
    assert Progress(4096, "model.pt", "B", scaled=True).line == "model.pt: 0.00 of 4.10kB"


def test_other_processes_are_silent(quick, monkeypatch):
    monkeypatch.setattr(progress, "alone", lambda: False)
    monkeypatch.setattr(progress.jax, "process_index", lambda: 1)
    with Progress(3, "sampling", "image") as bar, waiting("Compiling."):
        time.sleep(0.15)
        bar.update(3)
    assert quick.messages == []


def test_a_terminal_gets_a_bar(quick, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress(10, "sampling", "image") as bar:
        time.sleep(0.4)  # a bar that is gone at once would only flicker
        bar.update(10)
    assert "sampling: 100%" in terminal.getvalue() and "10/10" in terminal.getvalue()
    assert quick.messages == [] and capsys.readouterr().out == ""


def test_work_inside_other_work_is_not_shown(quick):
    for _ in tracked(range(2), "features of test"):
        for _ in tracked(range(2), "fashion features"):
            time.sleep(0.07)
    assert quick.messages and all(m.startswith("features of test") for m in quick.messages)
    quick.clear()
    with Progress(3, "sampling"):
        time.sleep(0.1)
    assert quick.messages


def test_an_error_ends_the_lines(quick):
    with pytest.raises(KeyError), Progress(3, "sampling") as bar:
        bar.update()
        raise KeyError
    time.sleep(0.15)
    assert quick.messages == []
