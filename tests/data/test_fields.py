"""Fields of records: storage, preparation, parsing, mirroring, and checks of sources."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow

from genzoo.core.errors import UserError
from genzoo.data.counts import Counts
from genzoo.data.fields import (
    Classes,
    Image,
    Latents,
    Points,
    Signal,
    Tokens,
    Vector,
    numbered,
)
from genzoo.data.records import flat, only, prepare
from genzoo.data.source import ArraySource, Spec
from genzoo.data.vocabulary import Bytes, Words

GARMENTS = ("T-shirt/top", "Trouser", "Ankle boot")
KINDS = [
    Image(shape=(4, 6, 3)),
    Signal(shape=(5, 2)),
    Points(shape=(2,)),
    Latents(shape=(2, 2, 4)),
    Classes(names=GARMENTS),
    Tokens(shape=(7,), vocabulary=50),
    Vector(shape=(3,)),
    Counts(shape=(4,)),
]
EVERY = pytest.mark.parametrize("field", KINDS, ids=lambda field: type(field).__name__)
RNG = np.random.default_rng(0)


@EVERY
def test_values_come_back_as_they_were_stored(field):
    values = field.made_up(RNG, 9)
    assert not field.wrong(values)
    seen = jax.jit(field.prepare)(field.flat(values))
    example, at_rest = field.example(9), field.stored_example(3, 9)
    assert (seen.shape, seen.dtype) == (example.shape, example.dtype)
    assert at_rest.shape == (3, *values.shape) and at_rest.dtype == values.dtype
    assert field.bytes == values[0].nbytes
    np.testing.assert_array_equal(field.prepare(values), seen)
    for back in (field.stored(np.asarray(seen)), jax.jit(field.stored)(seen)):
        assert back.dtype == values.dtype
        np.testing.assert_array_equal(back, values)
    assert isinstance(field.stored(np.asarray(seen)), np.ndarray)


@EVERY
def test_only_images_change_their_numbers(field):
    values = field.made_up(RNG, 4)
    expected = values / 127.5 - 1 if isinstance(field, Image) else values
    np.testing.assert_allclose(field.prepare(values), expected, atol=1e-6)
    assert field.levels == (256 if isinstance(field, Image) else 0)


def test_the_kind_decides_and_not_the_shape():
    values = np.linspace(-3, 3, 12, dtype=np.float32).reshape(2, 3, 2, 1)
    for field in (Latents(shape=(3, 2, 1)), Signal(shape=(6, 1)), Points(shape=(6,))):
        stored = field.stored(values.reshape(2, *field.shape))
        np.testing.assert_array_equal(stored.ravel(), values.ravel())
    assert Image(shape=(3, 2, 1)).stored(values).max() == 255
    assert Points(shape=(2,)).stored(jnp.ones((3, 2), jnp.bfloat16)).dtype == np.float32
    with pytest.raises(ValueError, match=r"\[L, C\]"):
        Signal(shape=(5,))
    with pytest.raises(ValueError, match="a name for each of C channels"):
        Signal(shape=(5, 2), channels=("one",))
    with pytest.raises(ValueError, match="a name for each of D entries"):
        Vector(shape=(2,), names=("one",))


# --- values given by users ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text", "meant"),
    [
        (Classes(names=GARMENTS), "trouser", 1),
        (Classes(names=GARMENTS), "Ankle Boot", 2),
        (Classes(names=GARMENTS), "0", 0),
        (Classes(names=GARMENTS), 2, 2),
        (Classes(names=("3", "1")), "1", 1),  # names take precedence over numbers
        (Classes(names=("a", "A", "b")), "A", 1),
        (numbered(1000), "417", 417),
        (Vector(shape=(2,)), "0.1, -2", [0.1, -2]),
        (Vector(shape=(2,)), (0.5, 1), [0.5, 1]),
        (Vector(shape=(1,)), 2.5, [2.5]),
        (Vector(shape=(2,), names=("porosity", "grain")), "grain=3, porosity=0.4", [0.4, 3]),
        (Vector(shape=(2,), names=("porosity", "grain")), "0.4,3", [0.4, 3]),
        (Vector(shape=(2,), names=("porosity", "grain")), "(porosity=0.4, grain=3)", [0.4, 3]),
        (Vector(shape=(1,), names=("porosity",)), "porosity=4e-1", [0.4]),
        (Points(shape=(2,)), "(1, 2)", [1, 2]),
        (Signal(shape=(3, 1)), "1,2,3", [[1], [2], [3]]),
    ],
)
def test_a_value_by_name(field, text, meant):
    value = field.parse(text, "sample.it")
    np.testing.assert_array_equal(value, np.asarray(meant, field.dtype))
    assert not field.wrong(value[None])


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        (Classes(names=GARMENTS), "trousers", "did you mean 'Trouser'?"),
        (Classes(names=GARMENTS), "3", "a number from 0 to 2"),
        (Classes(names=GARMENTS), -1, "a number from 0 to 2"),
        (Classes(names=("a", "A")), "á", "is not a class"),
        (Vector(shape=(2,)), "0.1", r"of shape \(1,\): give \(2,\)"),
        (Vector(shape=(2,)), "a lot", "must be numbers separated by commas"),
        (Vector(shape=(2,)), "", "must be finite numbers"),
        (Vector(shape=(1,)), "nan", "must be finite numbers"),
        (Vector(shape=(2,), names=("b", "a")), "1", "give 2 numbers, in this order: b, a."),
        (Vector(shape=(2,), names=("b", "a")), "x=1,a=1", "no entry 'x'; known are: b, a."),
        (Classes(names=("zirconia", "clay")), "iron", "a name; known are: zirconia, clay."),
        (Vector(shape=(1,)), ["x"], "must be numbers"),
        (Vector(shape=(2,), names=("a", "b")), "a=1", "lacks b"),
        (Vector(shape=(2,), names=("a", "b")), 0.4, "give 2 numbers, in this order: a, b."),
        (Vector(shape=(2,), names=("a", "b")), "a=1,a=2", "gives a twice"),
        (Vector(shape=(2,), names=("porosity", "b")), "porsity=1,b=2", "did you mean 'porosity'?"),
        (Vector(shape=(2,), names=("a", "b")), "a=0,4, b=2", "'4' is not NAME=NUMBER"),
        (Vector(shape=(2,), names=("a", "b")), "a=1; b=2", "a = '1; b=2' must be one finite"),
        (Vector(shape=(1,), names=("a",)), "a=x", "sample.it: a = 'x' must be one finite"),
        (Points(shape=(2,)), "nowhere.npy", "there is no such file"),
        (Image(shape=(4, 4, 1)), "nowhere.png", "there is no such file"),
        (Tokens(shape=(2,), vocabulary=9), "a text", "this field has no tokenizer"),
    ],
)
def test_a_wrong_name_is_said_with_its_key_and_remedy(field, text, words):
    with pytest.raises(UserError, match=words) as caught:
        field.parse(text, "sample.it")
    assert str(caught.value).startswith("sample.it")


def test_a_value_from_a_file(tmp_path):
    signal = Signal(shape=(4, 2))
    values = RNG.normal(size=(4, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savetxt(tmp_path / "a.csv", values, delimiter=",", fmt="%.9g")
    np.savetxt(tmp_path / "a.txt", values, fmt="%.9g")
    for ending in ("npy", "csv", "txt"):
        np.testing.assert_array_equal(signal.parse(f"{tmp_path}/a.{ending}", "it"), values)
    for wrong in (Signal(shape=(2, 4)), Points(shape=(8,))):
        with pytest.raises(UserError, match=r"of shape \(4, 2\): give"):
            wrong.parse(f"{tmp_path}/a.npy", "it")
    (tmp_path / "b.csv").write_text("one,two\n")
    np.save(tmp_path / "c.npy", np.array([{}], object), allow_pickle=True)
    for name in ("b.csv", "c.npy"):
        with pytest.raises(UserError, match=r"it = .* cannot be read as numbers"):
            signal.parse(f"{tmp_path}/{name}", "it")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "time,value\n1,2\n", "line 1, 'time,value', is not .* commas; remove the line"),
        ("a.csv", "1,2\n\n3;4\n", "line 3, '3;4', is not numbers separated by commas"),
        ("a.csv", "1,2\n3\n", "line 2 has 1 numbers, others 2"),
        ("a.txt", "1 2\n3,4\n", "line 2, '3,4', is not numbers separated by white space"),
        ("a.csv", "1,nan\n", "must be finite numbers"),
        ("a.csv", "# nothing\n", "must be finite numbers"),
        ("a.npy", "garbage", "neither a .npy nor a .npz file"),
    ],
)
def test_a_file_that_holds_no_numbers_says_where(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"^it = '{tmp_path}/{name}' .*{message}"):
        Signal(shape=(2, 2)).parse(f"{tmp_path}/{name}", "it")


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("porosity=0.5, grain=2", []),
        ("0.4, 11.9", []),
        ("porosity=1e9, grain=2", ["porosity = 1e+09"]),
        ("0.5, -8.1", ["grain = -8.1"]),
        ([1e9, 1e9], ["porosity = 1e+09", "grain = 1e+09"]),
    ],
)
def test_values_far_outside_the_training_set_are_warned_of(text, warned, caplog):
    names = ("porosity", "grain")
    vector = Vector(shape=(2,), names=names, mean=(0.5, 2.0), deviation=(0.1, 2.0))
    vector.parse(text, "it")
    assert len(caplog.messages) == len(warned)
    for message, words in zip(caplog.messages, warned, strict=True):
        assert message.startswith(f"it: {words}") and "The model extrapolates" in message


def test_an_image_from_a_file_is_fitted(tmp_path):
    pixels = RNG.integers(0, 256, (4, 8, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "a.png")
    image = Image(shape=(4, 4, 3))
    np.testing.assert_array_equal(image.parse(f"{tmp_path}/a.png", "it"), pixels[:, 2:6])
    stretched = dataclasses.replace(image, resize="stretch").parse(f"{tmp_path}/a.png", "it")
    assert stretched.shape == (4, 4, 3) and (stretched != pixels[:, 2:6]).any()
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be used as an image"):
        image.parse(f"{tmp_path}/b.png", "it")


def test_text_goes_through_the_tokenizer_that_the_field_has(tmp_path):
    words = Words(("a", "red", "circle"))
    text = Tokens(shape=(4,), vocabulary=words.size, tokenizer=words)
    np.testing.assert_array_equal(text.parse("A red circle", "it"), [2, 3, 4, 0])
    np.testing.assert_array_equal(text.take("red"), [3, 0, 0, 0])
    np.testing.assert_array_equal(text.take(b"red dragon"), [3, 1, 0, 0])
    np.testing.assert_array_equal(text.take(np.array([4, 2])), [4, 2, 0, 0])
    np.testing.assert_array_equal(text.take("a red a red a red"), [2, 3, 2, 3])
    np.testing.assert_array_equal(text.mask(text.take("a red")), [True, True, False, False])
    assert text.text(text.take("a red Circle")) == "a red circle"
    (tmp_path / "it.txt").write_text("circle")
    np.testing.assert_array_equal(text.parse(f"{tmp_path}/it.txt", "it"), [4, 0, 0, 0])
    (tmp_path / "it.txt").write_bytes(b"\xef\xbb\xbfcat\r\n")  # as some editors save it
    whole = Tokens(shape=(9,), vocabulary=257, tokenizer=Bytes())
    for given in (f"{tmp_path}/it.txt", " cat "):
        np.testing.assert_array_equal(whole.parse(given, "it"), whole.take("cat"))
    for wrong in (np.arange(5), np.array([5]), np.array([-1]), np.zeros((2, 2), int)):
        with pytest.raises(ValueError, match="its"):
            text.take(wrong)
    for wrong, message in {
        "a rad circle": "no word 'rad': did you mean 'red'",
        "a red a red a": "has 5 tokens, but this model takes at most 4",
    }.items():
        with pytest.raises(UserError, match=f"it = '{wrong}' .*{message}"):
            text.parse(wrong, "it")


# --- records --------------------------------------------------------------------------------------

FIELDS = {
    "x": Image(shape=(2, 3, 3)),
    "hint": Image(shape=(4, 6, 1)),
    "trace": Signal(shape=(3, 2)),
    "label": numbered(5),
}


def records(count):
    return {name: field.made_up(RNG, count) for name, field in FIELDS.items()}


def test_all_spatial_fields_of_a_record_are_mirrored_alike():
    batch, key = records(300) | {"index": np.arange(300)}, jax.random.key(3)
    plain = prepare(batch, fields=FIELDS)
    seen = jax.jit(lambda b, k: prepare(b, k, fields=FIELDS, mirrored=True))(batch, key)
    which = {}
    for name in ("x", "hint"):
        there, back = np.asarray(seen[name]), np.asarray(plain[name])
        which[name] = (there == back[:, :, ::-1]).all((1, 2, 3))
        np.testing.assert_array_equal(which[name], ~(there == back).all((1, 2, 3)))
    np.testing.assert_array_equal(which["x"], which["hint"])
    assert 100 < which["x"].sum() < 200
    for name in ("trace", "label", "index"):
        np.testing.assert_array_equal(seen[name], batch[name])


def test_what_is_not_mirrored_needs_no_key():
    points = {"x": Points(shape=(2,))}
    batch = {"x": np.ones((3, 2), np.float32)}
    np.testing.assert_array_equal(prepare(batch, fields=points, mirrored=True)["x"], batch["x"])


def test_records_are_held_as_rows_and_seen_in_their_shapes():
    batch = records(5) | {"mask": np.ones(5, np.float32)}
    held = flat(batch, FIELDS)
    assert {k: v.shape[1:] for k, v in held.items()} == {
        "x": (18,), "hint": (24,), "trace": (6,), "label": (), "mask": (),
    }  # fmt: skip
    for name, values in prepare(held, fields=FIELDS).items():
        np.testing.assert_array_equal(values, prepare(batch, fields=FIELDS)[name])
    assert only(batch, FIELDS).keys() == FIELDS.keys()


def test_a_source_holds_what_its_fields_say():
    spec, right = Spec(fields=FIELDS), records(4)
    assert len(ArraySource(name="it", spec=spec, arrays=right)) == 4
    for name, array, words in (
        ("x", right["x"].astype(np.float32), r"it: x is float32 \(2, 3, 3\), .* Image .* of uint8"),
        ("hint", right["hint"][:, :2], r"it: hint is uint8 \(2, 6, 1\), which should be"),
        ("trace", right["trace"].astype(np.float64), "it: trace is float64"),
        ("label", right["label"].astype(np.int64), "it: label is int64"),
        ("label", right["label"][:, None], r"it: label is int32 \(1,\), which should be 5 classes"),
        ("trace", right["trace"][:3], "it: 3 of trace for 4 records"),
    ):
        with pytest.raises(ValueError, match=words):
            ArraySource(name="it", spec=spec, arrays={**right, name: array})
    with pytest.raises(ValueError, match=r"it holds \['hint', 'label', 'x'\]"):
        ArraySource(
            name="it", spec=spec, arrays={k: v for k, v in right.items() if k != "trace"}
        )


def test_a_spec_knows_the_datum_and_the_classes():
    spec = Spec(fields=FIELDS)
    assert spec.shape == (2, 3, 3) and spec.classes == ("0", "1", "2", "3", "4")
    assert Spec(fields={"x": Points(shape=(2,))}).classes == ()
