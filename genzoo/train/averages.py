"""Averages of the params over time (EMA), as a pure update.

    average <- average + (1 - decay_n) (params - average)
    decay_n = min(decay, (1 + n) / (10 + n))

The warm-up keeps the early average from remembering the random start for 1 / (1 - decay) steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from genzoo.core.bounds import AtLeast, Below
from genzoo.core.types import Array, Tree


@dataclass(frozen=True, kw_only=True)
class Average:
    """An average of the params."""

    decay: Annotated[float, AtLeast(0), Below(1), "Share of the average that stays in a step."] = (
        0.9999
    )
    warmup: Annotated[bool, "Whether the decay grows to that from 0.1, as above."] = True

    def decay_at(self, step: Array) -> Array:
        """decay_n after `step` updates have been done (0 for the first)."""
        if not self.warmup:
            return jnp.float32(self.decay)
        return jnp.minimum(self.decay, (1.0 + step) / (10.0 + step))

    def update(self, average: Tree, params: Tree, step: Array) -> Tree:
        """The average with the new params taken in."""
        part = 1 - self.decay_at(step)
        return jax.tree.map(lambda a, p: a + part.astype(a.dtype) * (p - a), average, params)


def update_all(
    rules: Mapping[str, Average], averages: Mapping[str, Tree], params: Tree, step: Array
) -> Mapping[str, Tree]:
    """Every named average with the new params taken in."""
    return {name: rules[name].update(averages[name], params, step) for name in rules}
