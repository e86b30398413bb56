"""Resolves the plain dict of a config for a run, from the command line or from Python."""

from pathlib import Path

import jax
from ml_collections import FrozenConfigDict

from genzoo import build, check, kept, needs, runs
from genzoo.builders import datasets
from genzoo.builders.datasets import FACTS
from genzoo.config import freeze
from genzoo.core.errors import UserError
from genzoo.workdir import Workdir


def resolved(
    raw: dict, workdir: Path | None = None, devices: int | None = None
) -> FrozenConfigDict:
    """The checked config with every default in place, and with what follows from its data and its
    frozen models.

    workdir: of the run; it may hold what was read from the data when the run began. devices: the
    number of devices to run on, by default those of this machine. Raises UserError.
    """
    place = Workdir(workdir) if workdir else None
    stored = place.config() if place else None
    checked = _located(check.check(raw, devices))
    begun = stored if stored and place.begun else None
    if begun:
        # Facts were read from the data when the run began; the data may no longer be available.
        facts = {key: begun["data"][key] for key in FACTS}
        known = {k: v for k, v in facts.items() if v and not checked.data[k]}
        known["tokenizer"] = kept.as_begun(checked.data.tokenizer, begun["data"]["tokenizer"])
        if any(value != checked.data[key] for key, value in known.items()):
            checked = check.check(checked.to_dict() | {"data": {**checked.data, **known}}, devices)
    settled = runs.resolve(build.settled(checked), begun)
    problems = check.shape_problems(settled) if settled.frozen else []
    if problems := problems or needs.problems(settled, devices or jax.device_count()):
        raise UserError(*problems)
    return settled


def _located(config: FrozenConfigDict) -> FrozenConfigDict:
    """The config with the absolute paths of its data and of its tokenizer."""
    there = datasets.located(build.section(config, "data"))
    paths = {"name": there.name, "tokenizer": there.tokenizer}
    if all(config.data[key] == path for key, path in paths.items()):
        return config
    return freeze(config.to_dict() | {"data": {**config.data, **paths}})
