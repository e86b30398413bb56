"""Token sequences: next-token cross-entropy, and truncated distributions to sample from.

    next-token loss = -log softmax(logits_i)[token_i]                                        (1)
    temperature tau: logits / tau;  top-k: the k most likely tokens;                         (2)
    top-p: the smallest set of most likely tokens whose mass reaches p                       (3)

(2): Fan et al. 2018, "Hierarchical Neural Story Generation"; (3): Holtzman et al. 2020, "The
Curious Case of Neural Text Degeneration".
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genzoo.core.types import ArrayLike, Values


def next_token_nats(
    logits: Float[ArrayLike, "B N V"], tokens: Int[ArrayLike, "B N"]
) -> Float[ArrayLike, "B N"]:
    """Cross-entropy (1) in nats [B, N], in float32 or wider; logits [B, N, V], tokens [B, N].

    logits[:, i] predicts tokens[:, i]: the caller shifts the input by one position.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


@dataclass(frozen=True, kw_only=True)
class Truncation:
    """Logits [..., V] -> logits / temperature, with -inf at every token that is cut off.

    temperature: 0 keeps only the most likely token; top_k: the number of tokens kept, 0 for all;
    top_p: the probability mass kept, 1 for all. Temperature is applied first, then top-k, then
    top-p to the distribution that top-k leaves. Among equal logits the lower token counts as more
    likely, so top-k keeps exactly k. Raises ValueError for values out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"{self}: temperature and top_k must be at least 0, top_p above 0 and at most 1"
            )

    def __call__(self, logits: Values) -> Values:
        """Truncated logits of the same shape, for a softmax or a categorical draw."""
        greedy = self.temperature == 0
        if not greedy:
            logits = logits / self.temperature
        size = logits.shape[-1]
        kept = 1 if greedy else min(self.top_k or size, size)
        if kept == size and self.top_p == 1:
            return logits
        # top_k sorts -0 below 0, but the comparison below treats them as equal.
        logits = jnp.where(logits == 0, 0, logits)
        values, order = jax.lax.top_k(logits, kept)
        count = jnp.full(logits.shape[:-1], kept)
        if self.top_p < 1:
            share = jax.nn.softmax(values.astype(jnp.promote_types(values.dtype, jnp.float32)))
            before = jnp.cumsum(share, axis=-1) - share
            count = (before < self.top_p).sum(-1)
        last = count[..., None] - 1
        value, token = (jnp.take_along_axis(a, last, axis=-1) for a in (values, order))
        inside = (logits > value) | ((logits == value) & (jnp.arange(size) <= token))
        return jnp.where(inside, logits, -jnp.inf)
