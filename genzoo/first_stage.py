"""Models that another run has trained and that a run uses as they are: tokenizers, first stages,
teachers. A config names each by its workdir; from there come its config, which the resolved config
of the new run keeps, and its variables, which the new run's checkpoints keep. From the first
checkpoint on, one workdir is enough.
"""

from dataclasses import replace
from pathlib import Path

import jax
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.config import freeze
from genzoo.core.contract import CAPABILITIES, capabilities
from genzoo.core.errors import UserError
from genzoo.core.types import Tree
from genzoo.experiment import Experiment, variables_of
from genzoo.settings import RAW
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir


def resolve(config: FrozenConfigDict, stored: dict | None) -> FrozenConfigDict:
    """The config with the configs of the runs that it names in section `frozen`.

    stored: what the workdir keeps of this run, which knows them without the other workdirs. Raises
    UserError where a run is missing, or is of no use here.
    """
    known = (stored or {}).get("frozen", {})
    stages = {name: _resolved(name, stage, known) for name, stage in config.frozen.items()}
    if not stages:
        return config
    found = freeze(config.to_dict() | {"frozen": stages})
    if problems := _problems(found):
        raise UserError(*problems)
    return found


def _resolved(name: str, stage: FrozenConfigDict, known: dict) -> dict:
    mine = known.get(name, {})
    if stage.config:
        return stage.to_dict()
    if mine.get("config") and mine["workdir"] == stage.workdir and mine["weights"] == stage.weights:
        return mine
    found = Workdir(Path(stage.workdir)).config()
    if found is None:
        raise UserError(
            f"frozen.{name}.workdir = {stage.workdir!r} holds no run (there is no config.json): "
            f"train the {name} first, or give its workdir by --config.frozen.{name}.workdir=DIR."
        )
    # Not checked again: it was, where it was trained, and what depends on the devices there (the
    # mesh, sizes of batches) is of no concern here.
    settled = build.settled(freeze(found))
    return {**stage.to_dict(), "config": resolve(settled, found).to_dict()}


def _problems(config: FrozenConfigDict) -> list[str]:
    row, found = build.FAMILIES[config.family.name], []
    shape = build.example_shape(build.section(config, "data"))
    for name, capability in row.first_stages.items():
        stage = config.frozen[name]
        family = build.family(stage.config)
        where = f"frozen.{name}.workdir = {stage.workdir!r}"
        if not isinstance(family, CAPABILITIES[capability]):
            can = ", ".join(capabilities(family))
            found.append(
                f"{where} holds a {stage.config.family.name}, which cannot {capability} (it can: "
                f"{can}): name a run of a family that can."
            )
        theirs = build.example_shape(build.section(stage.config, "data"))
        if theirs != shape:
            found.append(
                f"{where} was trained on images of {theirs}, and data.name = {config.data.name!r} "
                f"has {shape}: use the same data in both."
            )
        if stage.weights not in {RAW, *stage.config.train.averages}:
            known = ", ".join([RAW, *stage.config.train.averages])
            found.append(f"frozen.{name}.weights = {stage.weights!r} is unknown: it has {known}.")
    return found


def require_trained(config: FrozenConfigDict) -> None:
    """Raises UserError where a first stage has no checkpoint to take its variables from."""
    for name, stage in config.frozen.items():
        if not Workdir(Path(stage.workdir)).begun:
            raise UserError(
                f"frozen.{name}.workdir = {stage.workdir!r} holds no finished checkpoint: train "
                f"the {name} first, at least to train.save_every = "
                f"{stage.config.train.save_every}."
            )


def place(state: TrainState, config: FrozenConfigDict) -> TrainState:
    """A new state with the trained variables of the first stages in it, where it belongs."""
    where = jax.tree.map(lambda leaf: leaf.sharding, state.frozen)
    frozen = {
        name: jax.device_put(_load(stage, name, config.mesh), where[name])
        for name, stage in config.frozen.items()
    }
    return replace(state, frozen=frozen)


def _load(stage: FrozenConfigDict, name: str, mesh: FrozenConfigDict) -> Tree:
    theirs = freeze({**stage.config.to_dict(), "mesh": mesh.to_dict()})
    try:
        experiment = Experiment(theirs)
        state = Workdir(Path(stage.workdir)).load(theirs, experiment.abstract_state)
    except UserError as error:
        problems = (f"frozen.{name}: {problem}" for problem in error.problems)
        raise UserError(*problems) from error
    found = variables_of(state, stage.weights)
    return {"params": found.params, "stats": found.stats}
