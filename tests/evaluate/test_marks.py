"""Readers can distinguish the marks of classes, with any kind of colour blindness."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from genzoo.evaluate import figures

# Machado, Oliveira & Fernandes 2009, A physiologically-based model for simulation of color vision
# deficiency, table 1 at severity 1.0: matrices of linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
WHITE = TO_XYZ.sum(1)


def lab(colour, vision):
    """CIELAB of an sRGB colour '#rrggbb' as seen with the vision matrix."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(VISION[vision]) @ linear, 0, 1) / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def least_difference(colours, vision):
    """The least distance in CIELAB between two of them; 2.3 is just noticeable."""
    seen = [lab(colour, vision) for colour in colours]
    return min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
def test_ten_colours_differ_for_every_reader(vision):
    colours = [colour for colour, _ in figures.marks(10)]
    assert least_difference(colours, vision) > 15
    assert least_difference([*colours, "#ffffff"], vision) > 15  # and from the paper


def test_the_measure_has_teeth():
    usual = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"]  # Matplotlib's own
    assert least_difference(usual, "normal") > 15 > least_difference(usual, "protanopia")


def test_marks_differ_in_shape_too():
    assert len({marker for _, marker in figures.marks(10)}) == 10
    assert len(set(figures.marks(100))) == 100


@pytest.mark.parametrize("classes", [1, 10])
def test_the_plane_shows_each_class_by_its_own_colour_and_shape(tmp_path, classes):
    # One code for each class, far apart, so as many shapes and colours.
    codes = np.stack([np.arange(classes), np.arange(classes) % 2], -1).astype(np.float32)
    black = np.zeros((2, 2, 8, 8, 1), np.uint8)
    names = [f"class {i}" for i in range(classes)]
    box = np.array([[-1.0, -1.0], [10.0, 2.0]])
    figures.save_plane(tmp_path / "p.png", codes, np.arange(classes), names, black, box)
    page = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int)
    for colour, _ in figures.marks(classes):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        close = np.abs(page - rgb).max(-1)
        legend = ndimage.label(close[:, 700:870] == 0)[0]
        plot = ndimage.label(close[:, :690] < 40)[0]
        assert legend.max() >= 1 and plot.max() >= 1, colour
