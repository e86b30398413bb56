"""Other runs: opened by their workdir, refused with a message if unsuitable, and no longer needed
once the run that uses them or started from them has a checkpoint."""

import json
import os
import shutil
from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config, runs
from genzoo.builders.rows import FamilyRow, Parts, Stage
from genzoo.core import tree
from genzoo.core.contract import Aux, Family, Player, Reconstructs, Tokenizes, Variables
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.families.token_prior import TOKENIZER
from genzoo.main import main
from genzoo.modes import train as mode
from genzoo.train import checkpoint
from genzoo.train.frozen import FrozenModels
from genzoo.workdir import Workdir

VQVAE, PRIOR = "configs/vqvae_fashion.py:smoke", "configs/prior_vqvae_fashion.py:smoke"


def checked(path, **overrides):
    dotted = {k.replace("__", "."): v for k, v in overrides.items()}
    return check.check(config.override(config.load(path), dotted))


def make(workdir, path=VQVAE, **overrides):
    """Creates a workdir in which a run of this config has begun."""
    resolved = checked(path, **overrides)
    config.write_json(workdir / "config.json", resolved.to_dict())
    return resolved


def prior(workdir, **overrides):
    return checked(PRIOR, frozen__tokenizer__workdir=str(workdir), **overrides)


def untrained(resolved, workdir, change=lambda state: state):
    """Saves the state at step 0 and returns it."""
    state = change(Experiment(resolved).new_state())
    checkpoints = Workdir(workdir).checkpoints(keep=2)
    checkpoints.save(state)
    checkpoints.close()
    return jax.device_get(state)


def problems(resolved, stored=None) -> list[str]:
    with pytest.raises(UserError) as caught:
        runs.resolve(resolved, stored)
    return list(caught.value.problems)


# --- resolve --------------------------------------------------------------------------------------


def test_the_config_of_the_tokenizer_is_filled_in(tmp_path):
    theirs = make(tmp_path)
    resolved = runs.resolve(prior(tmp_path), None)
    stage = resolved.frozen.tokenizer
    assert json.dumps(stage.config.to_dict()) == json.dumps(theirs.to_dict())
    assert (stage.workdir, stage.weights) == (str(tmp_path), "raw")
    assert resolved.to_dict() | {"frozen": 0} == prior(tmp_path).to_dict() | {"frozen": 0}
    grids = Experiment(resolved).family.tokenizer.code_grids
    assert [(grid.shape, grid.size) for grid in grids] == [((7, 7), 16)]


def test_a_config_without_frozen_models_is_left_alone():
    resolved = checked(VQVAE)
    assert runs.resolve(resolved, None) is resolved


def test_a_missing_workdir_is_named(tmp_path):
    (error,) = problems(prior(tmp_path / "nowhere"))
    assert error.startswith(f"frozen.tokenizer.workdir = '{tmp_path}/nowhere' holds no run")
    assert "train the tokenizer first" in error and "--config.frozen.tokenizer.workdir=DIR" in error


def test_a_workdir_must_be_given():
    raw = config.load(PRIOR)
    del raw["frozen"]
    with pytest.raises(UserError, match=r"frozen.tokenizer.workdir must be given."):
        check.check(raw)
    raw["frozen"] = {"tokenizer": {"workdir": "x"}, "tokeniser": {"workdir": "x"}}
    with pytest.raises(UserError, match=r"frozen.tokeniser is not used by .* mean 'tokenizer'"):
        check.check(raw)


def test_a_family_without_codes_is_named(tmp_path):
    make(tmp_path, "configs/vae_fashion.py:smoke")
    (error,) = problems(prior(tmp_path))
    assert error.startswith(f"frozen.tokenizer.workdir = '{tmp_path}' holds a vae of fashion_mini ")
    assert "(it can: sample, reconstruct" in error
    assert error.endswith("it must be a tokenizer of the same data.")


def test_data_of_another_shape_is_named(tmp_path):
    make(tmp_path, data__name="cifar10")
    (error,) = problems(prior(tmp_path))
    assert error.startswith(f"frozen.tokenizer.workdir = '{tmp_path}' was trained on images of")
    assert "data.name = 'fashion_mini' has (28, 28, 1)" in error


def test_unknown_weights_are_named(tmp_path):
    make(tmp_path)
    (error,) = problems(prior(tmp_path, frozen__tokenizer__weights="ema"))
    assert error == "frozen.tokenizer.weights = 'ema' is unknown: that run has raw."


def test_all_problems_come_at_once(tmp_path):
    make(tmp_path, "configs/vae_fashion.py:smoke", data__name="cifar10")
    messages = problems(prior(tmp_path, frozen__tokenizer__weights="emma"))
    assert len(messages) == 3 and all(error.startswith("frozen.tokenizer.") for error in messages)
    assert messages[2].endswith("that run has raw, ema.")


def test_a_tokenizer_may_have_been_trained_on_other_devices(tmp_path, monkeypatch):
    raw = make(tmp_path).to_dict()
    raw["mesh"]["data"] = 4  # invalid on one device
    raw["eval"]["batch_size"] = 7
    config.write_json(tmp_path / "config.json", raw)
    with pytest.raises(UserError, match=r"mesh.data = 4"):
        check.check(raw)
    resolved = runs.resolve(prior(tmp_path), None)
    state = untrained(config.freeze({**raw, "mesh": {**raw["mesh"], "data": -1}}), tmp_path)
    started = runs.first_state(Experiment(resolved), Workdir(tmp_path / "prior"))
    expected = {TOKENIZER: {"params": state.params, "stats": state.stats}}
    chex.assert_trees_all_equal(started.frozen, expected)


def test_the_stored_config_is_enough_unless_another_run_is_named(tmp_path):
    make(tmp_path / "first")
    resolved = runs.resolve(prior(tmp_path / "first"), None)
    stored = json.loads(json.dumps(resolved.to_dict()))
    shutil.rmtree(tmp_path / "first")
    # From the config file, and from the workdir's own config.
    again = runs.resolve(prior(tmp_path / "first"), stored)
    assert config.differences(again.to_dict(), resolved.to_dict()) == {}
    again = runs.resolve(check.check(stored), stored)
    assert config.differences(again.to_dict(), resolved.to_dict()) == {}
    # For another tokenizer, its own config is read.
    (error,) = problems(prior(tmp_path / "second"), stored)
    assert "second' holds no run" in error
    make(tmp_path / "second", family__codes="(32,)")
    other = runs.resolve(prior(tmp_path / "second"), stored)
    assert other.frozen.tokenizer.config.family.codes == (32,)


def test_a_tokenizer_without_a_checkpoint_is_named(tmp_path):
    make(tmp_path)
    resolved = runs.resolve(prior(tmp_path), None)
    with pytest.raises(UserError) as caught:
        runs.check(Experiment(resolved))
    (error,) = caught.value.problems
    assert error.startswith(f"frozen.tokenizer.workdir = '{tmp_path}' holds no finished checkpoint")


# --- from the command line ------------------------------------------------------------------------

QUICK = ["--config.train.picture_count=0", "--config.train.steps=4", "--config.train.save_every=4"]


def state_of(workdir):
    resolved = config.freeze(Workdir(workdir).config())
    return jax.device_get(Workdir(workdir).load(resolved, Experiment(resolved).abstract_state))


def test_from_the_first_checkpoint_on_one_workdir_is_enough(tmp_path, capsys):
    first, second = tmp_path / "vqvae", tmp_path / "prior"
    small = ["--config.network.blocks=0", "--config.network.width=4"]
    assert main([f"--config={VQVAE}", f"--workdir={first}", *QUICK, *small]) == 0
    where = f"--config.frozen.tokenizer.workdir={first}"
    named = [f"--config={PRIOR}", f"--workdir={second}", where]
    assert main([*named, *QUICK]) == 0
    tokenizer = state_of(first)
    assert sorted(p.name for p in (second / "frozen").iterdir()) == ["tokenizer"]
    kept = {p: p.stat().st_mtime_ns for p in (second / "frozen").rglob("*") if p.is_file()}
    expected = {TOKENIZER: {"params": tokenizer.params, "stats": tokenizer.stats}}
    chex.assert_trees_all_equal(state_of(second).frozen, expected)
    shutil.rmtree(first)
    moved = second.rename(tmp_path / "moved")
    kept = {moved / p.relative_to(second): at for p, at in kept.items()}
    second, alone = moved, f"--workdir={moved}"
    assert main([alone, "--mode=sample"]) == 0
    assert len(list((second / "samples" / "latest").glob("0*.png"))) == 4
    assert main([alone, "--mode=eval"]) == 0
    report = json.loads((second / "eval.json").read_text())
    assert report["likelihood_of"] == "the codes of the tokenizer, one dimension each"
    assert report["bits_per_dim"] == pytest.approx(report["loss"]["bits_per_code"], rel=1e-4)
    assert report["examples"] == 40
    np.testing.assert_allclose(report["nats"], report["loss"]["loss"], rtol=1e-4)
    more = ["--config.train.steps=6", "--config.train.save_every=2"]
    assert main([alone, *more]) == 0
    state = state_of(second)
    assert state.step == 6
    chex.assert_trees_all_equal(state.frozen, expected)
    # Written once, regardless of later saves, and not into checkpoints.
    assert kept == {p: p.stat().st_mtime_ns for p in (second / "frozen").rglob("*") if p.is_file()}
    for folder in (second / "checkpoints").iterdir():
        stored = json.loads((folder / "state" / "_METADATA").read_text())["tree_metadata"]
        assert not any("frozen" in key or "codebook" in key for key in stored), stored.keys()
    # Another run that needs it is refused, because it is gone.
    capsys.readouterr()
    named[1] = f"--workdir={tmp_path / 'third'}"
    assert main(named) == 2
    assert "holds no run" in capsys.readouterr().err and not (tmp_path / "third").exists()


def test_a_config_of_before_there_were_frozen_models_still_loads(tmp_path):
    resolved = make(tmp_path)
    state = untrained(resolved, tmp_path)
    raw = resolved.to_dict()
    del raw["frozen"]
    config.write_json(tmp_path / "config.json", raw)
    chex.assert_trees_all_equal(state_of(tmp_path), jax.device_get(state))


def prior_run(tmp_path):
    """A workdir with a prior at step 0, the tokenizer's state, and the prior's."""
    tokenizer = untrained(make(tmp_path / "vqvae"), tmp_path / "vqvae")
    resolved = runs.resolve(prior(tmp_path / "vqvae"), None)
    place = Workdir(tmp_path / "prior")
    config.write_json(place.path / "config.json", resolved.to_dict())
    state = runs.first_state(Experiment(resolved), place)
    checkpoints = place.checkpoints(keep=1)
    checkpoints.save(state)
    checkpoints.close()
    return place, tokenizer, jax.device_get(state)


def test_a_frozen_model_that_is_lost_or_damaged_is_named(tmp_path):
    place, _, state = prior_run(tmp_path)
    chex.assert_trees_all_equal(state_of(place.path), state)
    largest = max((place.path / "frozen").rglob("*"), key=lambda p: p.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"frozen/tokenizer, .* has changed since it was written"):
        state_of(place.path)
    shutil.rmtree(place.path / "frozen")
    with pytest.raises(UserError, match=r"tokenizer, .* \(it is missing\): restore the folder"):
        state_of(place.path)


def test_a_checkpoint_that_holds_frozen_models_still_loads_and_is_split_when_resumed(
    tmp_path, monkeypatch
):
    place, tokenizer, state = prior_run(tmp_path)
    shutil.rmtree(place.path / "frozen")
    shutil.rmtree(place.path / "checkpoints")
    shutil.rmtree(tmp_path / "vqvae")
    arrays = checkpoint._arrays_of
    monkeypatch.setattr(
        checkpoint, "_arrays_of", lambda state: {**arrays(state), "frozen": state.frozen}
    )
    checkpoints = place.checkpoints(keep=1)
    checkpoints.save(state)
    checkpoints.close()
    monkeypatch.undo()
    chex.assert_trees_all_equal(state_of(place.path), state)
    trained = runs.open_run(place.path)
    chex.assert_trees_all_equal(trained.variables.frozen, state.frozen)
    assert not (place.path / "frozen").exists()  # reading changes nothing
    assert main([f"--workdir={place.path}", *QUICK]) == 0
    after = state_of(place.path)
    assert after.step == 4 and (place.path / "frozen" / "tokenizer").is_dir()
    theirs = {"params": tokenizer.params, "stats": tokenizer.stats}
    chex.assert_trees_all_equal(after.frozen, {TOKENIZER: theirs})


# --- open_run -------------------------------------------------------------------------------------

VAE = "configs/vae_fashion.py:smoke"


def shifted(state):
    """The state, with an average that differs from the params."""
    averages = {k: jax.tree.map(lambda x: x + 1, v) for k, v in state.averages.items()}
    return replace(state, averages=averages)


def test_another_run_is_opened_as_a_trained_model(tmp_path):
    theirs = make(tmp_path / "vae", VAE)
    state = untrained(theirs, tmp_path / "vae", shifted)
    for weights, params in {"raw": state.params, "ema": state.averages["ema"]}.items():
        trained = runs.open_run(tmp_path / "vae", weights)
        chex.assert_trees_all_equal(trained.variables.params, params)
        chex.assert_trees_all_equal(trained.variables.stats, state.stats)
        assert trained.config.family.name == "vae" and isinstance(trained.family, Reconstructs)
    with pytest.raises(UserError, match=r"weights = 'emma' is unknown: that run has raw, ema\."):
        runs.open_run(tmp_path / "vae", "emma")
    with pytest.raises(UserError, match=r"--workdir = '.*nowhere' holds no run.* --workdir=DIR"):
        runs.open_run(tmp_path / "nowhere")
    make(tmp_path / "begun", VAE)
    with pytest.raises(UserError, match=r"begun' *: .* holds no finished checkpoint yet"):
        runs.open_run(tmp_path / "begun")


def test_a_frozen_model_keeps_the_frozen_models_of_its_own(tmp_path):
    place, tokenizer, state = prior_run(tmp_path)
    trained = runs.open_run(place.path)
    theirs = {"params": tokenizer.params, "stats": tokenizer.stats}
    expected = {"params": state.params, "stats": state.stats, "frozen": {TOKENIZER: theirs}}
    chex.assert_trees_all_equal(trained.variables.tree, expected)
    kept = FrozenModels(tmp_path / "kept")
    kept.write({"prior": trained.variables.tree})
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        trained.variables.tree,
    )
    chex.assert_trees_all_equal(kept.read({"prior": shapes})["prior"], expected)
    assert kept.has({"prior": 0}) and not kept.has({"prior": 0, "tokenizer": 0})


def test_a_pipe_in_the_place_of_a_frozen_model_is_renamed(tmp_path):
    os.mkfifo(tmp_path / "prior")
    models = FrozenModels(tmp_path)
    models.write({"prior": {"params": jnp.ones(2)}})
    assert models.has({"prior": 0}) and (tmp_path / "replaced-prior").is_fifo()


# --- start ----------------------------------------------------------------------------------------


def begin(tmp_path, resolved):
    """The state at step 0 of a run of this config."""
    experiment = Experiment(resolved)
    runs.check(experiment)
    return jax.device_get(runs.first_state(experiment, Workdir(tmp_path / "new")))


def test_a_run_starts_with_the_bits_of_another(tmp_path):
    raised = untrained(make(tmp_path / "old", VAE, seed="5"), tmp_path / "old", shifted)
    for weights, params in {"raw": raised.params, "ema": raised.averages["ema"]}.items():
        resolved = checked(VAE, start__workdir=str(tmp_path / "old"), start__weights=weights)
        state = begin(tmp_path, resolved)
        chex.assert_trees_all_equal(state.params, params)
        chex.assert_trees_all_equal(state.averages["ema"], params)
        assert state.step == 0
        fresh = jax.device_get(Experiment(resolved).new_state())
        chex.assert_trees_all_equal(state.opt_state, fresh.opt_state)
        different = jax.tree.map(lambda a, b: bool((a != b).any()), fresh.params, state.params)
        assert any(jax.tree.leaves(different))


def test_codes_that_are_no_params_are_started_from_too(tmp_path):
    old = untrained(
        make(tmp_path / "old", VQVAE), tmp_path / "old",
        lambda state: replace(state, stats=jax.tree.map(lambda x: x + 1, state.stats)),
    )  # fmt: skip
    state = begin(tmp_path, checked(VQVAE, start__workdir=str(tmp_path / "old")))
    assert jax.tree.leaves(state.stats)
    chex.assert_trees_all_equal(state.stats, old.stats)


def test_what_does_not_match_is_listed_by_path_and_starts_fresh(tmp_path, caplog):
    old = untrained(make(tmp_path / "old", VQVAE, network__blocks="0"), tmp_path / "old")
    resolved = checked(VQVAE, start__workdir=str(tmp_path / "old"), network__blocks="1", seed="3")
    with caplog.at_level("INFO", logger="genzoo"):
        state = begin(tmp_path, resolved)
    theirs, ours = tree.by_path(old.params), tree.by_path(state.params)
    fresh = tree.by_path(jax.device_get(Experiment(resolved).new_state()).params)
    missing = ours.keys() - theirs.keys()
    assert missing and not theirs.keys() - ours.keys()
    for path, leaf in ours.items():
        expected = fresh[path] if path in missing else theirs[path]
        np.testing.assert_array_equal(leaf, expected, err_msg=path)
    (line,) = [m for m in caplog.messages if m.startswith("Fresh, since they are not there")]
    assert all(f"params/{path}" in line for path in missing)
    # In the other direction, they are left behind.
    caplog.clear()
    untrained(make(tmp_path / "wide", VQVAE, network__blocks="1"), tmp_path / "wide")
    narrow = checked(VQVAE, start__workdir=str(tmp_path / "wide"), network__blocks="0")
    with caplog.at_level("INFO", logger="genzoo"):
        begin(tmp_path, narrow)
    (line,) = [m for m in caplog.messages if m.startswith("Left behind")]
    assert all(f"params/{path}" in line for path in missing)


def test_arrays_of_another_shape_are_refused_or_start_fresh(tmp_path, caplog):
    untrained(make(tmp_path / "old", VAE, family__latents="(2,)"), tmp_path / "old")
    wanted = {"start__workdir": str(tmp_path / "old"), "family__latents": "(5,)"}
    line = r"has arrays of another shape: params/.* there and .* here"
    with pytest.raises(UserError, match=line):
        begin(tmp_path, checked(VAE, **wanted))
    with caplog.at_level("INFO", logger="genzoo"):
        state = begin(tmp_path, checked(VAE, **wanted, start__partial="True"))
    (line,) = [m for m in caplog.messages if "another shape there:" in m]
    named = line.split(": ")[1].rstrip(".").split(", ")
    fresh = tree.by_path(jax.device_get(Experiment(checked(VAE, **wanted)).new_state().params))
    for path in named:
        name = path.removeprefix("params/")
        np.testing.assert_array_equal(tree.by_path(state.params)[name], fresh[name])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (VAE, "configs/pca_fashion.py:smoke", r"no effect on pca, which is fitted in closed form"),
        ("configs/toy_mixture.py:smoke", VAE, r"has no array in common with this model"),
    ],
)
def test_an_unsuitable_start_is_refused(tmp_path, old, new, message):
    untrained(make(tmp_path / "old", old), tmp_path / "old")
    with pytest.raises(UserError, match=message):
        begin(tmp_path, checked(new, start__workdir=str(tmp_path / "old")))


def test_a_start_with_other_words_or_columns_is_refused(tmp_path):
    # The arrays have the same shapes, but the rows of a table would be those of other words.
    documents, words = "configs/ae_documents.py:smoke", "('read', 'file', 'line')"
    old = make(tmp_path / "old", documents, data__words=words)
    untrained(old, tmp_path / "old")
    start = dict(start__workdir=str(tmp_path / "old"))
    begin(tmp_path, checked(documents, data__words=words, **start))
    other = checked(documents, data__words="('read', 'line', 'file')", **start)
    with pytest.raises(UserError, match=r"number 1 is 'file' there and 'line' here"):
        begin(tmp_path, other)


def test_a_guide_that_reads_other_words_is_refused(tmp_path):
    emoji, known = "configs/fm_emoji.py:smoke", dict(data__tokens="3")
    make(tmp_path, emoji, **known, data__words="('red', 'cat')")
    manifest = tmp_path / "checkpoints" / "10" / "genzoo_manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    ours = checked(emoji, **known, data__words="('cat', 'red')", sample__guide=str(tmp_path))
    with pytest.raises(UserError, match=r"sample.guide = .* was made for another vocabulary"):
        runs.for_sampling(Experiment(ours), Variables(params={}, stats={}, frozen={}))


def test_a_start_is_needed_only_once_and_stays_what_it_was(tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    resolved = make(old, VAE, seed="5")
    untrained(resolved, old)
    named = [f"--config={VAE}", f"--workdir={new}", *QUICK, "--config.train.steps_per_call=1"]
    assert main([*named, f"--config.start.workdir={tmp_path / 'nowhere'}"]) == 2
    assert "start.workdir = " in capsys.readouterr().err and not new.exists()
    assert main([*named, f"--config.start.workdir={old}"]) == 0
    shutil.rmtree(old)
    assert main([f"--workdir={new}", "--config.train.steps=6", "--config.train.save_every=2"]) == 0
    assert state_of(new).step == 6
    assert main([*named]) == 2
    assert "start.workdir is" in capsys.readouterr().err


# --- a family that starts from another's params ---------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Student:
    """params: a copy of the teacher's under "copy", and one learned number."""

    teacher: Family | None

    def init(self, key, example):
        empty = self.teacher.init(key, {"x": jnp.zeros((1, 32, 32, 3))}).params
        return Variables(params={"copy": empty, "gain": jnp.ones(())})

    def start(self, variables):
        return {"copy": variables.frozen["teacher"]["params"], "gain": variables.params["gain"]}

    @property
    def losses(self):
        return {"model": Player(loss=self.loss, trains=("gain",))}

    def loss(self, params, context):
        values = (params["gain"] - context.batch["x"].mean((1, 2, 3))) ** 2
        return values, Aux(stats=context.stats)


@pytest.fixture
def students(monkeypatch, tmp_path):
    """A teacher for images of another shape, and two kinds of student."""
    teacher = make(tmp_path / "teacher", VAE, data__name="cifar10")
    state = untrained(teacher, tmp_path / "teacher", shifted)

    @dataclass(frozen=True, kw_only=True)
    class StudentSettings:
        def problems(self, config):
            return []

        def build(self, parts: Parts) -> Family:
            return Student(teacher=parts.frozen.get("teacher") or build.family(teacher))

    for name, role in {"frozen_student": "frozen", "started_student": "start"}.items():
        stage = Stage(
            capability=Reconstructs, called="an autoencoder", role=role, same_shape=False
        )
        row = FamilyRow(settings=StudentSettings, stages={"teacher": stage})
        monkeypatch.setitem(build.FAMILIES, name, row)
    return tmp_path / "teacher", state


def student(name, **sections):
    raw = {k: v for k, v in config.load(VAE).items() if k not in ("family", "network", "sample")}
    raw["eval"] = {"batch_size": 8, "count": 8}
    return check.check({**raw, **sections, "family": {"name": name}})


def test_a_student_begins_as_a_copy_of_its_frozen_teacher(students, tmp_path):
    where, teacher = students
    resolved = student(
        "frozen_student", frozen={"teacher": {"workdir": str(where), "weights": "ema"}}
    )
    resolved = runs.resolve(resolved, None)  # whatever the shape of the teacher's images
    state = begin(tmp_path, resolved)
    expected = teacher.averages["ema"]
    chex.assert_trees_all_equal(state.params["copy"], expected)
    chex.assert_trees_all_equal(state.averages["ema"]["copy"], expected)
    chex.assert_trees_all_equal(state.frozen["teacher"]["params"], expected)
    trained = mode.train(config.freeze(resolved.to_dict()), tmp_path / "run")
    after = jax.device_get(
        Workdir(tmp_path / "run").load(resolved, Experiment(resolved).abstract_state)
    )
    assert trained["step"] == after.step and after.params["gain"] != 1
    chex.assert_trees_all_equal(after.params["copy"], expected)


def test_a_student_that_only_starts_from_its_teacher_keeps_nothing_of_it(students, tmp_path):
    where, teacher = students
    state = begin(tmp_path, student("started_student", start={"workdir": str(where)}))
    chex.assert_trees_all_equal(state.params["copy"], teacher.params)
    assert state.frozen == {} and not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=r"start.workdir must be given: .* its teacher, an auto"):
        begin(tmp_path, student("started_student"))
    untrained(make(tmp_path / "points", "configs/toy_mixture.py:smoke"), tmp_path / "points")
    other = student("started_student", start={"workdir": str(tmp_path / "points")})
    monkey = Stage(capability=Tokenizes, called="a tokenizer", role="start", same_shape=True)
    row = replace(build.FAMILIES["started_student"], stages={"teacher": monkey})
    build.FAMILIES["started_student"] = row
    with pytest.raises(UserError) as caught:
        begin(tmp_path, other)
    assert [error.split(": ")[-1] for error in caught.value.problems] == [
        "it must be a tokenizer.", "use the same data in both.",
    ]  # fmt: skip


def test_what_start_gives_must_be_of_the_shape_of_the_params(students, tmp_path, monkeypatch):
    where, _ = students
    monkeypatch.setattr(Student, "start", lambda self, variables: {"gain": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"`start` gives other arrays than `init`"):
        begin(tmp_path, student("started_student", start={"workdir": str(where)}))
