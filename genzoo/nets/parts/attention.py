"""Attention over the positions of a feature map, and from one sequence of tokens to another.

Vaswani et al. 2017 (heads), Wang et al. 2018 (non-local networks), Ho et al. 2020 and Dhariwal &
Nichol 2021 (self-attention in U-Nets), Rombach et al. 2022 (cross-attention to conditions).
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.parts.layers import FAN_IN, ZEROS, GroupNorm

Fused = Annotated[
    bool,
    "Whether attention is one fused operation, which saves memory: cuDNN's on NVIDIA GPUs where it "
    "applies (bfloat16, heads of at most 128 channels). It has no forward derivatives, which "
    "likelihoods under a flow need.",
]


def attend(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    *,
    causal: bool = False,
    fused: bool = False,
) -> Array:
    """softmax(query key^T / sqrt(D)) value, [B, N, H, D]; logits and softmax are float32.

    query: [B, N, H, D]. key, value: [B, M, H, D]. mask: bool [B, M], False for padding; None means
    no padding. causal: position i attends to positions 0 .. i only. The output is zero for an
    example whose keys are all padding. fused: whether it is one operation of JAX. On an NVIDIA GPU
    that is cuDNN's where it applies, which keeps no logits in memory but has no forward derivative.
    """
    if fused:
        each = None if mask is None else mask[:, None, None]
        implementation = _implementation(query, key, mask)
        attended = jax.nn.dot_product_attention(
            query, key, value, mask=each, is_causal=causal, implementation=implementation
        )
        if mask is not None:  # with all keys masked, softmax gives the mean
            attended = jnp.where(mask.any(-1)[:, None, None, None], attended, 0)
        return attended
    scaled = query * query.shape[-1] ** -0.5
    # With heads before positions the gradients are plain products too, which are faster on a CPU.
    scaled, key, value = (x.swapaxes(1, 2) for x in (scaled, key, value))
    logits = jnp.einsum("bhnd,bhmd->bhnm", scaled, key, preferred_element_type=jnp.float32)
    if mask is not None:
        mask = mask[:, None, None]
        logits = jnp.where(mask, logits, jnp.finfo(logits.dtype).min)
    if causal:
        seen = np.tri(*logits.shape[-2:], dtype=bool)
        logits = jnp.where(seen, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    if mask is not None:
        weights = jnp.where(mask, weights, 0)  # with all keys masked, softmax gives the mean
    return jnp.einsum("bhnm,bhmd->bhnd", weights, value).swapaxes(1, 2)


def _implementation(query: Array, key: Array, mask: Array | None) -> str:
    """The implementation of `jax.nn.dot_product_attention`: cuDNN's on an NVIDIA GPU, for types and
    shapes that it supports. A mask becomes a bias there, whose gradient needs even lengths."""
    width = query.shape[-1]
    fits = query.dtype in (jnp.bfloat16, jnp.float16) and width % 8 == 0 and width <= 128
    if mask is not None:
        fits = fits and query.shape[1] % 2 == key.shape[1] % 2 == 0
    there = jax.default_backend() == "gpu"
    there = there and jax.local_devices()[0].device_kind.startswith("NVIDIA")
    return "cudnn" if fits and there else "xla"


class SelfAttention(nn.Module):
    """x [B, *size, C] -> scale (x + attention(norm(x))) over all positions.

    The output is scale x at the start. heads: must divide C. One fused map C -> 3C gives query, key
    and value, laid out (query, key, value) x heads x C / heads. DDPM writes it as three 1x1
    convolutions, which are the same map. fused: see `attend`.
    """

    heads: int
    groups: int
    epsilon: float
    dtype: jnp.dtype
    scale: float = 1.0
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, channels = x.shape[0], x.shape[-1]
        h = GroupNorm(self.groups, self.epsilon, self.dtype, name="norm")(x)
        h = h.reshape(batch, -1, channels)
        h = nn.Dense(
            3 * channels, kernel_init=FAN_IN, dtype=self.dtype, name="query_key_value"
        )(h)
        heads = (batch, -1, self.heads, channels // self.heads)
        # The gradient of a split is one concatenation; that of indexing sums three padded arrays.
        h = attend(*(part.reshape(heads) for part in jnp.split(h, 3, -1)), fused=self.fused)
        h = h.reshape(batch, -1, channels)
        h = nn.Dense(channels, kernel_init=ZEROS, dtype=self.dtype, name="out")(h)
        return self.scale * (x + h.reshape(x.shape))


class MultiHeadAttention(nn.Module):
    """(x [B, N, C], tokens [B, M, D], mask [B, M] bool or None) -> [B, N, C].

    Queries come from x; keys and values come from tokens (x itself in self-attention).
    mask: False for padding, which contributes nothing, even where it is NaN. The output for an
    example without tokens is the bias of the output map.
    heads: must divide C, which is the total width of all heads. One fused map gives keys and
    values. The query, key and value maps have no bias (Rombach et al. 2022). fused: see `attend`.
    """

    heads: int
    dtype: jnp.dtype
    fused: bool = False

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
            tokens = jnp.where(mask[..., None], tokens, 0)  # keeps out NaN as well
        parts = *projected(x, 1, "query"), *projected(tokens, 2, "key_value")
        h = attend(*parts, mask, fused=self.fused)
        return nn.Dense(channels, kernel_init=FAN_IN, dtype=self.dtype, name="out")(
            h.reshape(x.shape)
        )
