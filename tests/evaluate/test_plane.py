"""Pictures of the plane checked pixel by pixel: everything is drawn in its place."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy.stats import foldnorm

from genzoo.evaluate import plane

SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def panel(page, number, *, head=0, beside=0, inset=3):
    """The inside of a square panel of the first row, and its side in pixels."""
    left = plane._LEFT + (plane._SIDE + plane._GAP + beside) * number
    top = head + plane._ABOVE
    whole = page[top : top + plane._SIDE, left : left + plane._SIDE]
    return whole[inset:-inset, inset:-inset], inset


def middle(found, inset, box):
    """The mean position of the marked pixels [H, W] of a panel, in the units of its box."""
    y, x = np.nonzero(found)
    part = np.array([x.mean() + inset + 0.5, plane._SIDE - inset - 0.5 - y.mean()]) / plane._SIDE
    return box[0] + part * (box[1] - box[0])


def bluish(page):
    return page[..., 2] - page[..., 0] > 40


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_a_frame_is_square_and_holds_the_points(scale):
    random = np.random.default_rng(0)
    points = scale * (random.normal(size=(5, 2000, 2)) * (1, 0.3) + (4, 0))
    low, high = plane.frame(points)
    np.testing.assert_allclose(*(high - low), rtol=1e-12)
    inside = ((points > low) & (points < high)).all(-1)
    assert inside.mean() > 0.998
    np.testing.assert_allclose((low + high) / 2, (4 * scale, 0), atol=0.5 * scale)


def test_a_frame_forgets_what_is_no_number_and_holds_a_single_point():
    points = np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0]])
    box = plane.frame(points)
    assert (box[0] < points[0]).all() and (points[0] < box[1]).all() and np.isfinite(box).all()


def test_places_are_the_centres_of_cells():
    found = plane.places(np.array([[0.0, -2.0], [4.0, 2.0]]), 4)
    assert found.shape == (4, 4, 2)
    np.testing.assert_allclose(found[0, :, 0], [0.5, 1.5, 2.5, 3.5])  # to the right
    np.testing.assert_allclose(found[:, 0, 1], [-1.5, -0.5, 0.5, 1.5])  # up
    np.testing.assert_allclose(found[3, 2], [2.5, 1.5])


def test_samples_lie_in_the_frame_of_the_data(tmp_path):
    path = tmp_path / "below" / "samples.png"
    sample = np.array([[0.4, -0.7]])
    plane.save_samples(path, SQUARE, sample)
    page, box = pixels(path), plane.frame(SQUARE)
    data, inset = panel(page, 0)
    y, x = np.indices(data.shape[:2])
    for corner in SQUARE:
        near = ((x > 167) == (corner[0] > 0)) & ((y < 167) == (corner[1] > 0))
        np.testing.assert_allclose(middle(bluish(data) & near, inset, box), corner, atol=0.01)
    np.testing.assert_allclose(
        middle(bluish(panel(page, 1)[0]), inset, box), sample[0], atol=0.01
    )


def test_labels_give_colours_alike_on_both_sides_and_a_legend(tmp_path):
    labels = np.array([0, 1, 2, 3])
    path = tmp_path / "samples.png"
    # The samples have the labels, and so the colours, exchanged.
    plane.save_samples(path, SQUARE, SQUARE, (labels, labels[::-1]), ("a", "b", "c"))
    page = pixels(path)
    data, samples = panel(page, 0)[0], panel(page, 1)[0]
    halves = slice(None, 167), slice(167, None)

    def colours(side):
        quarters = [side[up, right] for up in halves for right in halves]
        return np.array([quarter[quarter.min(-1) < 200].mean(0) for quarter in quarters])

    of_data, of_samples = colours(data), colours(samples[::-1, ::-1])
    apart = np.abs(of_data[:, None] - of_samples).max(-1)
    assert apart.diagonal().max() < 20 < apart[~np.eye(4, dtype=bool)].min()
    unlabelled = tmp_path / "plain.png"
    plane.save_samples(unlabelled, SQUARE, SQUARE)
    assert page.shape[1] > pixels(unlabelled).shape[1]
    assert (page[:, -2:] == 255).all()


def test_samples_outside_and_no_numbers_are_counted():
    box = np.array([[0.0, 0.0], [1.0, 1.0]])
    points = np.array([[0.5, 0.5], [2.0, 0.5], [0.5, -0.1], [np.nan, 0.5], [np.inf, 0.5]])
    assert plane._outside(points, box) == 4


@pytest.mark.parametrize("side", [1, 3])
def test_arrows_point_where_the_field_does_and_take_its_length_as_colour(tmp_path, side):
    positions = plane.places(np.array([[-1.0, -1.0], [1.0, 1.0]]), side)
    right = np.broadcast_to((0.1, 0.0), (side, side, 2))
    up = np.broadcast_to((0.0, 10.0), (side, side, 2))
    far = np.full((2, 1, 2), 99.0)
    plane.save_field(tmp_path / "field.png", positions, np.stack([right, up]), [1, 0.5], far)
    page = pixels(tmp_path / "field.png")
    short, long = (68, 1, 84), (253, 231, 37)  # the ends of viridis, as published
    for number, (own, other, axis) in enumerate([(short, long, 0), (long, short, 1)]):
        inside, _ = panel(page, number)
        arrows, others = ((np.abs(inside - c) <= 1).all(-1) for c in (own, other))
        assert arrows.any() and not others.any()
        # One arrow fills a cell of the grid, and its head is wider than its shaft.
        y, x = np.nonzero(arrows)
        cells = len(inside) / (side + 0.5)
        keep = (np.abs(y - len(inside) / 2) < cells / 2) & (np.abs(x - len(inside) / 2) < cells / 2)
        place, width = np.stack([x, len(inside) - y])[:, keep], cells / 8
        along, across = place[axis], place[1 - axis]
        tail, head = along - along.min() < width, along.max() - along < 2 * width
        assert np.ptp(along) > 0.7 * cells
        assert np.ptp(across[head]) > 1.8 * np.ptp(across[tail])


def test_points_lie_behind_the_arrows_of_their_time(tmp_path):
    positions = plane.places(np.array([[-3.0, -3.0], [3.0, 3.0]]), 2)
    box = positions.reshape(-1, 2).min(0) - 0.75 * 3, positions.reshape(-1, 2).max(0) + 0.75 * 3
    points = np.array([[[0.0, 2.9]], [[2.9, 0.0]]])
    vectors = np.zeros((2, 2, 2, 2))
    vectors[..., 0] = 1
    vectors[0, 0, 0] = 0  # a zero of the field has no direction and is no error
    vectors[1, 0, 0] = np.nan
    plane.save_field(tmp_path / "field.png", positions, vectors, [1.0, 0.25], points, "score")
    page = pixels(tmp_path / "field.png")
    for number in range(2):
        inside, inset = panel(page, number)
        grey = (np.ptp(inside, axis=-1) <= 2) & (inside[..., 0] < 230)
        np.testing.assert_allclose(
            middle(grey, inset, np.stack(box)), points[number, 0], atol=0.05
        )


@pytest.mark.parametrize("steps", [1, 10, 100])
def test_paths_start_and_end_where_they_do(tmp_path, steps):
    way = np.linspace(-1, 1, steps + 1)[:, None, None] * np.array([[1.0, 0.5]])
    back = way[::-1] * np.array([1.0, -1.0])
    plane.save_trajectories(tmp_path / "p.png", ["there", "back"], [way, back], [steps, 2 * steps])
    page, box = pixels(tmp_path / "p.png"), plane.frame(way)
    for number, end in enumerate([(1.0, 0.5), (-1.0, 0.5)]):
        inside, inset = panel(page, number, head=30)
        np.testing.assert_allclose(middle(bluish(inside), inset, box), end, atol=0.02)
        # The path in between is drawn: the middle of the panel, which is not an end, is grey.
        centre = inside[len(inside) // 2 - 2 : len(inside) // 2 + 2, len(inside) // 2 - 2 :][:, :4]
        assert centre.min() < 180 and np.ptp(centre, axis=-1).max() < 10


@pytest.mark.parametrize("solvers", [2, 3])
@pytest.mark.parametrize("bad", [1e6, np.inf, np.nan])
def test_a_solver_that_diverges_leaves_the_others_in_their_frame(tmp_path, solvers, bad):
    random = np.random.default_rng(0)
    good = random.normal(size=(2, 40, 2))
    wrong = good.copy()
    wrong[1] = bad
    pages = []
    for one in (good, wrong):
        paths = [good] * (solvers - 1) + [one]
        plane.save_trajectories(tmp_path / "p.png", ["s"] * solvers, paths, [9] * solvers)
        pages.append(panel(pixels(tmp_path / "p.png"), 0, head=30)[0])
    np.testing.assert_array_equal(*pages)


def gaussian(places, mean):
    return -0.5 * np.square(places - mean).sum(-1) - math.log(2 * math.pi)


@pytest.mark.parametrize("off", [0.0, 0.25, -1.5])
def test_a_constant_difference_of_densities_is_its_own_mean(tmp_path, off):
    box = np.array([[-4.0, -4.0], [4.0, 4.0]])
    exact = gaussian(plane.places(box, 40), 0.0)
    exact[0, 0] = -np.inf  # nothing there, on either side
    mean = plane.save_densities(tmp_path / "d.png", exact, exact + off, box)
    np.testing.assert_allclose(mean, abs(off), atol=1e-12)


def test_the_mean_difference_is_that_under_the_exact_density(tmp_path):
    """log N(x; 0, 1) - log N(x; m, 1) = m^2 / 2 - m x is normal, and its absolute value folded."""
    box = np.array([[-6.0, -6.0], [6.0, 6.0]])
    grid, m = plane.places(box, 120), 0.7
    mean = plane.save_densities(
        tmp_path / "d.png", gaussian(grid, 0.0), gaussian(grid, np.array([m, 0.0])), box
    )
    np.testing.assert_allclose(mean, foldnorm.mean(m / 2, scale=m), rtol=1e-3)
    # A model without density where there are data is infinitely wrong, but is still drawn.
    model = gaussian(grid, 0.0)
    model[60, 60] = -np.inf
    assert plane.save_densities(tmp_path / "d.png", gaussian(grid, 0.0), model, box) == math.inf


def test_densities_go_right_and_up_and_their_difference_has_its_sign(tmp_path):
    box = np.array([[-1.0, -1.0], [1.0, 1.0]])
    exact = np.full((10, 10), -30.0)
    exact[8, 1] = 0.0  # high up at the left
    exact[8, 3] = 0.0
    model = exact.copy()
    model[8, 1], model[8, 3] = 0.5, -0.5
    plane.save_densities(tmp_path / "d.png", exact, model, box)
    page = pixels(tmp_path / "d.png")
    cells = plane.places(box, 10)
    yellow, inset = panel(page, 0, beside=plane._BAR)
    full = (np.abs(yellow - (253, 231, 37)) <= 1).all(-1)
    np.testing.assert_allclose(
        middle(full, inset, box), (cells[8, 1] + cells[8, 3]) / 2, atol=0.01
    )
    blank = (yellow == 255).all(-1)
    assert 0.97 < blank.mean() + full.mean() <= 1  # 98 cells below the floor are left blank
    apart, _ = panel(page, 2, beside=plane._BAR)
    red, blue = (apart[..., c] - apart[..., 2 - c] > 60 for c in (0, 2))
    np.testing.assert_allclose(middle(red, inset, box), cells[8, 1], atol=0.01)
    np.testing.assert_allclose(middle(blue, inset, box), cells[8, 3], atol=0.01)


def test_panels_keep_one_scale_and_break_into_even_rows(tmp_path):
    wide = np.array([[0.0, 0.0], [4.0, 2.0]])
    flat = np.zeros((4, 4))
    plane.save_densities(tmp_path / "d.png", flat, flat, wide)
    low = pixels(tmp_path / "d.png").shape[0]
    plane.save_densities(tmp_path / "d.png", flat, flat, np.array([[0.0, 0.0], [4.0, 4.0]]))
    assert pixels(tmp_path / "d.png").shape[0] - low == plane._SIDE // 2
    assert [plane._columns(count) for count in range(1, 10)] == [1, 2, 3, 4, 3, 3, 4, 4, 3]
