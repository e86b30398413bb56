"""Other runs, opened as trained models: to be used as they are (`frozen`), to start from (`start`),
or to be asked while sampling (`sample.guide`, `sample.classifier`).

A config names each by its workdir. The config of a frozen model goes into the resolved config of
the new run and its variables go into the new workdir, once: from the first checkpoint on, one
workdir is enough. What a run starts from is not needed any more either.
"""

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import jax
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.builders.rows import Stage
from genzoo.config import freeze
from genzoo.core.contract import Family, Fits, Starts, Variables, capabilities
from genzoo.core.errors import UserError
from genzoo.core.types import Tree
from genzoo.experiment import Experiment
from genzoo.settings import RAW
from genzoo.train.sharding import MeshSettings
from genzoo.train.start import Match, match, taken_over
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir

_log = logging.getLogger("genzoo")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that a run has trained: what it is, its variables on our devices, its config."""

    family: Family
    variables: Variables
    config: FrozenConfigDict


def open_run(
    workdir: Path, weights: str = RAW, mesh: MeshSettings | None = None, *, key: str = "--workdir"
) -> Trained:
    """The model of the run in a workdir, which is only read.

    weights: an average's name or "raw". mesh: where its variables go, over all devices if None.
    key: what names the workdir, for messages. Raises UserError where there is no such model.
    """
    other = _Other(key=key, workdir=workdir, weights=weights)
    config = other.config()
    if problems := other.problems(config):
        raise UserError(*problems)
    return other.open(config, mesh or MeshSettings())


@dataclass(frozen=True, kw_only=True)
class _Other:
    """A run as a config names it. key, weights_key: the keys that do. remedy: what to do where
    there is none."""

    key: str
    workdir: Path
    weights: str
    weights_key: str = "weights"
    remedy: str = "name the workdir of a run"

    @property
    def _here(self) -> str:
        return f"{self.key} = {str(self.workdir)!r}"

    def config(self) -> FrozenConfigDict:
        """As the run was made; it is not checked again, since what depends on the devices there
        (the mesh, sizes of batches) is of no concern here."""
        stored = Workdir(self.workdir).config()
        if stored is None:
            flag = self.key if self.key.startswith("--") else f"--config.{self.key}"
            raise UserError(
                f"{self._here} holds no run (there is no config.json): {self.remedy}, or give its "
                f"workdir by {flag}=DIR."
            )
        return freeze(stored)

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """What is wrong with the weights that are asked of it."""
        known = [RAW, *config.train.averages]
        if self.weights in known:
            return []
        return [f"{self.weights_key} = {self.weights!r} is unknown: it has {', '.join(known)}."]

    def misfits(self, config: FrozenConfigDict, stage: Stage, ours: FrozenConfigDict) -> list[str]:
        """Why it is not what the stage asks for, besides."""
        family, found = build.family(config), []
        lacking = {k: v for k, v in stage.needs.items() if _value(config, k) != v}
        if lacking or not isinstance(family, stage.capability):
            trained = " and ".join(f"{k} = {v}" for k, v in stage.needs.items())
            found.append(
                f"{self._here} holds a {config.family.name} of {config.data.name} (it can: "
                f"{', '.join(capabilities(family))}): it must be {stage.called}"
                + (f", trained with {trained}." if trained else ".")
            )
        theirs, shape = _shape(config), _shape(ours)
        if stage.same_shape and theirs != shape:
            found.append(
                f"{self._here} was trained on images of {theirs}, and data.name = "
                f"{ours.data.name!r} has {shape}: use the same data in both."
            )
        return found + self.problems(config)

    def require_trained(self, config: FrozenConfigDict) -> None:
        """Raises UserError where it has no checkpoint to take its variables from."""
        if not Workdir(self.workdir).begun:
            raise UserError(
                f"{self._here} holds no finished checkpoint: {self.remedy}, at least to "
                f"train.save_every = {config.train.save_every}."
            )

    def open(self, config: FrozenConfigDict, mesh: MeshSettings) -> Trained:
        """The model, with its variables on our mesh."""
        theirs = freeze({**config.to_dict(), "mesh": asdict(mesh)})
        experiment = Experiment(theirs)
        try:
            found = Workdir(self.workdir).variables(theirs, experiment.abstract_state, self.weights)
        except UserError as error:
            raise UserError(*(f"{self._here}: {problem}" for problem in error.problems)) from error
        return Trained(family=experiment.family, variables=found, config=theirs)


def _value(config: FrozenConfigDict, key: str) -> object:
    for part in key.split("."):
        config = config.get(part, {})
    return config


def _shape(config: FrozenConfigDict) -> tuple[int, ...]:
    return build.example_shape(build.section(config, "data"))


def _mesh(config: FrozenConfigDict) -> MeshSettings:
    return build.section(config, "mesh")


def _row(config: FrozenConfigDict):
    return build.FAMILIES[config.family.name]


# --- frozen models in a config --------------------------------------------------------------------


def _frozen(name: str, stage: FrozenConfigDict) -> _Other:
    return _Other(
        key=f"frozen.{name}.workdir",
        workdir=Path(stage.workdir),
        weights=stage.weights,
        weights_key=f"frozen.{name}.weights",
        remedy=f"train the {name} first",
    )


def resolve(config: FrozenConfigDict, stored: dict | None) -> FrozenConfigDict:
    """The config with the configs of the runs that it names in section `frozen`.

    stored: what the workdir keeps of this run, which knows them without the other workdirs. Raises
    UserError where a run is missing, or is of no use here.
    """
    known = (stored or {}).get("frozen", {})
    stages = {name: _resolved(name, stage, known) for name, stage in config.frozen.items()}
    if not stages:
        return config
    whole = freeze(config.to_dict() | {"frozen": stages})
    problems = []
    for name, stage in _row(config).of_role("frozen").items():
        theirs = whole.frozen[name].config
        problems += _frozen(name, whole.frozen[name]).misfits(theirs, stage, config)
    if problems:
        raise UserError(*problems)
    return whole


def _resolved(name: str, stage: FrozenConfigDict, known: dict) -> dict:
    mine = known.get(name, {})
    if stage.config:
        return stage.to_dict()
    if mine.get("config") and mine["workdir"] == stage.workdir and mine["weights"] == stage.weights:
        return mine
    settled = build.settled(_frozen(name, stage).config())
    return {**stage.to_dict(), "config": resolve(settled, settled.to_dict()).to_dict()}


# --- the state at step 0 --------------------------------------------------------------------------


def check(experiment: Experiment) -> None:
    """Raises UserError where a run that a new one needs is not there or of no use."""
    config = experiment.config
    for name, stage in config.frozen.items():
        _frozen(name, stage).require_trained(stage.config)
    if config.start.workdir:
        _started_from(experiment)
    for name, stage in _row(config).of_role("start").items():
        if not config.start.workdir:
            raise UserError(
                f"start.workdir must be given: a {config.family.name} starts from its {name}, "
                f"{stage.called}."
            )


def first_state(experiment: Experiment, place: Workdir) -> TrainState:
    """The state at step 0, with the models of other runs in place. Those that are frozen are
    written into the workdir."""
    config, mesh = experiment.config, _mesh(experiment.config)
    if not config.frozen and not config.start.workdir:
        return experiment.new_state()
    where = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state.frozen)
    frozen = {}
    for name, stage in config.frozen.items():
        theirs = _frozen(name, stage).open(stage.config, mesh)
        frozen[name] = jax.device_put(theirs.variables.tree, where[name])
    place.frozen.write(frozen)
    given = {}
    if config.start.workdir:
        other, theirs, fitting = _started_from(experiment)
        given = other.open(theirs, mesh).variables.tree
        _say_what_is_taken(config, fitting)
    return experiment.started_state(frozen, given, partial(_started, experiment))


def keep_frozen(state: TrainState, place: Workdir) -> None:
    """Writes the frozen models of a state from a checkpoint that still held them, once."""
    if state.frozen and not place.frozen.has(state.frozen):
        place.frozen.write(state.frozen)


def _started_from(experiment: Experiment) -> tuple[_Other, FrozenConfigDict, Match | None]:
    """(the run in section `start`, its config, how its arrays fit where they are copied by path);
    raises UserError where it is of no use."""
    config, family = experiment.config, experiment.family
    other = _Other(
        key="start.workdir",
        workdir=Path(config.start.workdir),
        weights=config.start.weights,
        weights_key="start.weights",
        remedy="train it first",
    )
    theirs = other.config()
    if isinstance(family, Fits):
        raise UserError(
            f"start.workdir is of no use to a {config.family.name}, which is learned in closed "
            "form: leave it empty."
        )
    other.require_trained(theirs)
    problems = other.problems(theirs)
    for stage in _row(config).of_role("start").values():
        problems += other.misfits(theirs, stage, config)
    if problems:
        raise UserError(*problems)
    if _begins_by_itself(experiment):
        return other, theirs, None
    there = Experiment(freeze({**theirs.to_dict(), "mesh": config.mesh.to_dict()}))
    fitting = match(_learned(experiment.abstract_state), _learned(there.abstract_state))
    if fitting.reshaped and not config.start.partial:
        shown = [f"{k} {a} there and {b} here" for k, (a, b) in fitting.reshaped.items()]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        raise UserError(
            f"start.workdir = {config.start.workdir!r} has arrays of another shape: "
            f"{'; '.join(shown[:3])}{more}. Make the same network, or set start.partial = True: "
            "they are then drawn anew."
        )
    if not fitting.taken:
        raise UserError(
            f"start.workdir = {config.start.workdir!r} has no array in common with this model: "
            "name a run of a network of the same kind."
        )
    return other, theirs, fitting


def _learned(state: TrainState) -> Tree:
    return {"params": state.params, "stats": state.stats}


def _begins_by_itself(experiment: Experiment) -> bool:
    """Whether the family makes its first params of what `start` names."""
    row = _row(experiment.config)
    return bool(row.of_role("start")) and isinstance(experiment.family, Starts)


def _started(experiment: Experiment, fresh: Variables, given: Tree) -> Variables:
    """The variables to start from, made of fresh ones and of those of the run in `start`."""
    if isinstance(experiment.family, Starts):
        begun = dict.fromkeys(_row(experiment.config).of_role("start"), given)
        params = experiment.family.start(replace(fresh, frozen={**fresh.frozen, **begun}))
        different = match(fresh.params, params)
        if different.missing or different.extra or different.reshaped:
            raise ValueError(f"`start` gives other arrays than `init`: {different}.")
        fresh = replace(fresh, params=params)
    if not given or _begins_by_itself(experiment):
        return fresh
    taken = taken_over({"params": fresh.params, "stats": fresh.stats}, given)
    return replace(fresh, **taken)


def _say_what_is_taken(config: FrozenConfigDict, fitting: Match | None) -> None:
    if fitting is None:
        return
    _log.info(
        "%d arrays are those of start.workdir = %r.", len(fitting.taken), config.start.workdir
    )
    for said, paths in {
        "Drawn anew, since they are not there": fitting.missing,
        "Drawn anew, since they have another shape there": tuple(fitting.reshaped),
        "Left behind, since they have no place here": fitting.extra,
    }.items():
        if paths:
            _log.info("%s: %s.", said, ", ".join(paths))


# --- sampling -------------------------------------------------------------------------------------


def for_sampling(ours: Experiment, variables: Variables) -> tuple[Family, Variables]:
    """Our (family, variables) with the models that sampling asks besides, where the config names
    them: fields of the family, and `frozen` variables of the same names."""
    config, family, frozen = ours.config, ours.family, dict(variables.frozen)
    for name, stage in _row(config).of_role("sampling").items():
        if not config.sample[name]:
            continue
        other = _Other(
            key=f"sample.{name}",
            workdir=Path(config.sample[name]),
            weights=config.sample[f"{name}_weights"],
            weights_key=f"sample.{name}_weights",
            remedy=f"name the workdir of {stage.called}",
        )
        theirs = other.config()
        other.require_trained(theirs)
        problems = other.misfits(theirs, stage, config)
        classes = ours.classes, Experiment(theirs).classes
        if all(classes) and classes[0] != classes[1]:
            problems.append(
                f"sample.{name} knows {classes[1]} classes, and this model {classes[0]}: name "
                f"{stage.called}."
            )
        if problems:
            raise UserError(*problems)
        if theirs.data.name != config.data.name:
            _log.warning(
                "sample.%s was trained on %s, and what it steers on %s.",
                name, theirs.data.name, config.data.name,
            )  # fmt: skip
        trained = other.open(theirs, _mesh(config))
        family = replace(family, **{name: trained.family})
        frozen[name] = trained.variables.tree
    return family, replace(variables, frozen=frozen)
