"""The optimizer, from optax: Adam, AdamW or Muon with gradient clipping by the global norm.

Muon (Jordan et al. 2024, Muon: an optimizer for hidden layers) replaces the momentum M = U S V^T of
a matrix by about U V^T, so that directions with small gradients are learned as fast as others. The
kernels of all dense layers and convolutions are such matrices [inputs, outputs]; the window of a
convolution counts as inputs. Other params, such as biases and tables of embeddings, follow Adam
with Nesterov's momentum. Two things differ from Jordan et al., who leave the first and the last
layer to Adam and split the fused map to queries, keys and values into three matrices.
The update of an [m, n] kernel is 0.2 sqrt(max(m, n)) U V^T, whose root mean square is that of Adam:
learning rates carry over (Liu et al. 2025, Muon is scalable for LLM training).

After a linear warm-up, the learning rate is constant, decays linearly or along a cosine until the
end of the run, or changes in stages.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Annotated

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from genzoo.core.bounds import (
    NOT_ONE,
    Above,
    AtLeast,
    AtMost,
    Below,
    Between,
    Each,
    Entries,
    Limit,
    OneOf,
    ZeroOr,
    ignored,
)
from genzoo.core.contract import Player
from genzoo.core.errors import UserError
from genzoo.core.tree import is_stacked
from genzoo.core.types import Array, Tree

Decay = Callable[["Optimizer", int], optax.Schedule]


def constant(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """A constant learning rate."""
    del steps
    return optax.constant_schedule(optimizer.learning_rate)


def linear(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """Linear decay from the learning rate to 0 over `steps`."""
    return optax.linear_schedule(optimizer.learning_rate, 0.0, steps)


def cosine(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """Decay from the learning rate to 0 along half a cosine over `steps`."""
    return optax.cosine_decay_schedule(optimizer.learning_rate, steps)


def stages(optimizer: "Optimizer", steps: int) -> optax.Schedule:
    """The learning rate times stage_factors[i] between stage_ends[i - 1] and stage_ends[i]."""
    del steps
    each = [optax.constant_schedule(optimizer.learning_rate * f) for f in optimizer.stage_factors]
    return optax.join_schedules(each, optimizer.stage_ends)


DECAYS: Mapping[str, Decay] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "stages": stages,
}


def _decayed(optimizer: "Optimizer", params: Tree) -> Tree:
    """A tree of bools like params: to which weight_decay applies."""

    def of(path: tuple, value: Array) -> bool:
        if path[-1].key == _BIAS:
            return optimizer.decay_biases
        return optimizer.decay_gains or value.ndim - int(is_stacked(path)) > 1

    return jax.tree_util.tree_map_with_path(of, params)


def _adam(optimizer: "Optimizer") -> optax.GradientTransformation:
    return optax.adamw(
        optimizer.schedule(),
        b1=optimizer.b1,
        b2=optimizer.b2,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        mask=partial(_decayed, optimizer),
    )


def _muon(optimizer: "Optimizer") -> optax.GradientTransformation:
    return optax.chain(
        muon(
            1.0,  # the schedule follows, one for all params
            beta=optimizer.momentum,
            consistent_rms=_RMS,
            adam_b1=optimizer.b1,
            adam_b2=optimizer.b2,
            eps=optimizer.eps,
            muon_weight_dimension_numbers=_matrices,
        ),
        # The updates are negative by now.
        optax.add_decayed_weights(-optimizer.weight_decay, partial(_decayed, optimizer)),
        optax.scale_by_schedule(optimizer.schedule()),
    )


_RMS = 0.2  # about the root mean square of Adam's updates at a learning rate of 1


@dataclass(frozen=True)
class Method:
    """build: makes the transformation that follows the clipping. moments: the least number of
    arrays of its size that are kept for a param."""

    build: Callable[["Optimizer"], optax.GradientTransformation]
    moments: int


METHODS: Mapping[str, Method] = {
    "adam": Method(_adam, moments=2),
    "muon": Method(_muon, moments=1),
}


def _matrices(params: Tree) -> Tree:
    """How each kernel is a matrix: all axes but the last are inputs. None for other params.

    The kernels of layers stacked for a scan are one matrix for each layer.
    """

    def of(path: tuple, value: Array) -> MuonDimensionNumbers | None:
        first = int(is_stacked(path))
        if path[-1].key != "kernel" or value.ndim < first + 2:
            return None
        return MuonDimensionNumbers(tuple(range(first, value.ndim - 1)), value.ndim - 1)

    return jax.tree_util.tree_map_with_path(of, params)


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """Hyperparameters of Adam, AdamW (Kingma & Ba 2015, Loshchilov & Hutter 2019) and Muon."""

    method: Annotated[
        str, OneOf(METHODS), "adam (AdamW with weight_decay), or muon (Adam for all but kernels)."
    ] = "adam"
    learning_rate: Annotated[float, AtLeast(0), AtMost(1000), "The rate after the warm-up."] = 2e-4
    warmup: Annotated[
        int, AtLeast(0), Limit(2**31 - 1), "Steps over which the learning rate rises from 0."
    ] = 0
    clip: Annotated[
        float,
        AtLeast(0),
        ZeroOr("no clipping", Between(1e-6, 1e6)),
        "Bound on the global gradient norm; 0 for no clipping.",
    ] = 1.0
    weight_decay: Annotated[
        float, AtLeast(0), Limit(1_000), "Decoupled (AdamW); 0 for none."
    ] = 0.0
    decay_biases: Annotated[bool, "Whether weight_decay applies to biases too."] = True
    decay_gains: Annotated[
        bool, "Whether weight_decay applies to gains of norms and other vectors and numbers too."
    ] = True
    momentum: Annotated[
        float, AtLeast(0), Below(1), NOT_ONE, "Decay rate of Muon's momentum (Nesterov's)."
    ] = 0.95
    b1: Annotated[float, AtLeast(0), Below(1), NOT_ONE, "Decay rate of Adam's first moment."] = 0.9
    b2: Annotated[
        float, AtLeast(0), Below(1), NOT_ONE, "Decay rate of Adam's second moment."
    ] = 0.999
    eps: Annotated[
        float,
        Above(0),
        Between(1e-16, 1),
        "Added to the root of Adam's second moment, and to the norm of Muon's momentum.",
    ] = 1e-8
    stage_ends: Annotated[
        tuple[int, ...],
        Entries(0, 1_000),
        Each(Between(-(2**31), 2**31 - 1)),
        "For decay = 'stages': steps after the warm-up at which a stage ends.",
    ] = ()
    stage_factors: Annotated[
        tuple[float, ...],
        Entries(0, 1_001),
        Each(AtLeast(0)),
        Each(Limit(1e6)),
        "For decay = 'stages': factors of the learning rate, one more than stage_ends.",
    ] = ()


_STAGES = frozenset({"stage_ends", "stage_factors"})
# Keys that another key may leave without effect.
_DEPENDENT = _STAGES | {"decay_biases", "decay_gains", "momentum"}
_BIAS = "bias"


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(MethodSettings):
    """The keys of the section `optimizer`."""

    decay: Annotated[str, OneOf(DECAYS), "How the learning rate decays."] = "constant"
    players: Annotated[
        dict, "Name of a player -> the settings of this section that differ for it."
    ] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Errors in the settings, as sentences."""
        problems = self._problems("optimizer")
        for name, own in self.players.items():
            # Shared stages may have no effect on a player with its own decay; that is no error.
            shared = replace(self, stage_ends=(), stage_factors=()) if "decay" in own else self
            problems += replace(shared, **own)._problems(f"optimizer.players.{name}", own)
        return problems

    def _problems(self, where: str, own: Iterable[str] = _DEPENDENT) -> list[str]:
        ends, factors = self.stage_ends, self.stage_factors
        problems = ignored(self, where, "decay", {"stages": _STAGES & set(own)})
        problems += ignored(self, where, "method", {"muon": {"momentum"} & set(own)})
        for name in ("decay_biases", "decay_gains"):
            if name in own and not getattr(self, name) and not self.weight_decay:
                problems.append(
                    f"{where}.{name} = False has no effect with {where}.weight_decay = 0: raise "
                    "weight_decay, or leave it out."
                )
        if self.decay == "stages" and len(factors) != len(ends) + 1:
            problems.append(
                f"{where}.stage_factors has {len(factors)} entries for {len(ends)} stage_ends: "
                "it must have one more."
            )
        if any(b <= a for a, b in pairwise((0, *ends))):
            problems.append(f"{where}.stage_ends = {ends} must be increasing and above 0.")
        return problems

    def own(self) -> dict[str, dict]:
        """Player -> the fields of Optimizer that differ for it."""
        return {
            name: {k: DECAYS[v] if k == "decay" else v for k, v in own.items()}
            for name, own in self.players.items()
        }

    def build(self, total_steps: int) -> "Optimizer":
        """The optimizer for a run of `total_steps` steps."""
        own = {name: getattr(self, name) for name in MethodSettings.__dataclass_fields__}
        return Optimizer(decay=DECAYS[self.decay], total_steps=total_steps, **own)


@dataclass(frozen=True, kw_only=True)
class Optimizer(MethodSettings):
    """The optimizer of one player. All numbers of steps count the steps at which it moves."""

    decay: Decay
    total_steps: int

    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the step."""
        after = self.decay(self, max(self.total_steps - self.warmup, 1))
        if not self.warmup:
            return after
        # (step + 1) / warmup, so that the first step already has a learning rate above 0.
        first = self.learning_rate / self.warmup
        rising = optax.linear_schedule(first, self.learning_rate, max(self.warmup - 1, 1))
        return optax.join_schedules([rising, after], [self.warmup])

    def transformation(self) -> optax.GradientTransformation:
        """The optax transformation."""
        # Neither has a state, so a resumed run may switch between them.
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        return optax.chain(clip, METHODS[self.method].build(self))


def moves_made(state: Tree) -> Array:
    """The number of updates made by a transformation with this state: its schedule's count."""
    return optax.tree.get(
        state, "count", filtering=lambda path, _: path[-1].tuple_name == "ScaleByScheduleState"
    )


def for_players(
    players: Mapping[str, Player],
    optimizer: Optimizer,
    own: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, Optimizer]:
    """The optimizer of each player; its total_steps counts the steps at which the player moves.

    optimizer: the shared settings. own: player -> the fields that differ for it. Raises UserError
    if `own` has a player that does not exist.
    """
    own = own or {}
    if unknown := own.keys() - players.keys():
        raise UserError(
            *(
                f"optimizer.players.{name} is not a player of this family, which has "
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
