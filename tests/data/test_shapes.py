"""Shapes: what the captions say is there, and the reader tells whether an image shows it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from genzoo import build, check, config
from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.data import scene_reader, scenes, shapes
from genzoo.data.scenes import COLOURS, GROUPS, PLACES, SHAPES, SIZES, Statement, parse
from genzoo.data.vocabulary import Bytes, File, Words, same
from genzoo.settings import DataSettings

COUNT = 10_000
TEXTS = {
    "a red circle": Statement((("", "red", "circle", ""),)),
    "A large blue square in the middle.": Statement((("large", "blue", "square", PLACES[4]),)),
    "an orange ring at the top": Statement((("", "orange", "ring", PLACES[1]),)),
    "an orange ring at the top left": Statement((("", "orange", "ring", PLACES[0]),)),
    "a red star above a small cyan ring": Statement(
        (("", "red", "star", ""), ("small", "cyan", "ring", "")), "above"
    ),
}


@pytest.fixture(scope="module")
def records():
    """The first scenes of the test split, with their captions."""
    source = shapes.open_shapes("test")
    read = source.read(np.arange(COUNT))
    return read["x"], [source.spec.fields["text"].text(ids) for ids in read["text"]]


def noisy(images):
    """With noise of deviation 0.1 on values in [-1, 1]."""
    noise = np.random.default_rng(0).normal(size=images.shape)
    return np.clip(np.rint(images + 12.75 * noise), 0, 255).astype(np.uint8)


def test_every_caption_is_true_of_its_image_and_nearly_every_one_with_noise(records):
    images, texts = records
    judge = shapes.open_shapes("test").spec.judge
    assert judge.shows(images, texts).all()
    assert judge.shows(noisy(images), texts).mean() >= 0.99


def test_the_reader_sees_every_attribute(records):
    images, _ = records
    of = scenes.generate("test", np.arange(COUNT))
    for i, seen in enumerate(scene_reader.read(images)):
        objects = {(s.place, s.shape, s.size, s.colour) for s in seen}
        columns = zip(of.place[i], of.shape[i], of.size[i], of.colour[i], strict=True)
        assert objects == set(list(columns)[: of.count[i]])
    large = scenes.generate("test", np.arange(200))
    masks, columns = scenes.masks(64), (large.shape, large.size, large.place, large.jitter)
    one, other = (masks[tuple(column[:, j] for column in columns)] for j in (0, 1))
    apart = (large.count == 1) | ((one * other).sum(-1) == 0)
    assert 150 < apart.sum() < 200
    for i, seen in enumerate(scene_reader.read(scenes.render(large, 64))):
        assert len(seen) == large.count[i]
        # An object that another one covers in part is weaker.
        assert max(abs(s.strength - 1) for s in seen) < (0.01 if apart[i] else 0.15)


def test_a_false_statement_is_refused(records):
    images, texts = records
    judge = shapes.open_shapes("test").spec.judge
    one, two = 0, 2  # by the order of the groups
    (seen,), pair = scene_reader.read(images[[one, two]])
    size, colour, shape = SIZES[seen.size], tuple(COLOURS)[seen.colour], SHAPES[seen.shape]
    right = f"a {size} {colour} {shape} {PLACES[seen.place]}"
    others = {
        "shape": f"a {colour} {next(s for s in SHAPES if s != shape)}",
        "colour": f"a {next(c for c in COLOURS if c != colour)} {shape}",
        "size": f"a {SIZES[1 - seen.size]} {colour} {shape}",
        "place": f"a {colour} {shape} {PLACES[seen.place - 1]}",
        "number": texts[two],
    }
    assert judge.shows(images[[one]], [right]).all()
    for about, text in others.items():
        assert not judge.shows(images[[one]], [text]).any(), about
    assert not judge.shows(images[[two]], [f"a {colour} {shape}"]).any() and len(pair) == 2
    blank = np.full((1, 32, 32, 3), scenes.BACKGROUND, np.uint8)
    assert not judge.shows(blank, [right]).any() and scene_reader.read(blank) == [[]]


@pytest.mark.parametrize("strength", [0.85, 1.0, 1.25])
@pytest.mark.parametrize("blur", [0.0, 0.5])
def test_soft_pale_and_strong_drawings_are_read_as_what_they_are(strength, blur):
    kinds = [range(6), range(2), range(8), (4,), (0, 4)]  # of an object in the middle
    every = np.stack(np.meshgrid(*kinds, indexing="ij"), -1).reshape(-1, 5)
    shape, size, colour, place, jitter = (np.stack([column] * 2, 1) for column in every.T)
    of = scenes.Scenes(
        shape=shape, size=size, colour=colour, place=place, jitter=jitter,
        count=np.ones(len(every), int),
    )  # fmt: skip
    drawn = gaussian_filter(scenes.render(of, 32).astype(float), (0, blur, blur, 0))
    ground = np.array(scenes.BACKGROUND)
    seen = np.clip(np.rint(ground + strength * (drawn - ground)), 0, 255).astype(np.uint8)
    for row, objects in zip(every, scene_reader.read(seen), strict=True):
        (one,) = objects
        assert (one.shape, one.size, one.colour, one.place) == tuple(row[:4])
        assert one.known and 0.8 * strength < one.strength < 1.05 * strength


@pytest.mark.parametrize("side", [32, 64])
def test_nothing_else_may_be_in_the_image(side):
    # An object in a colour that scenes do not have, and pale ones, beside the right object.
    both = scenes.Scenes(
        shape=np.array([[0, 4]]), size=np.array([[1, 1]]), colour=np.array([[0, 5]]),
        place=np.array([[4, 0]]), jitter=np.array([[4, 4]]), count=np.array([2]),
    )  # fmt: skip
    alone = scenes.render(replace(both, count=np.array([1])), side)[0].astype(float)
    ring = (scenes.render(both, side)[0] - alone) / (scenes.PALETTE[5] - scenes.BACKGROUND)
    judge, text = shapes.open_shapes("test").spec.judge, ["a large red circle"]
    for colour in ((255, 170, 190), (160, 180, 230), (200, 200, 200), (140, 155, 220)):
        seen = np.rint(alone + ring * (np.array(colour) - scenes.BACKGROUND)).astype(np.uint8)[None]
        assert not judge.shows(seen, text).any(), colour
        first, second = scene_reader.read(seen)[0]
        assert first.known and not second.known and second.place == 0
        assert not judge.shows(seen, ["a red circle right of a blue ring"]).any()
    assert judge.shows(np.rint(alone)[None].astype(np.uint8), text).all()


def test_relations_hold_in_one_direction(records):
    images, texts = records
    judge = shapes.open_shapes("test").spec.judge
    inverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for i in range(2, 402, 4):
        relation = next(r for r in inverse if f" {r} " in texts[i])
        first, second = texts[i].split(f" {relation} ")
        turned = f"{second} {inverse[relation]} {first}"
        wrong = f"{first} {inverse[relation]} {second}"
        alike = first.split()[-2:] == second.split()[-2:]
        assert judge.shows(images[[i]], [turned]).all()
        assert alike or not judge.shows(images[[i]], [wrong]).any()


def test_captions_are_parsed():
    for text, statement in TEXTS.items():
        assert parse(text) == statement
    for text in ("a red", "a red dragon", "red circle blue square", "a circle above", "", "a cat"):
        assert parse(text) is None and scenes.group(text) == ""
    assert parse("a large red triangle").held_out
    assert parse("a red star above a blue ring").held_out
    assert parse("a blue ring below a red star").held_out
    assert not parse("a red star below a blue ring").held_out


def test_held_out_combinations_never_occur_in_training():
    # Over all indices, and also in the captions of a part of them.
    for start in range(0, shapes.LENGTHS["train"], 250_000):
        of = scenes.generate("train", np.arange(start, start + 250_000))
        colours, forms = np.array(tuple(COLOURS)), np.array(SHAPES)
        real = np.arange(2) < of.count[:, None]
        for colour, shape in scenes.HELD_OUT_PAIRS:
            both = (colours[of.colour] == colour) & (forms[of.shape] == shape)
            assert not (both & real).any()
        row, column = of.place // 3, of.place % 3
        two = of.count == 2
        assert not of.held_out.any()
        for i, j in ((0, 1), (1, 0)):
            star_and_ring = (forms[of.shape[:, i]] == "star") & (forms[of.shape[:, j]] == "ring")
            assert not (two & star_and_ring & (row[:, i] < row[:, j])).any()
            others = (forms[of.shape[:, i]] == "square") & (forms[of.shape[:, j]] == "circle")
            assert not (two & others & (column[:, i] < column[:, j])).any()
    index = np.arange(20_000)
    for text in scenes.captions("train", index, scenes.generate("train", index)):
        assert not parse(text).held_out
        assert len(text.split()) <= scenes.MAX_WORDS


def test_scenes_depend_on_their_index_alone_and_all_attributes_occur_equally():
    of, alone = (scenes.generate("train", np.arange(i, 40_000)) for i in (0, 39_990))
    np.testing.assert_array_equal(of.shape[-10:], alone.shape)
    np.testing.assert_array_equal(of.jitter[-10:], alone.jitter)
    assert abs(of.count.mean() - 1.4) < 0.01 and (of.place[:, 0] != of.place[:, 1]).all()
    for values, kinds in ((of.size, 2), (of.place, 9), (of.jitter, 9)):
        shares = np.bincount(values[:, 0], minlength=kinds) / len(values)
        np.testing.assert_allclose(shares, 1 / kinds, atol=0.02)
    assert not np.array_equal(of.place, scenes.generate("test", np.arange(40_000)).place)


def test_the_groups_of_the_test_split_come_in_turn(records):
    _, texts = records
    assert [scenes.group(text) for text in texts[:8]] == [*GROUPS, *GROUPS]
    for i, group in enumerate(GROUPS):
        assert {scenes.group(text) for text in texts[i::4]} == {group}


@pytest.mark.parametrize("name", ["shapes", "emoji"])
def test_mirroring_is_refused_since_captions_name_sides(name):
    (problem,) = datasets.problems(DataSettings(name=name, flip=True))
    assert problem.startswith(f"data.flip = True mirrors images, but the captions of {name}")


def test_only_two_sizes_can_be_drawn(tmp_path, capsys):
    from genzoo.main import main

    place = [f"--workdir={tmp_path}/run", "--config=configs/fm_shapes.py:smoke"]
    assert main([*place, "--config.data.size=48"]) == 2
    assert "data.size = 48 must be 0 or 32 or 64" in capsys.readouterr().err
    with pytest.raises(UserError, match="split"):
        shapes.open_shapes("valid")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_class_of_a_scene_is_the_kind_of_its_first_object(split):
    records = shapes.open_kinds(split).read(np.arange(400))
    names = datasets.spec(DataSettings(name="shapes_kinds")).classes
    for seen, label in zip(scene_reader.read(records["x"]), records["label"], strict=True):
        first = min(seen, key=lambda one: one.place)
        assert names[label] == f"{tuple(COLOURS)[first.colour]} {SHAPES[first.shape]}"
    assert len(names) == 48 and len(np.unique(records["label"])) > 45
    unseen = {" ".join(pair) for pair in scenes.HELD_OUT_PAIRS}
    assert {names[label] for label in records["label"]} & unseen
    others = shapes.open_kinds("train").read(np.arange(400))["x"]
    assert (split == "train") == np.array_equal(records["x"], others)


@pytest.mark.parametrize("tokenizer", [Words(scenes.WORDS), Bytes()])
def test_no_caption_has_more_tokens_than_the_longest(tokenizer):
    most = max(len(tokenizer.encode(text)) for text in shapes.longest_captions())
    index = np.arange(5_000)
    lengths = [
        len(tokenizer.encode(text))
        for split in ("train", "test")
        for text in scenes.captions(split, index, scenes.generate(split, index))
    ]
    assert max(lengths) <= most <= max(lengths) + 4
    if isinstance(tokenizer, Words):
        assert most == scenes.MAX_WORDS


def test_captions_may_be_read_by_another_tokenizer():
    def settled(**data):
        raw = config.load("configs/clip_shapes.py:smoke")
        raw["data"] |= data
        return build.settled(check.check(raw))

    data = build.section(settled(tokenizer="bytes"), "data")
    assert data.tokens == max(len(text) for text in shapes.longest_captions())
    records = datasets.open_source(data, "test").read(np.arange(3))
    text = datasets.spec(data).fields["text"]
    plain = shapes.open_shapes("test").read(np.arange(3))["text"]
    assert records["text"].shape == (3, data.tokens)
    assert [text.text(ids) for ids in records["text"]] == [shapes.CAPTIONS.text(i) for i in plain]
    assert settled().data.tokens == 0
    with pytest.raises(UserError, match=r"data.tokens = 5 has no effect with data.tokenizer = 'w"):
        settled(tokens=5)


def test_tokenizers_are_the_same_if_they_give_the_same_ids(tmp_path):
    for name in ("one", "copy", "other"):
        (tmp_path / name).write_text("other" if name == "other" else "same")
    one, copy, other = (File(str(tmp_path / name)) for name in ("one", "copy", "other"))
    words = Words(("a", "b"))
    assert same(one, copy) and not same(one, other) and same(words, Words(("a", "b")))
    assert not same(words, Words(("b", "a"))) and not same(words, one) and same(Bytes(), Bytes())
