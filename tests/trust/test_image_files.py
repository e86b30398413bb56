"""Image files: nothing but an image gets in, and what it shows is what its pixels, its colour
profile and its orientation say, whatever else is wrong with it."""

import logging
import os
import re
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from hostile_files import (
    ADOBE_RGB,
    KINDS,
    at_most,
    encoded,
    exif,
    image_files,
    mutated,
    no_file,
    noise,
    png,
    profile,
    srgb,
)
from PIL import Image

from genzoo.core import files
from genzoo.core.errors import UserError
from genzoo.core.files import read_bytes
from genzoo.data import colours, pixels
from genzoo.data.folder import open_folder
from genzoo.data.pixels import BadImage, Fit


def read(content, **options):
    return pixels.read(content, Fit(**{"size": 8, **options}))


# --- what is no file ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_opened(tmp_path, kind, tried):
    Image.fromarray(noise(8, 8)).save(tmp_path / "good.png")
    no_file(tmp_path / "x.png", kind)
    with at_most(20):
        if kind == "folder":  # it is searched, and empty
            assert len(open_folder(str(tmp_path), size=8)) == 1
        else:
            with pytest.raises(UserError) as caught:
                open_folder(str(tmp_path), size=8, split="test", holdout=2)
                open_folder(str(tmp_path), size=8, holdout=2)
            said = str(caught.value)
            assert f"{tmp_path}/x.png: " in said and "good.png" not in said
    tried("images that are no file", "named")


class Slow:
    """Stands in for `os.read` of a disk that answers after some seconds, a byte at a time."""

    def __init__(self, monkeypatch, name, seconds):
        self.opened, self.seconds, self.real = set(), seconds, os.read
        self.released, real = threading.Event(), os.open

        def open(path, *arguments, **named):
            handle = real(path, *arguments, **named)
            if str(path).endswith(name):
                self.opened.add(handle)
            return handle

        monkeypatch.setattr(os, "open", open)
        monkeypatch.setattr(os, "read", self.read)

    def read(self, handle, size):
        if handle not in self.opened:
            return self.real(handle, size)
        self.released.wait(self.seconds)
        return self.real(handle, 1)


def test_a_disk_that_hangs_is_given_up_and_the_file_named(tmp_path, monkeypatch, tried):
    for name in ("a", "b", "c", "hangs"):
        Image.fromarray(noise(8, 8)).save(tmp_path / f"{name}.png")
    slow = Slow(monkeypatch, "hangs.png", 60)
    monkeypatch.setattr(files, "PATIENCE", 0.5)
    with at_most(20), pytest.raises(UserError) as caught:
        open_folder(str(tmp_path), size=8)
    assert f"{tmp_path}/hangs.png: nothing was read for 0.5 s." in str(caught.value)
    assert "1 image file" in str(caught.value)
    slow.released.set()
    tried("disks that hang", "named")


def test_a_slow_disk_is_not_given_up(tmp_path, monkeypatch):
    (tmp_path / "slow").write_bytes(b"abcdef")
    Slow(monkeypatch, "slow", 0.4)
    monkeypatch.setattr(files, "PATIENCE", 1.5)
    before = time.monotonic()
    assert read_bytes(tmp_path / "slow") == b"abcdef"
    assert time.monotonic() - before > 1.5


def test_readers_that_are_free_are_used_again(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    for _ in range(50):
        assert read_bytes(tmp_path / "a") == b"a"
    assert sum(thread.name == "read" for thread in threading.enumerate()) < 40


def test_a_file_has_a_size(tmp_path):
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(BadImage, match=r"it has 1099511627776 bytes, more than 268435456"):
        read(tmp_path / "x.png")
    with pytest.raises(files.Unreadable, match="more than 3"):
        read_bytes(tmp_path / "x.png", 3)


def test_a_file_that_is_longer_than_it_says_has_a_size(tmp_path, monkeypatch):
    """As those of /proc, and one that grows while it is read."""
    (tmp_path / "a").write_bytes(bytes(101))
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda handle: os.stat_result([*fstat(handle)][:6] + [0] * 4))
    assert len(read_bytes(tmp_path / "a", 101)) == 101
    with pytest.raises(files.Unreadable, match="it has more than 100 bytes"):
        read_bytes(tmp_path / "a", 100)


def test_what_is_no_file_is_not_even_opened(tmp_path, monkeypatch):
    """Opening some devices already acts on them, and a pipe's writer takes it for a reader."""

    def opened(*_):
        raise OSError("it was opened")

    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(files.Unreadable, match="it is a pipe"):
        read_bytes(tmp_path / "x")


def test_a_file_exchanged_before_it_is_opened_is_noticed(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "x")
    (tmp_path / "file").write_bytes(b"x")
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **given: stat(tmp_path / "file", **given))
    with at_most(20), pytest.raises(files.Unreadable, match="it is a pipe"):
        read_bytes(tmp_path / "x")


@pytest.mark.parametrize("below", ["", "cat/", "cat/deep/"])
def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch, below, tried):
    # The tests may run as root, for whom there are no permissions: `os.scandir` stands in for them.
    for name in ("cat/deep/a.png", "dog/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(noise(8, 8)).save(tmp_path / name)
    real, closed = os.scandir, os.path.join(tmp_path, below)

    def scandir(path="."):
        if os.path.join(path, "") == os.path.join(closed, ""):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"The folder .* cannot be read \(Permission denied\)") as e:
        open_folder(str(tmp_path), size=8)
    assert closed in str(e.value)
    tried("folders without permission", "named")


def test_folders_in_folders_end(tmp_path):
    places = [tmp_path / "d"]
    for _ in range(1100):  # deeper than Python's stack
        places.append(places[-1] / "d")
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.png")
    try:
        for place in places:
            place.mkdir()
        assert len(open_folder(str(tmp_path), size=8)) == 1
    finally:
        for place in reversed(places):  # which pytest could not remove
            place.rmdir()


def test_links_that_lead_back_up_are_followed_once(tmp_path):
    """Otherwise two of them would make 2^40 paths before the system ends it."""
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path)
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.png")
    with at_most(20):
        assert len(open_folder(str(tmp_path), size=8)) == 1


# --- what an image shows --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "level"), [(d, level) for d in (1, 2, 4, 8, 16) for level in (0, 1, 2**d - 1)]
)
def test_a_transparent_level_is_white_whatever_the_depth(depth, level):
    levels = np.arange(8).reshape(2, 4) % 2**depth
    levels[1, 3] = 2**depth - 1
    expected = np.round(levels * (255 / (2**depth - 1)))
    expected[levels == level] = 255
    seen = read(png(levels, depth, level), size=(2, 4), channels=1)
    np.testing.assert_array_equal(seen[..., 0], expected)
    in_colour = read(png(levels, depth, level), size=(2, 4))
    np.testing.assert_array_equal(in_colour, np.repeat(seen, 3, -1))


def test_a_transparent_colour(tmp_path):
    levels = np.array([[[9, 1, 2], [1, 2, 3]]])
    seen = read(png(levels, 8, (1, 2, 3), colour=True), size=(1, 2))
    np.testing.assert_array_equal(seen, [[[9, 1, 2], [255, 255, 255]]])
    with pytest.raises(BadImage, match="16-bit colours, of which one is transparent"):
        read(png(levels, 16, (1, 2, 3), colour=True))


def test_values_whose_range_is_unknown_are_refused():
    inside = np.array([[0, 257], [65535, 3000]], np.int32)
    seen = read(encoded(Image.fromarray(inside), "TIFF"), size=2, channels=1)
    np.testing.assert_array_equal(seen[..., 0], [[0, 1], [255, 12]])
    for outside in (-1, 65536):
        values = np.array([[0, outside], [5, 6]], np.int32)
        with pytest.raises(BadImage, match="32-bit values outside"):
            read(encoded(Image.fromarray(values), "TIFF"), size=2, channels=1)
    for channels in (1, 3):
        with pytest.raises(BadImage, match="floating-point values"):
            read(encoded(Image.fromarray(inside.astype(np.float32)), "TIFF"), size=2,
                 channels=channels)  # fmt: skip


TURNS = {1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud,
         5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1),
         7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_orientations(orientation, form):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:4], picture[:, :4] = (200, 30, 90), (10, 120, 240)
    block = exif((0x112, 3, 1, struct.pack("<HH", orientation, 0)))
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(form, {})
    upright = read(encoded(Image.fromarray(picture), form, **options), size=16)
    turned = read(encoded(Image.fromarray(picture), form, exif=block, **options), size=16)
    np.testing.assert_array_equal(turned, TURNS[orientation](upright))


def wrong_entries():
    """EXIF entries of wrong types, counts and places, each beside a good orientation."""
    tags = {"width": 0x100, "maker": 0x10F, "resolution": 0x11A, "unit": 0x128, "software": 0x131,
            "date": 0x132, "exif": 0x8769, "gps": 0x8825, "thumbnail": 0x201}  # fmt: skip
    for name, tag in tags.items():
        for kind in (0, 1, 2, 3, 5, 7, 10, 12, 13, 99):
            yield pytest.param(
                (tag, kind, 2, b"\xff\xff\xff\x7f"), id=f"{name} of type {kind}, elsewhere"
            )
            yield pytest.param((tag, kind, 0, bytes(4)), id=f"{name} of type {kind}, none")
        yield pytest.param((tag, 5, 0xFFFFFFFF, bytes(4)), id=f"{name}, too many")


@pytest.mark.parametrize("entry", wrong_entries())
def test_wrong_metadata_are_no_damage(entry, tried):
    picture = Image.fromarray(np.add.outer(np.arange(16), 9 * np.arange(16)).astype(np.uint8))
    block = exif((0x112, 3, 1, struct.pack("<HH", 6, 0)), entry)
    turned = read(encoded(picture, "JPEG", quality=100, exif=block), size=16)
    upright = read(encoded(picture, "JPEG", quality=100), size=16)
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))
    tried("wrong metadata", "read as if they were not there")


def linear(levels, gamma):
    return (levels / 255) ** gamma


def to_srgb(levels, matrix, gamma):
    """Levels [..., 3] of a colour space in sRGB (IEC 61966-2-1, its primaries under D50)."""
    srgb = np.array([[0.43606, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061],
                     [0.01392, 0.09708, 0.71410]])  # fmt: skip
    light = linear(levels, gamma) @ np.asarray(matrix).T @ np.linalg.inv(srgb).T
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("form", ["RGB", "RGBA", "P", "JPEG"])
def test_colours_of_another_profile_become_those_of_srgb(form, monkeypatch, caplog):
    monkeypatch.setattr(colours, "_first", iter(range(100)))
    colours._transform.cache_clear()
    four = [[[200, 90, 60], [80, 150, 110]], [[40, 60, 200], [128, 128, 128]]]
    picture = np.array(four, np.uint8)
    picture = picture.repeat(8, 0).repeat(8, 1)
    image = Image.fromarray(picture)
    image = {"JPEG": image, "P": image.quantize(4)}.get(form) or image.convert(form)
    file_format = "JPEG" if form == "JPEG" else "PNG"
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    with caplog.at_level(logging.INFO, "genzoo"):
        for _ in range(3):
            content = encoded(
                image, file_format, icc_profile=profile(ADOBE_RGB, 2.2, "Adobe"), **options
            )
            seen = read(content, size=16)
    expected = to_srgb(picture.astype(float), ADOBE_RGB, 2.2)
    assert np.abs(seen - expected).max() <= (4 if form == "JPEG" else 2)
    assert np.abs(seen.astype(int) - picture).max() > 10
    assert caplog.text.count("another colour profile than sRGB, such as 'Adobe', are conv") == 1


def test_a_profile_of_srgb_changes_nothing():
    picture = noise(8, 8, 3)
    seen = read(encoded(Image.fromarray(picture), "PNG", icc_profile=srgb()))
    np.testing.assert_array_equal(seen, picture)


def test_damaged_profiles_are_no_damage(tried):
    picture, random = noise(8, 8, 3), np.random.default_rng(1)
    whole = profile(ADOBE_RGB, 2.2)
    for wrong in [b"x", whole[:100], whole[:200], *(mutated(whole, random) for _ in range(20))]:
        seen = read(encoded(Image.fromarray(picture), "PNG", icc_profile=wrong))
        assert seen.shape == (8, 8, 3)
    for other in (picture[..., 0], np.dstack([picture, picture])[..., :4]):  # grey, four channels
        seen = read(encoded(Image.fromarray(other), "PNG", icc_profile=whole), channels=1)
        assert seen.shape == (8, 8, 1)
    tried("damaged colour profiles", "left out", 23)


# --- size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8193, 8192), (1 << 16, 1025), (9400, 9400)])
def test_the_limit_on_pixels(size):
    content = encoded(Image.new("1", size), "PNG")
    with pytest.raises(BadImage, match=r"claims \d+ x \d+ pixels, more than 67108864"):
        read(content)


def test_the_limit_on_a_side():
    with pytest.raises(BadImage, match="a side of more than 65536"):
        read(encoded(Image.new("1", (65537, 1)), "PNG"))


def tiled(side: int) -> bytes:
    """A TIFF of 10 x 10 pixels in one packed tile of `side` x `side`, a thousandth of its size."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(side)) for _ in range(side)) + packer.flush()
    entries = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 0,
               325: len(data)}  # fmt: skip
    entries[324] = start = 8 + 2 + 12 * len(entries) + 4
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4)
    assert len(head) == start
    return head + data


def test_a_tile_counts_as_the_pixels_that_are_decoded():
    """A tile is decoded whole, however small the image that shows a corner of it."""
    assert (read(tiled(64)) == 0).all()
    with pytest.raises(BadImage, match=r"claims a tile of 67125249 pixels, more than 67108864"):
        read(tiled(8193))


MEASURE = """
import sys
from genzoo.data import pixels
from genzoo.data.pixels import Fit
from pathlib import Path
pixels.read(Path(sys.argv[1]), Fit(size=8))
"""
BASE = "from genzoo.data import pixels"


@pytest.mark.parametrize(
    "mode",
    ["1", *(pytest.param(m, marks=pytest.mark.slow) for m in ("RGB", "RGBA", "LA", "I;16", "P"))],
)
def test_the_largest_image_takes_twelve_bytes_a_pixel(mode, tmp_path):
    Image.new(mode, (8192, 8192)).save(tmp_path / "x.png", compress_level=1)

    def peak(program):
        program += "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        run = [sys.executable, "-c", program, str(tmp_path / "x.png")]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        return 1024 * int(done.stdout.split()[-1])

    assert peak(MEASURE) - peak(BASE) < 12 * (1 << 26)


def test_threads_share_the_room_for_pixels(monkeypatch):
    monkeypatch.setattr(pixels, "_room", pixels._Room(100))
    inside, most = [], []

    def decoded(image):
        inside.append(image.width * image.height)
        most.append(sum(inside))
        time.sleep(0.01)
        inside.remove(image.width * image.height)
        return image.convert("L")

    monkeypatch.setattr(colours, "decoded", decoded)
    contents = [encoded(Image.new("L", (5, side)), "PNG") for side in (2, 9, 12, 20, 40) * 4]
    threads = [threading.Thread(target=read, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 20 and max(total for total in most) <= 200  # one of 40 x 5 takes it all
    assert sorted(set(most))[-1] == 200 and not [total for total in most if 100 < total < 200]


# --- formats --------------------------------------------------------------------------------------


def test_no_decoder_runs_that_is_not_allowed(tried):
    """Pillow knows forty more, one of which starts Ghostscript."""
    Image.init()
    image, refused = Image.new("L", (16, 16)), []
    for name in sorted(Image.SAVE.keys() & Image.OPEN.keys() - {*pixels.FORMATS, "MPO"}):
        try:
            content = encoded(image, name)
        except (OSError, ValueError, KeyError):  # not with this build, or not in this mode
            continue
        with pytest.raises(BadImage, match="not an image in any of the formats PNG, JPEG"):
            read(content)
        refused.append(name)
    assert {"PCX", "TGA", "ICO", "EPS"} <= {*refused}
    tried("images in other formats", "refused", len(refused))


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list(image_files()))
def test_damaged_images_are_read_or_refused(name, count, tried):
    content, random = image_files()[name], np.random.default_rng(count)
    read(content)
    ended = {"read": 0, "refused": 0}
    with at_most(120):
        for _ in range(count):
            try:
                seen = read(mutated(content, random))
                assert seen.shape == (8, 8, 3) and seen.dtype == np.uint8
                ended["read"] += 1
            except BadImage as reason:
                assert str(reason) and not re.search("Traceback", str(reason))
                ended["refused"] += 1
    for how, times in ended.items():
        tried("damaged images", how, times)
