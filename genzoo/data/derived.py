"""Images derived from those of a batch: smaller, blurred, grey, masked, edges, outlines.
`conditions.NAME.transform` names one of them.

They are computed on the device inside the step, from the prepared and augmented record, so nothing
extra is stored. A mirrored image has mirrored edges, because every function f here satisfies
f(mirror(x)) = mirror(f(x)).

| function       | result                                  | of images [B, H, W, C] in [-1, 1] |
|----------------|-----------------------------------------|-----------------------------------|
| downsampled(k) | [B, H / k, W / k, C] in [-1, 1]         | means of squares of k x k pixels  |
| blurred(s)     | [B, H, W, C] in [-1, 1]                 | a Gaussian filter, s in pixels    |
| grey           | [B, H, W, 1] in [-1, 1]                 | the luma                          |
| masked         | [B, H, W, C + 1], the last 1 or 0       | a hole of zeros, and its mask     |
| edges          | [B, H, W, 1] in [0, sqrt 2]             | the gradient's magnitude          |
| outline        | [B, H, W, 1], 1 on edges, -1 elsewhere  | edges, thinned                    |
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array, Images

THRESHOLD = 0.1
"""The least gradient on an outline: a tenth of the gradient of a step from black to white."""
_REACH = 4  # standard deviations at which a Gaussian filter ends
_TURN = np.float32(np.tan(np.pi / 8))
_EQUAL = np.float32(1 - 1e-5)  # magnitudes whose ratio is above this count as equal


def downsampled(factor: int) -> Callable[[Images], Images]:
    """A function [B, H, W, C] -> [B, H / factor, W / factor, C] that averages squares of pixels.

    The function raises ValueError if the factor does not divide both sides.
    """

    def down(images: Images) -> Images:
        batch, height, width, channels = images.shape
        if height % factor or width % factor:
            raise ValueError(f"{height} x {width} pixels do not divide into squares of {factor}.")
        squares = images.reshape(batch, height // factor, factor, width // factor, factor, channels)
        return squares.mean((2, 4))

    return down


def blurred(sigma: float) -> Callable[[Images], Images]:
    """A function [B, H, W, C] -> [B, H, W, C]: a Gaussian filter of standard deviation `sigma`.

    The filter is truncated at 4 sigma, and the image is reflected about the outer edges of its
    border pixels; both are SciPy's defaults.
    """

    def blur(images: Images) -> Images:
        down, across = (jnp.asarray(_gaussian(side, sigma)) for side in images.shape[1:3])
        exact = jax.lax.Precision.HIGHEST  # otherwise an accelerator may round to bfloat16
        lines = jnp.einsum("yh,bhwc->bywc", down, images, precision=exact)
        return jnp.einsum("xw,bywc->byxc", across, lines, precision=exact)

    return blur


def _gaussian(side: int, sigma: float) -> np.ndarray:
    """A Gaussian filter along an axis with reflected ends, as a matrix float32 [side, side]."""
    reach = int(_REACH * sigma + 0.5)
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    place = np.arange(side)[:, None] + np.arange(-reach, reach + 1)
    inside = place % (2 * side)
    inside = np.minimum(inside, 2 * side - 1 - inside)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], inside), weights / weights.sum())
    return matrix.astype(np.float32)


def grey(images: Images) -> Images:
    """The luma of ITU-R BT.601 of three channels, otherwise their mean: [..., C] -> [..., 1]."""
    weights = (0.299, 0.587, 0.114) if images.shape[-1] == 3 else None
    return jnp.average(images, -1, None if weights is None else jnp.asarray(weights))[..., None]


def masked(images: Images) -> Images:
    """Images with a hole, and the mask of it: [B, H, W, C] -> [B, H, W, C + 1].

    The hole is the central rectangle, about half as wide and half as high as the image; the margin
    is a quarter of each side, rounded up. In the hole the image is 0 (medium grey). The last
    channel, the mask, is 0 in the hole and 1 elsewhere.
    """
    height, width = images.shape[1:3]
    known = np.ones((height, width, 1), np.float32)
    top, left = -(-height // 4), -(-width // 4)
    known[top : height - top, left : width - left] = 0
    mask = jnp.broadcast_to(jnp.asarray(known, images.dtype), (*images.shape[:-1], 1))
    return jnp.concatenate([images * mask, mask], -1)


def edges(images: Images) -> Images:
    """The magnitude of the gradient of the luma (`grey`), per pixel: [B, H, W, C] -> [B, H, W, 1].

    Images are in [-1, 1]. The gradient is taken by the Sobel kernels, [1, 2, 1] across and
    [-1, 0, 1] along, divided by 8. The image is padded with its border values.
    """
    right, down = _gradient(images)
    return jnp.sqrt(jnp.square(right) + jnp.square(down))[..., None]


def outline(images: Images) -> Images:
    """Thin edges: 1 at pixels on an edge and -1 elsewhere, [B, H, W, C] -> [B, H, W, 1].

    A pixel is on an edge if its gradient (`edges`) is at least `THRESHOLD` and at least that of its
    two neighbours along the gradient, whose direction is rounded to a multiple of 45 degrees: the
    non-maximum suppression of Canny 1986 (A computational approach to edge detection). Beyond the
    border the gradient counts as 0. A step between two pixels marks both of them, since either one
    alone would break the symmetry under mirroring.
    """
    right, down = _gradient(images)
    size = jnp.sqrt(jnp.square(right) + jnp.square(down))
    p = jnp.pad(size, ((0, 0), (1, 1), (1, 1)))
    height, width = size.shape[1:]

    def larger(y: int, x: int) -> Array:
        """The larger gradient of the two neighbours at (y, x) and (-y, -x)."""
        one = p[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
        other = p[:, 1 - y : 1 - y + height, 1 - x : 1 - x + width]
        return jnp.maximum(one, other)

    across = jnp.abs(down) <= _TURN * jnp.abs(right)
    along = jnp.abs(right) <= _TURN * jnp.abs(down)
    falling = right * down > 0  # the gradient points right and down, or left and up
    slanted = jnp.where(falling, larger(1, 1), larger(1, -1))
    beside = jnp.where(across, larger(0, 1), jnp.where(along, larger(1, 0), slanted))
    return jnp.where((size >= THRESHOLD) & (size >= _EQUAL * beside), 1.0, -1.0)[..., None]


def _gradient(images: Images) -> tuple[Array, Array]:
    """The derivatives of the luma to the right and down: [B, H, W] each."""
    p = jnp.pad(grey(images)[..., 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    right = p[:, :, 2:] - p[:, :, :-2]
    down = p[:, 2:] - p[:, :-2]
    # The outer terms first, so that mirroring the image changes no bit but the sign.
    right = (right[:, :-2] + right[:, 2:] + 2 * right[:, 1:-1]) / 8
    down = (down[:, :, :-2] + down[:, :, 2:] + 2 * down[:, :, 1:-1]) / 8
    return right, down
