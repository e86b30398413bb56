"""Where the time of a run goes, and its record in run.json."""

import json
import time

import pytest

from genzoo.train import starts
from genzoo.train.account import Account


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_the_kinds_add_up_to_the_whole_and_nothing_is_counted_twice(clock):
    account = Account()
    clock(2)
    account.settle("start")
    with account.on("pictures"):
        clock(3)
        with account.on("compile"):
            clock(5)
        clock(1)
    with pytest.raises(ValueError), account.on("saving"):
        clock(7)
        raise ValueError
    clock(11)
    assert account.seconds() == {
        "steps": 11, "start": 2, "compile": 5, "pictures": 4, "saving": 7
    }  # fmt: skip


def test_each_start_has_an_entry_which_is_written_again(tmp_path):
    origin = starts.Origin(command="a", config="b:c", changed={"train.steps": (1, 2)})
    first = starts.Start(tmp_path, origin, 0)
    first.write(10, Account(), parameters=5)
    first.write(20, Account())
    second = starts.Start(tmp_path, starts.Origin(), 20)
    second.write(30, Account())
    first.write(20, Account())  # a process that lost its folder leaves the others' entries
    entries = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert [(e["from_step"], e["to_step"]) for e in entries] == [(0, 20), (20, 30)]
    assert entries[0]["changed"] == {"train.steps": [1, 2]} and entries[0]["parameters"] == 5
    assert entries[0]["versions"]["jax"] and entries[0]["devices"] >= 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"starts": 3}', b'{"starts": [1]}', b"\xff"]
)
def test_a_damaged_record_is_begun_again(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    starts.Start(tmp_path, starts.Origin(), 0).write(1, Account())
    assert len(json.loads((tmp_path / "run.json").read_text())["starts"]) == 1


def test_a_run_that_starts_very_often_keeps_its_first_and_newest_entries(tmp_path):
    entries = [{"from_step": i} for i in range(500)]
    (tmp_path / "run.json").write_text(json.dumps({"starts": entries}))
    starts.Start(tmp_path, starts.Origin(), 500).write(501, Account())
    kept = [e["from_step"] for e in json.loads((tmp_path / "run.json").read_text())["starts"]]
    assert len(kept) == 200 and kept[0] == 0 and kept[-2:] == [499, 500]
