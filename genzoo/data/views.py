"""Random views of images for contrastive learning, drawn on the device.

Chen et al. 2020 (SimCLR, appendix A). A view is made by these steps in this order:

    crop    a box with a random share of the area and a random aspect ratio, resized to the image
    flip    mirrors left and right
    jitter  changes brightness, contrast, saturation and hue, in this order
    grey    removes the colour
    blur    convolves with a Gaussian

Crops and flips have their published distributions, except that a box too wide or too high for the
image is cut to it instead of drawn again. SimCLR applies the parts of the jitter in a random order.
Jitter and grey leave colour out of images with one channel. Colours are in [0, 1] within, and the
weights of red, green and blue are those of ITU-R BT.601, as in Pillow.

A crop is resized with a triangle filter, widened where the image becomes smaller: two products with
matrices of weights, and equal to Pillow's `resize(..., BILINEAR, box=...)`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.types import Array, Images, Key, Keys

LUMA = np.float32([0.299, 0.587, 0.114])
"""The weights of red, green and blue in grey."""
_REACH = 3  # of the Gaussian, in its largest standard deviations
_HIGHEST = jax.lax.Precision.HIGHEST


class Draw(NamedTuple):
    """What is done to each of B images.

    box: left, top, right and bottom as shares of the sides, [B, 4]. flip, grey: bool [B].
    brightness, contrast, saturation: factors [B]; hue: turns [B]. blur: standard deviation in
    pixels [B], 0 for none.
    """

    box: Array
    flip: Array
    brightness: Array
    contrast: Array
    saturation: Array
    hue: Array
    grey: Array
    blur: Array


@dataclass(frozen=True, kw_only=True)
class Views:
    """(images [B, H, W, C] in [-1, 1], key) -> a view of each, of the same shape.

    area: the least share of the area that a crop has; 1 for no crops. aspect: its largest width to
    height ratio, and the inverse of its smallest. flip, grey: probabilities. jitter: the
    probability of a change of colours. strength: that of SimCLR, 1 for ImageNet and 0.5 for
    CIFAR-10: factors lie within 0.8 strength of 1, and hues turn by at most 0.2 strength. blur: the
    probability of a blur. blur_most: its largest standard deviation as a share of the height.
    """

    area: float = 0.08
    aspect: float = 4 / 3
    flip: float = 0.5
    jitter: float = 0.8
    strength: float = 0.5
    grey: float = 0.2
    blur: float = 0.0
    blur_most: float = 2 / 224

    def __call__(self, images: Images, key: Key) -> Images:
        """One view of each image; view i depends only on images[i], the key and i."""
        keys = streams.per_example(key, jnp.arange(len(images)))
        return self.apply(images, self.draw(keys, images.shape[1]))

    def draw(self, keys: Keys, height: int) -> Draw:
        """What is done to images of this height, each drawn from its own key."""

        def uniform(name: str, count: int = 1) -> list[Array]:
            own = jax.vmap(lambda key: streams.named(key, name))(keys)
            return list(streams.uniform(own, (count,)).T)

        def within(values: Array, low: float, high: float) -> Array:
            return low + (high - low) * values

        area, ratio, left, top = uniform("crop", 4)
        area = within(area, self.area, 1.0)
        ratio = self.aspect ** within(ratio, -1, 1) if self.area < 1 else jnp.ones_like(ratio)
        width = jnp.minimum(jnp.sqrt(area * ratio), 1)
        tall = jnp.minimum(jnp.sqrt(area / ratio), 1)
        left, top = left * (1 - width), top * (1 - tall)
        coin, *changes = uniform("jitter", 5)
        jittered = coin < self.jitter
        most = 0.8 * self.strength
        factors = [
            jnp.where(jittered, within(c, max(1 - most, 0), 1 + most), 1) for c in changes[:3]
        ]
        hue = jnp.where(jittered, 0.2 * self.strength * (2 * changes[3] - 1), 0)
        (flip,), (grey,), (coin, size) = uniform("flip"), uniform("grey"), uniform("blur", 2)
        largest = self.blur_most * height
        sigma = jnp.where(coin < self.blur, within(size, largest / 20, largest), 0)
        box = jnp.stack([left, top, left + width, top + tall], -1)
        return Draw(box, flip < self.flip, *factors, hue, grey < self.grey, sigma)

    def apply(self, images: Images, draw: Draw) -> Images:
        """The views that the draws describe."""
        if self.area < 1:
            images = crop(images, draw.box)
        images = jnp.where(_each(draw.flip), images[:, :, ::-1], images)
        coloured = images.shape[-1] == 3
        if self.jitter or (self.grey and coloured):
            x = (images + 1) / 2
            x = brightness(x, draw.brightness)
            x = contrast(x, draw.contrast)
            if coloured:
                x = hue(saturation(x, draw.saturation), draw.hue)
                x = jnp.where(_each(draw.grey), grey(x), x)
            images = 2 * x - 1
        if self.blur:
            reach = max(1, round(_REACH * self.blur_most * images.shape[1]))
            images = blur(images, draw.blur, reach)
        return images


def crop(images: Images, box: Array) -> Images:
    """The boxes [B, 4] of images [B, H, W, C], resized to H x W. Boxes are (left, top, right,
    bottom) as shares of the sides."""
    height, width = images.shape[1:3]
    across = _resize(box[:, 0], box[:, 2], width)
    down = _resize(box[:, 1], box[:, 3], height)
    lines = jnp.einsum("byk,bkxc->byxc", down, images, precision=_HIGHEST)
    return jnp.einsum("bxk,bykc->byxc", across, lines, precision=_HIGHEST)


def _resize(low: Array, high: Array, size: int) -> Array:
    """The weights [B, size, size] of pixels in an interval stretched to the whole axis."""
    step = (high - low)[:, None, None]  # from one new pixel to the next, in pixels
    places = jnp.arange(size) + 0.5
    centre = (low * size)[:, None, None] + step * places[None, :, None]
    wide = jnp.maximum(step, 1)
    weights = jnp.maximum(1 - jnp.abs(places[None, None] - centre) / wide, 0)
    return weights / weights.sum(-1, keepdims=True)


def brightness(x: Images, factor: Array) -> Images:
    """Colours in [0, 1] times a factor [B], clipped."""
    return jnp.clip(x * _each(factor), 0, 1)


def contrast(x: Images, factor: Array) -> Images:
    """Distances of the colours from the mean grey of each image times a factor [B], clipped."""
    mean = grey(x).mean((1, 2, 3), keepdims=True)
    return jnp.clip(mean + _each(factor) * (x - mean), 0, 1)


def saturation(x: Images, factor: Array) -> Images:
    """Distances of the colours from the grey of each pixel times a factor [B], clipped."""
    own = grey(x)
    return jnp.clip(own + _each(factor) * (x - own), 0, 1)


def grey(x: Images) -> Images:
    """The colours, of three channels, as grey; images of one channel are unchanged."""
    if x.shape[-1] == 1:
        return x
    return jnp.broadcast_to((x * LUMA).sum(-1, keepdims=True), x.shape)


def hue(x: Images, turns: Array) -> Images:
    """Colours in [0, 1] with their hues turned (HSV), [B] turns: 1/3 makes red green."""
    red, green, blue = jnp.moveaxis(x, -1, 0)
    most, least = x.max(-1), x.min(-1)
    chroma = most - least
    safe = jnp.where(chroma > 0, chroma, 1)
    # Not by equality with the largest: a compiler may compute a channel twice and round it twice.
    sixths = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / safe,
        jnp.where(green >= blue, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * turns[:, None, None]
    # Each channel falls from the largest value by the chroma where the hue is far from it.
    away = (jnp.asarray([5.0, 3.0, 1.0]) + sixths[..., None]) % 6
    fall = jnp.clip(jnp.minimum(away, 4 - away), 0, 1)
    return most[..., None] - chroma[..., None] * fall


def blur(images: Images, sigma: Array, reach: int) -> Images:
    """A Gaussian blur with standard deviations [B] in pixels, cut after `reach` pixels; 0 for none.
    The image is reflected about its outermost pixels."""
    height, width = images.shape[1:3]
    down, across = (_gaussian(sigma, size, reach) for size in (height, width))
    lines = jnp.einsum("byk,bkxc->byxc", down, images, precision=_HIGHEST)
    blurred = jnp.einsum("bxk,bykc->byxc", across, lines, precision=_HIGHEST)
    return jnp.where(_each(sigma > 0), blurred, images)


def _gaussian(sigma: Array, size: int, reach: int) -> Array:
    """The weights [B, size, size] of old pixels in new ones."""
    offsets = np.arange(-reach, reach + 1)
    safe = jnp.where(sigma > 0, sigma, 1)[:, None]
    kernel = jnp.exp(-0.5 * jnp.square(offsets / safe))
    kernel = kernel / kernel.sum(-1, keepdims=True)
    period = max(2 * (size - 1), 1)
    at = (np.arange(size)[:, None] + offsets) % period
    at = np.minimum(at, period - at)
    place = np.eye(size, dtype=np.float32)[np.minimum(at, size - 1)]  # [size, offsets, size]
    return jnp.einsum("bo,ioj->bij", kernel, place, precision=_HIGHEST)


def _each(values: Array) -> Array:
    return values[:, None, None, None]
