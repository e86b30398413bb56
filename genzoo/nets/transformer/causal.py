"""Causal self-attention blocks, which can also run one position at a time with a cache.

Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2: pre-normalisation, initialisation). A
block is h <- h + attention(norm(h)), h <- h + mlp(norm(h)).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from genzoo.core.types import Array, Tree
from genzoo.nets.transformer.block import MLPS, Attention, Norm, Rates, TransformerBlock

# The logit of impossible outcomes. Their probability is exactly 0, and unlike -inf it causes no NaN
# in 0 times a logarithm, in a difference of logits or in a gradient.
NEVER = -1e9
INIT_STD = 0.02  # standard deviation of weights and embeddings at the start
EPSILON = 1e-5


def _attend_to_cache(query: Array, key: Array, value: Array, position: Array) -> Array:
    """Attention of one query [B, H, D] to positions 0 .. `position` of a cache [B, H, N, D]."""
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bhd,bhnd->bhn", scaled, key, preferred_element_type=jnp.float32)
    seen = jnp.arange(key.shape[2]) <= position
    weights = jax.nn.softmax(jnp.where(seen, logits, NEVER), axis=-1).astype(value.dtype)
    return jnp.einsum("bhn,bhnd->bhd", weights, value)


class CausalBlock(TransformerBlock):
    """A `TransformerBlock` with causal attention, which can also run one position at a time."""

    def step(self, h: Array, cache: Tree, position: Array) -> tuple[Array, Tree]:
        """The output [B, width] for h [B, width] at `position`, and the updated cache.

        cache: {"key", "value"}, each [B, H, N, D], filled up to position - 1.
        """
        query, *new = self.heads(h)
        cache = {
            name: lax.dynamic_update_slice_in_dim(cache[name], row[:, :, None], position, axis=2)
            for name, row in zip(("key", "value"), new, strict=True)
        }
        attended = _attend_to_cache(query, cache["key"], cache["value"], position)
        h = self.attended(h, attended, Rates(), False, [])
        return self.passed_on(h, Rates(), False, []), cache


def causal_block(
    *,
    width: int,
    heads: int,
    expansion: int,
    depth: int,
    dtype: jnp.dtype,
    name: str,
    fused: bool = False,
) -> CausalBlock:
    """A block of GPT-2. heads: must divide width. expansion: the hidden width of the MLP, in
    widths. depth: the number of blocks of the network, by which initial weights are scaled. fused:
    see `attend`; one position at a time is not."""
    # 2 depth layers add to the stream; with this scale its variance does not grow with depth.
    into_stream = INIT_STD / (2 * depth) ** 0.5
    return CausalBlock(
        width=width,
        attention=Attention(heads=heads, causal=True, fused=fused),
        mlp=MLPS["gelu"](expansion * width),
        norm=Norm(epsilon=EPSILON),
        start=nn.initializers.normal(INIT_STD),
        start_out=nn.initializers.normal(into_stream),
        dtype=dtype,
        name=name,
    )
