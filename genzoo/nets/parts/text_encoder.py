"""A small bidirectional transformer over the tokens of a text, trained along with the model.

GLIDE (Nichol et al. 2021) trains its text encoder with the diffusion model, attends to its tokens
and adds one feature of the whole text to the time embedding. Here that feature is the mean over the
tokens. Blocks are pre-norm (Xiong et al. 2020):

    h <- h + attention(norm(h)),  h <- h + GEGLU(norm(h)),  `layers` times, then h <- norm(h)
"""

import math

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.attention import MultiHeadAttention
from genzoo.nets.parts.feedforward import EXPANSION, GEGLU

_HEAD_WIDTH = 32


class TextEncoder(nn.Module):
    """(tokens [B, L, D], mask [B, L] bool) -> [B, L, D].

    Padding does not affect other tokens, and its own output is undefined. layers: the number of
    blocks. The width of the heads is the greatest common divisor of 32 and D.
    """

    layers: int

    @nn.compact
    def __call__(self, h: Array, mask: Array) -> Array:
        width = h.shape[-1]
        heads = width // math.gcd(width, _HEAD_WIDTH)
        for i in range(self.layers):
            own = nn.LayerNorm(name=f"norm_{i}_0")(h)
            attention = MultiHeadAttention(heads, jnp.float32, name=f"attention_{i}")
            h = h + attention(own, own, mask)
            own = nn.LayerNorm(name=f"norm_{i}_1")(h)
            h = h + GEGLU(EXPANSION, jnp.float32, name=f"feedforward_{i}")(own)
        return nn.LayerNorm(name="norm")(h)


def pooled(tokens: Array, mask: Array) -> Array:
    """The mean of the tokens [B, L, D] that are not padding: [B, D]."""
    weights = mask / jnp.maximum(mask.sum(-1, keepdims=True), 1)
    return jnp.einsum("bl,bld->bd", weights, jnp.where(mask[..., None], tokens, 0))
