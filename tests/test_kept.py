"""Runs keep the tokenizer.json that their config names, and work without the original."""

import shutil

import numpy as np
import pytest
from PIL import Image

from genzoo import build, config, kept
from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.data.vocabulary import File
from genzoo.resolve import resolved
from genzoo.workdir import Workdir


def tokenizer(path, *words):
    """A tokenizer.json that knows these words."""
    library = pytest.importorskip("tokenizers")
    ids = {word: i for i, word in enumerate(("?", *words))}
    made = library.Tokenizer(library.models.WordLevel(ids, unk_token="?"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(path))
    return str(path)


def test_a_tokenizer_from_a_file(tmp_path):
    found = File(tokenizer(tmp_path / "it.json", "a", "red", "cat"))
    assert found.size == 5  # with the unknown word and padding
    assert found.encode("a red cat a dog") == [2, 3, 4, 2, 1]
    assert found.decode([2, 3, 4, 0, 0]) == "a red cat"
    (tmp_path / "it.json").write_text("{}")
    with pytest.raises(UserError, match=r"it\.json' is not a tokenizer\.json"):
        File(str(tmp_path / "it.json")).encode("a")
    with pytest.raises(UserError, match="no such file; give words, bytes, minilm, wordllama, or"):
        File(str(tmp_path / "absent.json")).encode("a")


def begun(place, settings):
    """Claims a workdir as a run does, with a finished checkpoint."""
    place.check(settings)
    place.claim(settings, {"examples": 3}).close()
    manifest = place.path / "checkpoints" / "2" / "genzoo_manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")


def test_a_run_works_without_the_original_and_in_another_place(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, text in enumerate(("a red cat", "a blue cat", "a cat")):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(photos / f"{i}.png")
        (photos / f"{i}.txt").write_text(text)
    original = tokenizer(tmp_path / "it.json", "a", "red", "cat")
    raw = config.override(config.load("configs/fm_fashion.py:smoke"), {
        "data.name": f"folder:{photos}", "data.size": 8, "data.channels": 1, "network.patch": 2,
        "data.tokenizer": original, "network.transformer_depth": 1, "network.attention": (4,),
        "conditions.text.dropout": 0.1, "train.steps": 20,
    })  # fmt: skip
    place = Workdir(tmp_path / "run")
    settings = resolved(raw, place.path)
    assert settings.data.tokens == 3 and not settings.data.words
    begun(place, settings)
    place.check(resolved(raw, place.path))  # the same config resumes it
    tokenizer(tmp_path / "it.json", "a", "red", "dog")
    with pytest.raises(UserError, match="is not the tokenizer with which the run began"):
        resolved(raw, place.path)
    (tmp_path / "it.json").unlink()
    shutil.rmtree(photos)
    place.check(resolved(raw, place.path))
    moved = Workdir(tmp_path / "elsewhere" / "run")
    shutil.move(place.path, moved.path)
    for given in (moved.config(), raw):
        again = resolved(given, moved.path)
        moved.check(again)
        text = datasets.spec(build.section(again, "data")).fields["text"]
        np.testing.assert_array_equal(text.parse("a red cat", "it"), [2, 3, 4])
        moved.claim(again, {"examples": 3}).close()


def test_a_copy_that_is_gone_is_replaced_by_the_given_file(tmp_path):
    (tmp_path / "one.json").write_text("1")
    given, gone = f"{tmp_path}/one.json", f"{tmp_path}/gone.json"
    assert kept.as_begun(given, gone) == given
    assert kept.as_begun(gone, given) == given
    assert kept.as_begun("words", given) == "words"


def test_the_tokenizers_of_frozen_models_are_kept_too(tmp_path):
    (tmp_path / "one.json").write_text("1")
    (tmp_path / "two.json").write_text("2")

    def settings(name, tokens=3, **stages):
        frozen = {stage: {"config": theirs} for stage, theirs in stages.items()}
        return {"data": {"tokenizer": name, "tokens": tokens}, "frozen": frozen}

    inner = settings(str(tmp_path / "two.json"), guide=settings("bytes"))
    whole = settings(str(tmp_path / "one.json"), prior=inner, other=settings("gone.json", 0))
    run = tmp_path / "run"
    kept.keep(run, whole)
    assert {file.name: file.read_text() for file in run.iterdir()} == {
        "tokenizer.json": "1", "tokenizer.prior.json": "2",
    }  # fmt: skip
    moved = kept.redirected(run, whole)
    assert moved["data"]["tokenizer"] == f"{run}/tokenizer.json"
    assert moved["frozen"]["prior"]["config"]["data"]["tokenizer"] == f"{run}/tokenizer.prior.json"
    assert moved["frozen"]["other"]["config"]["data"]["tokenizer"] == "gone.json"
    kept.keep(run, moved)  # onto themselves
    assert (run / "tokenizer.json").read_text() == "1"
