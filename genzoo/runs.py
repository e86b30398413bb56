"""Opens other runs as trained models: to use unchanged (`frozen`), to start from (`start`), or to
steer sampling (`sample.guide`, `sample.classifier`, `sample.tuned`).

A config names each by its workdir. The config of a frozen model is copied into the resolved config
of the new run, and its variables are written once into the new workdir. After the first checkpoint
the new workdir is therefore enough, and the run that it started from is not needed either.
"""

import logging
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import jax
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.builders import alike, conditions, datasets, latent
from genzoo.builders.rows import Stage
from genzoo.config import freeze
from genzoo.core.contract import Family, Fits, Starts, Variables, capabilities
from genzoo.core.errors import UserError, listed
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
    """A model trained by a run: its family, its variables on our devices, and its config."""

    family: Family
    variables: Variables
    config: FrozenConfigDict


def open_run(
    workdir: Path,
    weights: str = RAW,
    mesh: MeshSettings | None = None,
    *,
    key: str = "--workdir",
    weights_key: str = "weights",
) -> Trained:
    """Opens the model of the run in a workdir, read-only.

    weights: the name of an average, or "raw". mesh: for its variables, by default over all devices.
    key, weights_key: what names the workdir and the weights in messages. Raises UserError if there
    is no such model.
    """
    other = _Other(key=key, workdir=workdir, weights=weights, weights_key=weights_key)
    if problems := other.problems(config := other.config()):
        raise UserError(*problems)
    return other.open(config, mesh or MeshSettings())


@dataclass(frozen=True, kw_only=True)
class _Other:
    """A run that a config refers to. key, weights_key: the keys that name its workdir and weights.
    remedy: what to do if the workdir holds no run."""

    key: str
    workdir: Path
    weights: str
    weights_key: str = "weights"
    remedy: str = "name the workdir of a run"

    @property
    def _here(self) -> str:
        return f"{self.key} = {str(self.workdir)!r}"

    def config(self) -> FrozenConfigDict:
        """The config of that run. It is not checked again, because settings that depend on its
        devices (mesh, batch sizes) do not matter here."""
        stored = Workdir(self.workdir).config()
        if stored is None:
            flag = self.key if self.key.startswith("--") else f"--config.{self.key}"
            raise UserError(
                f"{self._here} holds no run (there is no config.json): {self.remedy}, or give its "
                f"workdir with {flag}=DIR."
            )
        return freeze(stored)

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """A sentence if it has no weights of this name."""
        known = [RAW, *config.train.averages]
        if self.weights in known:
            return []
        has = f"that run has {', '.join(known)}"
        return [f"{self.weights_key} = {self.weights!r} is unknown: {has}."]

    def misfits(self, config: FrozenConfigDict, stage: Stage, ours: FrozenConfigDict) -> list[str]:
        """Why its model cannot serve as this stage of our run; all problems, also of `weights`."""
        family, problems = build.family(config), []
        lacking = {k: v for k, v in stage.needs.items() if _value(config, k) != v}
        if lacking or not isinstance(family, stage.capability):
            trained = " and ".join(f"{k} = {v}" for k, v in stage.needs.items())
            problems.append(
                f"{self._here} holds a {config.family.name} of {config.data.name} (it can: "
                f"{', '.join(capabilities(family))}): it must be {stage.called}"
                + (f", trained with {trained}." if trained else ".")
            )
        if stage.same_conditions and not problems:
            problems += conditions.other_meanings(self.key, ours, config)
        data = [build.section(each, "data") for each in (config, ours)]
        if stage.same_shape:
            shape, fields = datasets.spec(data[0]).shape, datasets.spec(data[1]).fields
            problems += latent.misfits(self._here, family, shape, fields, ours.data.name)
        if stage.same_text and not problems and not datasets.same_texts(*data):
            one, other = (f"{each.name} with data.tokenizer = {each.tokenizer!r}" for each in data)
            problems.append(
                f"{self._here} was made for another vocabulary, that of {one}; this run has that "
                f"of {other}: use the same data.tokenizer and data.words in both."
            )
        return problems + self.problems(config)

    def require_trained(self, config: FrozenConfigDict) -> None:
        """Raises UserError if it has no checkpoint."""
        if not Workdir(self.workdir).begun:
            raise UserError(
                f"{self._here} holds no finished checkpoint: {self.remedy}, at least to step "
                f"{config.train.save_every} (train.save_every)."
            )

    def open(self, config: FrozenConfigDict, mesh: MeshSettings) -> Trained:
        """The model, with its variables on our mesh."""
        theirs = freeze({**config.to_dict(), "mesh": asdict(mesh)})
        experiment = Experiment(theirs)
        abstract = experiment.abstract_state
        try:
            variables = Workdir(self.workdir).variables(theirs, abstract, self.weights)
        except UserError as error:
            raise UserError(*(f"{self._here}: {problem}" for problem in error.problems)) from error
        return Trained(family=experiment.family, variables=variables, config=theirs)


def _value(config: FrozenConfigDict, key: str) -> object:
    for part in key.split("."):
        config = config.get(part, {})
    return config


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
    """The config with the configs of the runs in its section `frozen` filled in.

    stored: the config in the workdir of this run, which already holds them; the other workdirs are
    then not needed. Raises UserError if a run is missing or unsuitable.
    """
    known = (stored or {}).get("frozen", {})
    stages = {name: _resolved(name, stage, known) for name, stage in config.frozen.items()}
    if not stages:
        return config
    whole = freeze(config.to_dict() | {"frozen": stages})
    problems = []
    known = _row(config).frozen(config.conditions, config.space.name)
    for name, own in whole.frozen.items():
        problems += _frozen(name, own).misfits(own.config, known[name], whole)
    if problems:
        raise UserError(*problems)
    return whole


def _resolved(name: str, stage: FrozenConfigDict, known: dict) -> dict:
    before = known.get(name, {})
    same = all(before.get(key) == stage[key] for key in ("workdir", "weights"))
    if stage.config:
        return stage.to_dict()
    if before.get("config") and same:
        return before
    settled = build.settled(_frozen(name, stage).config())
    return {**stage.to_dict(), "config": resolve(settled, settled.to_dict()).to_dict()}


# --- the state at step 0 --------------------------------------------------------------------------


def check(experiment: Experiment) -> None:
    """Raises UserError if a run that a new one needs is missing or unsuitable."""
    config = experiment.config
    for name, stage in config.frozen.items():
        _frozen(name, stage).require_trained(stage.config)
    if config.start.workdir:
        _started_from(experiment)
    for name, stage in _row(config).of_role("start").items():
        if not config.start.workdir:
            raise UserError(
                f"start.workdir must be given: {config.family.name} starts from its {name}, "
                f"{stage.called}."
            )


def first_state(experiment: Experiment, place: Workdir) -> TrainState:
    """The state at step 0, with the models of other runs in place. Writes the frozen ones into the
    workdir."""
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
        _log_match(config, fitting)
    return experiment.started_state(frozen, given, partial(_started, experiment))


def keep_frozen(state: TrainState, place: Workdir) -> None:
    """Writes the frozen models of a state into the workdir unless they are there: older checkpoints
    still hold them."""
    if state.frozen and not place.frozen.has(state.frozen):
        place.frozen.write(state.frozen)


def _started_from(experiment: Experiment) -> tuple[_Other, FrozenConfigDict, Match | None]:
    """(the run in section `start`, its config, the match of its arrays with ours). The match is
    None if the family makes its own start. Raises UserError if the run is unsuitable."""
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
            f"start.workdir has no effect on {config.family.name}, which is fitted in closed "
            "form: leave it empty."
        )
    other.require_trained(theirs)
    problems = other.problems(theirs) + alike.other_data(config, theirs)
    for stage in _row(config).of_role("start").values():
        problems += other.misfits(theirs, stage, config)
    if problems:
        raise UserError(*problems)
    if _makes_own_start(experiment):
        return other, theirs, None
    there = Experiment(freeze({**theirs.to_dict(), "mesh": config.mesh.to_dict()}))
    fitting = match(_learned(experiment.abstract_state), _learned(there.abstract_state))
    if fitting.reshaped and not config.start.partial:
        shown = [f"{k} {a} there and {b} here" for k, (a, b) in fitting.reshaped.items()]
        raise UserError(
            f"start.workdir = {config.start.workdir!r} has arrays of another shape: "
            f"{listed(shown, separator='; ')}. Use the same network, or set start.partial = True "
            "to start with fresh ones."
        )
    if not fitting.taken:
        raise UserError(
            f"start.workdir = {config.start.workdir!r} has no array in common with this model: "
            "name a run of a network of the same kind."
        )
    return other, theirs, fitting


def _learned(state: TrainState) -> Tree:
    return {"params": state.params, "stats": state.stats}


def _makes_own_start(experiment: Experiment) -> bool:
    """Whether the family itself computes its first params from the run in `start`."""
    row = _row(experiment.config)
    return bool(row.of_role("start")) and isinstance(experiment.family, Starts)


def _started(experiment: Experiment, fresh: Variables, given: Tree) -> Variables:
    """The variables to start from, made from fresh ones and those of the run in `start` (given)."""
    if isinstance(experiment.family, Starts):
        named = dict.fromkeys(_row(experiment.config).of_role("start"), given)
        params = experiment.family.start(replace(fresh, frozen={**fresh.frozen, **named}))
        fitting = match(fresh.params, params)
        if fitting.missing or fitting.extra or fitting.reshaped:
            raise ValueError(f"`start` gives other arrays than `init`: {fitting}.")
        fresh = replace(fresh, params=params)
    if not given or _makes_own_start(experiment):
        return fresh
    copied = taken_over({"params": fresh.params, "stats": fresh.stats}, given)
    return replace(fresh, **copied)


def _log_match(config: FrozenConfigDict, fitting: Match | None) -> None:
    if fitting is None:
        return
    _log.info(
        "Copied %d arrays from start.workdir = %r.", len(fitting.taken), config.start.workdir
    )
    for heading, paths in {
        "Fresh, since they are not there": fitting.missing,
        "Fresh, since they have another shape there": tuple(fitting.reshaped),
        "Left behind, since this model does not have them": fitting.extra,
    }.items():
        if paths:
            _log.info("%s: %s.", heading, ", ".join(paths))


# --- sampling -------------------------------------------------------------------------------------


def for_sampling(ours: Experiment, variables: Variables) -> tuple[Family, Variables]:
    """Our (family, variables) with the models that steer sampling, if the config names any: as
    fields of the family, and as `frozen` variables of the same names."""
    family, frozen = ours.family, dict(variables.frozen)
    for name, (other, theirs) in steering(ours).items():
        trained = other.open(theirs, _mesh(ours.config))
        family = replace(family, **{name: trained.family})
        frozen[name] = trained.variables.tree
    return family, replace(variables, frozen=frozen)


def steering(ours: Experiment) -> dict[str, tuple[_Other, FrozenConfigDict]]:
    """Name -> the run, and its config, of each model that steers sampling. Raises UserError if one
    is missing or unsuitable."""
    config, found = ours.config, {}
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
        if stage.like:
            like = config.frozen[stage.like].config
            problems += alike.unlike(f"sample.{name}", f"frozen.{stage.like}", like, theirs)
        classes = ours.classes, Experiment(theirs).classes
        if all(classes) and classes[0] != classes[1]:
            problems.append(
                f"sample.{name} has {classes[1]} classes, but this model has {classes[0]}: name "
                f"{stage.called}."
            )
        if config.data.columns and theirs.data.columns not in ((), config.data.columns):
            problems.append(
                f"sample.{name} was trained with other data.columns than this model: name a run on "
                "the same data."
            )
        problems += conditions.encoder_mismatches(f"sample.{name}", config, theirs)
        problems += latent.mismatches(f"sample.{name}", config, theirs)
        if problems:
            raise UserError(*problems)
        if theirs.data.name != config.data.name:
            _log.warning(
                "sample.%s was trained on %s, but the model that it steers on %s.",
                name, theirs.data.name, config.data.name,
            )  # fmt: skip
        found[name] = other, theirs
    return found
