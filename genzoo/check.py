"""Checks a config before anything is built and reports all problems at once.

`check` resolves a config against the keys and types of its sections and then checks rules across
sections: sizes that must divide, names that must be known, settings that conflict.
"""

import difflib
import math
from collections.abc import Mapping, Sequence

import jax
from ml_collections import FrozenConfigDict

from genzoo import build, needs
from genzoo.builders import conditions, datasets, latent
from genzoo.builders.rows import INSIDE, THROUGH, FamilyRow, Stage
from genzoo.builders.space import LATENT
from genzoo.config import Checker, freeze, upgrade
from genzoo.core import plain
from genzoo.core.bounds import REQUIRED, OneOf, Setting, WithoutEffect, settings_of, unmentioned
from genzoo.core.errors import UserError, nearest
from genzoo.data.counts import Counts
from genzoo.data.fields import Field
from genzoo.data.latents import Moments
from genzoo.data.source import SPLITS
from genzoo.settings import RAW, SECTIONS, DataSettings, FrozenSettings, RunSettings
from genzoo.train import sharding
from genzoo.train.averages import Average


def check(raw: dict, devices: int | None = None) -> FrozenConfigDict:
    """The config with every default in place. Raises UserError with all of its problems.

    devices: the number of devices to run on, by default those of this machine.
    """
    _require_plain(raw)
    checker, resolved = _resolve(raw)
    problems = checker.problems
    if checker.usable:
        frozen, devices = freeze(resolved), devices or jax.device_count()
        problems = problems + unmentioned(_problems(frozen, devices), checker.wrong)
        problems = problems or needs.problems(frozen, devices)
    if problems:
        raise UserError(*map(plain.shortened, problems))
    return freeze(resolved)


def fill(raw: dict) -> dict:
    """The config of an older run as a plain dict in today's form: new keys, and keys without
    effect, have their defaults. Raises UserError for unknown keys, wrong types and values out of
    bounds."""
    _require_plain(raw)
    checker, resolved = _resolve(upgrade(raw))
    if checker.problems:
        raise UserError(*map(plain.shortened, checker.problems))
    filled = freeze(resolved)
    data = build.section(filled, "data")
    if problems := datasets.name_problems(data):
        raise UserError(*map(plain.shortened, problems))
    for sentence in (*datasets.unused(data), *_across_keys(filled)):
        if isinstance(sentence, WithoutEffect):
            *sections, key = sentence.key.split(".")
            place = resolved
            for section in sections:
                place = place[section]
            place[key] = sentence.default
    return resolved


def _require_plain(raw: dict) -> None:
    """Raises UserError unless the config is plain data, which everything below may rely on."""
    if problems := plain.problems(raw):
        raise UserError(*problems)


def _resolve(raw: dict) -> tuple[Checker, dict]:
    checker = Checker()
    top = settings_of(RunSettings)
    known = {*top, "family", "network", "frozen", *SECTIONS}
    for name in sorted(raw.keys() - known):
        checker.problems.append(f"{name} is not a known section: {nearest(name, known)}")
    resolved: dict = {
        key: checker.value(raw.get(key, setting.default), setting, key)
        for key, setting in top.items()
    }
    resolved["family"] = _named(checker, raw.get("family", {}), build.FAMILIES, "family")
    row = build.FAMILIES.get(resolved["family"].get("name"))
    if row is None and (name := _name_of(raw.get("family"))):
        raise UserError(plain.shortened(_unknown_family(name)))  # the other keys depend on it
    networks = {name: build.NETWORKS[name] for name in row.networks} if row else build.NETWORKS
    network = raw.get("network", {})
    if networks:
        resolved["network"] = _named(checker, network, networks, "network")
    else:
        resolved["network"] = checker.section(network, {}, "network")
    space = _name_of(raw.get("space"))
    stages = row.frozen(resolved["conditions"], space) if row else {}
    through = THROUGH if row and row.conditional else {}
    frozen = raw.get("frozen", {})
    resolved["frozen"] = _frozen(checker, frozen, stages, through, resolved["family"])
    for name in SECTIONS:
        resolved[name] = checker.section(raw.get(name, {}), _keys(name, row), name)
    if resolved["optimizer"]:
        resolved["optimizer"]["players"] = _players(checker, resolved["optimizer"]["players"])
    return checker, resolved


def _player_keys() -> dict[str, Setting]:
    return {k: v for k, v in settings_of(SECTIONS["optimizer"]).items() if k != "players"}


def _players(checker: Checker, players: Mapping) -> dict:
    """The keys that each player overrides, without defaults: the others have the shared values."""
    overrides = {}
    for name, own in players.items():
        whole = checker.section(own, _player_keys(), f"optimizer.players.{name}")
        overrides[name] = {k: v for k, v in whole.items() if k in own}
    return overrides


def _name_of(values: object) -> object:
    return values.get("name", "") if isinstance(values, Mapping) else ""


def _unknown_family(name: object) -> str:
    close = difflib.get_close_matches(str(name), build.FAMILIES, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    known = ", ".join(sorted(build.FAMILIES))
    return f"family.name = {name!r} is unknown:{hint} The families are: {known}."


def _keys(section: str, row: FamilyRow | None) -> dict[str, Setting]:
    """The keys of a section, including those that the family adds."""
    own = row.own_keys.get(section, {}) if row else {}
    return {**settings_of(SECTIONS[section]), **own}


def documented(config: FrozenConfigDict) -> dict[str, dict]:
    """Dotted key -> its type, bounds or choices, default and meaning, for every key that a config
    with this family and network may have. Keys without a default are required."""
    row = build.FAMILIES[config.family.name]
    sections = {"": settings_of(RunSettings)}
    networks = {name: build.NETWORKS[name] for name in row.networks}
    for name, table in {"family": build.FAMILIES, "network": networks}.items():
        if table:
            known = (OneOf(table),)
            about = f"Name of the {name}, on which the other keys of the section depend."
            choice = Setting(type=str, default=REQUIRED, constraints=known, about=about)
            sections[name] = {"name": choice, **settings_of(table[config[name].name].settings)}
    through, inside = (THROUGH if row.conditional else ()), (INSIDE if row.latent else ())
    for stage in (*row.of_role("frozen"), *through, *inside):
        sections[f"frozen.{stage}"] = settings_of(FrozenSettings)
    sections |= {name: _keys(name, row) for name in SECTIONS}
    sections["train.averages.NAME"] = settings_of(Average)
    sections["optimizer.players.NAME"] = _player_keys()
    if row.conditional:
        sections["conditions.NAME"] = settings_of(conditions.ConditionSettings)
    return {
        f"{section}.{key}".removeprefix("."): setting.documented
        for section, settings in sections.items()
        for key, setting in settings.items()
    }


def _named(checker: Checker, values: Mapping, table: Mapping, where: str) -> dict:
    if not isinstance(values, Mapping):
        checker.refuse(f"{where} must be a section (a dict), not {values!r}.")
        return {}
    name = values.get("name", "")
    if not isinstance(name, str) or name not in table:
        checker.refuse(f"{where}.name = {name!r} is unknown: {nearest(str(name), table)}")
        return {}
    rest = {k: v for k, v in values.items() if k != "name"}
    keys = settings_of(table[name].settings)
    return {"name": name, **checker.section(rest, keys, where)}


def _frozen(
    checker: Checker,
    stages: Mapping,
    known: Mapping[str, Stage],
    through: Mapping[str, Stage],
    family: Mapping,
) -> dict:
    """The section. known: the stages of the family and of its conditions. through: those that its
    conditions could have."""
    if not isinstance(stages, Mapping):
        checker.refuse(f"frozen must be a section (a dict), not {stages!r}.")
        return {}
    for name in sorted(stages.keys() - known.keys()):
        problem = f"frozen.{name} is not used by this family: {nearest(name, known)}"
        if name in through:
            problem = (
                f"frozen.{name} is not used by any condition: set conditions.NAME.through = "
                f"{name!r} for one of a text, or leave it out."
            )
        if name in INSIDE:
            problem = (
                f"frozen.{name} is used in a latent space only: set space.name = {LATENT!r}, or "
                "leave it out."
            )
        checker.problems.append(problem)
    used = [name for name, stage in known.items() if stage.needed(family)]
    for name in sorted(stages.keys() & known.keys() - set(used)):
        ((key, values),) = known[name].only.items()
        checker.problems.append(
            f"frozen.{name} is not used with family.{key} = {family.get(key)!r}: leave it out, or "
            f"set family.{key} = {' or '.join(map(repr, values))}."
        )
    keys, resolved = settings_of(FrozenSettings), {}
    for name in used:
        own = stages.get(name, {})
        if isinstance(own, Mapping) and "workdir" not in own:
            checker.refuse(f"frozen.{name}.workdir must be given, that of {known[name].called}.")
            own = {"workdir": "", **own}
        resolved[name] = checker.section(own, keys, f"frozen.{name}")
        if resolved[name].get("config"):  # perhaps of an older run, with fewer keys
            resolved[name]["config"] = fill(resolved[name]["config"])
    return resolved


def _problems(config: FrozenConfigDict, devices: int) -> list[str]:
    data, train = build.section(config, "data"), config.train
    problems = datasets.problems(data)
    if not problems:
        problems += datasets.unused(data)
        problems += _kind_problems(config, datasets.spec(data).fields["x"])
        problems += _condition_problems(config, data)
        problems = problems or shape_problems(config)
    problems += _across_keys(config)
    sizes = {f"{s}.batch_size": config[s].batch_size for s in ("train", "eval")}
    problems += sharding.problems(build.section(config, "mesh"), sizes, devices)
    if train.accumulate > 1 and train.batch_size % (train.accumulate * devices):
        problems.append(
            f"train.batch_size = {train.batch_size} is not divisible by train.accumulate = "
            f"{train.accumulate} times the number of devices ({devices}): use a multiple of "
            f"{train.accumulate * devices}."
        )
    stride = train.steps_per_call
    common = math.gcd(train.steps, train.save_every)
    fitting = max(n for n in range(1, stride + 1) if common % n == 0)
    for key in ("steps", "save_every"):
        if train[key] % stride:
            problems.append(
                f"train.{key} = {train[key]} is not a multiple of train.steps_per_call = {stride}: "
                f"set it to {stride * math.ceil(train[key] / stride)}, or train.steps_per_call to "
                f"{fitting}."
            )
    if train.restart and train.resume_from:
        problems.append(
            "train.restart, which starts over at step 0, and train.resume_from exclude each other: "
            "leave one of them out."
        )
    if RAW in train.averages:
        problems.append(
            f"train.averages must not name an average {RAW!r}, which means the params themselves: "
            "choose another name."
        )
    if train.evaluate_every % train.log_every:
        problems.append(
            f"train.evaluate_every = {train.evaluate_every} must be a multiple of train.log_every "
            f"= {train.log_every}, in whose lines the distances stand."
        )
    if train.evaluate_every and not config.eval.distances:
        problems.append(
            "train.evaluate_every measures eval.distances: name some, such as fd_fashion, or set "
            "it to 0."
        )
    if ":" not in data.name:
        problems += OneOf(SPLITS).problems("eval.split", config.eval.split)
    for where in ("sample", "eval"):
        known = OneOf((RAW, *train.averages))
        problems += known.problems(f"{where}.weights", config[where].weights)
    return problems


def shape_problems(config: FrozenConfigDict) -> list[str]:
    """Why the family or the network cannot model values of the shape of the data or the latents;
    none while that is unknown."""
    shape, network = build.modelled_shape(config), build.network_settings(config)
    if not shape:
        return []
    if config.space.name == LATENT:
        family, name = config.family.name, config.network.name
        kinds = {
            f"family.name = {family!r}": build.FAMILIES[family].kinds,
            f"network.name = {name!r}": build.NETWORKS[name].kinds,
        }
        if problem := latent.shape_problem(shape, kinds):
            return [problem]
    if config.eval.get("trace") == "exact" and math.prod(shape) > _MAX_EXACT:
        return [
            f"eval.trace = 'exact' takes a product for each of {math.prod(shape)} dimensions: use "
            "'hutchinson'."
        ]
    return network.problems(shape) if network else []


def _condition_problems(config: FrozenConfigDict, data: DataSettings) -> list[str]:
    """Problems of the section `conditions`."""
    name = config.family.name
    if config.conditions and not build.FAMILIES[name].conditional:
        able = ", ".join(sorted(k for k, row in build.FAMILIES.items() if row.conditional))
        return [
            f"conditions.{next(iter(config.conditions))}: {name} takes no conditions; leave the "
            f"section out, or use one of the families {able}."
        ]
    return conditions.problems(config, datasets.possible_fields(data))


def _across_keys(config: FrozenConfigDict) -> list[str]:
    """The settings classes' own problems across keys, except those of the network, which depend on
    the shape of the data."""
    problems = []
    for own in (build.family_settings(config), build.sampling(config), build.scoring(config)):
        problems += own.problems(config) if hasattr(own, "problems") else []
    for name in ("space", "optimizer", "start", "eval"):
        problems += build.section(config, name).problems()
    return problems


_MAX_EXACT = 256  # dimensions: an exact trace takes a product with each of them at once


def _kind_problems(config: FrozenConfigDict, x: Field) -> list[str]:
    """Data of a kind that the family or the network cannot model."""
    data, family, network = config.data, config.family.name, config.network.get("name")
    kind = type(x)
    if config.space.name == LATENT:
        if build.FAMILIES[family].latent:
            return latent.problems(config)
        able = ", ".join(name for name, row in build.FAMILIES.items() if row.latent)
        return [
            f"space.name = {LATENT!r}: {family} models data, not latents; leave it at 'data', or "
            f"use one of the families {able}."
        ]
    if kind is Moments:
        return [
            f"data.name = {data.name!r} holds {x.plural}: set space.name = {LATENT!r}, and "
            "frozen.first.workdir to the run that encoded them."
        ]

    def able(name: str) -> list[str]:
        return [n for n in build.FAMILIES[name].networks if kind in build.NETWORKS[n].kinds]

    if kind not in build.FAMILIES[family].kinds:
        families = [  # those that model the datum itself, and not by the models of other runs
            name
            for name, row in build.FAMILIES.items()
            if kind in row.kinds and row.encodes != "text"
            if row.networks or not row.of_role("frozen")
        ]
        networks = sorted({n for name in families for n in able(name)})
        return [
            f"data.name = {data.name!r} holds {x.plural}, not "
            f"{_plurals(build.FAMILIES[family].kinds)}: use one of the families "
            f"{', '.join(families)} with network.name = {_one_of(networks)}, or other data."
        ]
    if network and kind not in build.NETWORKS[network].kinds:
        return [
            f"network.name = {network!r} is for {_plurals(build.NETWORKS[network].kinds)}, but "
            f"{data.name} holds {x.plural}: use network.name = {_one_of(able(family))}, or other "
            "data."
        ]
    if data.flip and not x.spatial:
        return [f"data.flip = True mirrors images, but these are {x.plural}: set it to False."]
    if config.family.get("augment") and not x.spatial:
        return [
            f"family.augment = {config.family.augment} augments images, but these are {x.plural}: "
            "set it to 0."
        ]
    return _document_problems(config, x)


def _document_problems(config: FrozenConfigDict, x: Field) -> list[str]:
    """Settings of a family that suit images and not documents, or the reverse."""
    documents, name = isinstance(x, Counts), config.data.name
    if documents and config.family.get("corruption", "none") != "none":
        return [
            f"family.corruption = {config.family.corruption!r} corrupts images, but {name} holds "
            "documents: set it to 'none'."
        ]
    if config.family.name == "vae" and (config.family.decoder == "multinomial") != documents:
        remedy = "set it to 'multinomial'" if documents else "choose another, such as 'bernoulli'"
        return [
            f"family.decoder = {config.family.decoder!r} does not suit {name}, which holds "
            f"{x.plural}: {remedy}."
        ]
    return []


def _plurals(kinds: Sequence[type[Field]]) -> str:
    return " or ".join(kind.plural for kind in kinds)


def _one_of(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)
