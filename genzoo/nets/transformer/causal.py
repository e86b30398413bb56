"""Causal self-attention blocks that can also run one position at a time, with a cache.

Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2: the norms stand before what they feed,
the initialisation). A block is h <- h + attention(norm(h)), h <- h + mlp(norm(h)).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from genzoo.core.types import Array, Tree

# The logit of what does not occur: its probability is exactly 0, and unlike -inf it makes no nan of
# 0 times a logarithm, of a difference of two logits, or in a gradient.
NEVER = -1e9
INIT_STD = 0.02
EPSILON = 1e-5


def _causal(query: Array, key: Array, value: Array) -> Array:
    """`attention.attend`, all [B, N, H, D], where position i sees the positions up to i only."""
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bnhd,bmhd->bhnm", scaled, key, preferred_element_type=jnp.float32)
    seen = np.tri(query.shape[1], dtype=bool)
    weights = jax.nn.softmax(jnp.where(seen, logits, NEVER), axis=-1).astype(value.dtype)
    return jnp.einsum("bhnm,bmhd->bnhd", weights, value)


def _look_back(query: Array, key: Array, value: Array, position: Array) -> Array:
    """Attention of one query [B, H, D] to positions 0 .. position of a cache [B, H, N, D]."""
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bhd,bhnd->bhn", scaled, key, preferred_element_type=jnp.float32)
    seen = jnp.arange(key.shape[2]) <= position
    weights = jax.nn.softmax(jnp.where(seen, logits, NEVER), axis=-1).astype(value.dtype)
    return jnp.einsum("bhn,bhnd->bhd", weights, value)


class Block(nn.Module):
    """h [B, N, width] float32 -> the same, position i seeing positions up to i; `step` is one row.

    depth: of the whole network, which the start of the maps into the stream is scaled by.
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

        # 2 depth maps add to the stream: scaled so, its variance does not grow with the depth.
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
        """h [B, width] at `position`, cache {"key", "value"} [B, H, N, D] -> both, one further."""
        query, *new = self._heads(h)
        cache = {
            name: lax.dynamic_update_slice_in_dim(cache[name], row[:, :, None], position, axis=2)
            for name, row in zip(("key", "value"), new, strict=True)
        }
        attended = _look_back(query, cache["key"], cache["value"], position)
        h = h + self.out(attended.reshape(h.shape))
        return h + self._mlp(h), cache

    def _heads(self, h: Array) -> list[Array]:
        """Query, key and value of the positions of h, each [.., heads, width / heads]."""
        fused = self.query_key_value(self.norm_0(h))
        split = jnp.split(fused, 3, -1)
        return [part.reshape(*h.shape[:-1], self.heads, -1) for part in split]

    def _mlp(self, h: Array) -> Array:
        return self.contract(jax.nn.gelu(self.expand(self.norm_1(h))))
