"""Non-leaky geometric augmentation of EDM (Karras et al. 2022, appendix F.2; Karras et al. 2020).

Six operations are applied in this order, each with probability p: mirroring left to right,
mirroring top to bottom, scaling, rotation, stretching along one direction with squeezing across it,
and shifting. The network gets a vector of nine numbers (EDM's augmentation labels), which are zero
for operations that were not applied. Sampling with zeros then keeps the augmentation from leaking
into the samples:

    vector  0 x-flip   1 y-flip   2 a   3, 4 cos(theta) - 1, sin(theta)   5, 6 b cos(r), b sin(r)
            7, 8 c, d                                                                           (1)
    out = shift(c, d) stretch(b, r) turn(theta) scale(a) in,   a, b, c, d ~ N(0, 1)             (2)

about the centre of the image, with x to the right; positive angles turn anticlockwise on screen.

The four operations of (2) are a single resampling. A new pixel is a weighted sum of all old ones,
where the weights are products of a kernel along each axis: two matrix products and no gather. The
kernel is Keys' cubic convolution of fourth order (1981, six points), up to twice as wide where the
image shrinks, and the image is extended by endless reflection. EDM upsamples twice with the wavelet
filter sym6, resamples bilinearly and downsamples with the same filter; beyond one reflection its
image is grey. Where EDM blurs most, a wave of half the Nyquist frequency keeps at best 0.92 of its
amplitude, here 0.94. Where the image shrinks obliquely this version blurs more, because its kernel
cannot rotate.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.types import Array, Batch, Images, Key, Keys

_REACH = 3  # of the kernel on either side, in pixels
_WIDEST = 2  # the most by which the kernel widens; an image shrunk below half may alias


class Operations(NamedTuple):
    """The operations on each example, in the units of (1); zero or False means none.

    x_flip, y_flip: bool [B]. scale: a of [B]. angle: theta in radians [B]. stretch, direction: b
    and r in radians [B]. shift: c to the right and d down [B, 2].
    """

    x_flip: Array
    y_flip: Array
    scale: Array
    angle: Array
    stretch: Array
    direction: Array
    shift: Array


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The pipeline: (images [B, H, W, C] in [-1, 1], key) -> (augmented images, vectors [B, 9]).

    p: the probability of each operation: 0.12 for CIFAR-10, 0.15 for FFHQ and AFHQ at 64 pixels.
    mirror_all: whether every example is a candidate for the x-flip, as in the authors' code, so
        that half of them are mirrored. Half of the candidates for a y-flip are mirrored too: p / 2.
    scale, stretch: standard deviations of the binary logarithm of the factors.
    shift: standard deviation as a fraction of the width and of the height.
    oblique: the probability that the direction r of a stretch is random, not the x axis.
    fields: the spatial fields of a record, such as an image and its hint, that `records` augments.
    """

    p: float = 0.12
    mirror_all: bool = True
    scale: float = 0.2
    stretch: float = 0.2
    shift: float = 0.125
    oblique: float = 0.5
    fields: tuple[str, ...] = ("x",)
    vector_size: ClassVar[int] = 9

    def __call__(self, images: Images, key: Key) -> tuple[Images, Array]:
        """Augmented images and their vectors; row i depends only on images[i], the key and i.

        Values may slightly overshoot [-1, 1], as in the original. An example that is only flipped
        keeps its values bit for bit.
        """
        keys = streams.per_example(key, jnp.arange(images.shape[0]))
        operations = self.draw(keys)
        return self.apply(images, operations), vectors_of(operations)

    def records(self, batch: Batch, key: Key) -> tuple[Batch, Array]:
        """Augments all `fields` of a prepared batch alike; returns the batch and vectors [B, 9].

        Shifts are fractions of the sides, so fields may differ in size. All other entries are
        unchanged. With one field this equals the call above.
        """
        count = batch[self.fields[0]].shape[0]
        operations = self.draw(streams.per_example(key, jnp.arange(count)))
        changed = {name: self.apply(batch[name], operations) for name in self.fields}
        return {**batch, **changed}, vectors_of(operations)

    def draw(self, keys: Keys) -> Operations:
        """Random operations for each of B examples, each from its own key."""

        uniform = streams.uniform(streams.fold(keys, 0), (11,))
        a, b, c, d = streams.normal(streams.fold(keys, 1), (4,)).T
        odds = jnp.asarray([1.0 if self.mirror_all else self.p] + 5 * [self.p])
        x, y, scale, turn, stretch, shift = (uniform[:, :6] < odds).T
        mirrored, upside_down, aslant = (uniform[:, 6:9] < jnp.asarray([0.5, 0.5, self.oblique])).T
        angle, direction = jnp.pi * (2 * uniform[:, 9:] - 1).T
        return Operations(
            x_flip=x & mirrored,
            y_flip=y & upside_down,
            scale=jnp.where(scale, a, 0),
            angle=jnp.where(turn, angle, 0),
            stretch=jnp.where(stretch, b, 0),
            direction=jnp.where(stretch & aslant, direction, 0),
            shift=jnp.where(shift, jnp.stack([c, d]), 0).T,
        )

    def apply(self, images: Images, operations: Operations) -> Images:
        """Applies the operations to images [B, H, W, C], each row to its own image."""
        o = operations
        images = jnp.where(_column(o.x_flip), images[:, :, ::-1], images)
        images = jnp.where(_column(o.y_flip), images[:, ::-1], images)
        factor = jnp.exp2(self.stretch * o.stretch)
        stretch = _product(_turn(-o.direction), _diagonal(1 / factor, factor), _turn(o.direction))
        shrink = jnp.exp2(-self.scale * o.scale)
        back = _product(_diagonal(shrink, shrink), _turn(o.angle), stretch)
        size = jnp.asarray([images.shape[2], images.shape[1]], jnp.float32)
        warped = (o.scale != 0) | (o.angle != 0) | (o.stretch != 0) | (o.shift != 0).any(-1)
        return jnp.where(_column(warped), warp(images, back, self.shift * size * o.shift), images)


def vectors_of(operations: Operations) -> Array:
    """The vector (1) of each example: float32 [B, 9]."""
    o = operations
    columns = (
        o.x_flip,
        o.y_flip,
        o.scale,
        jnp.cos(o.angle) - 1,
        jnp.sin(o.angle),
        o.stretch * jnp.cos(o.direction),
        o.stretch * jnp.sin(o.direction),
        *o.shift.T,
    )
    return jnp.stack([c.astype(jnp.float32) for c in columns], -1)


def warp(images: Array, back: Array, shift: Array) -> Array:
    """Affine resampling: out(q) = in(back (q - shift)), q = (x, y) in pixels from the middle.

    images [B, H, W, C]; back [B, 2, 2]; shift [B, 2] in pixels.
    """
    height, width = images.shape[1:3]
    middle = np.asarray([width - 1, height - 1], np.float32) / 2
    source = images.astype(jnp.float32)[:, _padded(height)][:, :, _padded(width)]
    # How far the pixels of the output lie apart along each axis of the source.
    wide = jnp.clip(jnp.sqrt(jnp.square(back).sum(-1)), 1, _WIDEST)

    def row(y):
        columns = jnp.arange(width, dtype=jnp.float32)
        q = jnp.stack([columns, jnp.full_like(columns, y)], -1) - middle - shift[:, None]
        # Elementwise, because a matrix product on an accelerator may round to bfloat16.
        place = (back[:, None] * q[:, :, None]).sum(-1) + middle
        across = _weights(place[..., 0], wide[:, :1], width)
        down = _weights(place[..., 1], wide[:, 1:], height)
        exact = jax.lax.Precision.HIGHEST
        lines = jnp.einsum("bqx,byxc->bqyc", across, source, precision=exact)
        return jnp.einsum("bqy,bqyc->bqc", down, lines, precision=exact)

    # One row of the output at a time: all at once would need H times the memory of the images.
    rows = jax.lax.map(row, jnp.arange(height, dtype=jnp.float32))
    return jnp.moveaxis(rows, 0, 1).astype(images.dtype)


def _padded(size: int) -> np.ndarray:
    # Indices of an axis that is extended by reflection as far as the kernel reaches.
    return _reflected(np.arange(-_REACH * _WIDEST, size + _REACH * _WIDEST), size)


def _reflected(place, size: int):
    # Maps a position on the endlessly reflected axis back into [0, size - 1].
    xp = np if isinstance(place, np.ndarray) else jnp
    period = max(2 * (size - 1), 1)
    inside = xp.mod(place, period)
    return xp.minimum(xp.minimum(inside, period - inside), size - 1)


def _weights(place: Array, wide: Array, size: int) -> Array:
    # The weights of the padded axis for the value at `place` [B, Q]: [B, Q, padded].
    padded = jnp.arange(-_REACH * _WIDEST, size + _REACH * _WIDEST)
    distance = jnp.abs(_reflected(place, size)[..., None] - padded) / wide[..., None]
    weights = _kernel(distance)
    return weights / weights.sum(-1, keepdims=True)


def _kernel(d: Array) -> Array:
    # Keys 1981, section VI: reproduces cubic polynomials, 1 at 0 and 0 at all other integers.
    near = 1 + d * d * (4 * d - 7) / 3
    middle = (30 + d * (-59 + d * (36 - 7 * d))) / 12
    far = (-18 + d * (21 + d * (d - 8))) / 12
    return jnp.where(d < 1, near, jnp.where(d < 2, middle, jnp.where(d < 3, far, 0)))


def _column(values: Array) -> Array:
    return values[:, None, None, None]


def _turn(angle: Array) -> Array:
    # [B, 2, 2]: clockwise on screen, where y points down.
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)


def _diagonal(x: Array, y: Array) -> Array:
    return jnp.stack([x, y], -1)[..., None] * jnp.eye(2)


def _product(first: Array, second: Array, third: Array) -> Array:
    # Matrices [B, 2, 2], multiplied elementwise to keep full precision.
    once = (first[..., :, :, None] * second[..., None, :, :]).sum(-2)
    return (once[..., :, :, None] * third[..., None, :, :]).sum(-2)
