"""Views for contrastive learning against Pillow, colorsys and SciPy."""

import colorsys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from genzoo.data import views
from genzoo.data.views import Views

RNG = np.random.default_rng(0)
COLOURS = RNG.uniform(size=(3, 12, 10, 3)).astype(np.float32)


def test_a_crop_is_pillows_bilinear_resize_of_a_box():
    boxes = np.float32([[0.1, 0.25, 0.55, 0.8], [0, 0, 1, 1], [0.33, 0.5, 1, 0.9]])
    cropped = views.crop(COLOURS, boxes)
    for image, box, own in zip(COLOURS, boxes, cropped, strict=True):
        edges = tuple(box * np.float32([10, 12, 10, 12]))
        for c in range(3):
            channel = Image.fromarray(image[..., c], mode="F")
            expected = channel.resize((10, 12), Image.Resampling.BILINEAR, box=edges)
            np.testing.assert_allclose(own[..., c], np.asarray(expected), atol=2e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (views.brightness, ImageEnhance.Brightness),
        (views.contrast, ImageEnhance.Contrast),
        (views.saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
def test_changes_of_colour_are_pillows(ours, theirs, factor):
    stored = np.round(COLOURS[0] * 255).astype(np.uint8)
    expected = np.asarray(theirs(Image.fromarray(stored)).enhance(factor), np.float32)
    changed = ours(stored[None] / np.float32(255), jnp.float32([factor]))[0] * 255
    # Pillow rounds greys and results to integers.
    assert np.abs(changed - expected).max() <= 1 + abs(1 - factor) * 0.51


@pytest.mark.parametrize("turns", [-0.3, 0.0, 0.1, 0.5])
def test_hues_turn_as_those_of_colorsys(turns):
    edges = np.float32([[0, 0, 0], [1, 1, 1], [0.4, 0.4, 0.4], [1, 0, 0], [0, 1, 1], [1, 1, 0]])
    pixels = np.concatenate([edges, COLOURS[0].reshape(-1, 3)])

    def turned(pixel):
        h, s, v = colorsys.rgb_to_hsv(*map(float, pixel))
        return colorsys.hsv_to_rgb((h + turns) % 1, s, v)

    expected = np.array([turned(pixel) for pixel in pixels])
    ours = views.hue(pixels[None, None], jnp.float32([turns]))[0, 0]
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_grey_has_the_weights_of_pillow():
    stored = np.round(COLOURS[0] * 255).astype(np.uint8)
    expected = np.asarray(Image.fromarray(stored).convert("L"), np.float32)
    ours = views.grey(stored.astype(np.float32))
    assert np.abs(ours - expected[..., None]).max() <= 0.51


def test_a_blur_is_scipys_gaussian_filter():
    sigmas = np.float32([0.7, 0, 2.0])
    blurred = views.blur(COLOURS, sigmas, 4)
    np.testing.assert_array_equal(blurred[1], COLOURS[1])
    for i in (0, 2):
        expected = COLOURS[i]
        for axis in (0, 1):
            expected = ndimage.gaussian_filter1d(
                expected, sigmas[i], axis=axis, mode="mirror", radius=4
            )
        np.testing.assert_allclose(blurred[i], expected, atol=2e-6)


def test_a_view_depends_on_its_image_its_key_and_its_place_only():
    draw = Views(blur=0.5, blur_most=0.2)
    x = 2 * COLOURS - 1
    all_three = jax.jit(draw)(x, jax.random.key(0))
    assert all_three.shape == x.shape and np.abs(all_three).max() <= 1 + 1e-5
    np.testing.assert_allclose(draw(x[:1], jax.random.key(0))[0], all_three[0], atol=1e-5)
    other = draw(x, jax.random.key(1))
    assert (np.abs(other - all_three).max((1, 2, 3)) > 0.01).all()


def test_steps_that_are_off_change_nothing():
    still = Views(area=1, flip=0, jitter=0, grey=0)
    x = 2 * COLOURS - 1
    np.testing.assert_array_equal(still(x, jax.random.key(0)), x)
    mirrored = replace(still, flip=1.0)
    np.testing.assert_array_equal(mirrored(x, jax.random.key(0)), x[:, :, ::-1])
    one = replace(still, jitter=0.8, grey=1.0)(x[..., :1], jax.random.key(0))
    assert one.shape == (3, 12, 10, 1)


def test_the_draws_have_the_published_distributions():
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    drawn = Views(blur=0.5).draw(keys, 224)
    left, top, right, bottom = np.asarray(drawn.box, np.float64).T
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 1 + 1e-6
    area, ratio = (right - left) * (bottom - top), (right - left) / (bottom - top)
    uncut = (right - left < 1 - 1e-6) & (bottom - top < 1 - 1e-6)
    assert area.min() >= 0.08 and area.max() <= 1 + 1e-6
    assert ratio[uncut].min() > 3 / 4 - 1e-4 and ratio[uncut].max() < 4 / 3 + 1e-4
    small = area[area < 0.7]  # below 3/4 no box is cut, so that areas are uniform
    assert abs((small < 0.39).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(small))
    # SimCLR, appendix A: factors 1 +- 0.8 s, hues +- 0.2 s, s = 0.5 for CIFAR-10
    changed = np.asarray(drawn.brightness) != 1
    for share, p in ((drawn.flip, 0.5), (changed, 0.8), (drawn.grey, 0.2), (drawn.blur > 0, 0.5)):
        assert abs(np.mean(share) - p) < 4 * np.sqrt(p * (1 - p) / count)
    for factors in (drawn.brightness, drawn.contrast, drawn.saturation):
        assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4
    # A strong change is cut to factors above 0, among which it is still uniform.
    strong = np.asarray(Views(strength=2.0).draw(keys, 224).brightness)[changed]
    assert np.abs(np.quantile(strong, [0.25, 0.5, 0.75]) / 2.6 - [0.25, 0.5, 0.75]).max() < 0.02
    assert 0.099 < np.abs(drawn.hue).max() <= 0.1
    sigmas = np.asarray(drawn.blur)[np.asarray(drawn.blur) > 0]
    assert 0.099 < sigmas.min() < 0.11 and 1.99 < sigmas.max() <= 2.0
