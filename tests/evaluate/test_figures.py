"""Figures checked pixel by pixel: every image is in its place, with unchanged pixels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genzoo.evaluate import figures


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def colours(count):
    """uint8 [count, 3], all different and none of them a colour of text."""
    number = np.arange(count)
    return np.stack([50 + number % 7 * 30, 240 - number // 7 % 7 * 30, 9 + number // 49], -1)


@pytest.mark.parametrize("size", [5, 200])
def test_rows_are_shown_in_their_order_and_whole(tmp_path, size):
    each = colours(6).astype(np.uint8)
    images = np.tile(each[:, None, None], (1, size, size, 1))
    rows = [
        figures.Row(images=images[:3], label="first", heading="above", captions=("1\n2", "3", "4")),
        figures.Row(images=images[3:], label="second\nline", marked=(1,), captions=("5", "6", "7")),
    ]
    figures.save_rows(tmp_path / "rows.png", rows, "abc", apart=(2,), title="a title")
    page = pixels(tmp_path / "rows.png")
    side = size if size > 80 else 80
    boxes = []
    for colour in each:
        y, x = np.nonzero((page == colour).all(-1))
        assert len(y) == side**2  # nothing covers it
        assert (np.ptp(y), np.ptp(x)) == (side - 1, side - 1)
        boxes.append((y.min(), x.min()))
    (tops, lefts) = np.reshape(boxes, (2, 3, 2)).transpose(2, 0, 1)
    assert (tops == tops[:, :1]).all() and (lefts == lefts[:1]).all()
    first, second = np.diff(lefts[0]) - side
    assert second > first > 0 and tops[1, 0] > tops[0, 0] + side


def test_grey_images_and_a_single_row(tmp_path):
    image = np.arange(28 * 28).reshape(1, 28, 28, 1).astype(np.uint8)
    figures.save_rows(tmp_path / "one.png", [figures.Row(images=image)])
    page = pixels(tmp_path / "one.png")
    expected = np.repeat(image[0].repeat(3, 0).repeat(3, 1), 3, -1)
    windows = np.lib.stride_tricks.sliding_window_view(page, expected.shape)[..., 0, :, :, :]
    assert any((window == expected).all() for row in windows for window in row)


@pytest.mark.parametrize("classes", [0, 3, 40])
def test_the_plane_goes_right_and_up(tmp_path, classes):
    each = colours(16).reshape(4, 4, 3).astype(np.uint8)
    manifold = np.tile(each[:, :, None, None], (1, 1, 8, 8, 1))
    random = np.random.default_rng(0)
    codes = random.normal(size=(50, 2)).astype(np.float32)
    labels = random.integers(0, classes, 50) if classes else None
    names = [f"class {i}" for i in range(classes)]
    box = np.array([[-1.0, -2.0], [1.0, 2.0]])
    figures.save_plane(tmp_path / "plane.png", codes, labels, names, manifold, box)
    page = pixels(tmp_path / "plane.png")
    centres = np.zeros((4, 4, 2))
    for i in range(4):
        for j in range(4):
            y, x = np.nonzero((page == each[i, j]).all(-1))
            centres[i, j] = np.median(y), np.median(x)
    assert (np.diff(centres[..., 0], axis=0) < -100).all()  # the first axis of the manifold: up
    assert (np.diff(centres[..., 1], axis=1) > 100).all()
    assert np.abs(np.diff(centres[..., 0], axis=1)).max() <= 1


def test_a_codebook_has_a_row_for_each_level(tmp_path):
    each = colours(10).astype(np.uint8)
    images = np.tile(each[:, None, None], (1, 8, 8, 1))
    levels = [
        figures.Level(title="one", counts=np.array([5, 0, 900]), images=images[:2]),
        figures.Level(title="two", counts=np.arange(20), images=images[2:]),
    ]
    figures.save_codebook(tmp_path / "book.png", levels)
    page = pixels(tmp_path / "book.png")
    tops = []
    for colour in each:
        places = np.nonzero((page == colour).all(-1))
        assert len(places[0]) > 500
        tops.append(places[0].min())
    assert max(tops[:2]) < len(page) / 2 < min(tops[2:])


def test_nothing_global_is_touched():
    code = """
import sys, tempfile
from pathlib import Path
import numpy as np
from genzoo.evaluate import figures
assert "matplotlib" not in sys.modules
with tempfile.TemporaryDirectory() as place:
    row = figures.Row(images=np.zeros((2, 8, 8, 3), np.uint8), label="row")
    figures.save_rows(Path(place, "below", "rows.png"), [row])
print("matplotlib.pyplot" in sys.modules)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_captions_are_wrapped_below_their_images(tmp_path):
    each = colours(5).astype(np.uint8)
    images = np.tile(each[:, None, None], (1, 8, 8, 1))
    captions = ["a red circle", "a very large blue square below a small green ring", "b", "c", "d"]
    figures.save_captioned(tmp_path / "grid.png", images, captions, columns=2)
    page = pixels(tmp_path / "grid.png")
    places = []
    for colour in each:
        y, x = np.nonzero((page == colour).all(-1))
        assert len(y) == 112**2  # no caption covers it
        places.append((y.min(), x.min()))
    tops, lefts = np.array(places).T
    assert tops[0] == tops[1] < tops[2] == tops[3] < tops[4]
    assert lefts[0] == lefts[2] == lefts[4] < lefts[1] == lefts[3]
    below = page[tops[0] + 112 : tops[2]]
    assert (below < 255).any() and len(below) > 3 * 12  # three lines
