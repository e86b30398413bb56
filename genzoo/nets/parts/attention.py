"""Attention: over the positions of a feature map, and from one sequence of tokens to another.

Vaswani et al. 2017 (heads), Wang et al. 2018 (non-local networks), Ho et al. 2020 and Dhariwal &
Nichol 2021 (self-attention in U-Nets), Rombach et al. 2022 (cross-attention to conditions).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.layers import FAN_IN, ZEROS, GroupNorm


def attend(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """softmax(query key^T / sqrt(D)) value, [B, N, H, D]; logits and softmax are float32.

    query: [B, N, H, D]. key, value: [B, M, H, D]. mask: bool [B, M], which keys there are; None
    means all. An example without a key gets zeros.
    """
    scaled = query * query.shape[-1] ** -0.5
    # Heads before positions: the gradients are then plain products too, which a CPU is faster with.
    scaled, key, value = (x.swapaxes(1, 2) for x in (scaled, key, value))
    logits = jnp.einsum("bhnd,bhmd->bhnm", scaled, key, preferred_element_type=jnp.float32)
    if mask is not None:
        mask = mask[:, None, None]
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    if mask is not None:
        weights = jnp.where(mask, weights, 0)  # without any key, softmax would give the mean
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


class MultiHeadAttention(nn.Module):
    """(x [B, N, C], tokens [B, M, D], mask [B, M] bool or None) -> [B, N, C].

    Queries come from x; keys and values from tokens, which are x itself in self-attention. mask:
    which tokens there are. The others contribute nothing, whatever they hold, and an example
    without tokens gets the bias of the last map.
    heads: their number must divide C, which is also the width of all heads together. Keys and
    values are one fused map, without a bias like that of the queries (Rombach et al. 2022).
    """

    heads: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, tokens: Array, mask: Array | None = None) -> Array:
        channels = x.shape[-1]

        def projected(values: Array, maps: int, name: str) -> list[Array]:
            dense = nn.Dense(
                maps * channels, use_bias=False, kernel_init=FAN_IN, dtype=self.dtype, name=name
            )
            heads = (*values.shape[:2], self.heads, channels // self.heads)
            return [part.reshape(heads) for part in jnp.split(dense(values), maps, -1)]

        if mask is not None:
            tokens = jnp.where(mask[..., None], tokens, 0)  # not even a NaN gets through
        h = attend(*projected(x, 1, "query"), *projected(tokens, 2, "key_value"), mask)
        return nn.Dense(channels, kernel_init=FAN_IN, dtype=self.dtype, name="out")(
            h.reshape(x.shape)
        )
