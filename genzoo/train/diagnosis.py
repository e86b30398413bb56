"""What went wrong in a step with a non-finite loss or gradient, found by running it once more.

A non-finite step changes no array of the state but its counters, and its batch and its keys follow
from its number. It can therefore be repeated afterwards, and the compiled step carries nothing for
this purpose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from genzoo.core import streams
from genzoo.core.contract import Aux, Player, weighted
from genzoo.core.types import Array, Batch, Tree
from genzoo.runtime.provenance import Examination, Origin, examined
from genzoo.train.state import Faults, TrainState, own_params
from genzoo.train.step import Updater


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The first player of a step whose loss or gradient was not finite.

    player: its name. rows: bool [B], the examples with a non-finite loss. gradients: the paths of
    the params with a non-finite gradient; empty if the loss was not finite either. origins: the
    operations that made the first non-finite numbers, or the non-finite arguments "params/...",
    "batch/...", "stats/...", "averages/...", "frozen/...".
    """

    player: str
    rows: np.ndarray
    gradients: tuple[str, ...]
    origins: tuple[Origin, ...]


def diagnose(
    updater: Updater, state: TrainState, batch: Batch, sharding: Any = None
) -> Diagnosis | None:
    """Repeats a step and follows its non-finite numbers; None if it is finite this time.

    state: that before the step. batch: its stored batch [B, ...]. sharding: of the results, which
    every process reads; None for a single device.
    """
    prepared = jax.jit(updater.prepared)(batch, state.step)
    moving = [name for name, one in updater.family.losses.items() if one.moves_at(int(state.step))]
    for name in moving:
        player = updater.family.losses[name]
        part = _Part(updater=updater, name=name, player=player, sharding=sharding)
        if (found := part.examine(state, prepared)) is not None:
            return found
        if name != moving[-1]:
            state = jax.jit(updater.moved, static_argnums=0)(name, state, prepared)
    return None


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One player's part of a step."""

    updater: Updater
    name: str
    player: Player
    sharding: Any

    def examine(self, state: TrainState, batch: Batch) -> Diagnosis | None:
        """The diagnosis if this player's loss or gradient is not finite."""
        # The losses come first: without derivatives there are fewer arrays to follow, and arrays
        # that are computed again in the backward pass need no memory.
        results = self._over_parts(self._losses, state, batch)
        rows = np.stack([~np.isfinite(result.kept["losses"]) for result in results], axis=1)
        gradients = ()
        if not any(result.non_finite for result in results):
            results = self._over_parts(self._gradient, state, batch)
            gradients = tuple(sorted({path for r in results for path in r.non_finite}))
        if not any(result.non_finite for result in results):
            return None
        return Diagnosis(
            player=self.name,
            rows=rows.reshape(-1),
            gradients=gradients,
            origins=tuple(dict.fromkeys(origin for r in results for origin in r.origins)),
        )

    def _over_parts(self, work: Callable, state: TrainState, batch: Batch) -> list[Examination]:
        """The examination of each part of the batch whose gradients are accumulated."""
        parts = self.updater.accumulate
        batches = self.updater.parts(batch) if parts > 1 else None
        stats, results = state.stats, []
        for index in range(parts):
            rows = batch if batches is None else jax.tree.map(lambda x, i=index: x[i], batches)
            arguments = {
                "params": state.params,
                "batch": rows,
                "stats": stats,
                "averages": state.averages,
                "frozen": state.frozen,
                "step": state.step,
                "part": np.int32(index),
            }
            results.append(examined(work, arguments, sharding=self.sharding))
            stats = results[-1].kept["stats"]
        return results

    def _evaluated(self, given: Tree, mine: Tree, others: Tree) -> tuple[Array, Aux]:
        key = streams.named(self.updater.key(given["step"]), self.name)
        if self.updater.accumulate > 1:
            key = streams.at(key, given["part"])
        state = TrainState(
            **{name: given[name] for name in ("step", "params", "stats", "averages", "frozen")},
            opt_state={},
            faults=Faults.none(),
        )
        return self.updater.losses(
            self.player, mine, others, state.stats, state, given["batch"], key
        )

    def _losses(self, given: Tree) -> tuple[Tree, Tree]:
        """(the losses and their metric, what the next part and the diagnosis need)."""
        values, aux = self._evaluated(given, *own_params(self.name, self.player, given["params"]))
        metric, _ = weighted(aux.metrics.get("loss", values))
        return (values, metric), {"losses": values, "stats": aux.stats}

    def _gradient(self, given: Tree) -> tuple[Tree, Tree]:
        """(the gradient by the player's params, as above)."""
        mine, others = own_params(self.name, self.player, given["params"])

        def mean_loss(mine):
            values, aux = self._evaluated(given, mine, others)
            return values.mean(), {"losses": values, "stats": aux.stats}

        gradient, kept = jax.grad(mean_loss, has_aux=True)(mine)
        return gradient, kept
