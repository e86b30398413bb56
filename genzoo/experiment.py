"""What the modes share: a config and what is built from it, each part on first use.

Nothing here knows a family: `build.py` makes it, and everything else looks at it through the
contract.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from genzoo import build
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
from genzoo.data import fields
from genzoo.data.fields import Field
from genzoo.data.source import Source, Spec
from genzoo.math.gaussian_mixture import GaussianMixture
from genzoo.runtime.compilation import Program, compile_program, run_once
from genzoo.runtime.stopping import Stop
from genzoo.settings import RAW
from genzoo.train import sharding
from genzoo.train.optimizer import Optimizer
from genzoo.train.state import Start, TrainState, initial
from genzoo.train.step import Updater


@dataclass(frozen=True, eq=False)
class Experiment:
    """What every mode shares: the config and what is built from it, each part on first use.

    stop: what loops ask whether to go on. devices: other than those at hand, to compile for.
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
        """By player; none for what is learned in closed form."""
        if isinstance(self.family, Fits):
            return {}
        return build.optimizers(self.config, self.family.losses)

    @cached_property
    def spec(self) -> Spec:
        """What the records hold, as far as it is known before the data is opened."""
        return build.spec(build.section(self.config, "data"))

    @property
    def x(self) -> Field:
        """The field that is the datum."""
        return self.spec.fields["x"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one datum."""
        return self.spec.shape

    @property
    def classes(self) -> int:
        """How many classes the model knows; 0 where it has nothing to do with any."""
        if not (build.labels(self.config) or build.FAMILIES[self.config.family.name].labelled):
            return 0
        return build.class_count(build.section(self.config, "data"))

    @property
    def unit(self) -> str:
        """What one example is called where they are counted."""
        return self.x.singular

    @property
    def exact_density(self) -> GaussianMixture | None:
        """What the data were drawn from, where that is known."""
        known = self.spec.density
        if known is None:
            return None
        return GaussianMixture(
            weights=known.weights, means=known.means, deviations=known.deviations
        )

    @property
    def root(self) -> Key:
        """The key of the run."""
        return streams.root(self.config.seed)

    def example(self, count: int) -> Batch:
        """Shapes of a prepared batch."""
        return {name: kind.example(count) for name, kind in self.spec.fields.items()}

    def stored(self, *rows: int, sharding: jax.sharding.Sharding | None = None) -> Batch:
        """Shapes of records as they are stored, [*rows, ...]."""
        return {
            name: kind.stored_example(*rows, sharding=sharding)
            for name, kind in self.spec.fields.items()
        }

    def prepared(self, batch: Batch) -> Batch:
        """A batch of stored records as models see it, not augmented; what is no field (masks,
        indices) stays as it is."""
        return fields.prepare(batch, fields=self.spec.fields)

    def flat(self, records: Batch) -> Batch:
        """Of stored records the fields of the run, as they are held on the devices."""
        return fields.flat(fields.only(records, self.spec.fields), self.spec.fields)

    @cached_property
    def others(self) -> Mapping[str, "Experiment"]:
        """What made the frozen models, by name, on our mesh."""
        mesh = self.config.mesh.to_dict()
        return {
            name: Experiment(freeze({**stage.config.to_dict(), "mesh": mesh}), devices=self.devices)
            for name, stage in self.config.frozen.items()
        }

    def initial_state(
        self, frozen: Mapping[str, Tree] | None = None, start: Start = lambda fresh: fresh
    ) -> TrainState:
        """The state at step 0. frozen: the models of other runs, untrained ones if None. start:
        what makes of the fresh variables those to start from."""
        if frozen is None:
            frozen = {name: other.initial_variables().tree for name, other in self.others.items()}
        zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in self.example(1).items()}
        names = tuple(self.config.train.averages)
        key = streams.named(self.root, "init")
        return initial(self.family, self.optimizers, names, key, zeros, frozen, start)

    def initial_variables(self) -> Variables:
        """Those of the state at step 0."""
        return variables_of(self.initial_state(), RAW)

    @cached_property
    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the state, without its memory."""
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
        """The state at step 0, on the devices where it belongs, with untrained frozen models."""
        return run_once(self.initial_state, out_shardings=self._state_shardings)

    def started_state(
        self, frozen: Mapping[str, Tree], given: Tree, start: Callable[[Variables, Tree], Variables]
    ) -> TrainState:
        """The state at step 0 with these frozen models, which are where they belong.

        start: (fresh variables, given) -> those to start from; given: what else it needs.
        """

        def made(frozen: Mapping[str, Tree], given: Tree) -> TrainState:
            state = self.initial_state(frozen, lambda fresh: start(fresh, given))
            return replace(state, frozen={})  # whole as they are, with no copy of them

        where = replace(self._state_shardings, frozen={})
        return replace(run_once(made, frozen, given, out_shardings=where), frozen=frozen)

    def training(self, state: TrainState, data: Batch, inputs: Batch) -> jax.stages.Lowered:
        """`Updater.call`, to be compiled, for arrays or shapes; it takes the state's memory for the
        state it returns."""
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
                fields.prepare, fields=self.spec.fields, mirrored=self.config.data.flip
            ),
            root=self.root,
            accumulate=accumulate,
            fault_limit=self.config.train.fault_limit,
            # XLA on a CPU computes the gradient of a convolution some forty times slower inside a
            # loop than outside (jaxlib 0.10.2): few passes are written out there. Many are not, for
            # the sake of the compile time: those are for models without convolutions.
            written_out=8 if on_cpu else 1,
            branch=on_cpu,
            # Nor inside a branch: there a player out of turn computes its gradient for nothing.
            skip=not on_cpu,
            gathered=self.placement.gathered,
        )

    def lowered(
        self, function: Callable, variables: Variables, rows: Batch
    ) -> jax.stages.Lowered:
        """A function of (variables, rows), to be compiled, for arrays or shapes; every process gets
        the whole of its value."""

        def call(variables, rows):
            parts = {name: getattr(variables, name) for name in ("params", "stats", "frozen")}
            gathered = {k: self.placement.gathered(v, k) for k, v in parts.items()}
            return function(Variables(**gathered), rows)

        return jax.jit(call, out_shardings=self.placement.replicated).lower(variables, rows)

    def program(self, function: Callable, variables: Variables, rows: Batch) -> Program:
        """The same, compiled."""
        return compile_program(self.lowered(function, variables, rows))

    def open(self, split: str) -> Source:
        """A split of the data, with the fields and as many classes as the model was built for."""
        source = build.open_source(build.section(self.config, "data"), split)
        wanted, found = self.classes, len(source.spec.classes)
        if wanted and wanted != found:
            remedy = f"set data.num_classes = {found}" if found else "sort it into class folders"
            raise UserError(
                f"The model has {wanted} classes and {source.name} has {found}: {remedy}."
            )
        if missing := sorted(self.spec.fields.keys() - source.spec.fields.keys()):
            raise UserError(
                f"{source.name} has no {', '.join(missing)}, which data.num_classes = "
                f"{self.config.data.num_classes} says it has: set it to 0."
            )
        return source


def variables_of(state: TrainState, weights: str) -> Variables:
    """The params themselves ("raw") or an average of them, with the stats."""
    params = state.params if weights == RAW else state.averages[weights]
    return Variables(params=params, stats=state.stats, frozen=state.frozen)


def sample_keys(seed: int, index: Array) -> Keys:
    """The keys of samples by their index [n]."""
    return streams.per_example(streams.named(streams.root(seed), "sample"), index)


def require(family: Family, name: str, capability: str, mode: str) -> None:
    """Raises UserError when the family lacks what a mode needs."""
    if not isinstance(family, CAPABILITIES[capability]):
        can = ", ".join(capabilities(family)) or "nothing beyond training"
        instead = build.FAMILIES[name].instead.get(capability, "")
        said = f"--mode={mode} needs a family that can {capability}; {name} can: {can}. {instead}"
        raise UserError(said.strip())
