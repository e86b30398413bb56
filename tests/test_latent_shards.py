"""Latents written by --mode=encode, and training from them: the same as from the images."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
from runs import final_state
from test_latent_run import FEW, MODEL, first_stage, of

from genzoo import check, config
from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.data import batches, latent_folder, transforms
from genzoo.data.fields import Classes
from genzoo.data.latent_folder import Column, Description, SplitWriter, described, open_latents
from genzoo.data.latents import Moments
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.resolve import resolved
from genzoo.workdir import Workdir

GRID = dict(name="conv", width=8, block_width=4, blocks=1, downsamples=2, activation="silu")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A VAE with latents on a grid, whose deviations are far from 0."""
    place = tmp_path_factory.mktemp("first") / "run"
    return first_stage(place, "configs/vae_fashion.py:smoke", network=GRID, family__latents=(3,))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, first):
    """A folder with the latents of both mirror images, in small files."""
    folder = tmp_path_factory.mktemp("data") / "latents"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_folder, "_SHARD", 4_000_000)
        flags = ["--mode=encode", f"--config.tools.dataset={folder}", "--config.data.flip=True"]
        raw = ["--config.eval.weights=raw", "--config.eval.batch_size=500"]
        assert main([f"--workdir={first}", *flags, *raw]) == 0
    return folder


def test_the_folder_holds_the_moments_of_both_mirror_images_and_the_classes(encoded, first):
    found = described(str(encoded))
    assert found.latent_shape == (7, 7, 3) and found.sides == 2
    assert {name: part.count for name, part in found.splits.items()} == {
        "train": 10_000, "test": 2000
    }  # fmt: skip
    assert len(found.splits["train"].files) > 3
    experiment = Experiment(check.check(Workdir(first).config()))
    state = final_state(first)
    held = jax.device_put(Variables(params=state.params, stats=state.stats))
    data = experiment.open("test")
    fields = {"x": Moments(shape=(2, 2, 7, 7, 3)), "label": data.spec.fields["label"]}
    settings = dict(fields=fields, tokenizer="words", memory_limit=0)
    source = open_latents(str(encoded), "test", **settings)
    at = np.array([1999, 0, 0, 1234])
    records, images = source.read(at), data.read(at)
    np.testing.assert_array_equal(records["label"], images["label"])
    x = transforms.to_float(images["x"])
    for side, image in enumerate((x, x[:, :, ::-1])):
        mean, deviation = jax.jit(experiment.family.moments)(held, {"x": image})
        np.testing.assert_allclose(records["x"][:, side, 0], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(records["x"][:, side, 1], deviation, rtol=1e-4, atol=1e-5)
    whole = open_latents(str(encoded), "test", **{**settings, "memory_limit": 1 << 30})
    np.testing.assert_array_equal(whole.read(at)["x"], records["x"])
    one = {**settings, "fields": {"x": Moments(shape=(1, 2, 7, 7, 3))}}
    np.testing.assert_array_equal(
        open_latents(str(encoded), "test", **one).read(at)["x"], records["x"][:, :1]
    )


def trained(place, first, *flags):
    flip = ["--config.data.flip=True", "--config.eval.batch_size=500"]
    assert main([f"--config={MODEL}", *FEW, f"--workdir={place}", of(first), *flip, *flags]) == 0
    return final_state(place)


@pytest.fixture(scope="module")
def from_images(tmp_path_factory, first):
    return trained(tmp_path_factory.mktemp("images") / "run", first)


@pytest.fixture(scope="module")
def run(tmp_path_factory, encoded, first):
    """The workdir of a run that reads the latents from their files."""
    place = tmp_path_factory.mktemp("latents") / "run"
    trained(place, first, f"--config.data.name=latents:{encoded}", "--config.data.hold=0")
    return place


def assert_same(state, expected):
    assert state.step == expected.step == 4
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(state.stats, expected.stats, rtol=1e-5, atol=1e-5)


def test_training_from_latents_equals_training_from_images(from_images, run):
    assert_same(final_state(run), from_images)


@pytest.mark.slow
def test_so_does_training_from_latents_in_memory(encoded, first, from_images, tmp_path):
    name = f"--config.data.name=latents:{encoded}"
    assert_same(trained(tmp_path / "run", first, name), from_images)


def test_it_resumes_exactly(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    assert main([f"--workdir={tmp_path / 'run'}"]) == 0
    chex.assert_trees_all_equal(final_state(tmp_path / "run"), final_state(run))


@pytest.mark.slow
def test_its_scores_are_of_latents(run):
    assert main([f"--workdir={run}", "--mode=eval"]) == 0
    report = json.loads((run / "eval.json").read_text())
    assert report["likelihood_of"].startswith("a density of the latents of the first stage")


def test_it_samples_images_without_the_latents(run, encoded):
    moved = encoded.with_name("moved")
    encoded.rename(moved)
    try:
        quick = ["--config.sample.method=euler", "--config.sample.steps=2"]
        assert main([f"--workdir={run}", "--mode=sample", *quick]) == 0
    finally:
        moved.rename(encoded)
    made = run / "samples" / "latest"
    assert (made / "000000.png").is_file() and (made / "grid.png").is_file()


def test_the_first_stage_must_be_the_one_that_encoded(encoded, tmp_path, capsys):
    settings = dict(network=GRID, family__latents=(3,), seed=1)
    other = first_stage(tmp_path / "other", "configs/vae_fashion.py:smoke", **settings)
    capsys.readouterr()
    flags = [f"--config={MODEL}", f"--workdir={tmp_path / 'run'}", of(other)]
    assert main([*flags, f"--config.data.name=latents:{encoded}"]) == 2
    assert "frozen.first is not the model that wrote latents:" in capsys.readouterr().err
    vq = first_stage(tmp_path / "vq")
    assert main([*flags[:2], of(vq), f"--config.data.name=latents:{encoded}"]) == 2
    assert "has latents of shape (7, 7, 4), but data.name" in capsys.readouterr().err


def test_latents_need_a_latent_space_and_what_is_no_folder_of_them_is_refused(
    encoded, first, tmp_path, capsys
):
    raw = config.load("configs/fm_fashion.py:smoke")
    raw["data"] = dict(name=f"latents:{encoded}")
    with pytest.raises(UserError, match=r"holds latents: set space.name = 'latent'"):
        resolved(raw)
    raw = config.load(MODEL)
    raw["data"], raw["frozen"]["first"]["workdir"] = dict(name=f"latents:{tmp_path}"), str(first)
    with pytest.raises(UserError, match=r"holds no latents \(there is no latents.json\)"):
        resolved(raw)
    for flags, message in {
        (f"--workdir={first}", f"--config.tools.dataset={encoded}"): "already holds latents.json",
        (f"--workdir={first}", "--config.tools.dataset=a", "--config.tools.folder=b"): (
            "leave tools.folder empty"
        ),
    }.items():
        assert main([*flags, "--mode=encode", "--config.eval.weights=raw"]) == 2
        assert message in capsys.readouterr().err


# --- the folder itself ----------------------------------------------------------------------------

COLUMNS = (
    Column(name="x", shape=(1, 2, 3), dtype="float32"),
    Column(name="label", shape=(), dtype="int32"),
)
FIELDS = {"x": Moments(shape=(1, 2, 3)), "label": Classes(names=("a", "b"))}
OPEN = dict(fields=FIELDS, tokenizer="words", memory_limit=0)


def written(folder, monkeypatch, count=20, each=6):
    """A folder of files with at most six records, and its records."""
    monkeypatch.setattr(latent_folder, "_SHARD", each * sum(c.bytes for c in COLUMNS))
    folder.mkdir()
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 1, 2, 3)).astype(np.float32)
    values = {"x": x, "label": np.arange(count, dtype=np.int32) % 2}
    parts = {}
    for split in ("train", "test"):
        writer = SplitWriter(folder, split, COLUMNS, count)
        for rows in (slice(0, 5), slice(5, count)):
            writer.add({name: value[rows] for name, value in values.items()})
        writer.close()
        parts[split] = writer.part
    Description(columns=COLUMNS, splits=parts, first=1, data={}, made_from={}).write(folder)
    return values


def test_records_come_back_bit_for_bit_in_any_order(tmp_path, monkeypatch):
    values = written(tmp_path / "set", monkeypatch)
    assert len(list((tmp_path / "set").glob("train-*"))) == 4
    source = open_latents(str(tmp_path / "set"), "train", **OPEN)
    order = np.random.default_rng(1).permutation(20)
    records = source.read(order)
    for name, value in values.items():
        np.testing.assert_array_equal(records[name], value[order])
        assert records[name].dtype == value.dtype


def test_processes_write_and_read_their_own_share(tmp_path, monkeypatch):
    written(tmp_path / "set", monkeypatch)
    (tmp_path / "both").mkdir()
    whole = open_latents(str(tmp_path / "set"), "train", **OPEN)
    values = whole.read(np.arange(20))
    for process in range(2):
        writer = SplitWriter(
            tmp_path / "both", "train", COLUMNS, 20, lambda number, me=process: number % 2 == me
        )
        writer.add(values)
        writer.close()
    for file in (tmp_path / "both").iterdir():
        assert file.read_bytes() == (tmp_path / "set" / file.name).read_bytes()
    assert len(list((tmp_path / "both").iterdir())) == 4
    # Two processes read the two halves of each batch, and one that resumes goes on.
    settings = dict(seed=3, batch_size=4)
    halves = [batches.train_batches(whole, rows=r, **settings) for r in ([0, 1], [2, 3])]
    together = batches.train_batches(whole, **settings)
    later = batches.train_batches(whole, start_step=2, **settings)
    for step in range(4):
        both = next(together)
        parts = [next(half) for half in halves]
        np.testing.assert_array_equal(np.concatenate([p["x"] for p in parts]), both["x"])
        if step >= 2:
            np.testing.assert_array_equal(next(later)["x"], both["x"])
    for reader in (*halves, together, later):
        reader.close()


def test_damage_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    written(folder, monkeypatch)
    file = folder / "latents.json"
    good = json.loads(file.read_text())
    part = good["splits"]["train"]
    huge = dict(name="y", shape=[2**40], dtype="int32")
    for change, message in (
        (dict(columns=[]), "is damaged"),
        (dict(columns=[dict(name="x", shape=[3, 2, 3], dtype="float32")]), "is damaged"),
        (dict(columns=[*good["columns"], huge]), "no shape"),
        (dict(splits={"train": dict(count=20, checksum=0, files=["../a"])}), "no file of that"),
        (dict(splits={"train": {**part, "count": 21}}), "has 20 records, not 21"),
        (dict(columns=[good["columns"][0]]), "has no field label"),
    ):  # fmt: skip
        file.write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=message):
            open_latents(str(folder), "train", **OPEN)
    more = [*good["columns"], dict(name="text", shape=[3], dtype="int32")]
    file.write_text(json.dumps(good | dict(columns=more)))
    with pytest.raises(UserError, match="another length than described"):
        open_latents(str(folder), "train", **OPEN).read(np.arange(2))
    file.write_text(json.dumps(good))
    mirrored = {**FIELDS, "x": Moments(shape=(2, 2, 3))}
    with pytest.raises(UserError, match=r"data.flip = True needs the latents of mirror images"):
        open_latents(str(folder), "train", **{**OPEN, "fields": mirrored})
    shard = folder / part["files"][0]
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(UserError, match="is damaged"):
        open_latents(str(folder), "train", **OPEN).read(np.arange(20))


def test_moments_of_the_mirror_image_are_chosen_by_the_coin():
    field = Moments(shape=(2, 2, 3))
    values = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype(np.float32)
    which = np.array([True, False, True, False])
    np.testing.assert_array_equal(field.prepare(field.flat(values)), values[:, 0])
    mirrored = field.mirrored(field.flat(values), which)
    np.testing.assert_array_equal(mirrored, values[np.arange(4), which.astype(int)])
    assert field.spatial and not Moments(shape=(1, 2, 3)).spatial
    assert field.example(4).shape == (4, 2, 3) and field.stored_example(4).shape == (4, 2, 2, 3)
