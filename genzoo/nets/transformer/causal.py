"""Causal self-attention blocks, which can also run one position at a time with a cache.

Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2: pre-normalisation, initialisation). A
block is h <- h + attention(norm(h)), h <- h + mlp(norm(h)).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from genzoo.core.types import Array, Tree

# The logit of impossible outcomes. Their probability is exactly 0, and unlike -inf it causes no NaN
# in 0 times a logarithm, in a difference of logits or in a gradient.
NEVER = -1e9
INIT_STD = 0.02  # standard deviation of weights and embeddings at the start
EPSILON = 1e-5


def _causal(query: Array, key: Array, value: Array) -> Array:
    """Causal attention: position i attends to positions 0 .. i. All arrays are [B, N, H, D]."""
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bnhd,bmhd->bhnm", scaled, key, preferred_element_type=jnp.float32)
    seen = np.tri(query.shape[1], dtype=bool)
    weights = jax.nn.softmax(jnp.where(seen, logits, NEVER), axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value)


def _attend_to_cache(query: Array, key: Array, value: Array, position: Array) -> Array:
    """Attention of one query [B, H, D] to positions 0 .. `position` of a cache [B, H, N, D]."""
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bhd,bhnd->bhn", scaled, key, preferred_element_type=jnp.float32)
    seen = jnp.arange(key.shape[2]) <= position
    weights = jax.nn.softmax(jnp.where(seen, logits, NEVER), axis=-1).astype(value.dtype)
    return jnp.einsum("bhn,bhnd->bhd", weights, value)


class Block(nn.Module):
    """h [B, N, width] float32 -> the same shape; position i depends on positions 0 .. i.

    `step` computes one position. heads: must divide width. expansion: the width of the hidden layer
    of the MLP, as a multiple of width. depth: the number of blocks of the whole network, by which
    the initial weights are scaled.
    """

    width: int
    heads: int
    expansion: int
    depth: int
    dropout: float
    dtype: jnp.dtype

    def setup(self):
        def dense(features: int, std: float) -> nn.Dense:
            return nn.Dense(
                features, kernel_init=nn.initializers.normal(std), dtype=self.dtype
            )

        # 2 depth layers add to the stream; with this scale its variance does not grow with depth.
        into_stream = INIT_STD / (2 * self.depth) ** 0.5
        self.norm_0 = nn.LayerNorm(EPSILON, dtype=self.dtype)
        self.query_key_value = dense(3 * self.width, INIT_STD)
        self.out = dense(self.width, into_stream)
        self.norm_1 = nn.LayerNorm(EPSILON, dtype=self.dtype)
        self.expand = dense(self.expansion * self.width, INIT_STD)
        self.contract = dense(self.width, into_stream)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, h: Array, train: bool) -> Array:
        query, key, value = self._heads(h)
        attended = _causal(query, key, value).reshape(h.shape)
        h = h + self.drop(self.out(attended), deterministic=not train)
        return h + self.drop(self._mlp(h), deterministic=not train)

    def step(self, h: Array, cache: Tree, position: Array) -> tuple[Array, Tree]:
        """The output [B, width] for h [B, width] at `position`, and the updated cache.

        cache: {"key", "value"}, each [B, H, N, D], filled up to position - 1.
        """
        query, *new = self._heads(h)
        cache = {
            name: lax.dynamic_update_slice_in_dim(cache[name], row[:, :, None], position, axis=2)
            for name, row in zip(("key", "value"), new, strict=True)
        }
        attended = _attend_to_cache(query, cache["key"], cache["value"], position)
        h = h + self.out(attended.reshape(h.shape))
        return h + self._mlp(h), cache

    def _heads(self, h: Array) -> list[Array]:
        """Query, key and value for h [.., width], each [.., heads, width / heads]."""
        fused = self.query_key_value(self.norm_0(h))
        split = jnp.split(fused, 3, -1)
        return [part.reshape(*h.shape[:-1], self.heads, -1) for part in split]

    def _mlp(self, h: Array) -> Array:
        return self.contract(jax.nn.gelu(self.expand(self.norm_1(h))))
