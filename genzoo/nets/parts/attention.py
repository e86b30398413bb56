"""Self-attention over the positions of a feature map, as DDPM and ADM place it in their U-Nets.

Wang et al. 2018 (non-local networks), Vaswani et al. 2017 (heads), Ho et al. 2020, Dhariwal &
Nichol 2021.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.layers import FAN_IN, ZEROS, GroupNorm


def attend(query: Array, key: Array, value: Array) -> Array:
    """softmax(query key^T / sqrt(D)) value, all [B, N, H, D]; logits and softmax are float32."""
    scaled = query * query.shape[-1] ** -0.5
    # Heads before positions: the gradients are then plain products too, which a CPU is faster with.
    scaled, key, value = (x.swapaxes(1, 2) for x in (scaled, key, value))
    logits = jnp.einsum("bhnd,bhmd->bhnm", scaled, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bhmd->bhnd", weights, value).swapaxes(1, 2)


class SelfAttention(nn.Module):
    """x [B, *size, C] -> scale (x + attention(norm(x))) over all positions; scale x at the start.

    heads: must divide C. Query, key and value are one fused map C -> 3C, laid out (query, key,
    value) x heads x C / heads; DDPM writes them as three 1x1 convolutions, which is the same map.
    """

    heads: int
    groups: int
    epsilon: float
    dtype: jnp.dtype
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, channels = x.shape[0], x.shape[-1]
        h = GroupNorm(self.groups, self.epsilon, self.dtype, name="norm")(x)
        h = h.reshape(batch, -1, channels)
        h = nn.Dense(
            3 * channels, kernel_init=FAN_IN, dtype=self.dtype, name="query_key_value"
        )(h)
        heads = (batch, -1, self.heads, channels // self.heads)
        # Split, not indexed: the gradient is one concatenation instead of a sum of padded thirds.
        h = attend(*(part.reshape(heads) for part in jnp.split(h, 3, -1)))
        h = h.reshape(batch, -1, channels)
        h = nn.Dense(channels, kernel_init=ZEROS, dtype=self.dtype, name="out")(h)
        return self.scale * (x + h.reshape(x.shape))
