"""The order of events in the loop, its logs, and the mesh it runs on."""

import json
import signal
import sys
import time
from itertools import count
from types import SimpleNamespace

import chex
import jax.numpy as jnp
import pytest
from runs import final_state

from genzoo.core.errors import Interrupted, UserError
from genzoo.main import main
from genzoo.runtime.stopping import Stop
from genzoo.train import loop
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.guard import Guard
from genzoo.train.loop import LoopSettings, picture_steps, train
from genzoo.train.state import Faults, TrainState
from genzoo.train.writers import JsonLines, Progress, duration, open_writers


def start(step=0):
    return TrainState(
        step=jnp.int32(step), params={"w": jnp.zeros(())}, stats={}, opt_state={}, averages={},
        faults=Faults.none(),
    )  # fmt: skip


def run(
    tmp_path, call, *, pictures=lambda state, step: None, at=(), first=0, stop=None, **settings
):
    settings = LoopSettings(**{"steps": 20, "batch_size": 4, "save_every": 10, **settings})
    checkpoints = Checkpoints(directory=tmp_path / "checkpoints")
    try:
        return train(
            start(first), call, count(), settings=settings,
            guard=Guard(checkpoints=checkpoints, limit=settings.fault_limit),
            writers=open_writers(tmp_path, first, first_process=True),
            progress=Progress(settings.steps, True), pictures=pictures, picture_at=set(at),
            report=lambda found: {k: float(v) for k, v in found.items()}, stop=stop or Stop(),
        )  # fmt: skip
    finally:
        checkpoints.close()


def advance(stride, loss=1.0):
    def call(state, _):
        step = state.step + stride
        sums = {"loss": (jnp.float32(loss * stride), jnp.float32(stride))}
        new = TrainState(**{**vars(state), "step": step})
        return new, sums | {"gradient_norm": (jnp.float32(stride), jnp.float32(stride))}

    return call


@pytest.mark.parametrize("stride", [1, 5])
def test_logs_saves_and_pictures_fall_where_they_should(tmp_path, stride):
    drawn = []
    final = run(
        tmp_path, advance(stride), steps_per_call=stride, log_every=5,
        pictures=lambda state, step: drawn.append((step, int(state.step))), at={3, 20},
    )  # fmt: skip
    assert final.step == 20
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert all(line["loss"] == 1 and line["examples_per_second"] > 0 for line in lines)
    assert Checkpoints(directory=tmp_path / "checkpoints").steps() == [20, 10]
    shown = 3 if stride == 1 else 5
    assert drawn == [(shown, shown), (20, 20)]


def test_a_signal_ends_in_a_checkpoint_at_the_step_reached(tmp_path):
    step, stop = advance(1), Stop()

    def call(state, inputs):
        if int(state.step) == 7:
            stop.signals.number = signal.SIGTERM
        return step(state, inputs)

    with pytest.raises(Interrupted) as caught:
        run(tmp_path, call, stop=stop)
    assert caught.value.signal == signal.SIGTERM
    assert Checkpoints(directory=tmp_path / "checkpoints").steps() == [8]


def test_a_fault_streak_stops_the_run_before_it_is_saved(tmp_path):
    step = advance(1)

    def call(state, inputs):
        state, sums = step(state, inputs)
        faults = state.faults.after(jnp.bool_(state.step <= 5), state.step - 1, 3)
        return TrainState(**{**vars(state), "faults": faults}), sums

    with pytest.raises(UserError, match=r"3 steps in a row \(5 to 7\)"):
        run(tmp_path, call, log_every=100, fault_limit=3)
    assert Checkpoints(directory=tmp_path / "checkpoints").steps() == []


@pytest.fixture
def clocked(monkeypatch):
    """(seconds) -> a call of the program that advances a fake clock by so many seconds."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(loop, "time", clock)

    def made(seconds, stride=1):
        step = advance(stride)

        def call(state, inputs):
            now[0] += seconds
            return step(state, inputs)

        return call

    return made


def test_saves_come_by_time_too(tmp_path, monkeypatch, clocked):
    saved, real = [], Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, s, doubts: (saved.append(int(s.step)), real(self, s))
    )
    # At 30 s per step two minutes pass before step 5; a save at 8 postpones the next one.
    run(tmp_path, clocked(30), save_minutes=2, save_every=8, picture_minutes=0)
    assert saved == [5, 8, 13, 16, 20]
    saved.clear()
    (tmp_path / "off").mkdir()
    run(tmp_path / "off", clocked(30), save_minutes=0, save_every=8, picture_minutes=0)
    assert saved == [8, 16, 20]


@pytest.mark.parametrize(
    ("at", "first", "minutes", "expected"),
    [
        ({12, 20}, 0, 2, [5, 12, 20]),  # once by time, then as planned
        ({3, 20}, 0, 2, [3, 20]),  # one exists by then
        ({12, 20}, 0, 0, [12, 20]),
        (set(), 0, 2, []),  # no pictures are planned
        ({5, 20}, 10, 2, [20]),  # a resumed run already has its first one
        ({12, 20}, 2, 2, [7, 12, 20]),
    ],
)
def test_the_first_picture_comes_by_time(tmp_path, clocked, at, first, minutes, expected):
    drawn = []
    run(
        tmp_path, clocked(30), at=at, first=first, picture_minutes=minutes, save_minutes=0,
        pictures=lambda state, step: drawn.append(step),
    )  # fmt: skip
    assert drawn == expected


def test_what_comes_by_time_changes_no_bit_of_the_run(tmp_path):
    quick = ["--config=toy_mixture:smoke", "--config.train.steps_per_call=2"]
    often = ["--config.train.save_minutes=1e-9", "--config.train.picture_minutes=1e-9"]
    never = ["--config.train.save_minutes=0", "--config.train.picture_minutes=0"]
    assert main([*quick, *never, f"--workdir={tmp_path}/never"]) == 0
    assert main([*quick, *often, f"--workdir={tmp_path}/often", "--config.train.keep=9"]) == 0
    assert len(list((tmp_path / "often" / "checkpoints").iterdir())) == 9
    pictures = {p.name[:13] for p in (tmp_path / "often" / "samples" / "training").iterdir()}
    assert "step_00000002" in pictures
    chex.assert_trees_all_equal(final_state(tmp_path / "never"), final_state(tmp_path / "often"))


@pytest.mark.parametrize(
    ("first", "seconds", "expected"),
    [
        (0, 0.5, "0.5 s per step: about 2m00s in total, 1m10s left"),  # after 100 steps
        (50, 0.5, "0.5 s per step: 45s left"),
        (0, 40, "40 s per step: about 2h40m in total, 2h38m left"),  # after a minute
    ],
)
def test_how_long_the_run_takes_is_said_once(tmp_path, clocked, caplog, first, seconds, expected):
    with caplog.at_level("INFO", logger="genzoo"):
        run(tmp_path, clocked(seconds), first=first, steps=240, save_every=240, save_minutes=0)
    assert caplog.text.count("s per step: ") == 1 and expected in caplog.text


def test_picture_steps_are_log_spaced():
    assert sorted(picture_steps(10_000, 100)) == [100, 316, 1000, 3162, 10_000]
    assert picture_steps(50, 100) == {50} and picture_steps(50, 0) == {50}


def test_a_resumed_log_has_no_step_twice(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 10}\n{"step": 15}\n{"step": 1')  # cut off by a kill
    log = JsonLines(path, 10)
    log.write(15, {"loss": 2.0})
    log.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [{"step": 5}, {"step": 10}, {"step": 15, "loss": 2.0}]


def test_tensorboard_gets_the_same_without_tensorflow(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writers = open_writers(tmp_path, 0, first_process=True)
    for writer in writers:
        writer.write(3, {"loss": 0.5})
        writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5)]
    assert "tensorflow" not in sys.modules


def test_only_the_first_process_writes(tmp_path):
    (writer,) = open_writers(tmp_path, 0, first_process=False)
    writer.write(1, {"loss": 1.0})
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_durations_are_readable():
    assert [duration(s) for s in (3.2, 95, 3725)] == ["3s", "1m35s", "1h02m"]
