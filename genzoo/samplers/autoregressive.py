"""Ancestral sampling of token sequences, one token after the other in a single `lax.scan`.

    token_i ~ softmax(truncate(logits_i)),  logits_i, cache = step(cache, token_{i-1}, i)

Each example draws from its own key folded with the position, so that a sequence does not depend
on the batch it is drawn in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Array, Keys

Step = Callable[[Any, Array, Array], tuple[Array, Any]]
"""(cache, token [B] of the position before, position []) -> (logits [B, V], cache)."""


def generate(
    step: Step,
    cache: Any,
    keys: Keys,
    length: int,
    truncate: Callable[[Array], Array],
    first: Array,
) -> Array:
    """Tokens int32 [B, length] from one key per example.

    cache: a tree that `step` returns with the same shapes; truncate: logits [B, V] -> logits, such
    as `genzoo.math.tokens.Truncation`; first: int [B], what `step` is given as the token before
    position 0 (a class, a start symbol, -1).
    """

    def move(carry, position):
        cache, token = carry
        logits, cache = step(cache, token, position)
        logits = truncate(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        here = streams.fold(keys, position)
        token = jax.vmap(jax.random.categorical)(here, logits).astype(jnp.int32)
        return (cache, token), token

    start = (cache, first.astype(jnp.int32))
    _, tokens = jax.lax.scan(move, start, jnp.arange(length, dtype=jnp.int32))
    return tokens.T
