"""A frozen text encoder as a stage of a text-to-image run: training, sampling, guidance, scores."""

import json
import shutil

import chex
import jax
import numpy as np
import pytest
from runs import final_state

import genzoo
from genzoo import check, config
from genzoo.builders import conditions
from genzoo.core.errors import UserError
from genzoo.data import shapes
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.modes.rerank import ranked_scores
from genzoo.resolve import resolved

ENCODER = "--config=configs/text_minilm.py:smoke"
MODEL = [
    "--config=configs/fm_shapes.py:smoke",
    "--config.network=" + repr(dict(name="dit", width=16, depth=1, heads=2, patch=8)),
    "--config.conditions.text.through=text_encoder", "--config.conditions.text.layers=0",
    "--config.train.steps=4", "--config.train.save_every=2", "--config.train.log_every=2",
    "--config.train.picture_count=0", "--config.sample.guidance_scale=2.0",
    "--config.optimizer.learning_rate=0.03", "--config.optimizer.warmup=0",
]  # fmt: skip


def of(place):
    return f"--config.frozen.text_encoder.workdir={place}"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder") / "run"
    assert main([ENCODER, f"--workdir={place}"]) == 0
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory, encoder):
    """A run whose encoder is gone afterwards: its own workdir is enough."""
    folder = tmp_path_factory.mktemp("model")
    place, lent = folder / "run", folder / "encoder"
    shutil.copytree(encoder, lent)
    assert main([*MODEL, f"--workdir={place}", of(lent)]) == 0
    shutil.rmtree(lent)
    return place


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    place = tmp_path_factory.mktemp("clip") / "run"
    few = ["--config.train.steps=2", "--config.train.save_every=2", "--config.train.log_every=2"]
    assert main(["--config=configs/clip_shapes.py:smoke", f"--workdir={place}", *few]) == 0
    return place


def test_the_frozen_encoder_is_that_of_its_run_and_training_resumes_exactly(
    run, encoder, tmp_path
):
    state = final_state(run)
    chex.assert_trees_all_equal(state.frozen["text_encoder"]["params"], final_state(encoder).params)
    # Features of another width go through a linear map; there is no table of words.
    leaves = {jax.tree_util.keystr(k) for k, _ in jax.tree_util.tree_leaves_with_path(state.params)}
    own = [name for name in leaves if "'text'" in name]
    assert any("width" in name for name in own) and not any("embed" in name for name in own)
    halves = tmp_path / "run"
    shutil.copytree(run, halves)
    shutil.rmtree(halves / "checkpoints" / "4")
    assert final_state(halves).step == 2
    assert main([f"--workdir={halves}"]) == 0
    chex.assert_trees_all_equal(final_state(halves), state)


def test_samples_follow_the_text_and_scores_are_finite(run, capsys):
    capsys.readouterr()
    assert main([f"--workdir={run}", "--mode=sample"]) == 0
    judged = json.loads(capsys.readouterr().out)["prompt_accuracy"]
    assert sum(group["samples"] for group in judged.values()) == 4
    assert main([f"--workdir={run}", "--mode=eval"]) == 0
    assert np.isfinite(json.loads((run / "eval.json").read_text())["loss"]["loss"])
    model = genzoo.open(run)
    one, other, guided, none = (
        model.predictor(guidance_scale=scale, text=text)(np.zeros((1, 32, 32, 3)), 0.6).x_0
        for text, scale in (
            ("a red circle", 1.0), ("a blue star", 1.0), ("a red circle", 3.0), (None, 1.0)
        )
    )  # fmt: skip
    assert np.abs(one - other).max() > 1e-4 and np.abs(guided - one).max() > 1e-4
    # Guidance by 3 lies on the line from the absent to the present condition.
    np.testing.assert_allclose(none + 3 * (one - none), guided, atol=1e-4)


@pytest.mark.slow
def test_it_compiles_for_other_devices(run, genzoo):
    flags = ["--mode=compile", "--config.compile.topology=cpu:2", "--config.mesh.fsdp=2"]
    report = json.loads(genzoo(f"--config={run / 'config.json'}", *flags).stdout)
    assert {"train", "sample"} <= report.keys() or report["programs"]


def test_the_encoder_itself_encodes_texts(encoder, capsys):
    one = genzoo.open(encoder)
    both = one.encode(["a red circle", "a blue star"])
    assert both.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(one.encode("a blue star")[0], both[1], atol=1e-6)
    assert main([f"--workdir={encoder}", "--mode=encode"]) == 0
    assert np.load(encoder / "embeddings.npz")["embedding"].shape == (16, 8)
    capsys.readouterr()
    for flags, message in {
        ("encode", "tools.folder=tests"): "text_encoder encodes texts, not files",
        ("sample", "sample.count=1"): "conditions.text.through = 'text_encoder'",
    }.items():
        mode, key = flags
        assert main([f"--workdir={encoder}", f"--mode={mode}", f"--config.{key}"]) == 2
        assert message in capsys.readouterr().err


def test_a_text_finds_the_examples_with_the_nearest_texts(encoder, monkeypatch):
    monkeypatch.setitem(shapes.LENGTHS, "train", 24)
    first = "--config.tools.first=a blue star"
    assert main([f"--workdir={encoder}", "--mode=retrieve", first]) == 0
    (query,) = json.loads((encoder / "retrieve.json").read_text())["queries"]
    assert len(query["texts"]) == len(query["indices"]) > 0 and all(query["texts"])
    assert query["text"] == "a blue star" and "file" not in query
    assert len(set(query["indices"])) == len(query["distances"]) > 1


def changed(encoder, **changes):
    """The resolved config of the model, with dotted keys changed ("__" for a dot)."""
    raw = config.load("configs/fm_shapes.py:smoke")
    raw["conditions"]["text"] |= dict(through="text_encoder", layers=0)
    raw["frozen"] = dict(text_encoder=dict(workdir=str(encoder)))
    return resolved(config.override(raw, {k.replace("__", "."): v for k, v in changes.items()}))


def test_an_encoder_that_does_not_fit_is_refused(encoder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    stored = json.loads((other / "config.json").read_text())
    stored["data"] |= dict(name="emoji", words=["cat", "dog"], tokens=4)
    (other / "config.json").write_text(json.dumps(stored))
    assert changed(encoder).frozen.text_encoder.config.family.name == "text_encoder"
    for place, changes, message in (
        (other, {}, "was made for another vocabulary, that of emoji with data.tokenizer = 'words'"),
        (tmp_path, {}, "holds no run"),
        (encoder, dict(conditions__text__through=""),
         "frozen.text_encoder is not used by any condition: set conditions.NAME.through"),
        (encoder, dict(conditions__low=dict(of="x", transform="grey", through="text_encoder")),
         "conditions.low.through = 'text_encoder' is for texts, but x is an image"),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            changed(place, **changes)
        problems = caught.value.problems
        assert any(message in problem for problem in problems), problems
    raw = config.load("configs/fm_shapes.py:smoke")
    raw["conditions"]["text"]["through"] = "text_encoder"
    with pytest.raises(UserError, match=r"frozen\.text_encoder\.workdir must be given"):
        check.check(raw)


def test_clip_is_a_text_encoder_too(clip):
    state = Experiment(changed(clip)).abstract_state
    assert set(state.frozen["text_encoder"]["params"]) == {"image", "text", "objective"}
    shapes = {jax.tree_util.keystr(k): v.shape for k, v in
              jax.tree_util.tree_leaves_with_path(state.params)}  # fmt: skip
    (kernel,) = [s for k, s in shapes.items() if "'text'" in k and "'width'" in k and "kernel" in k]
    assert kernel[0] == 8  # the width of the text tower


def test_a_guide_through_another_encoder_is_refused(encoder, clip):
    ours = changed(encoder)
    assert conditions.encoder_mismatches("sample.guide", ours, changed(encoder)) == []
    plain = resolved(config.load("configs/fm_shapes.py:smoke"))
    for theirs in (changed(clip), plain):
        (problem,) = conditions.encoder_mismatches("sample.guide", ours, theirs)
        assert "conditions.text through another text encoder" in problem


# --- reranking ------------------------------------------------------------------------------------


def test_scores_are_the_cosines_of_images_with_their_own_text():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(6, 4)), rng.normal(size=(2, 4))
    expected = [[float(images[3 * t + i] @ texts[t]) for i in range(3)] for t in range(2)]
    np.testing.assert_allclose(ranked_scores(images, texts, 3), expected)


def test_samples_of_a_text_are_ordered_by_clip(run, clip, encoder, capsys):
    capsys.readouterr()
    mode = [f"--workdir={run}", "--mode=rerank", "--config.sample.repeat=3",
            "--config.sample.count=6"]  # fmt: skip
    asked = "--config.sample.conditions.text=('a red circle','a small blue star')"
    assert main([*mode, asked, f"--config.tools.ranker={clip}"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["text"] for one in report["texts"]] == ["a red circle", "a small blue star"]
    assert [sorted(one["samples"]) for one in report["texts"]] == [[0, 1, 2], [3, 4, 5]]
    assert all(one["scores"] == sorted(one["scores"])[::-1] for one in report["texts"])
    every = np.mean([one["scores"] for one in report["texts"]])
    assert report["score_all"] == pytest.approx(every, abs=1e-4)
    assert report["score_best"] >= report["score_all"]
    counts = {k: sum(v["samples"] for v in own.values())
              for k, own in report["prompt_accuracy"].items()}  # fmt: skip
    assert counts == {"best": 2, "all": 6}
    assert (run / "rerank.json").is_file() and (run / "samples" / "reranked.png").is_file()

    # The scores are those of the drawn images, embedded by CLIP alone.
    samples = genzoo.open(run).sample(6, repeat=3, text=["a red circle", "a small blue star"])
    ranker = genzoo.open(clip)
    images = ranker.encode(samples)
    field = Experiment(ranker.config).spec.fields["text"]
    ids = np.stack([field.take(one["text"]) for one in report["texts"]])
    texts = ranker.family.embed(ranker.variables, {"text": ids}, "text")
    expected = np.sort(ranked_scores(images, np.asarray(texts), 3), axis=1)[:, ::-1]
    np.testing.assert_allclose([one["scores"] for one in report["texts"]], expected, atol=2e-4)

    for changes, message in (
        (["--config.sample.repeat=1"], "sample.repeat = 1 leaves nothing to order"),
        (["--config.sample.count=5"], "is not a multiple of sample.repeat = 3"),
        ([], "tools.ranker must be given"),
        ([f"--config.tools.ranker={encoder}"], "which does not compare images with texts"),
        (
            [f"--config.tools.ranker={clip}", "--config.tools.ranker_weights=emma"],
            "tools.ranker_weights = 'emma' is unknown",
        ),
    ):
        assert main([*mode, asked, *changes]) == 2
        assert message in capsys.readouterr().err
    none = "--config.sample.conditions.text=('a red circle',none)"
    assert main([*mode, none, f"--config.tools.ranker={clip}"]) == 2
    assert "leaves some samples without a text" in capsys.readouterr().err
    assert main([f"--workdir={encoder}", "--mode=rerank"]) == 2
    assert "needs a family that can sample" in capsys.readouterr().err
