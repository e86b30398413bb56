"""PSNR in closed form, and bicubic enlargement against JAX's."""

import jax
import numpy as np
import pytest
from PIL import Image

from genzoo.evaluate.restoration import Restoration, bicubic, psnr, save_restoration

RNG = np.random.default_rng(0)


def test_psnr_in_closed_form():
    original = RNG.integers(20, 236, (3, 6, 8, 3)).astype(np.uint8)
    off = np.stack([original[0], original[1] + 5, original[2]])
    off[2, ::2] += 10  # half of the values: the mean square error is 50
    expected = [10 * np.log10(12 * 255**2), 20 * np.log10(255 / 5), 10 * np.log10(255**2 / 50)]
    np.testing.assert_allclose(psnr(off, original), expected, rtol=1e-12)
    black = np.zeros((1, 2, 2, 1), np.uint8)
    np.testing.assert_allclose(psnr(black, black + 255), 0, atol=1e-12)
    np.testing.assert_allclose(psnr(black + 127.5, black + 255), 20 * np.log10(2))


def test_samples_and_their_means_are_measured_in_batches():
    # Samples are the original plus normal noise: (1) gives each, and the mean of k has 1 / k of the
    # squared error.
    originals = np.full((40, 16, 16, 3), 128, np.uint8)
    noise = 20 * RNG.normal(size=(160, 16, 16, 3))
    samples = np.rint(128 + noise).astype(np.uint8)
    shown = np.repeat(originals, 4, 0)
    measured = Restoration(repeat=4, baseline=lambda x: x + np.uint8(10), name="lighter")
    for rows in np.split(np.arange(160), [6, 7, 50, 158]):
        measured.add(samples[rows], shown[rows])
    report = measured.report()
    assert report["images"] == 40
    assert report["lighter"] == pytest.approx(20 * np.log10(25.5), abs=1e-3)
    assert report["samples"] == pytest.approx(20 * np.log10(255 / 20), abs=0.05)
    assert report["mean_of_4"] == pytest.approx(report["samples"] + 10 * np.log10(4), abs=0.05)
    single = Restoration()
    single.add(samples[:3], shown[:3])
    assert single.report() == {"samples": pytest.approx(22.1, abs=0.3), "images": 3}


def test_bicubic_enlargement_is_that_of_jax():
    small = RNG.uniform(-0.7, 0.7, (2, 5, 7, 3)).astype(np.float32)
    expected = np.asarray(jax.image.resize(small, (2, 10, 21, 3), "cubic"))  # Keys, a = -1/2
    levels = np.clip(np.rint((expected + 1) * 127.5), 0, 255)
    found = bicubic(small, (10, 21))
    assert found.dtype == np.uint8 and found.shape == (2, 10, 21, 3)
    assert np.abs(found - levels).max() <= 1


def test_the_picture_has_a_row_for_everything(tmp_path):
    originals = RNG.integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
    given = {"low": RNG.uniform(-1, 1, (2, 4, 4, 1)), "hole": RNG.uniform(-1, 1, (2, 8, 8, 4))}
    save_restoration(
        tmp_path / "all.png", given, {"bicubic": originals}, np.stack(4 * [originals]), originals
    )
    save_restoration(tmp_path / "few.png", {}, {}, originals[None], None)
    tall, short = (Image.open(tmp_path / f"{name}.png").height for name in ("all", "few"))
    assert tall > 6 * 80 and 80 < short < 160
