"""Strips of diffusion checked pixel by pixel: every image is in its place, and the text fits."""

import numpy as np
import pytest
from PIL import Image

from genzoo.evaluate import strips


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def plain(count, channels, size=4):
    """uint8 [count, size, size, channels], each of one colour, all different and unlike text."""
    number = np.arange(count)
    grey = 1 + number  # text begins at 34
    colour = np.stack([40 + number % 9 * 22, 230 - number // 9 * 20, np.full(count, 5)], -1)
    each = colour if channels == 3 else grey[:, None]
    return np.tile(each[:, None, None].astype(np.uint8), (1, size, size, 1))


def corner(page, image):
    """(top, left, number) of the pixels with the colour of an image, which form a square."""
    colour = image[0, 0].astype(int)
    y, x = np.nonzero((page == colour).all(-1))
    return (y.min(), x.min(), len(y)) if len(y) else (-1, -1, 0)


@pytest.fixture
def rows(monkeypatch):
    """Records the rows passed on for drawing, and still draws them."""
    seen = {}
    draw = strips.save_rows

    def noted(path, rows, columns=(), apart=(), title=""):
        seen.update(rows=rows, columns=list(columns), title=title)
        draw(path, rows, columns, apart, title)

    monkeypatch.setattr(strips, "save_rows", noted)
    return seen


@pytest.mark.parametrize(
    "count, expected",
    [(1, [0]), (5, [0, 1, 2, 3, 4]), (8, list(range(8))), (15, list(range(0, 15, 2)))],
)
def test_moments_are_even_and_hold_both_ends(count, expected):
    np.testing.assert_array_equal(strips.moments(count), expected)


@pytest.mark.parametrize("count", [9, 50, 1001])
def test_moments_of_long_ways_are_as_even_as_they_can_be(count):
    found = strips.moments(count)
    assert len(found) == 8 and found[0] == 0 and found[-1] == count - 1
    assert np.ptp(np.diff(found)) <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize("last", [True, False])
def test_states_go_to_the_right_over_what_was_predicted_from_them(
    tmp_path, rows, channels, examples, last
):
    count = 22  # moments 0, 3, .. 21
    each = plain(2 * 8 * examples, channels).reshape(2, 8, examples, 4, 4, channels)
    states, predicted = np.full((2, count, examples, 4, 4, channels), 0, np.uint8)
    states[::3], predicted[::3] = each
    if not last:
        predicted = predicted[:-1]
    path = tmp_path / "below" / "way.png"
    strips.save_denoising(path, states, predicted, np.linspace(1, 0, count))
    page = pixels(path)
    assert not (page == 0).all(-1).any()  # no other moment is shown
    places = np.array([[[corner(page, image) for image in row] for row in part] for part in each])
    tops, lefts, sizes = np.moveaxis(places, -1, 0)  # each [2, 8, examples]
    assert (sizes[:, :7] == 80 * 80).all()  # as enlarged
    assert (sizes[0, 7] == 80 * 80).all() and (sizes[1, 7] == (80 * 80 if last else 0)).all()
    assert (tops[:, :7] == tops[:, :1]).all() and (lefts[0, :7] == lefts[1, :7]).all()
    assert (np.diff(lefts[0], axis=0) >= 80).all()
    order = tops[:, 0].T.ravel()  # state, predicted of the first example, then of the second
    assert (np.diff(order) >= 80).all()
    assert rows["columns"][0] == "t = 1" and rows["columns"][-1] == "t = 0"
    assert rows["columns"][1] == "t = 0.857"  # 18 / 21


def test_short_ways_and_other_names_of_time(tmp_path, rows):
    each = plain(4, 1).reshape(2, 2, 1, 4, 4, 1)
    strips.save_denoising(tmp_path / "way.png", each[0], each[1], [80, 0.00213], "$\\sigma$")
    assert rows["columns"] == ["$\\sigma$ = 80", "$\\sigma$ = 0.00213"]
    assert [len(row.images) for row in rows["rows"]] == [2, 2]


@pytest.mark.parametrize("channels", [1, 3])
def test_scales_go_down_and_classes_to_the_right(tmp_path, rows, channels):
    each = plain(12, channels).reshape(3, 4, 4, 4, channels)
    names = ("cat", "dog", "a very long name indeed", "")
    strips.save_guidance(tmp_path / "scales.png", each, np.array([0, 1.5, 12]), names)
    page = pixels(tmp_path / "scales.png")
    places = np.array([[corner(page, image) for image in row] for row in each])
    assert (places[..., 2] == 80 * 80).all()
    assert (places[..., 0] == places[:, :1, 0]).all() and (np.diff(places[:, 0, 0]) >= 80).all()
    assert (places[..., 1] == places[:1, :, 1]).all() and (np.diff(places[0, :, 1]) >= 80).all()
    assert [row.label for row in rows["rows"]] == ["scale 0", "scale 1.5", "scale 12"]
    assert rows["columns"][:2] == ["cat", "dog"] and len(rows["columns"][2]) == 12
    with pytest.raises(ValueError, match="zip"):
        strips.save_guidance(tmp_path / "scales.png", each, [1, 2], names)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 4])
def test_solvers_go_down_and_steps_to_the_right_with_their_distances(
    tmp_path, rows, channels, count
):
    each = plain(7 * count, channels)
    cells, reference = each[:-count].reshape(2, 3, count, 4, 4, channels), each[-count:]
    evaluations = [[1, 5, 20], [2, 10, 40]]
    distances = strips.save_solvers(
        tmp_path / "solvers.png", cells, ("euler", "heun"), (1, 5, 20), evaluations, reference
    )
    page = pixels(tmp_path / "solvers.png")
    places = np.array([[[corner(page, image) for image in cell] for cell in row] for row in cells])
    assert (places[..., 2] == places[0, 0, 0, 2]).all()  # whole, all of one size
    tops, lefts, _ = np.moveaxis(places, -1, 0)  # each [2, 3, count]
    assert (tops[0].max() < tops[1].min()) and (tops == tops[:, :1]).all()
    assert (lefts == lefts[:1]).all() and (lefts[0, :-1].max(-1) < lefts[0, 1:].min(-1)).all()
    below = np.array([corner(page, image) for image in reference])
    assert below[:, 0].min() > tops.max() and (below[:, 1] == lefts[0, 0]).all()
    if count == 4:  # two by two, row by row
        assert tops[0, 0, 0] == tops[0, 0, 1] < tops[0, 0, 2] == tops[0, 0, 3]
        assert lefts[0, 0, 0] == lefts[0, 0, 2] < lefts[0, 0, 1] == lefts[0, 0, 3]
    for m in range(2):
        for s in range(3):
            off = (cells[m, s] / 127.5 - 1) - (reference / 127.5 - 1)
            np.testing.assert_allclose(distances[m, s], np.sqrt((off**2).mean()), rtol=1e-12)
            caption = rows["rows"][m].captions[s]
            assert caption == f"NFE {evaluations[m][s]}\nrms {distances[m, s]:.3f}"
    assert rows["columns"] == ["1 step", "5 steps", "20 steps"]
    assert [row.label for row in rows["rows"]] == ["euler", "heun", "reference"]


def test_the_distance_is_in_the_models_units():
    images = np.zeros((2, 3, 3, 1), np.uint8)
    assert strips.distance(images, images) == 0
    assert strips.distance(images, images + 255) == 2  # black and white: -1 and 1
    half = images.copy()
    half[0] += 51
    np.testing.assert_allclose(strips.distance(half, images), 0.4 / np.sqrt(2), rtol=1e-12)


@pytest.mark.parametrize("size", [4, 64, 256])
def test_the_title_of_a_narrow_picture_stays_on_the_page(tmp_path, size):
    """With a long name of the reference, the page is white at its right edge and the title is
    complete: a wider page has no more ink."""
    one = np.zeros((1, size, size, 1), np.uint8)
    name = "reference of a thousand steps of heun"
    path = tmp_path / "solvers.png"
    strips.save_solvers(path, [[one]], ["ddim"], [5], [[5]], one, name)
    page = pixels(path)
    assert (page[:, -3:] == 255).all()
    strips.save_solvers(path, [[one] * 5], ["ddim"], [5] * 5, [[5] * 5], one, name)
    wide = pixels(path)
    # The first rows of both pages contain only the title.
    end = np.flatnonzero((page < 255).any((1, 2)))
    top = end[0]
    height = 1 + np.flatnonzero(np.diff(end) > 1)[0]
    inks = [(255 - one[top : top + height]).sum() for one in (page, wide)]
    np.testing.assert_allclose(*inks, rtol=0.01)
