"""Fields computed from images on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from scipy.ndimage import gaussian_filter, map_coordinates, sobel

from genzoo.builders import conditions
from genzoo.data.derived import THRESHOLD, blurred, downsampled, edges, grey, masked, outline
from genzoo.data.fields import Image
from genzoo.data.records import prepare

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (5, 8, 12, 3)).astype(np.float32)


def test_downsampling_takes_the_means_of_squares():
    small = np.asarray(jax.jit(downsampled(4))(IMAGES))
    assert small.shape == (5, 2, 3, 3)
    for i in range(2):
        for j in range(3):
            square = IMAGES[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].astype(np.float64)
            np.testing.assert_allclose(small[:, i, j], square.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(downsampled(1)(IMAGES), IMAGES)
    with pytest.raises(ValueError, match="8 x 12 pixels do not divide into squares of 3"):
        downsampled(3)(IMAGES)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_edges_are_the_gradient_of_the_luma(channels):
    images = IMAGES[..., :channels]
    weights = np.array([0.299, 0.587, 0.114]) if channels == 3 else np.full(channels, 1 / channels)
    luma = images.astype(np.float64) @ weights
    for one, found in zip(luma, edges(images)[..., 0], strict=True):
        both = [sobel(one, axis=axis, mode="nearest") / 8 for axis in (0, 1)]
        np.testing.assert_allclose(found, np.hypot(*both), atol=1e-6)


def test_a_ramp_has_its_slope_for_its_edges():
    ramp = 0.1 * jnp.arange(8)[None, None, :, None] * jnp.ones((1, 6, 8, 1))
    np.testing.assert_allclose(edges(ramp)[:, :, 1:-1], 0.1, atol=1e-6)


@pytest.mark.parametrize("sigma", [1, 2, 4])
def test_a_blur_is_scipys_gaussian_filter(sigma):
    # At sigma = 4 the filter is longer than three images, each of which is reflected.
    expected = gaussian_filter(IMAGES.astype(np.float64), (0, sigma, sigma, 0), mode="reflect")
    found = np.asarray(blurred(sigma)(IMAGES))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.std() < 0.4 * IMAGES.std()


def test_grey_is_the_luma():
    red, green, blue = np.moveaxis(IMAGES.astype(np.float64), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, section 2.5.1
    np.testing.assert_allclose(grey(IMAGES)[..., 0], luma, atol=1e-6)
    np.testing.assert_array_equal(grey(np.ones((1, 2, 2, 3), np.float32)), 1)


@pytest.mark.parametrize("size, hole", [((8, 12), (4, 6)), ((7, 5), (3, 1)), ((2, 1), (0, 0))])
def test_a_mask_says_where_the_hole_is(size, hole):
    images = RNG.uniform(0.1, 1, (3, *size, 2)).astype(np.float32)
    found = np.asarray(masked(images))
    known = found[..., 2:]
    assert found.shape == (3, *size, 3) and set(np.unique(known)) <= {0, 1}
    assert (1 - known[0]).sum() == np.prod(hole)
    np.testing.assert_array_equal(found[..., :2], images * known)
    if size == (8, 12):
        assert not known[:, 2:6, 3:9].any()


def test_an_outline_is_where_the_gradient_is_largest_across_the_edge():
    luma = grey(IMAGES)[..., 0].astype(np.float64)
    found = np.asarray(jax.jit(outline)(IMAGES))
    assert found.shape == (5, 8, 12, 1) and set(np.unique(found)) == {-1, 1}
    for one, drawn in zip(luma, found[..., 0], strict=True):
        down, right = (sobel(one, axis=axis, mode="nearest") / 8 for axis in (0, 1))
        size = np.hypot(right, down)
        # The neighbours along the gradient, by its angle: SciPy's 0 outside the image.
        turns = np.round(np.arctan2(down, right) / (np.pi / 4)) * np.pi / 4
        step = np.stack([np.round(np.sin(turns)), np.round(np.cos(turns))])
        place = np.indices(size.shape)
        beside = [map_coordinates(size, place + s * step, order=0) for s in (1, -1)]
        expected = (size >= THRESHOLD) & (size >= np.maximum(*beside))
        np.testing.assert_array_equal(drawn, np.where(expected, 1, -1))


def test_the_outline_of_a_square_and_of_a_soft_edge():
    image = -np.ones((1, 16, 16, 1), np.float32)
    image[:, 4:12, 4:12] = 1
    drawn = np.asarray(outline(image))[0, ..., 0] > 0
    # The step is between two pixels, and drawn on both, but not at its corners.
    expected = np.zeros((16, 16), bool)
    expected[3:13, 3:13], expected[5:11, 5:11] = True, False
    assert (drawn[5:11] == expected[5:11]).all() and (drawn[:, 5:11] == expected[:, 5:11]).all()
    assert not (drawn & ~expected).any()
    soft = np.tanh((np.arange(16) - 7) / 3)[None, None, :, None] * np.ones((1, 16, 1, 1))
    drawn = np.asarray(outline(soft.astype(np.float32)))[0, ..., 0] > 0
    assert (np.flatnonzero(drawn.all(0)) == [7]).all() and drawn.any(0).sum() == 1
    assert (np.asarray(outline(0.01 * soft.astype(np.float32))) == -1).all(), "faint edges"


DERIVED = {name: function for name, function in conditions.TRANSFORMS.items() if function}


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize("axis", [1, 2])
def test_mirroring_before_is_mirroring_after(name, axis):
    steps = np.sign(np.round(2 * IMAGES[:, :, :, :1])) * np.ones(3, np.float32)  # equal gradients
    images = np.tile(np.concatenate([IMAGES, steps]), (1, 1, 2, 1))
    function = DERIVED[name]
    before = np.asarray(function(np.flip(images, axis)))
    np.testing.assert_allclose(before, np.flip(function(images), axis), atol=1e-6)


def test_a_flipped_record_has_flipped_hints():
    fields = {"x": Image(shape=(8, 16, 3)), "photo": Image(shape=(16, 8, 3))}
    stored = {name: field.made_up(RNG, 40) for name, field in fields.items()}
    section = {
        f"{name}_of_{source}": conditions.ConditionSettings(of=source, transform=name)
        for name in DERIVED
        for source in fields
    }
    own = {name: vars(settings) for name, settings in section.items()}
    config = FrozenConfigDict({"conditions": own, "sample": {}})
    assert conditions.problems(config, fields) == []
    read, entries = conditions.conditions_and_entries(section, fields, {})

    @jax.jit
    def hints(key):
        mirrored = key is not None
        batch = prepare(stored, key, fields=fields, mirrored=mirrored)
        return batch["x"], {name: one.read(batch, {}) for name, one in read.items()}

    x, plain = jax.tree.map(np.asarray, hints(None))
    seen, flipped = jax.tree.map(np.asarray, hints(jax.random.key(0)))
    which = (seen == x[:, :, ::-1]).all((1, 2, 3))
    assert 10 < which.sum() < 30
    for name, hint in plain.items():
        assert hint.shape[-1] == entries[name].size
        expected = np.where(which[:, None, None, None], hint[:, :, ::-1], hint)
        np.testing.assert_allclose(flipped[name], expected, atol=1e-6, err_msg=name)


def test_impossible_transforms_are_refused():
    fields = {"x": Image(shape=(12, 20, 1))}
    for name, message in {
        "grey": "needs a colour image, but x is grey already",
        "downsample8": "needs sides divisible by 8, but x has 12 x 20",
    }.items():
        own = vars(conditions.ConditionSettings(of="x", transform=name))
        config = FrozenConfigDict({"conditions": {"hint": own}, "sample": {}})
        (problem,) = conditions.problems(config, fields)
        assert message in problem and "conditions.hint.transform" in problem
