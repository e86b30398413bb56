"""Run by test_processes.py as two processes: decisions for which only one of them has a reason, and
batches whose rows are not contiguous. Each process prints `fine`."""

import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

sys.path.insert(0, str(Path(__file__).parent.parent))
from train.toy import Line

from genzoo.core import streams
from genzoo.core.errors import UserError
from genzoo.main import _parser
from genzoo.runtime.agreement import agreed, by_first, is_first, of_first
from genzoo.runtime.cost import time_calls
from genzoo.runtime.processes import Group
from genzoo.runtime.stopping import Stop
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.diagnosis import diagnose
from genzoo.train.guard import Guard
from genzoo.train.optimizer import Optimizer, constant, for_players
from genzoo.train.sharding import MeshSettings, Placement, placement
from genzoo.train.state import Faults, TrainState, initial
from genzoo.train.step import Updater


def fails(words: str):
    raise UserError(words)


def rows_follow_the_mesh() -> None:
    """The devices of the two processes alternate: each process holds every other pair of rows."""
    first, second = ([d for d in jax.devices() if d.process_index == i] for i in range(2))
    grid = np.array([first[0], second[0], first[1], second[1]]).reshape(2, 2)
    place = Placement(Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2))
    mine = place.rows(8)
    np.testing.assert_array_equal(mine, [0, 1, 4, 5] if is_first() else [2, 3, 6, 7])
    numbers = np.arange(24).reshape(3, 8)  # 3 steps of 8 rows
    held = place.put_batch({"x": numbers[:, mine]}, leading=1)["x"]
    whole = jax.jit(lambda x: x, out_shardings=place.replicated)(held)
    np.testing.assert_array_equal(np.asarray(whole), numbers)


def what_one_finds_wrong_all_say() -> None:
    with pytest.raises(UserError, match="the disk of one") as caught:
        agreed(lambda: None if is_first() else fails("the disk of one"))
    assert caught.value.agreed
    with pytest.raises(UserError, match="the first says so"):
        by_first(lambda: fails("the first says so"))
    assert of_first(lambda: 41 + is_first()) == 42
    assert agreed(jax.process_index) == jax.process_index()


def a_save_that_fails_in_one_fails_in_all(folder: Path) -> None:
    state = TrainState(
        step=placement().put_everywhere(np.int32(3)), params={}, stats={}, opt_state={},
        averages={}, faults=placement().put_everywhere(Faults.none()),
    )  # fmt: skip
    checkpoints = Checkpoints(directory=folder)
    checkpoints.save(state)
    checkpoints.wait()
    if not is_first():
        checkpoints._failure = OSError(28, "No space left on device")
    with pytest.raises(UserError, match="No space left on device"):
        checkpoints.wait()
    checkpoints.close()
    assert checkpoints.steps() == [3]


def a_signal_to_one_is_read_by_all() -> None:
    stop = Stop()
    stop.among_several()
    assert stop.reached() is None
    stop.signals.number = None if is_first() else 15
    assert [stop.reached() for _ in range(3)] == [None, 15, 15]  # a pass later


def what_is_due_by_one_clock_is_granted_to_all() -> None:
    stop = Stop()
    stop.among_several()
    wishes = [(0, 0), (0 if is_first() else 3, int(is_first())), (0, 0), (0, 0)]
    granted = []
    for wish in wishes:
        assert stop.reached(*wish) is None
        granted.append(stop.granted)
    assert granted == [(0, 0), (0, 0), (3, 1), (0, 0)]  # a pass later


def all_time_as_many_calls() -> None:
    pause = 0.01 if is_first() else 0.05
    seconds = time_calls(lambda: time.sleep(pause), 0.2)
    counts = multihost_utils.process_allgather(np.int32(len(seconds)))
    assert counts[0] == counts[1] >= 10, counts


def alike(sentence: str) -> None:
    """Fails unless all processes have the same sentence."""
    text = np.frombuffer(sentence.encode().ljust(2000), np.uint8)
    first, second = multihost_utils.process_allgather(text)
    np.testing.assert_array_equal(first, second)


def what_is_wrong_in_one_part_ends_all_alike(folder: Path) -> None:
    """Only the second process holds the rows of the data, or the entries of a param, that are not
    finite; the guard ends both with one sentence, and both find the same rows."""
    place = placement(MeshSettings(fsdp=2, floor=1))
    family = Line(noise=0.1)
    players = for_players(family.losses, Optimizer(decay=constant, total_steps=9, clip=0))
    updater = Updater(family=family, optimizers=players, averages={}, root=streams.root(0),
                      prepare=lambda batch, key: batch)  # fmt: skip
    fresh = jax.device_get(initial(family, players, (), streams.root(0), {}))
    x = np.linspace(0, 1, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    x[6] = np.nan
    batch = place.put_batch({"x": x[place.rows(8)]})
    found = diagnose(updater, place.put_everywhere(fresh), batch, place.replicated)
    assert np.flatnonzero(found.rows).tolist() == [6] and found.origins[0].place == "batch/x"

    checkpoints = Checkpoints(directory=folder)
    guard = Guard(checkpoints=checkpoints, limit=3)
    kernel = np.ones((4, 2), np.float32)
    kernel[3, 1] = np.inf
    params = {"layer": {"kernel": kernel}}
    faults = Faults(total=np.int32(3), streak=np.int32(3), since=np.int32(5))
    for counters, words in ((Faults.none(), "params/layer/kernel"), (faults, "5 to 7")):
        whole = TrainState(step=np.int32(8), params=params, stats={}, opt_state={}, averages={},
                           faults=counters)  # fmt: skip
        state = place.put(jax.device_get(whole), place.state(whole))
        with pytest.raises(UserError, match=words) as caught:
            guard.save(state)
        assert caught.value.agreed
        alike(str(caught.value))
    checkpoints.close()
    assert checkpoints.steps() == []


def main() -> None:
    flags, (folder,) = _parser().parse_known_args()
    group = Group(Stop())
    group.join(flags)
    assert group.speaks == is_first()
    rows_follow_the_mesh()
    what_one_finds_wrong_all_say()
    a_save_that_fails_in_one_fails_in_all(Path(folder))
    what_is_wrong_in_one_part_ends_all_alike(Path(folder).with_name("diverged"))
    a_signal_to_one_is_read_by_all()
    what_is_due_by_one_clock_is_granted_to_all()
    all_time_as_many_calls()
    print("fine")
    group.leave(0, together=True)


if __name__ == "__main__":
    sys.exit(main())
