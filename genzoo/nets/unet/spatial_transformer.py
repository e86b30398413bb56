"""The spatial transformer, by which a U-Net attends to the tokens of a condition.

Rombach et al. 2022 (High-resolution image synthesis with latent diffusion models, appendix E.2.1).
The positions of a feature map x are a sequence h:

    h = W_in norm(x)                                                                            (1)
    h <- h + attention(n_1(h), n_1(h)),  h <- h + attention(n_2(h), tokens),
    h <- h + GEGLU(n_3(h)),  `depth` times                                                      (2)
    y = x + W_out h                                                                             (3)

Here norm is a GroupNorm and n_1, n_2, n_3 are LayerNorms. W_out is zero at the start.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.attention import MultiHeadAttention
from genzoo.nets.parts.feedforward import EXPANSION, GEGLU
from genzoo.nets.parts.layers import FAN_IN, ZEROS, GroupNorm

# The published models use these, whatever the other norms of the U-Net use.
GROUP_EPSILON = 1e-6
LAYER_EPSILON = 1e-5


class TransformerBlock(nn.Module):
    """Equation (2): (h [B, N, C], tokens [B, L, D], token_mask [B, L] bool or None) -> [B, N, C].

    heads: must divide C. token_mask: False for padding; None means no padding. fused:
    see `attend`.
    """

    heads: int
    dtype: jnp.dtype
    fused: bool = False

    @nn.compact
    def __call__(self, h: Array, tokens: Array, token_mask: Array | None = None) -> Array:
        norm = partial(nn.LayerNorm, LAYER_EPSILON, dtype=self.dtype)
        attention = partial(MultiHeadAttention, self.heads, self.dtype, self.fused)
        own = norm(name="norm_0")(h)
        h = h + attention(name="self_attention")(own, own)
        h = h + attention(name="cross_attention")(norm(name="norm_1")(h), tokens, token_mask)
        dense = GEGLU(EXPANSION, self.dtype, name="feedforward")
        return h + dense(norm(name="norm_2")(h))


class SpatialTransformer(nn.Module):
    """(x [B, *size, C], tokens [B, L, D], token_mask [B, L] bool or None) -> [B, *size, C].

    Equations (1) to (3); the identity at the start. heads: must divide C. depth: how often (2) is
    applied. groups: the most groups of norm. token_mask: False for padding; None means no padding.
    fused: see `attend`.
    """

    heads: int
    depth: int
    groups: int
    dtype: jnp.dtype
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array, tokens: Array, token_mask: Array | None = None) -> Array:
        batch, channels = x.shape[0], x.shape[-1]
        h = GroupNorm(self.groups, GROUP_EPSILON, self.dtype, name="norm")(x)
        h = h.reshape(batch, -1, channels)
        h = nn.Dense(channels, kernel_init=FAN_IN, dtype=self.dtype, name="entry")(h)
        for i in range(self.depth):
            block = TransformerBlock(self.heads, self.dtype, self.fused, name=f"block_{i}")
            h = block(h, tokens, token_mask)
        h = nn.Dense(channels, kernel_init=ZEROS, dtype=self.dtype, name="out")(h)
        return x + h.reshape(x.shape)
