"""Exponential moving averages (EMA) of the params, as a pure update.

    average <- average + (1 - decay_n) (params - average)
    decay_n = min(decay, (1 + n) / (10 + n))

Without the warm-up of the decay, the random initial params would dominate the average for about
1 / (1 - decay) steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from genzoo.core.bounds import NOT_ONE, AtLeast, Below
from genzoo.core.types import Array, Tree


@dataclass(frozen=True, kw_only=True)
class Average:
    """Settings of one average of the params."""

    decay: Annotated[
        float, AtLeast(0), Below(1), NOT_ONE, "Fraction of the average kept at each step."
    ] = 0.9999
    warmup: Annotated[bool, "Whether the decay starts at 0.1 and rises to `decay`."] = True

    def decay_at(self, step: Array) -> Array:
        """decay_n for the update after n = `step` earlier ones, float32 []."""
        if not self.warmup:
            return jnp.float32(self.decay)
        return jnp.minimum(self.decay, (1.0 + step) / (10.0 + step))

    def update(self, average: Tree, params: Tree, step: Array) -> Tree:
        """The average updated with new params. step: the number of earlier updates."""
        rate = 1 - self.decay_at(step)
        return jax.tree.map(lambda a, p: a + rate.astype(a.dtype) * (p - a), average, params)


def update_all(
    rules: Mapping[str, Average], averages: Mapping[str, Tree], params: Tree, step: Array
) -> Mapping[str, Tree]:
    """All averages, by name, updated with new params."""
    return {name: rules[name].update(averages[name], params, step) for name in rules}
