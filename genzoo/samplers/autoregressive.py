"""Ancestral sampling of token sequences, one token at a time in a single `lax.scan`.

    token_i ~ softmax(truncate(logits_i)),  logits_i, cache = step(cache, token_{i-1}, i)

Each example draws from its own key folded with the position, so a sequence does not depend on the
batch it is drawn in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genzoo.core import streams
from genzoo.core.types import Array, Count, Counts, Keys

Logits = Float[Array, "B V"]
"""Unnormalised log probabilities of V tokens for each example."""
Step = Callable[[Any, Counts, Count], tuple[Logits, Any]]
"""(cache, previous token [B], position []) -> (logits [B, V], cache)."""


def generate(
    step: Step,
    cache: Any,
    keys: Keys,
    length: int,
    truncate: Callable[[Logits], Logits],
    first: Counts,
) -> Int[Array, "B {length}"]:
    """Tokens int32 [B, length], with one key per example.

    cache: a tree, which `step` returns with the same shapes. truncate: logits [B, V] -> logits,
    such as `genzoo.math.tokens.Truncation`. first: int [B], the token that `step` receives as the
    one before position 0 (a class, a start symbol, -1).
    """

    def move(carry, position):
        cache, token = carry
        logits, cache = step(cache, token, position)
        logits = truncate(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        token_keys = streams.fold(keys, position)
        token = jax.vmap(jax.random.categorical)(token_keys, logits).astype(jnp.int32)
        return (cache, token), token

    start = (cache, first.astype(jnp.int32))
    _, tokens = jax.lax.scan(move, start, jnp.arange(length, dtype=jnp.int32))
    return tokens.T
