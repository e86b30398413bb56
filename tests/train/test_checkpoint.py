"""Checkpoints are restored exactly, and a damaged one is never loaded silently."""

import errno
import json
import logging
import os

import chex
import jax
import jax.numpy as jnp
import pytest

from genzoo.core.errors import UserError
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.manifest import MANIFEST
from genzoo.train.sharding import placement
from genzoo.train.state import Faults, TrainState


def state_at(step: int, size: int = 300) -> TrainState:
    value = jnp.arange(size * size, dtype=jnp.float32).reshape(size, size) + step
    return TrainState(
        step=jnp.int32(step),
        params={"layer": {"kernel": value, "bias": value[0]}},
        stats={},
        opt_state={"model": (jnp.int32(step), {"mu": value * 2})},
        averages={"ema": {"layer": {"kernel": value / 2, "bias": value[0]}}},
        faults=Faults.none(),
    )


def abstract(state: TrainState) -> TrainState:
    where = placement().state(state)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, where
    )


def saved(directory, *steps, **options) -> Checkpoints:
    checkpoints = Checkpoints(directory=directory, **options)
    for step in steps:
        checkpoints.save(state_at(step))
    checkpoints.close()
    return checkpoints


def restored(directory) -> TrainState | None:
    checkpoints = Checkpoints(directory=directory)
    try:
        return checkpoints.restore(abstract(state_at(0)))
    finally:
        checkpoints.close()


def test_nothing_is_nothing(tmp_path):
    assert restored(tmp_path / "none") is None


def test_round_trip_bit_for_bit(tmp_path):
    saved(tmp_path, 10)
    chex.assert_trees_all_equal(restored(tmp_path), state_at(10))


def test_old_ones_go(tmp_path):
    checkpoints = saved(tmp_path, 10, 20, 30, 40, keep=2, keep_every=20)
    assert checkpoints.steps() == [40, 30, 20]


def test_a_save_survives_that_the_state_is_donated_away(tmp_path):
    state = state_at(7)
    expected = jax.device_get(state)
    checkpoints = Checkpoints(directory=tmp_path)
    checkpoints.save(state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    for _ in range(5):
        state = overwrite(state)
    checkpoints.close()
    chex.assert_trees_all_equal(restored(tmp_path), expected)


def largest_file(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST]
    return max(files, key=lambda p: p.stat().st_size)


def flip_one_bit(folder):
    path = largest_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(folder):
    os.truncate(largest_file(folder), 100)


def remove(folder):
    largest_file(folder).unlink()


def empty_metadata(folder):
    (folder / "state" / "_METADATA").write_bytes(b"")


def spoil_manifest(folder):
    (folder / MANIFEST).write_text("{")


DAMAGES = [flip_one_bit, truncate, remove, empty_metadata, spoil_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_set_aside_and_the_one_before_is_loaded(tmp_path, damage, caplog):
    saved(tmp_path, 10, 20)
    damage(tmp_path / "20")
    with caplog.at_level(logging.WARNING, logger="genzoo"):
        chex.assert_trees_all_equal(restored(tmp_path), state_at(10))
    assert "Checkpoint 20" in caplog.text and "damaged-20" in caplog.text
    assert (tmp_path / "damaged-20").is_dir() and not (tmp_path / "20").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_when_none_is_good_the_run_stops(tmp_path, damage):
    saved(tmp_path, 10)
    damage(tmp_path / "10")
    with pytest.raises(UserError, match=r"No checkpoint in .* is good: 10 "):
        restored(tmp_path)


def interrupt(tmp_path, step):
    """Leaves what a kill between the commit of the arrays and the manifest leaves."""
    (tmp_path / str(step) / MANIFEST).unlink()
    (tmp_path / str(step)).rename(tmp_path / f"unfinished-{step}")


def test_an_unfinished_save_is_no_checkpoint(tmp_path):
    saved(tmp_path, 10, 20)
    interrupt(tmp_path, 20)
    chex.assert_trees_all_equal(restored(tmp_path), state_at(10))
    saved(tmp_path, 20)
    chex.assert_trees_all_equal(restored(tmp_path), state_at(20))
    assert (tmp_path / "unfinished-20-2" / "state").is_dir()  # it may hold a state


def test_an_unfinished_first_save_is_a_fresh_start(tmp_path):
    saved(tmp_path, 10)
    interrupt(tmp_path, 10)
    assert restored(tmp_path) is None
    saved(tmp_path, 10)
    chex.assert_trees_all_equal(restored(tmp_path), state_at(10))


def test_who_only_reads_changes_nothing(tmp_path):
    saved(tmp_path, 10, 20, 30)
    flip_one_bit(tmp_path / "30")
    # The state of the folder while another process is saving.
    (tmp_path / "40" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    checkpoints = Checkpoints(directory=tmp_path)
    found = checkpoints.restore(abstract(state_at(0)), read_only=True)
    checkpoints.close()
    chex.assert_trees_all_equal(found, state_at(20))
    assert before == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))


def test_a_failed_save_is_said_and_older_checkpoints_stay(tmp_path, monkeypatch):
    checkpoints = Checkpoints(directory=tmp_path, keep=1)
    checkpoints.save(state_at(10))
    checkpoints.wait()

    def full(folder, step):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr("genzoo.train.checkpoint.write_manifest", full)
    checkpoints.save(state_at(20))
    with pytest.raises(UserError, match=r"No space left on device.*last good one is of step 10"):
        checkpoints.wait()
    checkpoints.close()
    assert checkpoints.steps() == [10]
    chex.assert_trees_all_equal(restored(tmp_path), state_at(10))


def test_a_checkpoint_says_what_it_is(tmp_path):
    saved(tmp_path, 10, about={"seed": 3})
    assert json.loads((tmp_path / "10" / "run.json").read_text()) == {"seed": 3, "step": 10}


def test_other_shapes_are_refused_with_a_sentence(tmp_path):
    saved(tmp_path, 10)
    checkpoints = Checkpoints(directory=tmp_path)
    with pytest.raises(UserError, match="holds other arrays than this config makes"):
        checkpoints.restore(abstract(state_at(0, size=200)))
    checkpoints.close()
