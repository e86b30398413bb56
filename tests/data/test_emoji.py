"""Emoji: both forms of the package are read and verified, colours are composed on white, and whole
names are held out. The package is a small fake; its own MD5s replace the published ones.
"""

import dataclasses
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.data import doctor, emoji, fetch
from genzoo.data.source import held_out
from genzoo.settings import DataSettings

RNG = np.random.default_rng(0)
NAMES = [f"{size} {colour} {thing}".upper() for size in ("LARGE", "SMALL")
         for colour in ("red", "blue") for thing in ("square", "circle", "HEART")]  # fmt: skip
# These two have a CRC-32 divisible by 20; the second has a word that the others lack.
NAMES += ["PENGUIN", "LARGE ORANGE SQUARE", "ORANGE HEART"]
RECORDS = [
    {"name": name, "image": f"{0x1F300 + i:x}-fe0f.png", "category": emoji.CATEGORIES[i % 10],
     "skin_variations": {"1F3FB": {"image": f"{0x1F300 + i:x}-1f3fb.png"}}}
    for i, name in enumerate(NAMES)
]  # fmt: skip
IMAGES = RNG.integers(0, 256, (len(NAMES), 64, 64, 4), dtype=np.uint8)
IMAGES[0, ..., 3], IMAGES[1, ..., 3] = 0, 255


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


FILES = {record["image"]: png(image) for record, image in zip(RECORDS, IMAGES, strict=True)}
CONTENT = {"emoji.json": json.dumps(RECORDS).encode(), "images.bin": emoji.packed(FILES.values())}


def archive(folder):
    files = {"emoji.json": CONTENT["emoji.json"], "img/google/sheets/16.png": b"many images"}
    files |= {f"img/google/64/{name}": content for name, content in FILES.items()}
    files |= {f"img/google/64/{0x1F300 + i:x}-1f3fb.png": b"a skin tone" for i in range(3)}
    path = folder / "emoji-datasource-google-16.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def unpacked(folder):
    with tarfile.open(archive(folder)) as tar:
        tar.extractall(folder, filter="data")
    (folder / "emoji-datasource-google-16.0.0.tgz").unlink()


def from_the_cache(folder):
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


@pytest.fixture(autouse=True)
def fake(monkeypatch, tmp_path):
    """An empty cache, no npm, and the fake package in place of the published one."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "npm_pack", lambda package, into: archive(into))
    published = dataclasses.replace(
        emoji.PUBLISHED, md5={name: fetch.md5(content) for name, content in CONTENT.items()}
    )
    monkeypatch.setattr(emoji, "PUBLISHED", published)
    monkeypatch.setattr(doctor, "EMOJI", published)


@pytest.mark.parametrize("form", [archive, unpacked, from_the_cache])
def test_every_form_gives_the_same_records(form, tmp_path):
    (tmp_path / "given").mkdir()
    form(tmp_path / "given")
    train, test = (
        emoji.open_emoji(split, str(tmp_path / "given"), 64) for split in ("train", "test")
    )
    assert not (tmp_path / "cache").exists()
    assert (len(train), len(test)) == (13, 2)
    assert emoji.captions("train", str(tmp_path / "given")) == [
        name.lower() for name in NAMES if name not in ("PENGUIN", "LARGE ORANGE SQUARE")
    ]
    assert (train.arrays["x"][0] == 255).all(), "transparent is white"
    np.testing.assert_array_equal(train.arrays["x"][1], IMAGES[1, ..., :3])
    assert train.arrays["label"].tolist() == [*range(10), 0, 1, 4]


def test_names_are_held_out_and_those_of_known_words_come_first():
    assert emoji.captions("test") == ["large orange square", "penguin"]
    assert held_out("penguin", emoji.HOLDOUT) and not held_out("duck", emoji.HOLDOUT)
    assert "emoji" in doctor.cached()
    with pytest.raises(UserError, match="no split"):
        emoji.captions("valid")


def test_small_images_are_averages_weighted_by_opacity():
    small = emoji.fitted(IMAGES[:4], 32)
    squares = IMAGES[:4].astype(np.float64).reshape(4, 32, 2, 32, 2, 4)
    colours, opacity = squares[..., :3], squares[..., 3:] / 255
    # The mean colour weighted by opacity, then put on white with the mean opacity.
    whole = opacity.mean((2, 4))
    mean = (colours * opacity).mean((2, 4)) / np.where(whole, whole, 1)
    np.testing.assert_allclose(small, whole * mean + (1 - whole) * 255, atol=0.501)
    assert small.dtype == np.uint8 and small.shape == (4, 32, 32, 3)


def test_captions_become_words_of_the_training_split():
    data = DataSettings(name="emoji")
    assert datasets.problems(data) == [] and "text" not in datasets.spec(data).fields
    assert {"x", "label", "text"} == datasets.possible_fields(data).keys()
    found, missing = datasets.with_facts(data, ["text", "label"])
    assert not missing and found.tokens == 3 and len(found.words) == 8
    assert found.words[:5] == ("blue", "large", "red", "small", "heart")
    source = datasets.open_source(found, "test")
    text = source.spec.fields["text"]
    assert source.arrays["x"].shape == (2, 32, 32, 3)
    assert [text.text(row) for row in source.arrays["text"]] == ["large orange square", "?"]
    assert text.parse("small red heart", "it").tolist() == text.take("small red heart").tolist()
    with pytest.raises(UserError, match="no word 'penguin'"):
        text.parse("penguin", "it")
    kept, _ = datasets.with_facts(dataclasses.replace(data, tokenizer="bytes", tokens=30), ["text"])
    assert (kept.tokens, kept.words) == (30, ())
    assert datasets.open_source(kept, "train").arrays["text"].shape == (13, 30)


def test_mistakes_are_told(tmp_path):
    wrong = DataSettings(name="emoji", size=48, channels=1)
    assert "data.size = 48" in datasets.problems(wrong)[0]
    assert any("data.channels = 1 has no effect" in s for s in datasets.unused(wrong))
    (tmp_path / "emoji.json").write_bytes(CONTENT["emoji.json"])
    unreadable = r"emoji.json: .*img/google/64/.*\.png cannot be read: No such file"
    with pytest.raises(UserError, match=unreadable):
        emoji.open_emoji("train", str(tmp_path))
    (tmp_path / "emoji.json").write_bytes(b"[]")
    with pytest.raises(UserError, match=r"has MD5 .* Put emoji-datasource-google-16.0.0.tgz"):
        emoji.open_emoji("train", str(tmp_path))
