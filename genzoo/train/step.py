"""The training step: a pure function of (state, batch), scanned over several batches per call.

Each player in turn computes the gradient of its mean loss by the params that it trains, and updates
them; the next player sees the new params. Then the averages are updated. A step with a non-finite
loss or gradient changes only the fault counters. There is no device axis here: the mean over a
sharded batch is already the global mean.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import optax

from genzoo.core import streams, tree
from genzoo.core.contract import Aux, Context, Family, Player, weighted
from genzoo.core.errors import UserError
from genzoo.core.reports import by_name
from genzoo.core.types import Array, Batch, Key, Tree
from genzoo.train.averages import Average, update_all
from genzoo.train.optimizer import Optimizer, moves_made
from genzoo.train.state import TrainState, own_params

Sums = Mapping[str, tuple[Array, Array]]
Prepare = Callable[[Batch, Key], Batch]


def is_latest(metric: str) -> bool:
    """Whether a metric is reported for the last step instead of averaged over steps."""
    return metric.startswith("learning_rate")


@dataclass(frozen=True, kw_only=True, eq=False)
class Updater:
    """The training step and its settings.

    prepare: (stored batch, key) -> prepared and augmented batch. root: the key from which every
    step derives its own. accumulate: the number of parts into which the batch is split, processed
    one after the other to save memory; UserError above 1 if a loss couples the rows of a batch.
    fault_limit: non-finite steps in a row after which the state no longer changes and the host must
    stop the run. max_unrolled: loops over steps or parts of up to this length are unrolled. branch:
    whether a branch protects the state from a non-finite step, which avoids copies of the state in
    a loop on a CPU; otherwise a selection does, which needs no value on the host. skip: whether a
    branch skips the gradient of a player whose turn it is not; otherwise it is computed and
    discarded. gathered: (part of the state, its name) -> the same part, with split arrays gathered
    for the networks.
    """

    family: Family
    optimizers: Mapping[str, Optimizer]
    averages: Mapping[str, Average]
    prepare: Prepare
    root: Key
    accumulate: int = 1
    fault_limit: int = 10
    max_unrolled: int = 1
    branch: bool = False
    skip: bool = True
    gathered: Callable[[Tree, str], Tree] = lambda tree, name: tree

    def __post_init__(self):
        coupled = [name for name, player in self.family.losses.items() if player.couples_rows]
        if self.accumulate > 1 and coupled:
            raise UserError(
                f"train.accumulate = {self.accumulate} would change the loss of "
                f"{', '.join(map(repr, coupled))}, which compares the examples of a batch: set it "
                "to 1."
            )

    def _unroll(self, passes: int) -> int:
        return passes if passes <= self.max_unrolled else 1

    def prepared(self, batch: Batch, step: Array) -> Batch:
        """A stored batch as the losses see it at this step."""
        return self.prepare(batch, streams.at(streams.named(self.root, "augment"), step))

    def key(self, step: Array) -> Key:
        """The key of this step, from which every player's is derived by its name."""
        return streams.at(streams.named(self.root, "train"), step)

    def flops_of_step(self, counted: float, steps: int) -> float:
        """The operations of one step, from those counted in a program of `steps` steps, in which a
        loop counts as one pass."""
        passes = steps if steps <= self.max_unrolled else 1
        seen = self.accumulate if self.accumulate <= self.max_unrolled else 1
        return counted / passes * self.accumulate / seen

    def parts(self, batch: Batch) -> Batch:
        """A batch [B, ...] in the parts [A, B / A, ...] whose gradients are accumulated. Part i has
        the rows i, i + A, ..., so that no row of a sharded batch moves between devices."""
        return jax.tree.map(
            lambda x: x.reshape(-1, self.accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        """One step on a stored batch [B, ...]: the new state, and metrics as (sum, weight)."""
        prepared = self.prepared(batch, state.step)
        key = self.key(state.step)
        stats, params, opt_state = state.stats, state.params, dict(state.opt_state)
        finite, measured = jnp.bool_(True), {}
        for name, player in self.family.losses.items():
            mine, others = own_params(name, player, params)
            differentiate = partial(
                self._gradient, player, mine, others, stats, state, prepared,
                streams.named(key, name),
            )  # fmt: skip
            now = True if player.always else player.moves_at(state.step)
            gradient, stats, sums = self._in_turn(now, differentiate, (mine, stats))
            norm = optax.tree.norm(gradient)
            finite &= jnp.isfinite(norm) & jnp.isfinite(sums["loss"][0])
            kept = finite & now & (state.faults.streak < self.fault_limit)
            move = partial(self._move, name, gradient)
            mine, opt_state[name] = self._gate(kept, move, (mine, opt_state[name]))
            params = tree.joined(others, mine)
            measured[name] = sums | {"gradient_norm": (norm, jnp.ones(()) * now)}
        kept = finite & (state.faults.streak < self.fault_limit)
        if len(measured) > 1:  # undo the update of an earlier player if a later one failed
            old = state.params, dict(state.opt_state)
            params, opt_state = tree.where(kept, (params, opt_state), old)
        averages = self._gate(
            kept, lambda old: update_all(self.averages, old, params, state.step), state.averages
        )
        faults = state.faults.after(finite, state.step, self.fault_limit)
        # The metrics of a non-finite step would spoil the mean over the other steps.
        measured = tree.where(finite, measured, jax.tree.map(jnp.zeros_like, measured))
        for name, optimizer in self.optimizers.items():
            moves = moves_made(opt_state[name])
            rate = optimizer.schedule()(jnp.maximum(moves - 1, 0))
            measured[name]["learning_rate"] = (rate, jnp.float32(moves > 0))
        state = TrainState(
            step=state.step + 1,
            params=params,
            stats=tree.where(kept, stats, state.stats),
            opt_state=opt_state,
            averages=averages,
            faults=faults,
            frozen=state.frozen,
        )
        return state, by_name(measured)

    def moved(self, name: str, state: TrainState, prepared: Batch) -> TrainState:
        """The state after the named player's part of a step, finite or not, without averages and
        counters. prepared: the prepared batch."""
        player = self.family.losses[name]
        mine, others = own_params(name, player, state.params)
        key = streams.named(self.key(state.step), name)
        gradient, stats, _ = self._gradient(player, mine, others, state.stats, state, prepared, key)
        mine, own = self._move(name, gradient, (mine, state.opt_state[name]))
        opt_state = {**state.opt_state, name: own}
        params = tree.joined(others, mine)
        return replace(state, params=params, stats=stats, opt_state=opt_state)

    def _in_turn(
        self, now: Array | bool, differentiate: Callable, still: tuple[Tree, Tree]
    ) -> tuple[Tree, Tree, Sums]:
        """The result of `differentiate` if it is the player's turn (`now`).

        Otherwise the gradient and the metrics are zero and the stats unchanged. still: the params
        of the player and the stats.
        """
        if now is True:
            return differentiate()

        def idle(like: tuple) -> tuple:
            mine, _, sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
            return mine, still[1], sums

        if self.skip:
            like = jax.eval_shape(differentiate)
            return jax.lax.cond(now, differentiate, lambda: idle(like))
        result = differentiate()
        return tree.where(now, result, idle(result))

    def _move(self, name: str, gradient: Tree, old: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        """(own params, optimizer state) after the player's update. old: those before it."""
        params, opt_state = old
        updates, opt_state = self.optimizers[name].transformation().update(
            gradient, opt_state, params
        )
        return optax.apply_updates(params, updates), opt_state

    def _gate(self, kept: Array, move: Callable[[Tree], Tree], old: Tree) -> Tree:
        if self.branch:
            return jax.lax.cond(kept, move, lambda unmoved: unmoved, old)
        return tree.where(kept, move(old), old)

    def losses(
        self,
        player: Player,
        mine: Tree,
        others: Tree,
        stats: Tree,
        state: TrainState,
        batch: Batch,
        key: Key,
    ) -> tuple[Array, Aux]:
        """The player's losses [B] on a prepared batch. mine, others: the params that it trains, and
        the rest. state: for the step, the averages and the frozen models."""
        context = Context(
            batch=batch,
            key=key,
            step=state.step,
            stats=stats,
            averages=self.gathered(state.averages, "averages"),
            frozen=self.gathered(state.frozen, "frozen"),
            mask=jnp.ones(len(jax.tree.leaves(batch)[0])) if player.couples_rows else None,
            train=True,
        )
        params = tree.joined(self.gathered(others, "params"), self.gathered(mine, "params"))
        return player.loss(params, context)

    def _gradient(
        self,
        player: Player,
        mine: Tree,
        others: Tree,
        stats: Tree,
        state: TrainState,
        batch: Batch,
        key: Key,
    ) -> tuple[Tree, Tree, Sums]:
        """(gradient of the mean loss by the player's params, new stats, metrics)."""

        def mean_loss(mine, stats, batch, key):
            values, aux = self.losses(player, mine, others, stats, state, batch, key)
            sums = {k: weighted(v) for k, v in aux.metrics.items()}
            sums.setdefault("loss", weighted(values))
            return values.mean(), (aux.stats, sums)

        differentiate = jax.grad(mean_loss, has_aux=True)
        if self.accumulate == 1:
            gradient, (stats, sums) = differentiate(mine, stats, batch, key)
            return gradient, stats, sums

        def add(carry, inputs):
            total, stats = carry
            index, rows = inputs
            gradient, (stats, sums) = differentiate(mine, stats, rows, streams.at(key, index))
            return (jax.tree.map(jnp.add, total, gradient), stats), sums

        zero = jax.tree.map(jnp.zeros_like, mine)
        indices = jnp.arange(self.accumulate)
        (total, stats), sums = jax.lax.scan(
            add,
            (zero, stats),
            (indices, self.parts(batch)),
            unroll=self._unroll(self.accumulate),
        )
        gradient = jax.tree.map(lambda g: g / self.accumulate, total)
        return gradient, stats, jax.tree.map(lambda x: x.sum(0), sums)

    def call(self, state: TrainState, data: Batch, inputs: Batch) -> tuple[TrainState, Sums]:
        """S steps in one program.

        data: the whole data set on the device, with inputs {"rows": int32 [S, B]}; or {}, with
        batches [S, B, ...] as inputs. Returns the new state and the metrics summed over the S
        steps; `is_latest` ones are those of the last step.
        """

        def one(state, inputs):
            batch = {k: v[inputs["rows"]] for k, v in data.items()} if data else inputs
            return self.update(state, batch)

        steps = len(jax.tree.leaves(inputs)[0])
        if steps == 1:  # a loop of one pass would only hinder the compiler
            return one(state, jax.tree.map(lambda x: x[0], inputs))
        state, sums = jax.lax.scan(one, state, inputs, unroll=self._unroll(steps))

        def over_steps(name: str, values: tuple) -> tuple:
            return jax.tree.map(lambda x: x[-1] if is_latest(name) else x.sum(0), values)

        return state, {name: over_steps(name, values) for name, values in sums.items()}
