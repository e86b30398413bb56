"""Trained models that sampling asks besides the one that samples: a weaker one to lean away from, a
classifier to lean towards. Unlike first stages they are no part of what was trained."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from genzoo import build
from genzoo.check import fill
from genzoo.config import freeze
from genzoo.core.contract import Family, Solves, Variables
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment, variables_of
from genzoo.settings import RAW
from genzoo.workdir import Workdir

_log = logging.getLogger("genzoo")
_KEYS = {"guide": "a weaker model of the same data", "classifier": "a classifier of the same data"}


def guided(ours: Experiment, variables: Variables) -> tuple[Family, Variables]:
    """Our (family, variables) with the models that sample.guide and sample.classifier name."""
    settings, family = build.sampling(ours.config), ours.family
    named = {key: getattr(settings, key, "") for key in _KEYS}
    found: dict[str, tuple[Family, Mapping]] = {}
    for key, workdir in named.items():
        if workdir:
            weights = getattr(settings, f"{key}_weights")
            found[key] = _open(key, Path(workdir), weights, ours)
    if not found:
        return family, variables
    family = replace(family, **{key: theirs for key, (theirs, _) in found.items()})
    frozen = {key: params for key, (_, params) in found.items()}
    return family, replace(variables, frozen={**variables.frozen, **frozen})


def _open(key: str, workdir: Path, weights: str, ours: Experiment) -> tuple[Family, Mapping]:
    place = Workdir(workdir)
    if not place.begun:
        raise UserError(
            f"sample.{key} = {str(workdir)!r} holds no finished checkpoint: name the workdir of "
            f"{_KEYS[key]}."
        )
    theirs = freeze(fill({**place.config(), "mesh": ours.config.mesh.to_dict()}))
    experiment = Experiment(theirs)
    fits = isinstance(experiment.family, Solves) if key == "guide" else theirs.family.get("noisy")
    classes = ours.classes, experiment.classes
    if not fits or experiment.shape != ours.shape or (all(classes) and classes[0] != classes[1]):
        raise UserError(
            f"sample.{key} = {str(workdir)!r} is {theirs.family.name} of "
            f"{theirs.data.name}: it must be {_KEYS[key]}"
            + (", trained with family.noisy = True." if key == "classifier" else ".")
        )
    if theirs.data.name != ours.config.data.name:
        _log.warning(
            "sample.%s was trained on %s, and what it steers on %s.",
            key, theirs.data.name, ours.config.data.name,
        )  # fmt: skip
    if weights not in {RAW, *theirs.train.averages}:
        known = ", ".join([RAW, *theirs.train.averages])
        raise UserError(f"sample.{key}_weights = {weights!r} is unknown: that run has {known}.")
    state = place.load(theirs, experiment.abstract_state)
    loaded = variables_of(state, weights)
    return experiment.family, {"params": loaded.params, "stats": loaded.stats}
