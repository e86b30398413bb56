"""What can be wrong with a config, found before anything is built, all of it at once.

`check` resolves a config against the keys of its sections and types, then looks across sections:
sizes that must divide, names that must be known, settings that make no sense together.
"""

from collections.abc import Mapping

import jax
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.config import Checker, freeze, keys_of
from genzoo.core.errors import UserError, nearest
from genzoo.samplers import grids
from genzoo.settings import RAW, SECTIONS, DataSettings
from genzoo.train import optimizer as optimizers
from genzoo.train import sharding


def check(raw: dict) -> FrozenConfigDict:
    """The config with every default in place. Raises UserError with all that is wrong with it."""
    checker = Checker()
    known = {"seed", "family", "network", "optimizer", *SECTIONS}
    for name in sorted(raw.keys() - known):
        checker.problems.append(f"{name} is not a known section: {nearest(name, known)}")
    resolved: dict = {"seed": checker.value(raw.get("seed", 0), int, "seed")}
    for name, table in (("family", build.FAMILIES), ("network", build.NETWORKS)):
        resolved[name] = _named(checker, raw.get(name, {}), table, name)
    decay = keys_of(_optimizer_keys)
    own = keys_of(optimizers.Optimizer, given=("decay", "total_steps"))
    resolved["optimizer"] = checker.section(raw.get("optimizer", {}), {**own, **decay}, "optimizer")
    for name, settings in SECTIONS.items():
        resolved[name] = checker.section(raw.get(name, {}), keys_of(settings), name)
    # Unknown keys do not keep the rest from being looked at; wrong types and names do.
    found = checker.problems
    if checker.usable:
        config = freeze(resolved)
        found = found + _problems(config)
    if found:
        raise UserError(*found)
    return config


def _optimizer_keys(*, decay: str = "constant"):
    """The keys of the section `optimizer` that are names: their type and default."""


def _named(checker: Checker, values: Mapping, table: Mapping, where: str) -> dict:
    name = values.get("name", "") if isinstance(values, Mapping) else ""
    if name not in table:
        checker.wrong(f"{where}.name = {name!r} is unknown: {nearest(str(name), table)}")
        return {}
    rest = {k: v for k, v in values.items() if k != "name"}
    return {"name": name, **checker.section(rest, table[name].keys, where)}


def _unknown(key: str, value: str, table: Mapping) -> list[str]:
    return [] if value in table else [f"{key} = {value!r} is unknown: {nearest(value, table)}"]


def _problems(config: FrozenConfigDict) -> list[str]:
    data, train = build.section(config, "data"), config.train
    found = _data_problems(data)
    if not found:
        net = {k: v for k, v in config.network.items() if k != "name"}
        found += build.NETWORKS[config.network.name].problems(build.example_shape(data), **net)
    found += _FAMILY_PROBLEMS[config.family.name](config)
    found += _unknown("optimizer.decay", config.optimizer.decay, build.DECAYS)
    found += _count_problems(config)
    sizes = {f"{s}.batch_size": config[s].batch_size for s in ("train", "eval")}
    found += sharding.problems(config.mesh.data, config.mesh.fsdp, sizes, jax.device_count())
    if train.accumulate > 0 and train.batch_size % train.accumulate:
        found.append(
            f"train.batch_size = {train.batch_size} is not divisible by train.accumulate = "
            f"{train.accumulate}."
        )
    for key in ("steps", "save_every"):
        if train.steps_per_call > 0 and train[key] % train.steps_per_call:
            found.append(
                f"train.{key} = {train[key]} is not a multiple of train.steps_per_call = "
                f"{train.steps_per_call}."
            )
    if RAW in train.averages:
        found.append(f"train.averages must not name an average {RAW!r}: that is the params.")
    for where in ("sample", "eval"):
        found += _unknown(f"{where}.weights", config[where].weights, {RAW, *train.averages})
    return found


def _count_problems(config: FrozenConfigDict) -> list[str]:
    least = {
        "train": {
            "steps": 1, "batch_size": 1, "steps_per_call": 1, "log_every": 1, "save_every": 1,
            "fault_limit": 1, "accumulate": 1, "keep": 1, "keep_every": 0, "picture_first": 0,
            "picture_count": 0,
        },
        "sample": {"count": 1, "batch_size": 1, "steps": 0, "label": -1, "unroll": 1},
        "eval": {"count": 0, "batch_size": 1, "bound_steps": 0},
        "optimizer": {"warmup": 0, "clip": 0, "learning_rate": 0},
    }  # fmt: skip
    return [
        f"{where}.{key} = {config[where][key]} must be at least {low}."
        for where, keys in least.items()
        for key, low in keys.items()
        if config[where][key] < low
    ]


def _data_problems(data: DataSettings) -> list[str]:
    kind, colon, rest = data.name.partition(":")
    if not colon:
        known = [*build.DATA, "folder:PATH", "tfds:NAME"]
        unknown = data.name not in build.DATA
        return [f"data.name = {data.name!r} is unknown: {nearest(data.name, known)}"] * unknown
    found = []
    if kind not in ("folder", "tfds") or not rest:
        found.append(f"data.name = {data.name!r}: write folder:PATH or tfds:NAME.")
    if data.size < 1:
        found.append(f"data.size must be given for {kind}: the side of the images in pixels.")
    if data.channels not in (1, 3):
        found.append(f"data.channels = {data.channels} must be 1 (grey) or 3 (colour).")
    if data.resize not in ("crop", "stretch"):
        found.append(f"data.resize = {data.resize!r} is unknown: known are: crop, stretch.")
    return found


def _ddpm_problems(config: FrozenConfigDict) -> list[str]:
    family, sample = config.family, config.sample
    found = []
    for key, table in {
        "family.schedule": build.SCHEDULES,
        "family.prediction": build.PREDICTIONS,
        "family.variance": build.VARIANCES,
        "family.weighting": build.WEIGHTINGS,
        "family.step_distribution": build.STEP_DISTRIBUTIONS,
        "family.objective": build.OBJECTIVES,
        "sample.method": build.METHODS,
        "sample.grid": build.GRIDS,
        "sample.clip": build.CLIPPINGS,
    }.items():
        found += _unknown(key, config[key.split(".")[0]][key.split(".")[1]], table)
    if found:
        return found
    if family.steps < 2:
        return [f"family.steps = {family.steps} must be at least 2."]
    wrong = grids.problem(build.GRIDS[sample.grid], family.steps, sample.steps or family.steps)
    if wrong:
        found.append(f"sample.steps = {sample.steps} with sample.grid = {sample.grid!r}: {wrong}")
    if not 0 <= config.eval.bound_steps < family.steps:
        found.append(
            f"eval.bound_steps = {config.eval.bound_steps} must be between 0 (every step) and "
            f"{family.steps - 1}, the steps of the bound."
        )
    learned = build.VARIANCES[family.variance].learned
    if learned and family.objective == "simple":
        found.append(
            f"family.variance = {family.variance!r} gets no gradient from family.objective = "
            "'simple': take 'hybrid' or 'vlb', or a fixed variance."
        )
    if not learned and family.objective == "hybrid":
        found.append(
            "family.objective = 'hybrid' teaches a learned variance: set family.variance = "
            "'learned_range', or take family.objective = 'simple'."
        )
    if family.label_dropout and not (family.conditional and config.network.get("null_class", True)):
        found.append(
            f"family.label_dropout = {family.label_dropout} needs family.conditional = True and "
            "a network with a null class (network.null_class = True)."
        )
    if not 0 <= sample.eta <= 1:
        found.append(f"sample.eta = {sample.eta} must be between 0 (deterministic) and 1 (DDPM).")
    if not 0 <= family.label_dropout < 1:
        found.append(f"family.label_dropout = {family.label_dropout} must be in [0, 1).")
    if sample.guidance_scale != 1 and not (family.conditional and family.label_dropout):
        found.append(
            f"sample.guidance_scale = {sample.guidance_scale} needs a null class that was trained: "
            "set family.conditional = True and family.label_dropout above 0, or leave it at 1."
        )
    return found


# Families whose settings depend on those of other sections.
_FAMILY_PROBLEMS = {"ddpm": _ddpm_problems}
