"""First stages: found by their workdir, refused in a sentence, and not needed any more once the
first checkpoint of the run that uses them is there."""

import json
import shutil
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import check, config, first_stage
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.families.token_prior import TOKENIZER
from genzoo.main import main
from genzoo.workdir import Workdir

VQVAE, PRIOR = "configs/vqvae_fashion.py:smoke", "configs/prior_vqvae_fashion.py:smoke"


def checked(path, **overrides):
    dotted = {k.replace("__", "."): v for k, v in overrides.items()}
    return check.check(config.override(config.load(path), dotted))


def make(workdir, path=VQVAE, **overrides):
    """A workdir in which a run of this config has begun."""
    found = checked(path, **overrides)
    config.write_json(workdir / "config.json", found.to_dict())
    return found


def prior(workdir, **overrides):
    return checked(PRIOR, frozen__tokenizer__workdir=str(workdir), **overrides)


def problems(found, stored=None) -> list[str]:
    with pytest.raises(UserError) as caught:
        first_stage.resolve(found, stored)
    return list(caught.value.problems)


# --- resolve --------------------------------------------------------------------------------------


def test_the_config_of_the_tokenizer_is_filled_in(tmp_path):
    theirs = make(tmp_path)
    found = first_stage.resolve(prior(tmp_path), None)
    stage = found.frozen.tokenizer
    assert json.dumps(stage.config.to_dict()) == json.dumps(theirs.to_dict())
    assert (stage.workdir, stage.weights) == (str(tmp_path), "raw")
    assert found.to_dict() | {"frozen": 0} == prior(tmp_path).to_dict() | {"frozen": 0}
    grids = Experiment(found).family.tokenizer.code_grids
    assert [(grid.shape, grid.size) for grid in grids] == [((7, 7), 16)]


def test_a_config_without_first_stages_is_left_alone():
    found = checked(VQVAE)
    assert first_stage.resolve(found, None) is found


def test_a_missing_workdir_is_named(tmp_path):
    (said,) = problems(prior(tmp_path / "nowhere"))
    assert said.startswith(f"frozen.tokenizer.workdir = '{tmp_path}/nowhere' holds no run")
    assert "train the tokenizer first" in said and "--config.frozen.tokenizer.workdir=DIR" in said


def test_a_workdir_must_be_given():
    raw = config.load(PRIOR)
    del raw["frozen"]
    with pytest.raises(UserError, match=r"frozen.tokenizer.workdir must be given."):
        check.check(raw)
    raw["frozen"] = {"tokenizer": {"workdir": "x"}, "tokeniser": {"workdir": "x"}}
    with pytest.raises(UserError, match=r"frozen.tokeniser is not of this .* mean 'tokenizer'"):
        check.check(raw)


def test_a_family_without_codes_is_named(tmp_path):
    make(tmp_path, "configs/vae_fashion.py:smoke")
    (said,) = problems(prior(tmp_path))
    assert said.startswith(f"frozen.tokenizer.workdir = '{tmp_path}' holds a vae, which cannot ")
    assert "cannot tokenize (it can: sample, reconstruct" in said


def test_data_of_another_shape_are_named(tmp_path):
    make(tmp_path, data__name="cifar10")
    (said,) = problems(prior(tmp_path))
    assert said.startswith(f"frozen.tokenizer.workdir = '{tmp_path}' was trained on images of (32,")
    assert "data.name = 'fashion_mini' has (28, 28, 1)" in said


def test_weights_that_are_not_there_are_named(tmp_path):
    make(tmp_path)
    (said,) = problems(prior(tmp_path, frozen__tokenizer__weights="ema"))
    assert said == "frozen.tokenizer.weights = 'ema' is unknown: it has raw."


def test_all_problems_come_at_once(tmp_path):
    make(tmp_path, "configs/vae_fashion.py:smoke", data__name="cifar10")
    found = problems(prior(tmp_path, frozen__tokenizer__weights="emma"))
    assert len(found) == 3 and all(said.startswith("frozen.tokenizer.") for said in found)
    assert found[2].endswith("it has raw, ema.")


def test_a_tokenizer_may_have_been_trained_on_other_devices(tmp_path, monkeypatch):
    raw = make(tmp_path).to_dict()
    raw["mesh"]["data"] = 4  # what nobody may ask for on one device
    raw["eval"]["batch_size"] = 7
    config.write_json(tmp_path / "config.json", raw)
    with pytest.raises(UserError, match=r"mesh.data = 4"):
        check.check(raw)
    found = first_stage.resolve(prior(tmp_path), None)
    theirs = config.freeze({**raw, "mesh": {**raw["mesh"], "data": -1}})
    state = Experiment(theirs).new_state()
    checkpoints = Workdir(tmp_path).checkpoints(keep=1)
    checkpoints.save(state)
    checkpoints.close()
    mine = Experiment(found)
    # In place of the tokenizer that `init` makes, by whose shapes alone it is replaced.
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), mine.abstract_state.frozen)
    placed = first_stage.place(replace(mine.abstract_state, frozen=on_device(blank)), found)
    expected = {TOKENIZER: {"params": state.params, "stats": state.stats}}
    chex.assert_trees_all_equal(placed.frozen, expected)


def on_device(values):
    return jax.device_put(values, jax.devices()[0])


def test_the_stored_config_is_enough_unless_another_run_is_named(tmp_path):
    make(tmp_path / "first")
    found = first_stage.resolve(prior(tmp_path / "first"), None)
    stored = json.loads(json.dumps(found.to_dict()))
    shutil.rmtree(tmp_path / "first")
    # From the file of the config, and from the workdir's own.
    again = first_stage.resolve(prior(tmp_path / "first"), stored)
    assert config.differences(again.to_dict(), found.to_dict()) == {}
    again = first_stage.resolve(check.check(stored), stored)
    assert config.differences(again.to_dict(), found.to_dict()) == {}
    # Another tokenizer is another: its config is read.
    (said,) = problems(prior(tmp_path / "second"), stored)
    assert "second' holds no run" in said
    make(tmp_path / "second", family__codes="(32,)")
    other = first_stage.resolve(prior(tmp_path / "second"), stored)
    assert other.frozen.tokenizer.config.family.codes == (32,)


def test_a_tokenizer_without_a_checkpoint_is_named(tmp_path):
    make(tmp_path)
    found = first_stage.resolve(prior(tmp_path), None)
    with pytest.raises(UserError) as caught:
        first_stage.place(Experiment(found).abstract_state, found)
    (said,) = caught.value.problems
    assert said.startswith(f"frozen.tokenizer: --workdir={tmp_path} holds no finished checkpoint")


# --- from the command line ------------------------------------------------------------------------

QUICK = ["--config.train.picture_count=0", "--config.train.steps=4", "--config.train.save_every=4"]


def state_of(workdir):
    found = config.freeze(Workdir(workdir).config())
    return jax.device_get(Workdir(workdir).load(found, Experiment(found).abstract_state))


def test_from_the_first_checkpoint_on_one_workdir_is_enough(tmp_path, capsys):
    first, second = tmp_path / "vqvae", tmp_path / "prior"
    small = ["--config.network.blocks=0", "--config.network.width=4"]
    assert main([f"--config={VQVAE}", f"--workdir={first}", *QUICK, *small]) == 0
    where = f"--config.frozen.tokenizer.workdir={first}"
    named = [f"--config={PRIOR}", f"--workdir={second}", where]
    assert main([*named, *QUICK]) == 0
    tokenizer = state_of(first)
    expected = {TOKENIZER: {"params": tokenizer.params, "stats": tokenizer.stats}}
    chex.assert_trees_all_equal(state_of(second).frozen, expected)
    shutil.rmtree(first)
    alone = f"--workdir={second}"
    assert main([alone, "--mode=sample"]) == 0
    assert len(list((second / "samples" / "latest").glob("0*.png"))) == 4
    assert main([alone, "--mode=eval"]) == 0
    report = json.loads((second / "eval.json").read_text())
    assert report["likelihood_of"] == "the codes of the tokenizer, each a dimension"
    assert report["bits_per_dim"] == pytest.approx(report["loss"]["bits_per_code"], rel=1e-4)
    assert report["examples"] == 40
    np.testing.assert_allclose(report["nats"], report["loss"]["loss"], rtol=1e-4)
    more = ["--config.train.steps=6", "--config.train.save_every=2"]
    assert main([alone, *more]) == 0
    state = state_of(second)
    assert state.step == 6
    chex.assert_trees_all_equal(state.frozen, expected)
    # To begin another run with it is to be told that it is gone.
    capsys.readouterr()
    named[1] = f"--workdir={tmp_path / 'third'}"
    assert main(named) == 2
    assert "holds no run" in capsys.readouterr().err and not (tmp_path / "third").exists()


def test_a_checkpoint_of_before_there_were_first_stages_still_loads(tmp_path, monkeypatch):
    found = make(tmp_path)
    state = Experiment(found).new_state()
    arrays = {
        k: getattr(state, k) for k in ("step", "params", "stats", "opt_state", "averages")
    } | {"faults": vars(state.faults)}  # fmt: skip
    monkeypatch.setattr("genzoo.train.checkpoint._arrays_of", lambda _: arrays)
    checkpoints = Workdir(tmp_path).checkpoints(keep=1)
    checkpoints.save(state)
    checkpoints.close()
    monkeypatch.undo()
    chex.assert_trees_all_equal(state_of(tmp_path), jax.device_get(state))
    assert "frozen" not in config.read_json(tmp_path / "config.json") or not found.frozen
    # And a config of that time, without the section.
    raw = found.to_dict()
    del raw["frozen"]
    config.write_json(tmp_path / "config.json", raw)
    assert state_of(tmp_path).frozen == {}
