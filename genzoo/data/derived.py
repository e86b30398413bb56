"""What can be made of the images of a batch: a smaller copy, edges. `conditions.NAME.transform`
names one of them.

They are computed on the device inside the step, from the prepared and augmented record. Nothing
extra is stored, and a mirrored image has mirrored edges, because every function f here satisfies
f(mirror(x)) = mirror(f(x)).
"""

from collections.abc import Callable

import jax.numpy as jnp

from genzoo.core.types import Images


def downsampled(factor: int) -> Callable[[Images], Images]:
    """Images [B, H, W, C] -> [B, H / factor, W / factor, C] by averaging squares of pixels. Raises
    ValueError if the factor does not divide both sides."""

    def down(images: Images) -> Images:
        batch, height, width, channels = images.shape
        if height % factor or width % factor:
            raise ValueError(f"{height} x {width} pixels do not divide into squares of {factor}.")
        squares = images.reshape(batch, height // factor, factor, width // factor, factor, channels)
        return squares.mean((2, 4))

    return down


def edges(images: Images) -> Images:
    """The magnitude of the gradient of the luma, in values per pixel: [B, H, W, C] in [-1, 1] ->
    [B, H, W, 1], by the Sobel kernels, [1, 2, 1] across and [-1, 0, 1] along, divided by 8.

    The luma is that of ITU-R BT.601 for three channels, otherwise the mean. The image is padded
    with its border values.
    """
    weights = (0.299, 0.587, 0.114) if images.shape[-1] == 3 else None
    luma = jnp.average(images, -1, None if weights is None else jnp.asarray(weights))
    p = jnp.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    right = p[:, :, 2:] - p[:, :, :-2]
    down = p[:, 2:] - p[:, :-2]
    right = (right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:]) / 8
    down = (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 8
    return jnp.sqrt(jnp.square(right) + jnp.square(down))[..., None]
