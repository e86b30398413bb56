"""The training step: a pure function of (state, batch), scanned over several batches per call.

For each player in turn: gradient of the mean loss, optimizer, new params. Then the averages. A
step whose loss or gradient is not finite changes nothing but the fault counters. There is no device
axis in here: the mean over a sharded batch is already the global one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax

from genzoo.core import streams, tree
from genzoo.core.contract import Context, Family, Player, weighted
from genzoo.core.types import Array, Batch, Key, Tree
from genzoo.train.averages import Average, update_all
from genzoo.train.state import TrainState

Sums = Mapping[str, tuple[Array, Array]]
Prepare = Callable[[Batch, Key], Batch]
LATEST = frozenset({"learning_rate"})
"""Metrics whose value is that of the last step and not a mean over steps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Updater:
    """What a step is made of.

    prepare: uint8 batch and key -> float batch (augmentation). accumulate: into how many parts the
    batch is split, one after the other, to save memory. fault_limit: non-finite steps in a row
    after which nothing moves any more and the host is to stop the run. written_out: up to how many
    passes of a loop over steps or parts are written out instead of looped over. branch: whether a
    step that is not finite is kept from the state by a branch, which spares a loop on a CPU copies
    of the state, or by a selection, which needs no look at the device's numbers from the host.
    gathered: (a part of the state, its name) -> the same as networks need it, where a mesh has it
    split.
    """

    family: Family
    optimizers: Mapping[str, optax.GradientTransformation]
    learning_rate: optax.Schedule
    averages: Mapping[str, Average]
    prepare: Prepare
    root: Key
    accumulate: int = 1
    fault_limit: int = 10
    written_out: int = 1
    branch: bool = False
    gathered: Callable[[Tree, str], Tree] = lambda tree, name: tree

    def _unroll(self, passes: int) -> int:
        return passes if passes <= self.written_out else 1

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        """One optimizer step on one batch; metrics as (sum, weight)."""
        prepared = self.prepare(batch, streams.at(streams.named(self.root, "augment"), state.step))
        key = streams.at(streams.named(self.root, "train"), state.step)
        stats, metrics = state.stats, {}
        moving = old = (state.params, dict(state.opt_state), state.averages)
        finite, players = jnp.bool_(True), list(self.family.losses.items())
        for name, player in players:
            mine = streams.named(key, name)
            gradient, stats, sums = self._gradient(player, moving[0], stats, state, prepared, mine)
            norm = optax.tree.norm(gradient)
            finite &= jnp.isfinite(norm) & jnp.isfinite(sums["loss"][0])
            kept = finite & (state.faults.streak < self.fault_limit)
            last = name == players[-1][0]
            move = partial(self._move, name, gradient, state.step, last)
            moving = self._gate(kept, move, moving)
            prefix = "" if name == "model" else f"{name}/"
            metrics |= {prefix + k: v for k, v in sums.items()}
            metrics[f"{prefix}gradient_norm"] = (norm, jnp.ones(()))
        if len(players) > 1:  # what an earlier player has done before a later one failed
            moving = tree.where(kept, moving, old)
        params, opt_state, averages = moving
        stats = tree.where(kept, stats, state.stats)
        faults = state.faults.after(finite, state.step, self.fault_limit)
        # What a non-finite step has measured would spoil the mean of its neighbours.
        metrics = tree.where(finite, metrics, jax.tree.map(jnp.zeros_like, metrics))
        # The optimizer counts only the steps that it has taken.
        taken = state.step + 1 - faults.total
        rate = self.learning_rate(jnp.maximum(taken - 1, 0))
        metrics["learning_rate"] = (rate, jnp.float32(taken > 0))
        state = TrainState(
            step=state.step + 1,
            params=params,
            stats=stats,
            opt_state=opt_state,
            averages=averages,
            faults=faults,
            frozen=state.frozen,
        )
        return state, metrics

    def _move(self, name: str, gradient: Tree, step: Array, last: bool, moving: tuple) -> tuple:
        """(params, optimizer states, averages) after the player's move, the averages after the
        last."""
        params, opt_state, averages = moving
        moves, mine = self.optimizers[name].update(gradient, opt_state[name], params)
        params = optax.apply_updates(params, moves)
        if last:
            averages = update_all(self.averages, averages, params, step)
        return params, {**opt_state, name: mine}, averages

    def _gate(self, kept: Array, move: Callable[[tuple], tuple], old: tuple) -> tuple:
        if self.branch:
            return jax.lax.cond(kept, move, lambda unmoved: unmoved, old)
        return tree.where(kept, move(old), old)

    def _gradient(
        self, player: Player, params: Tree, stats: Tree, state: TrainState, batch: Batch, key: Key
    ) -> tuple[Tree, Tree, Sums]:
        def mean_loss(params, stats, batch, key):
            context = Context(
                batch=batch,
                key=key,
                step=state.step,
                stats=stats,
                averages=self.gathered(state.averages, "averages"),
                frozen=self.gathered(state.frozen, "frozen"),
                train=True,
            )
            values, aux = player.loss(self.gathered(params, "params"), context)
            sums = {k: weighted(v) for k, v in aux.metrics.items()}
            sums.setdefault("loss", weighted(values))
            return values.mean(), (aux.stats, sums)

        differentiate = jax.grad(mean_loss, has_aux=True)
        if self.accumulate == 1:
            gradient, (stats, sums) = differentiate(params, stats, batch, key)
            return gradient, stats, sums

        # Part i takes rows i, i + A, ...: a batch sharded over devices stays where it is.
        def part(x):
            return x.reshape(-1, self.accumulate, *x.shape[1:]).swapaxes(0, 1)

        def add(carry, inputs):
            total, stats = carry
            index, rows = inputs
            gradient, (stats, sums) = differentiate(params, stats, rows, streams.at(key, index))
            return (jax.tree.map(jnp.add, total, gradient), stats), sums

        zero = jax.tree.map(jnp.zeros_like, params)
        indices = jnp.arange(self.accumulate)
        (total, stats), sums = jax.lax.scan(
            add,
            (zero, stats),
            (indices, jax.tree.map(part, batch)),
            unroll=self._unroll(self.accumulate),
        )
        gradient = jax.tree.map(lambda g: g / self.accumulate, total)
        return gradient, stats, jax.tree.map(lambda x: x.sum(0), sums)

    def call(self, state: TrainState, data: Batch, inputs: Batch) -> tuple[TrainState, Sums]:
        """Several steps in one program.

        data: the whole set, held on the device, with inputs {"rows": int32 [S, B]}; or {} with
        inputs of batches [S, B, ...]. Metrics are summed over the S steps, but for LATEST ones.
        """

        def one(state, inputs):
            batch = {k: v[inputs["rows"]] for k, v in data.items()} if data else inputs
            return self.update(state, batch)

        steps = len(jax.tree.leaves(inputs)[0])
        if steps == 1:  # a loop of one pass would only hide the step from the compiler
            return one(state, jax.tree.map(lambda x: x[0], inputs))
        state, sums = jax.lax.scan(one, state, inputs, unroll=self._unroll(steps))
        return state, {
            name: jax.tree.map(lambda x, last=name in LATEST: x[-1] if last else x.sum(0), values)
            for name, values in sums.items()
        }
