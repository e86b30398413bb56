"""What the modes share: a config and the objects built from it, each on first use.

Nothing here knows a particular family: `build.py` builds it, and everything else uses it through
the contract.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.builders import datasets
from genzoo.config import freeze
from genzoo.core import streams
from genzoo.core.contract import (
    CAPABILITIES,
    Family,
    Fits,
    Variables,
    capabilities,
)
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch, Key, Keys, Tree
from genzoo.data import records
from genzoo.data.counts import Counts
from genzoo.data.fields import Field
from genzoo.data.latents import Moments
from genzoo.data.source import Source, Spec
from genzoo.math.gaussian_mixture import GaussianMixture
from genzoo.runtime.compilation import Program, compile_program, run_once
from genzoo.runtime.progress import waiting
from genzoo.runtime.stopping import Stop
from genzoo.settings import RAW
from genzoo.systems.latent import FIRST
from genzoo.train import sharding
from genzoo.train.optimizer import Optimizer
from genzoo.train.state import Start, TrainState, initial
from genzoo.train.step import Updater


@dataclass(frozen=True, eq=False)
class Experiment:
    """A config and the objects built from it, each on first use.

    stop: tells loops when to stop. devices: to compile for, if not those of this machine.
    """

    config: FrozenConfigDict
    stop: Stop = field(default_factory=Stop)
    devices: tuple[jax.Device, ...] | None = None

    @cached_property
    def family(self) -> Family:
        """The model family."""
        return build.family(self.config)

    @cached_property
    def placement(self) -> sharding.Placement:
        """The mesh and the shardings on it."""
        return sharding.placement(build.section(self.config, "mesh"), self.devices)

    @cached_property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizer of each player; empty for a family that is fitted in closed form."""
        if isinstance(self.family, Fits):
            return {}
        return build.optimizers(self.config, self.family.losses)

    @cached_property
    def spec(self) -> Spec:
        """The fields of the records, as far as they are known before the data is opened."""
        return datasets.spec(build.section(self.config, "data"))

    @property
    def x(self) -> Field:
        """The field of the datum x."""
        return self.spec.fields["x"]

    @property
    def drawn(self) -> Field:
        """The field of samples: that of the datum, or of the data of the first stage if the datum
        is a latent."""
        return self.others[FIRST].x if isinstance(self.x, Moments) else self.x

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one datum."""
        return self.spec.shape

    @property
    def classes(self) -> int:
        """The number of classes that the model knows; 0 if it does not use classes."""
        if not (build.labels(self.config) or build.FAMILIES[self.config.family.name].labelled):
            return 0
        return datasets.class_count(build.section(self.config, "data"))

    @property
    def unit(self) -> str:
        """The name of one example, for counts."""
        return self.drawn.singular

    @property
    def exact_density(self) -> GaussianMixture | None:
        """The density that the data was drawn from, if it is known."""
        known = self.spec.density
        if known is None:
            return None
        return GaussianMixture(
            weights=known.weights, means=known.means, deviations=known.deviations
        )

    @property
    def root(self) -> Key:
        """The random key of the run."""
        return streams.root(self.config.seed)

    def example(self, count: int) -> Batch:
        """The shapes of a prepared batch."""
        return {name: kind.example(count) for name, kind in self.spec.fields.items()}

    def stored(self, *rows: int, sharding: jax.sharding.Sharding | None = None) -> Batch:
        """The shapes of stored records, [*rows, ...]."""
        return {
            name: kind.stored_example(*rows, sharding=sharding)
            for name, kind in self.spec.fields.items()
        }

    def prepared(self, batch: Batch) -> Batch:
        """A batch of stored records as models see it, without augmentation. Entries that are not
        fields (masks, indices) stay unchanged."""
        return records.prepare(batch, fields=self.spec.fields)

    def flat(self, stored: Batch) -> Batch:
        """The run's fields of stored records, in the layout held on the devices."""
        return records.flat(records.only(stored, self.spec.fields), self.spec.fields)

    @cached_property
    def others(self) -> Mapping[str, "Experiment"]:
        """The experiments of the frozen models, by name, on our mesh."""
        mesh = self.config.mesh.to_dict()
        return {
            name: Experiment(freeze({**stage.config.to_dict(), "mesh": mesh}), devices=self.devices)
            for name, stage in self.config.frozen.items()
        }

    def initial_state(
        self, frozen: Mapping[str, Tree] | None = None, start: Start = lambda fresh: fresh
    ) -> TrainState:
        """The state at step 0. frozen: the models of other runs; fresh ones if None. start: maps
        the fresh variables to those that training starts from."""
        if frozen is None:
            frozen = {name: other.initial_variables().tree for name, other in self.others.items()}
        zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in self.example(1).items()}
        names = tuple(self.config.train.averages)
        key = streams.named(self.root, "init")
        return initial(self.family, self.optimizers, names, key, zeros, frozen, start)

    def initial_variables(self) -> Variables:
        """The variables of the state at step 0."""
        return variables_of(self.initial_state(), RAW)

    @cached_property
    def abstract_state(self) -> TrainState:
        """The shapes and shardings of the state, without allocating it."""
        shapes = jax.eval_shape(self.initial_state)
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            shapes,
            self.placement.state(shapes),
        )

    @property
    def _state_shardings(self) -> TrainState:
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state)

    def new_state(self) -> TrainState:
        """The state at step 0 in its shardings, with fresh frozen models."""
        with waiting("Setting up the first params."):
            return run_once(self.initial_state, out_shardings=self._state_shardings)

    def started_state(
        self, frozen: Mapping[str, Tree], given: Tree, start: Callable[[Variables, Tree], Variables]
    ) -> TrainState:
        """The state at step 0 with these frozen models, which are already in their shardings.

        start: (fresh variables, given) -> the variables to start from. given: its second argument.
        """

        def made(frozen: Mapping[str, Tree], given: Tree) -> TrainState:
            state = self.initial_state(frozen, lambda fresh: start(fresh, given))
            return replace(state, frozen={})  # they are added below, without a copy

        where = replace(self._state_shardings, frozen={})
        return replace(run_once(made, frozen, given, out_shardings=where), frozen=frozen)

    def training(self, state: TrainState, data: Batch, inputs: Batch) -> jax.stages.Lowered:
        """`Updater.call`, lowered for arrays or shapes. It donates the state: the new one reuses
        its memory."""
        call = jax.jit(
            self.updater(self.config.train.accumulate).call,
            donate_argnums=(0,),
            out_shardings=(self._state_shardings, self.placement.replicated),
        )
        return call.lower(state, data, inputs)

    def updater(self, accumulate: int) -> Updater:
        """The training step."""
        on_cpu = self.placement.platform == "cpu"
        return Updater(
            family=self.family,
            optimizers=self.optimizers,
            averages=build.averages(self.config),
            prepare=partial(
                records.prepare, fields=self.spec.fields, mirrored=self.config.data.flip
            ),
            root=self.root,
            accumulate=accumulate,
            fault_limit=self.config.train.fault_limit,
            # On a CPU, XLA computes the gradient of a convolution about forty times slower inside a
            # loop than outside (jaxlib 0.10.2), so a few passes are unrolled there. Many are not,
            # because of the compile time; they are for models without convolutions.
            max_unrolled=8 if on_cpu else 1,
            branch=on_cpu,
            # The same holds inside a branch, so on a CPU a player out of turn computes its gradient
            # and discards it.
            skip=not on_cpu,
            gathered=self.placement.gathered,
        )

    def lowered(
        self, function: Callable, variables: Variables, rows: Batch
    ) -> jax.stages.Lowered:
        """A function of (variables, rows), lowered for arrays or shapes. Its value is replicated,
        so that every process has all of it."""

        def call(variables, rows):
            parts = {name: getattr(variables, name) for name in ("params", "stats", "frozen")}
            gathered = {k: self.placement.gathered(v, k) for k, v in parts.items()}
            return function(Variables(**gathered), rows)

        return jax.jit(call, out_shardings=self.placement.replicated).lower(variables, rows)

    def program(self, function: Callable, variables: Variables, rows: Batch) -> Program:
        """The compiled program of `lowered`."""
        return compile_program(self.lowered(function, variables, rows))

    def open(self, split: str) -> Source:
        """A split of the data. Raises UserError if it lacks a field of the model or has another
        number of classes."""
        source = datasets.open_source(build.section(self.config, "data"), split)
        ours, theirs = self.classes, len(source.spec.classes)
        if ours and ours != theirs:
            remedy = f"set data.num_classes = {theirs}" if theirs else "sort it into class folders"
            raise UserError(
                f"The model has {ours} classes, but {source.name} has {theirs}: {remedy}."
            )
        if missing := sorted(self.spec.fields.keys() - source.spec.fields.keys()):
            raise UserError(
                f"{source.name} has no {', '.join(missing)}, although data.num_classes = "
                f"{self.config.data.num_classes}: set it to 0."
            )
        return source


def variables_of(state: TrainState, weights: str) -> Variables:
    """The params themselves ("raw") or a named average of them, with stats and frozen models."""
    params = state.params if weights == RAW else state.averages[weights]
    return Variables(params=params, stats=state.stats, frozen=state.frozen)


def sample_keys(seed: int, index: Array) -> Keys:
    """The random keys of samples, from their indices [n]."""
    return streams.per_example(streams.named(streams.root(seed), "sample"), index)


def require_kind(
    experiment: Experiment, kinds: tuple[type[Field], ...], mode: str, does: str
) -> None:
    """Raises UserError if a mode does not apply to this kind of data. does: what the mode does,
    such as "compares images"."""
    x = experiment.drawn if mode == "sample" else experiment.x
    if not isinstance(x, kinds):
        others = "retrieve or eval" if isinstance(x, Counts) else "sample or eval"
        raise UserError(
            f"--mode={mode} {does}, but {experiment.config.data.name} holds {x.plural}: use "
            f"another mode, such as {others}."
        )


def require(family: Family, name: str, capability: str, mode: str, key: str = "") -> None:
    """Raises UserError if the family lacks a capability that a mode needs. key: that asks for it,
    if the mode can do without."""
    if not isinstance(family, CAPABILITIES[capability]):
        can = ", ".join(capabilities(family)) or "nothing beyond training"
        instead = build.FAMILIES[name].instead.get(capability, "")
        if key:
            instead = f"Leave {key} empty. {instead}"
        needs = f"{key or f'--mode={mode}'} needs a family that can {capability}"
        sentence = f"{needs}; {name} can: {can}."
        raise UserError(f"{sentence} {instead}".strip())
