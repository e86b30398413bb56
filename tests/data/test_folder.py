"""Any folder of images: every kind gives the right pixels, and bad files are listed."""

import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.data.batches import train_batches
from genzoo.data.folder import FolderSource, images_of, open_folder
from genzoo.data.source import ArraySource
from genzoo.settings import DataSettings

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def only(folder, **options):
    """The pixels of the single image in a folder."""
    source = open_folder(str(folder), **{"size": 8, **options})
    assert len(source) == 1
    return source.read(np.array([0]))["x"][0]


def test_pixels_of_the_right_size_are_left_alone(tmp_path):
    colour = noise(8, 8, 3)
    save(tmp_path / "a.PNG", colour)  # upper case on purpose
    np.testing.assert_array_equal(only(tmp_path), colour)


def test_grey_becomes_colour_and_colour_grey(tmp_path):
    grey = noise(8, 8)
    save(tmp_path / "a.png", grey)
    np.testing.assert_array_equal(only(tmp_path), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(only(tmp_path, channels=1), grey[..., None])
    colour = noise(8, 8, 3)
    save(tmp_path / "a.png", colour)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(only(tmp_path, channels=1)[..., 0] - luma).max() <= 1


def test_transparency_shows_white(tmp_path):
    rgba = noise(8, 8, 4)
    save(tmp_path / "a.png", rgba)
    alpha = rgba[..., 3:] / 255.0
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(only(tmp_path) - expected).max() <= 1


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(tmp_path / "a.png")
    assert (only(tmp_path) == [10, 200, 30]).all()
    image.save(tmp_path / "a.png", transparency=1)
    assert (only(tmp_path) == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_sixteen_bits_keep_their_range(tmp_path, name):
    levels = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    save(tmp_path / name, levels)
    expected = np.round(levels / 257.0)
    np.testing.assert_array_equal(only(tmp_path, channels=1)[..., 0], expected)


def test_cmyk_and_bilevel(tmp_path):
    save(tmp_path / "a.jpg", np.full((8, 8, 3), (255, 0, 0), np.uint8), "CMYK", quality=95)
    assert np.abs(only(tmp_path).astype(int) - [255, 0, 0]).max() < 8
    (tmp_path / "a.jpg").unlink()
    save(tmp_path / "b.bmp", np.eye(8, dtype=np.uint8) * 255, "1")
    np.testing.assert_array_equal(only(tmp_path, channels=1)[..., 0], np.eye(8) * 255)


@pytest.mark.parametrize("suffix", ["jpeg", "webp", "gif", "ppm", "tif", "bmp"])
def test_the_listed_formats_are_read(tmp_path, suffix):
    save(tmp_path / f"a.{suffix}", np.full((8, 8, 3), 128, np.uint8))
    assert np.abs(only(tmp_path).astype(int) - 128).max() < 5


def test_the_camera_was_held_sideways(tmp_path):
    colour = noise(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    save(tmp_path / "a.png", colour, exif=exif)
    np.testing.assert_array_equal(only(tmp_path), np.rot90(colour, -1))


def test_crop_takes_the_centred_square_and_stretch_everything(tmp_path):
    bars = np.zeros((20, 60, 3), np.uint8)
    bars[:, 20:40] = 255  # the middle third is white
    save(tmp_path / "a.png", bars)
    assert (only(tmp_path, size=20) == 255).all()
    assert (only(tmp_path, size=4) > 230).all(), "Lanczos sees a little beyond the cut"
    stretched = only(tmp_path, size=30, resize="stretch")[:, :, 0]
    assert (stretched[:, [0, 5, 24, 29]] == 0).all() and (stretched[:, 13:17] == 255).all()


def test_images_may_be_higher_than_wide_or_wider_than_high(tmp_path):
    picture = noise(30, 60, 3)
    save(tmp_path / "a.png", picture)
    # The largest centred part with this aspect ratio, which needs no scaling here.
    np.testing.assert_array_equal(only(tmp_path, size=(30, 10)), picture[:, 25:35])
    np.testing.assert_array_equal(only(tmp_path, size=(30, 60)), picture)
    flat = np.zeros((30, 60, 3), np.uint8)
    flat[10:20] = 255  # a white band of a third of the height
    save(tmp_path / "a.png", flat)
    cut = only(tmp_path, size=(10, 60))
    assert cut.shape == (10, 60, 3) and (cut == 255).all()
    stretched = only(tmp_path, size=(30, 12), resize="stretch")[:, :, 0]
    assert stretched.shape == (30, 12)
    assert (stretched[[0, 7, 22, 29]] == 0).all() and (stretched[12:18] == 255).all()


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (7, 5), (33, 100)])
def test_a_crop_keeps_its_aspect(tmp_path, size):
    # For the image x + y, the slopes after cropping are equal along both axes.
    ramp = np.add.outer(np.arange(120), np.arange(90)).astype(np.uint8)
    save(tmp_path / "a.png", ramp)
    cut = only(tmp_path, size=size, channels=1)[:, :, 0].astype(float)
    assert cut.shape == size
    down, across = np.polyfit(np.arange(size[0]), cut.mean(1), 1), np.polyfit(
        np.arange(size[1]), cut.mean(0), 1
    )
    scale = max(size[0] / 120, size[1] / 90)  # the side that is kept whole
    np.testing.assert_allclose([down[0], across[0]], 1 / scale, rtol=0.03)


def test_scaling_down_does_not_alias(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    save(tmp_path / "a.png", board.astype(np.uint8))
    small = only(tmp_path, size=8, channels=1).astype(int)
    assert np.abs(small - 127.5).max() < 10, "a checkerboard fades to grey"


def test_small_images_are_scaled_up(tmp_path):
    save(tmp_path / "a.png", np.full((1, 3, 3), 77, np.uint8))
    assert (only(tmp_path, size=16) == 77).all()


def test_sub_folders_are_classes_at_any_depth(tmp_path):
    for name in ("dog/a.png", "dog/young/b.png", "cat/c.png", ".hidden/d.png", "cat/.e.png"):
        save(tmp_path / name, noise(8, 8, 3))
    (tmp_path / "dog" / "notes.txt").write_text("no image, no matter")
    train = open_folder(str(tmp_path), size=8)
    test = open_folder(str(tmp_path), size=8, split="test")
    assert train.spec.classes == test.spec.classes == ("cat", "dog")
    labels = np.concatenate([train.arrays["label"], test.arrays["label"]])
    assert sorted(labels) == [0, 1, 1] and labels.dtype == np.int32
    unlabelled = open_folder(str(tmp_path), size=8, labels=False)
    assert unlabelled.spec.classes == () and "label" not in unlabelled.arrays


def test_stray_images_beside_classes_are_told(tmp_path):
    save(tmp_path / "cat" / "a.png", noise(8, 8, 3))
    save(tmp_path / "stray.png", noise(8, 8, 3))
    with pytest.raises(UserError, match=r"stray\.png.*data\.labels=False"):
        open_folder(str(tmp_path), size=8)


@pytest.mark.parametrize("held", ["test", "val"])
def test_given_splits_are_used_and_share_their_classes(tmp_path, held):
    for name in ("train/cat/a.png", "train/dog/b.png", f"{held}/dog/c.png", f"{held}/emu/d.png"):
        save(tmp_path / name, noise(8, 8, 3))
    train = open_folder(str(tmp_path), size=8)
    test = open_folder(str(tmp_path), size=8, split="test")
    assert train.spec.classes == test.spec.classes == ("cat", "dog", "emu")
    np.testing.assert_array_equal(train.arrays["label"], [0, 1])
    np.testing.assert_array_equal(test.arrays["label"], [1, 2])


@pytest.mark.parametrize("count", [1, 2, 3, 60])
def test_the_hold_out_is_deterministic_and_complete(tmp_path, count):
    for index in range(count):
        save(tmp_path / f"{index:03}.png", np.full((8, 8, 3), index, np.uint8))
    parts = [open_folder(str(tmp_path), size=8, split=split) for split in ("train", "test")]
    train, test = (set(part.arrays["x"][:, 0, 0, 0].tolist()) for part in parts)
    assert train and test and train | test == set(range(count))
    if count > 1:
        assert not train & test
    again = open_folder(str(tmp_path), size=8, split="test")
    np.testing.assert_array_equal(again.arrays["x"], parts[1].arrays["x"])


def test_everything_bad_is_named_before_the_first_step(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(whole, "JPEG")
    png = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(png, "PNG")
    save(tmp_path / "good.png", noise(8, 8, 3))
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:-600])
    (tmp_path / "cut.png").write_bytes(png.getvalue()[:-3000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpeg").write_text("not an image")
    (tmp_path / "vector.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    save(tmp_path / "huge.png", noise(70, 70, 3))
    save(tmp_path / "float.tiff", np.ones((8, 8), np.float32))
    # Both splits together read every file; with a hold-out of 2 each reads about half.
    messages = ""
    for split in ("train", "test"):
        with pytest.raises(UserError) as caught:
            open_folder(str(tmp_path), size=8, split=split, holdout=2, pixel_limit=4800)
        messages += str(caught.value) + "\n"
    assert "good.png" not in messages
    for name, reason in {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "empty.png": "empty file",
        "text.jpeg": "not an image",
        "vector.png": "not an image",
        "huge.png": "70 x 70 pixels, more than 4800",
        "float.tiff": "floating-point",
    }.items():
        assert re.search(rf"{re.escape(name)}: .*{reason}", messages), (name, messages)


def test_a_long_list_of_bad_files_is_counted(tmp_path):
    for index in range(30):
        (tmp_path / f"{index}.png").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"30 image files .* cannot be read; remove") as caught:
        open_folder(str(tmp_path), size=8)
    assert len(caught.value.problems) == 12 and caught.value.problems[-1] == "And 20 more."


def test_empty_and_missing_folders_are_told(tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        open_folder(str(tmp_path), size=8)
    with pytest.raises(UserError, match="There is no folder"):
        open_folder(str(tmp_path / "absent"), size=8)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"size": 0}, {"size": (8, 0)}, {"size": (8,)}, {"channels": 4}, {"resize": "squash"}),
        *({"split": "dev"}, {"holdout": 1}),
    ],
)
def test_wrong_options_are_told(tmp_path, wrong):
    save(tmp_path / "a.png", noise(8, 8, 3))
    with pytest.raises(UserError, match=re.escape(str(next(iter(wrong.values()))))):
        open_folder(str(tmp_path), **{"size": 8, **wrong})


def test_too_large_for_memory_is_read_from_disk(tmp_path):
    for index in range(9):
        save(tmp_path / f"{index % 2}" / f"{index}.png", noise(12, 10, 3))
    held = open_folder(str(tmp_path), size=(8, 5))
    lazy = open_folder(str(tmp_path), size=(8, 5), memory_limit=100)
    assert isinstance(held, ArraySource) and isinstance(lazy, FolderSource)
    assert len(held) == len(lazy) and held.spec == lazy.spec
    indices = np.array([2, 0, 2])
    for name, values in lazy.read(indices).items():
        np.testing.assert_array_equal(values, held.read(indices)[name])
    lazy.files["x"][0].write_bytes(b"")
    with pytest.raises(UserError, match="can no longer be read: empty file"):
        lazy.read(np.array([0]))


def test_a_link_that_leads_back_up_ends(tmp_path):
    save(tmp_path / "cat" / "a.png", noise(8, 8, 3))
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    assert len(open_folder(str(tmp_path), size=8)) == 1


# --- metadata -------------------------------------------------------------------------------------


def annotate(root, files, columns="text,label,porosity"):
    """A metadata.csv; the caption names the file."""
    rows = [f"{file},the {i % 3}. of {root.name},{'ab'[i % 2]},{i}" for i, file in enumerate(files)]
    (root / "metadata.csv").write_text("\n".join([f"file_name,{columns}", *rows]) + "\n")


def opened(folder, split="train", **settings):
    """(the settings with facts, the source)."""
    data = DataSettings(name=f"folder:{folder}", size=8, **settings)
    data, missing = datasets.with_facts(data, ("label", "text", "properties"))
    assert not missing
    return data, datasets.open_source(data, split)


def test_a_folder_with_metadata_has_all_its_fields(tmp_path):
    files = [f"{i:02}.png" for i in range(30)]
    for file in files:
        save(tmp_path / file, noise(8, 8, 3))
    annotate(tmp_path, files)
    data, train = opened(tmp_path, holdout=3)
    test = datasets.open_source(data, "test")
    assert 0 < len(test) < 15 and len(train) + len(test) == 30
    assert train.spec == test.spec == datasets.spec(data)
    assert data.classes == ("a", "b") and data.tokens == 5 and set(data.words) == {
        "the", "0", "1", "2", ".", "of", tmp_path.name,
    }  # fmt: skip
    properties, text = train.spec.fields["properties"], train.spec.fields["text"]
    for source in (train, test):
        records = source.read(np.arange(len(source)))
        numbers = records["properties"][:, 0]  # those of the files, which name everything else
        np.testing.assert_array_equal(records["label"], numbers % 2)
        said = [text.text(ids) for ids in records["text"]]
        assert said == [f"the {int(i) % 3} . of {tmp_path.name}" for i in numbers]
    seen = np.asarray(properties.prepare(train.arrays["properties"]))
    np.testing.assert_allclose([seen.mean(), seen.std()], [0, 1], atol=1e-6)
    np.testing.assert_array_equal(properties.parse("porosity=7", "it"), [7])
    np.testing.assert_allclose(properties.stored(seen), train.arrays["properties"], rtol=1e-6)


def test_what_the_config_says_goes_before_what_the_data_says(tmp_path):
    files = ["1.png", "2.png", "3.png"]
    for file in files:
        save(tmp_path / file, noise(8, 8, 3))
    annotate(tmp_path, files)
    given = dict(classes=("b", "a"), tokens=9, tokenizer="bytes", columns=(("porosity", 1.0, 2.0),))
    data, source = opened(tmp_path, **given)
    assert data == DataSettings(name=data.name, size=8, **given)
    assert source.spec.classes == ("b", "a")
    assert opened(tmp_path, num_classes=2)[0].classes == ()  # as runs from before names were kept
    for wrong, message in (
        (dict(classes=("a",)), r"line 3: 'b' is not one of data.classes"),
        (dict(columns=(("grain", 0.0, 1.0),)), "has the numbers porosity, but data.columns are gr"),
    ):
        with pytest.raises(UserError, match=message):
            opened(tmp_path, **wrong)


def test_classes_from_metadata_or_else_from_sub_folders(tmp_path):
    files = ["in/1.png", "in/2.png", "out/3.png", "out/4.png"]
    for file in files:
        save(tmp_path / file, noise(8, 8, 3))
    annotate(tmp_path, files)
    assert images_of(str(tmp_path)).classes == ("a", "b")
    annotate(tmp_path, files, "text,grain,porosity")
    (tmp_path / "metadata.csv").write_text("file_name,text\n" + "".join(f"{f},x\n" for f in files))
    assert images_of(str(tmp_path)).classes == ("in", "out")
    assert images_of(str(tmp_path), labels=False).classes == ()
    table = "".join(f"{f},{n}\n" for f, n in zip(files, (10, 2, 1, 2), strict=True))
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{table}")
    assert images_of(str(tmp_path)).classes == ("1", "2", "10")


def test_captions_beside_images_are_read_if_they_are_wanted(tmp_path):
    for name in ("cat/a", "cat/b", "dog/c", "dog/d"):
        save(tmp_path / f"{name}.png", noise(8, 8, 3))
        (tmp_path / f"{name}.txt").write_text(f"file {name[-1]}")
    data = DataSettings(name=f"folder:{tmp_path}", size=8)
    data, _ = datasets.with_facts(data, ("label", "text"))
    assert data.words[0] == "file" and data.classes == ("cat", "dog") and not data.columns
    source = datasets.open_source(data, "train")
    assert set(source.arrays) == {"x", "label", "text"}
    (tmp_path / "dog" / "c.txt").unlink()
    assert set(open_folder(str(tmp_path), size=8).arrays) == {"x", "label"}
    with pytest.raises(UserError, match=r"dog/c\.png has no caption"):
        datasets.open_source(data, "train")


def test_both_given_splits_have_their_own_metadata(tmp_path):
    for split, files in (("train", ["1.png", "2.png", "3.png"]), ("val", ["1.png", "2.png"])):
        for file in files:
            save(tmp_path / split / file, noise(8, 8, 3))
        annotate(tmp_path / split, files)
    data, _ = opened(tmp_path)
    assert "train" in data.words and "val" not in data.words, "learned from training captions"
    test = datasets.open_source(data, "test")
    np.testing.assert_array_equal(test.arrays["text"][:, -1], [1, 1])
    # A mistake in the part for testing is told before training.
    annotate(tmp_path / "val", ["1.png", "2.png", "3.png"])
    with pytest.raises(UserError, match=r"val/metadata\.csv, line 4, .* no file '3\.png'"):
        datasets.open_source(data, "train")
    annotate(tmp_path / "val", ["1.png", "2.png"], "text,label,grain")
    with pytest.raises(UserError, match=r"The column 'grain' is only in one of"):
        datasets.open_source(data, "train")
    (tmp_path / "val" / "metadata.csv").unlink()
    with pytest.raises(UserError, match=r"val have no label, properties, text, but those in"):
        datasets.open_source(data, "train")
    (tmp_path / "train" / "metadata.csv").rename(tmp_path / "metadata.csv")
    with pytest.raises(UserError, match="is beside the folder train: move it there"):
        images_of(str(tmp_path))
    assert list(open_folder(str(tmp_path), size=8).arrays) == ["x"]


def test_a_run_without_conditions_minds_no_captions(tmp_path):
    save(tmp_path / "a.png", noise(8, 8, 3))
    (tmp_path / "metadata.csv").write_text("file_name,text,author\nb.png,,me\n")
    assert list(open_folder(str(tmp_path), size=8).arrays) == ["x"]
    data = DataSettings(name=f"folder:{tmp_path}", size=8)
    assert datasets.with_facts(data, ()) == (data, [])
    with pytest.raises(UserError, match="line 2"):
        datasets.with_facts(data, ("text",))
    lost = DataSettings(name=data.name, size=8, tokens=4, words=("a",))
    (tmp_path / "metadata.csv").unlink()
    with pytest.raises(UserError, match="has no texts for the field text"):
        datasets.open_source(lost, "train")


def test_what_is_read_from_disk_comes_in_the_same_order_as_what_is_held(tmp_path):
    files = [f"{i}.png" for i in range(11)]
    for file in files:
        save(tmp_path / file, noise(9, 8, 3))
    annotate(tmp_path, files)
    data, held = opened(tmp_path)
    lazy = datasets.open_source(DataSettings(**{**vars(data), "hold": 1e-7}), "train")
    assert isinstance(held, ArraySource) and isinstance(lazy, FolderSource)
    assert lazy.spec == held.spec
    streams = [train_batches(source, seed=3, batch_size=4) for source in (held, lazy)]
    for one, other in itertools.islice(zip(*streams, strict=True), 7):
        assert one.keys() == other.keys() == {"x", "label", "text", "properties"}
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])
    for stream in streams:
        stream.close()
    before = lazy.identity()
    assert before["content"] == held.identity()["content"]
    annotate(tmp_path, files[::-1])
    changed = datasets.open_source(DataSettings(**{**vars(data), "hold": 1e-7}), "train")
    assert changed.identity() != before
