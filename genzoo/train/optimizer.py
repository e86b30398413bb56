"""The optimizer, from optax: Adam or AdamW, clipped by the global norm, with a learning rate that
warms up linearly and then stays, falls linearly or along a cosine to the end of the run, or goes
down in stages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated

import jax
import optax

from genzoo.core.bounds import Above, AtLeast, AtMost, Below, Each, OneOf, ignored
from genzoo.core.contract import Player
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Tree

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


DECAYS: Mapping[str, Decay] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "stages": stages,
}


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """Hyperparameters of Adam and AdamW."""

    learning_rate: Annotated[float, AtLeast(0), AtMost(1000), "After the warm-up."] = 2e-4
    warmup: Annotated[int, AtLeast(0), "Steps over which the learning rate rises from 0."] = 0
    clip: Annotated[
        float, AtLeast(0), "Bound on the global norm of the gradient; 0 for none."
    ] = 1.0
    weight_decay: Annotated[float, AtLeast(0), "Decoupled (AdamW); 0 is plain Adam."] = 0.0
    decay_biases: Annotated[bool, "Whether weight_decay shrinks biases too."] = True
    b1: Annotated[float, AtLeast(0), Below(1), "Decay of the mean of the gradient."] = 0.9
    b2: Annotated[float, AtLeast(0), Below(1), "Decay of the mean of its square."] = 0.999
    eps: Annotated[float, Above(0), "Added to the root of that."] = 1e-8
    stage_ends: Annotated[
        tuple[int, ...], "Of the decay stages: steps after the warm-up at which one ends."
    ] = ()
    stage_factors: Annotated[
        tuple[float, ...],
        Each(AtLeast(0)),
        "Of the decay stages: of the learning rate, one more than there are ends.",
    ] = ()


_STAGES = frozenset({"stage_ends", "stage_factors"})
_DEPENDENT = _STAGES | {"decay_biases"}  # keys that another key may leave without effect


def _weights(params: Tree) -> Tree:
    """Which params are no biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "bias", params)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(AdamSettings):
    """The keys of the section `optimizer`."""

    decay: Annotated[str, OneOf(DECAYS), "Of the learning rate after the warm-up."] = "constant"
    players: Annotated[
        dict, "Name of a player of the family -> those of these keys that are different for it."
    ] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What does not fit together."""
        found = self._problems("optimizer")
        for name, own in self.players.items():
            # Of what all players share, a player's own decay may leave something without effect.
            shared = replace(self, stage_ends=(), stage_factors=()) if "decay" in own else self
            found += replace(shared, **own)._problems(f"optimizer.players.{name}", own)
        return found

    def _problems(self, where: str, own: Iterable[str] = _DEPENDENT) -> list[str]:
        ends, factors = self.stage_ends, self.stage_factors
        found = ignored(self, where, "decay", {"stages": _STAGES & set(own)})
        if "decay_biases" in own and not self.decay_biases and not self.weight_decay:
            found.append(
                f"{where}.decay_biases = False has no effect with {where}.weight_decay = 0: raise "
                "weight_decay, or leave it out."
            )
        if self.decay == "stages" and len(factors) != len(ends) + 1:
            found.append(
                f"{where}.stage_factors has {len(factors)} entries for {len(ends)} stage_ends: "
                "it must have one more."
            )
        if any(b <= a for a, b in pairwise((0, *ends))):
            found.append(f"{where}.stage_ends = {ends} must rise from above 0.")
        return found

    def own(self) -> dict[str, dict]:
        """Player -> the fields of an Optimizer that are different for it."""
        return {
            name: {k: DECAYS[v] if k == "decay" else v for k, v in own.items()}
            for name, own in self.players.items()
        }

    def build(self, total_steps: int) -> "Optimizer":
        """The optimizer of a run of so many steps."""
        own = {name: getattr(self, name) for name in AdamSettings.__dataclass_fields__}
        return Optimizer(decay=DECAYS[self.decay], total_steps=total_steps, **own)


@dataclass(frozen=True, kw_only=True)
class Optimizer(AdamSettings):
    """Adam(W) of a run. Every number of steps counts those at which its player moves."""

    decay: Decay
    total_steps: int

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
            self.schedule(),
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=None if self.decay_biases else _weights,
        )
        return optax.chain(clip, adam)


def moves_made(state: Tree) -> Array:
    """How many moves a transformation with this state has made, by the count of its schedule."""
    return optax.tree.get(
        state, "count", filtering=lambda path, _: path[-1].tuple_name == "ScaleByScheduleState"
    )


def for_players(
    players: Mapping[str, Player],
    optimizer: Optimizer,
    own: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, Optimizer]:
    """The optimizer of each player, with the length of the run in the player's own moves.

    optimizer: what they share. own: player -> the fields that are different for it. Raises
    UserError where `own` names a player that is not there.
    """
    own = own or {}
    if unknown := own.keys() - players.keys():
        raise UserError(
            *(
                f"optimizer.players.{name} is no player of this family: it has "
                f"{', '.join(players)}."
                for name in sorted(unknown)
            )
        )
    return {
        name: replace(
            optimizer,
            **{"total_steps": player.moves_before(optimizer.total_steps), **own.get(name, {})},
        )
        for name, player in players.items()
    }
