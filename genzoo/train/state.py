"""The state of a run: everything that a step changes and a checkpoint holds.

It contains no random key and no data iterator, because both follow from (seed, step).
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
    """Counts of non-finite steps, int32 scalars.

    total: all of them. streak: those in a row up to now. since: the step at which the current
    streak began, or -1.
    """

    total: Array
    streak: Array
    since: Array

    @classmethod
    def none(cls) -> "Faults":
        """The counts before the first step."""
        return cls(total=jnp.int32(0), streak=jnp.int32(0), since=jnp.int32(-1))

    def after(self, finite: Array, step: Array, limit: int) -> "Faults":
        """The counts after one more step. finite: bool [], whether it was finite. step: int32 [].

        A streak that has reached `limit` never ends, so that the host sees it however rarely it
        looks.
        """
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
    """The state of training.

    step: int32 [], the number of steps done. params, stats: see Variables. opt_state: by player,
    for the params that it trains. averages: averages of the params over time, by name. frozen:
    variables of other runs' models, by name; steps do not change them, and checkpoints do not
    contain them.
    """

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

    optimizers: by player; empty for a family that is fitted in closed form. average_names: the
    names of the averages. example: a batch, of which only the shapes matter. frozen: variables of
    other runs' models, by name. start: fresh variables -> those to start from.
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
    """(the params that the named player trains, the rest). Raises ValueError if it trains none."""
    if "" in player.trains:
        return params, {}
    mine, others = tree.split(params, player.owns)
    if not mine:
        raise ValueError(f"The player {name!r} trains {player.trains}: no param has such a path.")
    return mine, others
