"""What can be wrong with a config, found before anything is built, all of it at once.

`check` resolves a config against the keys of its sections and types, then looks across sections:
sizes that must divide, names that must be known, settings that make no sense together.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import jax
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.config import Checker, freeze, keys_of, unknown
from genzoo.core.bounds import AtLeast, AtMost, Setting, unmentioned
from genzoo.core.errors import UserError, nearest
from genzoo.data.fields import Field
from genzoo.data.pixels import size_problem
from genzoo.data.source import SPLITS
from genzoo.evaluate.neighbours import METRICS
from genzoo.settings import RAW, SECTIONS, DataSettings, FirstStage
from genzoo.train import optimizer as optimizers
from genzoo.train import sharding


def check(raw: dict, devices: int | None = None) -> FrozenConfigDict:
    """The config with every default in place. Raises UserError with all that is wrong with it.

    devices: how many it is to run on, those at hand if None.
    """
    checker, resolved = _resolve(raw)
    found = checker.problems
    if checker.usable:
        across = _problems(freeze(resolved), devices or jax.device_count())
        found = found + unmentioned(across, checker.wrong)
    if found:
        raise UserError(*found)
    return freeze(resolved)


def fill(raw: dict) -> dict:
    """The config with every default in place and nothing else looked at, as a plain dict. Raises
    UserError for unknown keys and wrong types."""
    checker, resolved = _resolve(raw)
    if checker.problems:
        raise UserError(*checker.problems)
    return resolved


def _resolve(raw: dict) -> tuple[Checker, dict]:
    checker = Checker()
    known = {"seed", "family", "network", "optimizer", "frozen", *SECTIONS}
    for name in sorted(raw.keys() - known):
        checker.problems.append(f"{name} is not a known section: {nearest(name, known)}")
    resolved: dict = {"seed": checker.value(raw.get("seed", 0), _SEED, "seed")}
    resolved["family"] = _named(checker, raw.get("family", {}), build.FAMILIES, "family")
    row = build.FAMILIES.get(resolved["family"].get("name"))
    if row is None and (name := _name_of(raw.get("family"))):
        raise UserError(_unknown_family(name))  # on it depends what all else may be
    networks = {name: build.NETWORKS[name] for name in row.networks} if row else build.NETWORKS
    network = raw.get("network", {})
    if networks:
        resolved["network"] = _named(checker, network, networks, "network")
    else:
        resolved["network"] = checker.section(network, {}, "network")
    resolved["frozen"] = _frozen(checker, raw.get("frozen", {}), row.first_stages if row else ())
    decay = keys_of(_optimizer_keys)
    own = keys_of(optimizers.Optimizer, given=("decay", "total_steps"))
    resolved["optimizer"] = checker.section(raw.get("optimizer", {}), {**own, **decay}, "optimizer")
    for name, settings in SECTIONS.items():
        own = row.own_keys.get(name, {}) if row else {}
        resolved[name] = checker.section(raw.get(name, {}), {**keys_of(settings), **own}, name)
    return checker, resolved


_SEED = Setting(
    type=int,
    default=0,
    constraints=(AtLeast(0), AtMost(2**63 - 1)),
    about="All randomness of the run follows from it.",
)


def _optimizer_keys(*, decay: str = "constant"):
    """The keys of the section `optimizer` that are names: their type and default."""


def _name_of(values: object) -> object:
    return values.get("name", "") if isinstance(values, Mapping) else ""


def _unknown_family(name: object) -> str:
    close = difflib.get_close_matches(str(name), build.FAMILIES, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    known = ", ".join(sorted(build.FAMILIES))
    return f"family.name = {name!r} is unknown:{hint} The families are: {known}."


def _named(checker: Checker, values: Mapping, table: Mapping, where: str) -> dict:
    name = _name_of(values)
    if name not in table:
        checker.refuse(f"{where}.name = {name!r} is unknown: {nearest(str(name), table)}")
        return {}
    rest = {k: v for k, v in values.items() if k != "name"}
    return {"name": name, **checker.section(rest, table[name].keys, where)}


def _frozen(checker: Checker, stages: Mapping, wanted) -> dict:
    if not isinstance(stages, Mapping):
        checker.refuse(f"frozen must be a section (a dict), not {stages!r}.")
        return {}
    for name in sorted(stages.keys() - set(wanted)):
        checker.problems.append(f"frozen.{name} is not of this family: {nearest(name, wanted)}")
    keys, found = keys_of(FirstStage), {}
    for name in wanted:
        found[name] = checker.section(stages.get(name, {}), keys, f"frozen.{name}")
        if found[name].get("config"):  # of an older run perhaps, with fewer keys
            found[name]["config"] = fill(found[name]["config"])
    return found


def _problems(config: FrozenConfigDict, devices: int) -> list[str]:
    data, train = build.section(config, "data"), config.train
    found = _data_problems(data)
    if not found:
        spec = build.spec(data)
        shape = spec.shape
        found += _kind_problems(config, spec.fields["x"])
        if config.eval.get("trace") == "exact" and math.prod(shape) > _MOST_EXACT:
            found.append(
                f"eval.trace = 'exact' takes a product for each of {math.prod(shape)} dimensions: "
                "take 'hutchinson'."
            )
    if not found and config.network:
        found += build.network_problems(config)
    found += build.family_problems(config)
    found += unknown("optimizer.decay", config.optimizer.decay, build.DECAYS)
    ends, factors = config.optimizer.stage_ends, config.optimizer.stage_factors
    if config.optimizer.decay == "stages" and len(factors) != len(ends) + 1:
        found.append(
            f"optimizer.stage_factors has {len(factors)} entries for {len(ends)} stage_ends: it "
            "must have one more."
        )
    if any(b <= a for a, b in pairwise((0, *ends))) or min(factors, default=0) < 0:
        found.append(
            f"optimizer.stage_ends = {tuple(ends)} must rise from above 0, and no entry of "
            f"optimizer.stage_factors = {tuple(factors)} may be below 0."
        )
    found += _range_problems(config)
    sizes = {f"{s}.batch_size": config[s].batch_size for s in ("train", "eval")}
    found += sharding.problems(build.section(config, "mesh"), sizes, devices)
    if train.accumulate > 1 and train.batch_size % (train.accumulate * devices):
        found.append(
            f"train.batch_size = {train.batch_size} is not divisible by train.accumulate = "
            f"{train.accumulate} times the devices ({devices})."
        )
    for key in ("steps", "save_every"):
        if train.steps_per_call > 0 and train[key] % train.steps_per_call:
            found.append(
                f"train.{key} = {train[key]} is not a multiple of train.steps_per_call = "
                f"{train.steps_per_call}."
            )
    if RAW in train.averages:
        found.append(f"train.averages must not name an average {RAW!r}: that is the params.")
    if ":" not in data.name:
        found += unknown("eval.split", config.eval.split, set(SPLITS))
    found += unknown("tools.metric", config.tools.metric, METRICS)
    for where in ("sample", "eval"):
        found += unknown(f"{where}.weights", config[where].weights, {RAW, *train.averages})
    return found


_MOST_EXACT = 256  # dimensions: an exact trace takes a product with each of them at once
# The least and the greatest value of each key, both allowed.
_ANY = float("inf")
_RANGES = {
    "data.num_classes": (0, _ANY), "data.holdout": (2, _ANY),
    "train.steps": (1, 2**31 - 1), "train.batch_size": (1, _ANY),
    "train.steps_per_call": (1, _ANY), "train.log_every": (1, _ANY), "train.save_every": (1, _ANY),
    "train.fault_limit": (1, _ANY), "train.accumulate": (1, _ANY), "train.keep": (1, _ANY),
    "train.keep_every": (0, _ANY), "train.picture_first": (0, _ANY),
    "train.picture_count": (0, _ANY), "train.picture_minutes": (0, _ANY),
    "train.save_minutes": (0, _ANY),
    "sample.count": (1, _ANY), "sample.batch_size": (1, _ANY), "sample.steps": (0, _ANY),
    "eval.importance_samples": (1, _ANY),
    "sample.seed": (0, 2**63 - 1), "sample.label": (-1, _ANY), "sample.unroll": (1, _ANY),
    "sample.resample": (1, _ANY), "sample.rho": (1e-3, _ANY), "sample.shift": (1e-6, _ANY),
    "sample.tolerance": (1e-12, 1), "sample.churn": (0, _ANY), "sample.corrector_snr": (0, _ANY),
    "sample.guidance_rescale": (0, 1), "sample.churn_noise": (0, _ANY),
    "eval.probes": (1, _ANY), "eval.draws": (1, _ANY), "eval.tolerance": (1e-12, 1),
    "eval.count": (0, _ANY), "eval.batch_size": (1, _ANY), "eval.seed": (0, 2**63 - 1),
    "optimizer.learning_rate": (0, 1000), "optimizer.warmup": (0, _ANY),
    "optimizer.clip": (0, _ANY), "optimizer.weight_decay": (0, _ANY), "optimizer.b1": (0, 0.999999),
    "optimizer.b2": (0, 0.99999999), "optimizer.eps": (1e-30, _ANY),
    "tools.neighbours": (1, _ANY), "tools.probe_examples": (2, _ANY),
    "tools.probe_l2": (1e-9, _ANY),
    "mesh.floor": (1, _ANY),
    "bench.seconds": (0, _ANY), "bench.sample_steps": (1, _ANY),
}  # fmt: skip


def _range_problems(config: FrozenConfigDict) -> list[str]:
    ranges = dict(_RANGES)
    for name in config.train.averages:
        ranges[f"train.averages.{name}.decay"] = (0, 1)
    found = []
    for key, (low, high) in ranges.items():
        value = config
        for part in key.split("."):
            value = value.get(part, {})
        if value == {}:  # a key of another family
            continue
        if not low <= value <= high:
            bound = f"at least {low}" if value < low else f"at most {high}"
            found.append(f"{key} = {value} must be {bound}.")
    return found


def _kind_problems(config: FrozenConfigDict, x: Field) -> list[str]:
    """What is wrong where data of one kind meet a family or a network for others."""
    data, family, network = config.data, config.family.name, config.network.get("name")
    kind = type(x)

    def able(name: str) -> list[str]:
        return [n for n in build.FAMILIES[name].networks if kind in build.NETWORKS[n].kinds]

    if kind not in build.FAMILIES[family].kinds:
        networks = sorted({n for name in build.FAMILIES for n in able(name)})
        families = [name for name, row in build.FAMILIES.items() if kind in row.kinds]
        return [
            f"data.name = {data.name!r} is {x.plural}, not {_words(build.FAMILIES[family].kinds)}: "
            f"take one of the families {', '.join(families)} with network.name = "
            f"{_one_of(networks)}, or other data."
        ]
    if network and kind not in build.NETWORKS[network].kinds:
        return [
            f"network.name = {network!r} is for {_words(build.NETWORKS[network].kinds)}, and "
            f"{data.name} is {x.plural}: take network.name = {_one_of(able(family))}, or other "
            "data."
        ]
    if data.flip and not x.spatial:
        return [f"data.flip = True mirrors images, and these are {x.plural}: set it to False."]
    if config.family.get("augment") and not x.spatial:
        return [
            f"family.augment = {config.family.augment} changes images, and these are {x.plural}: "
            "set it to 0."
        ]
    return []


def _words(kinds: Sequence[type[Field]]) -> str:
    return " or ".join(kind.plural for kind in kinds)


def _one_of(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


def _data_problems(data: DataSettings) -> list[str]:
    kind, colon, rest = data.name.partition(":")
    if not colon:
        return unknown("data.name", data.name, {*build.DATA, "folder:PATH", "tfds:NAME"})
    found = []
    if kind not in ("folder", "tfds") or not rest:
        found.append(f"data.name = {data.name!r}: write folder:PATH or tfds:NAME.")
    if data.size == 0:
        found.append(
            f"data.size must be given for {kind}: the side of the images in pixels, or (height, "
            "width)."
        )
    elif wanted := size_problem(data.size):
        found.append(f"data.size = {data.size!r} must be {wanted}.")
    if data.channels not in (1, 3):
        found.append(f"data.channels = {data.channels} must be 1 (grey) or 3 (colour).")
    if data.resize not in ("crop", "stretch"):
        found.append(f"data.resize = {data.resize!r} is unknown: known are: crop, stretch.")
    return found
