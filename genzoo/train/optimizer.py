"""The optimizer, from optax: Adam or AdamW, clipped by the global norm, with a learning rate that
warms up linearly and then stays, falls linearly or along a cosine to the end of the run, or goes
down in stages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import optax

from genzoo.core import tree
from genzoo.core.contract import Player
from genzoo.core.types import Tree

Decay = Callable[["Optimizer", int], optax.Schedule]


def constant(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """The learning rate throughout."""
    del steps
    return optax.constant_schedule(optimizer.learning_rate)


def linear(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """From the learning rate to 0 in a straight line."""
    return optax.linear_schedule(optimizer.learning_rate, 0.0, steps)


def cosine(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """From the learning rate to 0 along half a cosine."""
    return optax.cosine_decay_schedule(optimizer.learning_rate, steps)


def stages(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """The learning rate times stage_factors[i] from stage_ends[i - 1] to stage_ends[i]."""
    del steps
    each = [optax.constant_schedule(optimizer.learning_rate * f) for f in optimizer.stage_factors]
    return optax.join_schedules(each, optimizer.stage_ends)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Hyperparameters of Adam(W). weight_decay: decoupled, 0 is plain Adam. warmup: in steps.
    clip: bound on the global norm of the gradient, 0 for none. stage_ends, stage_factors: of the
    decay `stages`; one factor more than ends, which are in steps after the warm-up."""

    decay: Decay
    total_steps: int
    learning_rate: float = 2e-4
    warmup: int = 0
    clip: float = 1.0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    stage_ends: tuple[int, ...] = ()
    stage_factors: tuple[float, ...] = ()

    def schedule(self) -> optax.Schedule:
        """step -> learning rate."""
        after = self.decay(self, max(self.total_steps - self.warmup, 1))
        if not self.warmup:
            return after
        # (step + 1) / warmup: the first step already moves.
        first = self.learning_rate / self.warmup
        rising = optax.linear_schedule(first, self.learning_rate, max(self.warmup - 1, 1))
        return optax.join_schedules([rising, after], [self.warmup])

    def transformation(self) -> optax.GradientTransformation:
        """The optax transformation."""
        # Neither has a state, so that a run may go on with the other.
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        adam = optax.adamw(
            self.schedule(), b1=self.b1, b2=self.b2, eps=self.eps, weight_decay=self.weight_decay
        )
        return optax.chain(clip, adam)


def for_players(
    players: Mapping[str, Player], optimizer: Optimizer
) -> Mapping[str, optax.GradientTransformation]:
    """One transformation per player, which moves its own subtrees and leaves the others alone."""

    def own(player: Player) -> optax.GradientTransformation:
        if player.trains == ("",):
            return optimizer.transformation()

        def labels(params: Tree) -> Tree:
            return tree.mask(params, lambda path: path.startswith(player.trains))

        return optax.partition(
            {True: optimizer.transformation(), False: optax.set_to_zero()}, labels
        )

    return {name: own(player) for name, player in players.items()}
