"""Pictures of signals."""

import numpy as np
import pytest
from PIL import Image

from genzoo.evaluate import signals

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("length", [16, 15])
def test_the_spectrum_holds_all_of_the_power(length):
    values = RNG.normal(size=(40, length, 3)) + 1
    power = signals.spectrum(values)
    assert power.shape == (length // 2 + 1,)
    assert power.sum() == pytest.approx(np.square(values).mean(), rel=1e-12)


def test_a_sinusoid_has_half_its_squared_height_at_its_frequency():
    phase = RNG.uniform(0, 2 * np.pi, (10, 1, 2))
    wave = 3 * np.sin(2 * np.pi * 5 * np.arange(64)[:, None] / 64 + phase)
    expected = np.zeros(33)
    expected[5] = 4.5
    np.testing.assert_allclose(signals.spectrum(wave), expected, atol=1e-12)


def test_a_row_shows_one_class_and_the_classes_come_in_turn():
    known, made = np.array([2, 0, 0, 1, 2]), np.array([0, 2, 2, 2, 5])
    pairs, names = signals._side_by_side(5, 5, (known, made), ("a", "b"))
    assert pairs == [(1, 0), (0, 1), (None, 4), (4, 2), (None, 3)]
    assert names == ["a", "class 2", "class 5", "class 2", "class 2"]
    assert signals._side_by_side(3, 2, None, ()) == ([(0, 0), (1, 1)], ["", ""])


def test_all_samples_are_drawn_however_few_the_data_are():
    pairs = [(0, 0), (1, 1), (None, 2), (None, 3)]
    assert signals._side_by_side(2, 4, None, ()) == (pairs, [""] * 4)
    for labels in (None, (np.arange(1), np.arange(64) % 3)):
        pairs, names = signals._side_by_side(1, 64, labels, ("a", "b", "c"))
        assert len(pairs) == len(names) == 6
        assert [pair[1] for pair in pairs] == list(range(6))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_picture_is_written_whatever_the_samples_are(tmp_path, channels, labelled):
    data = RNG.normal(size=(30, 32, channels)).astype(np.float32)
    samples = RNG.normal(size=(7, 32, channels)).astype(np.float32)
    samples[0], samples[1, 3] = 0, np.nan
    labels = (np.arange(30) % 3, np.arange(7) % 3) if labelled else None
    path = tmp_path / "made" / "grid.png"
    signals.save_samples(
        path, data, samples, labels, ("one", "two", "three") if labelled else (),
        channels=[f"channel {i}" for i in range(channels)], axis="time, s",
    )  # fmt: skip
    with Image.open(path) as picture:
        assert picture.width > 800 and picture.height > 700
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
