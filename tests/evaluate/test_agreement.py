"""Agreement of outlines: counted by hand, and of an image with itself and with its shifts."""

import numpy as np
import pytest

from genzoo.evaluate.agreement import Agreement


def square(left: int, size: int = 8) -> np.ndarray:
    """A white square on black, uint8 [1, 32, 32, 1]."""
    image = np.zeros((1, 32, 32, 1), np.uint8)
    image[:, 12 : 12 + size, left : left + size] = 255
    return image


def of(samples, originals) -> dict:
    measured = Agreement()
    for one, other in zip(samples, originals, strict=True):
        measured.add(one, other)
    return measured.report()


def test_an_image_agrees_with_itself_and_with_its_shift_by_a_pixel():
    same = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "images": 1}
    assert of([square(12)], [square(12)]) == same
    assert of([square(13)], [square(12)]) == same
    assert of([square(22)], [square(8)])["f1"] < 0.2


def test_an_extra_square_costs_precision_and_a_missing_one_recall():
    both = square(4) + square(20)
    extra, missing = of([both], [square(4)]), of([square(4)], [both])
    assert extra["precision"] == missing["recall"] == pytest.approx(0.5, abs=1e-6)
    assert extra["recall"] == missing["precision"] == 1.0
    assert extra["f1"] == pytest.approx(2 / 3, abs=1e-4)
    # All pixels count together: of three squares in two samples, two agree.
    together = of([both, square(4)], [square(4), square(4)])
    assert together["precision"] == pytest.approx(2 / 3, abs=1e-4) and together["images"] == 2


def test_nothing_agrees_with_an_empty_image():
    empty = np.zeros((1, 32, 32, 1), np.uint8)
    assert of([empty], [square(4)])["f1"] == of([empty], [empty])["f1"] == 0.0
