"""Weights that both sides of a comparison with another library draw from the paths of our arrays,
as in tests/peers/make_unet_fixture.py."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import tree


def draw(path, shape):
    """The array with this path."""
    values = np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    if path.endswith("/scale"):
        return 1 + 0.2 * values
    return values / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.2 * values


def drawn(shapes):
    """Params with these shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(draw(tree.path_string(path), leaf.shape), jnp.float32),
        shapes,
    )
