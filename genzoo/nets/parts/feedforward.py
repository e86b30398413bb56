"""The feed-forward layer of a transformer block."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.layers import FAN_IN

EXPANSION = 4
"""That of the published spatial transformers, and of our text encoder."""


class GEGLU(nn.Module):
    """x [B, N, C] -> [B, N, C]: a gated feed-forward layer.

    Shazeer 2020 (GLU variants improve transformers):

        W_2 (a * gelu(b)) + b_2,  (a, b) = W_1 x + b_1

    expansion: the width of a and of b, as a multiple of C. The GELU is exact (by erf).
    """

    expansion: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        h = nn.Dense(
            2 * self.expansion * channels, kernel_init=FAN_IN, dtype=self.dtype, name="dense_0"
        )(x)
        h, gate = jnp.split(h, 2, -1)
        h = h * jax.nn.gelu(gate, approximate=False)
        return nn.Dense(channels, kernel_init=FAN_IN, dtype=self.dtype, name="dense_1")(h)
