"""Measures the statistics of the training data that a model needs before its first step."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.contract import Variables
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch
from genzoo.data import records
from genzoo.data.latent_folder import described
from genzoo.data.latents import Moments
from genzoo.data.source import Source
from genzoo.experiment import Experiment, variables_of
from genzoo.modes.encode_set import fingerprint
from genzoo.runtime.agreement import agreed
from genzoo.runtime.progress import tracked
from genzoo.settings import RAW
from genzoo.systems.latent import FIRST
from genzoo.train.state import TrainState


def check_first(experiment: Experiment, state: TrainState) -> None:
    """Raises UserError if the latents that are the data were made by another first stage."""
    kind, _, path = experiment.config.data.name.partition(":")
    if not isinstance(experiment.x, Moments):
        return
    theirs = agreed(lambda: described(path))
    if theirs.first != fingerprint(experiment, state.frozen[FIRST]):
        made = theirs.made_from
        raise UserError(
            f"frozen.{FIRST} is not the model that wrote {kind}:{path}, which is that of step "
            f"{made.get('step')} in {made.get('workdir')} with weights {made.get('weights')!r}: "
            f"set frozen.{FIRST}.workdir and frozen.{FIRST}.weights to it."
        )


def measured(experiment: Experiment, state: TrainState, source: Source) -> TrainState:
    """The state at step 0 with what the family measures of the training data, and of their mirror
    images if training mirrors them."""
    found: dict[str, list[np.ndarray]] = {}
    for values in _values(experiment, variables_of(state, RAW), source):
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    stats = experiment.family.with_measured(state.stats, whole)
    return replace(state, stats=jax.tree.map(partial(_placed, experiment), stats, state.stats))


def _placed(experiment: Experiment, value: Array | np.ndarray, before: Array) -> Array:
    """A value with the sharding of the one before it; those on the devices are unchanged."""
    new = isinstance(value, np.ndarray)
    return experiment.placement.put(value, before.sharding) if new else value


def _values(
    experiment: Experiment, variables: Variables, source: Source
) -> Iterator[dict[str, np.ndarray]]:
    """What is measured of each example, batch by batch, in every process."""
    placement, size = experiment.placement, experiment.config.eval.batch_size
    total = len(source)
    count = min(experiment.config.space.examples or total, total)
    spread = np.arange(count) * total // count
    rows, program = placement.rows(size), None
    for start in tracked(range(0, count, size), "measuring"):
        experiment.stop.check()
        at = spread[np.minimum(start + rows, count - 1)]
        stored = records.only(source.read(at), experiment.spec.fields)
        batch = placement.put_batch(stored)
        program = program or experiment.program(partial(_measure, experiment), variables, batch)
        values = jax.device_get(program(variables, batch))
        real = min(size, count - start)
        yield {k: v[:real].reshape(-1, *v.shape[2:]) for k, v in values.items()}


def _measure(experiment: Experiment, variables: Variables, batch: Batch) -> dict[str, Array]:
    """[B, sides, ...] of each measure."""
    sides = [experiment.prepared(batch)]
    if experiment.config.data.flip:
        sides.append(records.all_mirrored(batch, experiment.spec.fields))
    values = [experiment.family.measure(variables, side) for side in sides]
    return {name: jnp.stack([each[name] for each in values], 1) for name in values[0]}
