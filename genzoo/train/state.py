"""The state of a run: all that a checkpoint holds and all that a step changes.

No random key and no data iterator is in it: both follow from (seed, step).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax

from genzoo.core.contract import Family
from genzoo.core.types import Array, Batch, Key, Tree


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Faults:
    """Non-finite steps, int32 scalars. total: all of them; streak: in a row up to now;
    since: the step at which the present streak began, or -1."""

    total: Array
    streak: Array
    since: Array

    @classmethod
    def none(cls) -> "Faults":
        """No fault so far."""
        return cls(total=jnp.int32(0), streak=jnp.int32(0), since=jnp.int32(-1))

    def after(self, finite: Array, step: Array, limit: int) -> "Faults":
        """With one more step taken in. A streak that has reached the limit is latched, so that the
        host finds it however rarely it looks."""
        latched = self.streak >= limit
        streak = jnp.where(finite & ~latched, 0, self.streak + ~finite)
        began = jnp.where(self.streak == 0, step, self.since)
        return Faults(
            total=self.total + ~finite,
            streak=streak,
            since=jnp.where(streak == 0, -1, began),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """step: int32, steps done. opt_state: by player. averages: params averaged in time, by name.
    frozen: variables of first stages and teachers, by name; no step changes them."""

    step: Array
    params: Tree
    stats: Tree
    opt_state: Mapping[str, Tree]
    averages: Mapping[str, Tree]
    faults: Faults
    frozen: Mapping[str, Tree] = field(default_factory=dict)


def initial(
    family: Family,
    optimizers: Mapping[str, optax.GradientTransformation],
    average_names: tuple[str, ...],
    key: Key,
    example: Batch,
) -> TrainState:
    """The state before the first step. Every average starts as a copy of the params."""
    variables = family.init(key, example)
    return TrainState(
        step=jnp.int32(0),
        params=variables.params,
        stats=variables.stats,
        opt_state={name: tx.init(variables.params) for name, tx in optimizers.items()},
        averages={name: jax.tree.map(jnp.copy, variables.params) for name in average_names},
        faults=Faults.none(),
        frozen=variables.frozen,
    )
