"""A run on a folder of texts, from training to retrieval, in this process."""

import json

import numpy as np
import pytest

import genzoo
from genzoo.core.errors import UserError
from genzoo.main import main

TOPICS = {
    "cooking": ("oven", "butter", "flour", "sugar", "dough", "bread", "bake", "kitchen"),
    "sailing": ("harbour", "mast", "sail", "anchor", "wind", "deck", "rope", "tide"),
    "other": ("river", "stone"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workdir trained on documents of two topics, with some of neither."""
    top, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    place = tmp_path_factory.mktemp("run") / "run"
    for topic, words in TOPICS.items():
        (top / topic).mkdir()
        for i in range(30 if topic != "other" else 6):
            text = " ".join(rng.choice(words, 6))
            (top / topic / f"{i:02}.txt").write_text(f"The {text}, and so on.")
    flags = [
        "--config=configs/vae_documents.py:smoke", f"--workdir={place}",
        f"--config.data.name=documents:{top}", "--config.data.holdout=4",
        "--config.train.steps=100", "--config.train.steps_per_call=50",
        "--config.train.log_every=50", "--config.train.save_every=50",
        "--config.optimizer.learning_rate=1e-2", "--config.eval.count=0",
        "--config.tools.neighbours=3",
    ]  # fmt: skip
    assert main(flags) == 0
    return place


def called(place, mode, *flags):
    return main([f"--workdir={place}", f"--mode={mode}", *flags])


def test_the_vocabulary_is_kept_and_no_picture_is_drawn(place):
    data = json.loads((place / "config.json").read_text())["data"]
    assert set(data["words"]) == {word for words in TOPICS.values() for word in words}
    assert not list(place.rglob("*.png"))
    fields = json.loads((place / "data.json").read_text())["fields"]
    assert fields == {"x": "Counts (18,) of uint16", "label": "3 classes"}


def test_eval_reports_perplexity_and_no_bits(place):
    assert called(place, "eval") == 0
    report = json.loads((place / "eval.json").read_text())
    assert "bits_per_dim" not in report and "perplexity" in report["likelihood_of"]
    assert 2 < report["loss"]["perplexity"] < 18


def test_documents_are_retrieved_beside_tfidf(place, tmp_path, capsys):
    assert called(place, "retrieve") == 0
    report = json.loads((place / "retrieve.json").read_text())
    # Topics share no word, and the two documents of no class are not judged.
    assert report["precision_tfidf"] == 1 and report["precision"] > 0.9
    labels = [query["label"] for query in report["queries"]]
    assert {"cooking", "sailing"} <= set(labels) and report["judged"] > 10
    capsys.readouterr()
    query = tmp_path / "query.txt"
    query.write_text("Bread and butter from the oven!")
    for first in (str(query), "bread and butter from the oven"):
        assert called(place, "retrieve", f"--config.tools.first={first}") == 0
        shown = json.loads(capsys.readouterr().out)
        (listed,) = shown["queries"]
        assert listed["query"] == first and "precision" not in shown
        for method in ("embedding", "tfidf"):
            assert [near["label"] for near in listed[method]] == ["cooking"] * 3
            distances = [near["distance"] for near in listed[method]]
            assert distances == sorted(distances) and listed[method][0]["title"].endswith(".txt")
    text = (place / "retrieval.txt").read_text()
    assert text.startswith("query: bread and butter") and "by TF-IDF:" in text
    assert called(place, "retrieve", "--config.tools.first=xyzzy") == 2
    assert "has none of the 18 words that the model knows" in capsys.readouterr().err


def test_modes_that_draw_images_refuse_documents(place, capsys):
    for mode in ("sample", "reconstruct", "interpolate", "latents"):
        capsys.readouterr()
        assert called(place, mode) == 2
        assert "holds documents: use another mode, such as retrieve" in capsys.readouterr().err


def test_texts_are_encoded_by_the_tools_and_from_python(place, tmp_path):
    (tmp_path / "a.txt").write_text("sail and mast")
    (tmp_path / "b.txt").write_text("dough")
    assert called(place, "encode", f"--config.tools.folder={tmp_path}") == 0
    arrays = np.load(place / "embeddings.npz")
    assert arrays["file"].tolist() == ["a.txt", "b.txt"]
    run = genzoo.open(place)
    codes = run.encode(["sail and mast", "dough"])
    np.testing.assert_allclose(codes, arrays["embedding"], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="holds documents"):
        run.decode(codes)
    assert called(place, "probe") == 0
    report = json.loads((place / "probe.json").read_text())
    assert report["counts"]["neighbour_accuracy"] > 0.8 and "pixels" not in report


def test_settings_for_images_are_refused(capsys):
    for config, change, message in (
        ("vae_documents", "family.decoder=bernoulli", "set it to 'multinomial'"),
        ("vae_fashion", "family.decoder=multinomial", "which holds images: choose another"),
        ("ae_documents", "family.corruption=masking", "corrupts images, but docstrings holds docu"),
        ("ae_documents", "data.flip=True", "these are documents"),
        ("fm_fashion", "data.name=docstrings", "docstrings' holds documents, not images"),
    ):
        flags = [f"--config=configs/{config}.py:smoke", "--mode=describe", f"--config.{change}"]
        assert main(flags) == 2
        assert message in capsys.readouterr().err
