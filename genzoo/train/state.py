"""The state of a run: all that a checkpoint holds and all that a step changes.

No random key and no data iterator is in it: both follow from (seed, step).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from genzoo.core import tree
from genzoo.core.contract import Family, Player, Variables
from genzoo.core.types import Array, Batch, Key, Tree
from genzoo.train.optimizer import Optimizer

Start = Callable[[Variables], Variables]


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
    """step: int32, steps done. opt_state: by player, of the params that it trains. averages: params
    averaged in time, by name. frozen: variables of other runs' models, by name; no step changes
    them, and no checkpoint holds them."""

    step: Array
    params: Tree
    stats: Tree
    opt_state: Mapping[str, Tree]
    averages: Mapping[str, Tree]
    faults: Faults
    frozen: Mapping[str, Tree] = field(default_factory=dict)


def initial(
    family: Family,
    optimizers: Mapping[str, Optimizer],
    average_names: tuple[str, ...],
    key: Key,
    example: Batch,
    frozen: Mapping[str, Tree] | None = None,
    start: Start = lambda variables: variables,
) -> TrainState:
    """The state before the first step. Every average starts as a copy of the params.

    optimizers: by player; empty for what is learned in closed form. frozen: variables of other
    runs' models, by name. start: what makes of the fresh variables those to start from.
    """
    variables = start(replace(family.init(key, example), frozen=frozen or {}))
    return TrainState(
        step=jnp.int32(0),
        params=variables.params,
        stats=variables.stats,
        opt_state={
            name: optimizer.transformation().init(
                own_params(name, family.losses[name], variables.params)[0]
            )
            for name, optimizer in optimizers.items()
        },
        averages={name: jax.tree.map(jnp.copy, variables.params) for name in average_names},
        faults=Faults.none(),
        frozen=variables.frozen,
    )


def own_params(name: str, player: Player, params: Tree) -> tuple[Tree, Tree]:
    """(the params that the player of that name trains, the others); raises ValueError where it
    trains none."""
    if "" in player.trains:
        return params, {}
    mine, others = tree.split(params, player.owns)
    if not mine:
        raise ValueError(f"The player {name!r} trains {player.trains}: no param has such a path.")
    return mine, others
