"""Configs: a page of plain data in a Python file, checked key by key before anything is built.

A file defines `get_config(variant)`, which returns a `ml_collections.ConfigDict`;
`file.py:variant` selects a variant. The keys of a section are the fields of its settings class, so
there is no second list of keys. All mistakes are reported at once. Only the resolved JSON is loaded
back, because a config file is a program and a workdir's `config.json` is not.
"""

import contextlib
import copy
import difflib
import importlib.util
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict, FrozenConfigDict

from genzoo.core import strict_json
from genzoo.core.bounds import REQUIRED, Setting, settings_of
from genzoo.core.errors import UserError, nearest
from genzoo.core.files import write_atomically
from genzoo.core.plain import literal, shortened

Section = Mapping[str, Setting]


def choose(config: ConfigDict, variants: Mapping[str, Mapping], variant: str) -> ConfigDict:
    """The config with the values of the named variant; "" leaves the config unchanged. A section in
    which the variant changes `name` (another network, say) is replaced as a whole. Raises UserError
    if there is no such variant."""
    if variant and variant not in variants:
        raise UserError(f"There is no variant {variant!r}: {nearest(variant, variants)}")
    if variant:
        changes = variants[variant]
        for section, values in changes.items():
            before = config.get(section, {}).get("name")
            if values.get("name", before) != before:
                config[section] = ConfigDict()
        config.update(ConfigDict(changes))
    return config


def load(path: str) -> dict:
    """The plain dict of `file.py:variant` or a `config.json`. Files in configs/ need neither the
    folder nor the suffix: `ddpm_fashion:laptop`. Raises UserError."""
    name, _, variant = (path, "", "") if path.endswith(".json") else path.partition(":")
    file = _config_file(name)
    if file.suffix == ".json":
        return read_json(file)
    if file.suffix != ".py":
        raise UserError(f"--config={name}: give a .py file, or the config.json of a run.")
    spec = importlib.util.spec_from_file_location("genzoo_config_file", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(variant).to_dict()
    except UserError as error:
        raise UserError(f"--config={path}: {error}") from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"--config={path}: the file raises {type(error).__name__}: {error} "
            f"(line {where.lineno} of {Path(where.filename).name})."
        ) from error


def _config_file(name: str) -> Path:
    """The file of a name: the path itself, with .py appended, or in a folder configs/ in the
    working directory or beside the package, in this order."""
    folders = [Path("configs"), Path(__file__).parents[1] / "configs"]
    names = [name] if name.endswith((".py", ".json")) else [name, f"{name}.py"]
    places = [Path(n) for n in names] + [folder / n for folder in folders for n in names if n]
    for file in places:
        with contextlib.suppress(OSError):  # such as of a name that is too long
            if file.is_file():
                return file
    known = next(filter(None, (sorted(p.name for p in f.glob("*.py")) for f in folders)), [])
    close = difflib.get_close_matches(f"{Path(name).stem}.py", known, n=1, cutoff=0.8)
    hint = f" configs/ holds: {', '.join(known)}." if known else ""
    hint = f" Did you mean {close[0].removesuffix('.py')!r}?" if close else hint
    raise UserError(f"--config={shortened(name)}: there is no such file.{hint}")


def read_json(file: Path) -> dict:
    """The section that a JSON file holds. Raises UserError if the file is damaged."""
    try:
        content = strict_json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): restore it from a copy.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} does not hold a config: restore it from a copy.")
    return content


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """A change to the form of configs that older runs lack.

    applies: whether a config has the old form. change: converts it to the new form. tree: a message
    with a remedy if the arrays of checkpoints have changed too; "" if old runs can resume.
    """

    applies: Callable[[Mapping], bool]
    change: Callable[[dict], dict]
    tree: str = ""


def _without(section: str, key: str) -> Callable[[dict], dict]:
    """A change that removes a key."""

    def change(raw: dict) -> dict:
        del raw[section][key]
        return raw

    return change


def _renamed(section: str, key: str, new: str) -> Callable[[dict], dict]:
    """A change that renames a key."""

    def change(raw: dict) -> dict:
        raw[section][new] = raw[section].pop(key)
        return raw

    return change


def _has(section: str, key: str) -> Callable[[Mapping], bool]:
    """A test for whether a config has a key."""
    return lambda raw: isinstance(raw.get(section), Mapping) and key in raw[section]


def _class_condition(raw: dict) -> dict:
    """Moves the class from `family` to the section `conditions`."""
    conditional = raw["family"].pop("conditional", False)
    dropout = raw["family"].pop("label_dropout", 0.0)
    if conditional:
        raw["conditions"] = {"label": {"dropout": dropout}}
    return raw


def _sampled_class(raw: dict) -> dict:
    """Moves the label of samples to `sample.conditions`."""
    label = raw["sample"].pop("label")
    if label != -1:
        raw["sample"]["conditions"] = {"label": label}
    return raw


UPGRADES: tuple[Upgrade, ...] = (
    Upgrade(  # the class table now always has a row for an absent label
        applies=lambda raw: (
            _has("network", "null_class")(raw)
            and not raw["network"]["null_class"]
            and _has("family", "conditional")(raw)
            and raw["family"]["conditional"]
        ),
        change=_without("network", "null_class"),
        tree="The run was trained with network.null_class = False, so its class table has no row "
        "for an absent label, which is required now: start a new run in another --workdir.",
    ),
    Upgrade(applies=_has("network", "null_class"), change=_without("network", "null_class")),
    Upgrade(  # "label" now always means a class, not a noise level
        applies=lambda raw: (
            _has("network", "time_embedding")(raw)
            and raw["network"]["time_embedding"] == "fourier_label"
        ),
        change=lambda raw: {
            **raw, "network": {**raw["network"], "time_embedding": "fourier_noise_level"}
        },
    ),
    # The family now conditions the network on augmentations: family.augment.
    Upgrade(applies=_has("network", "augment"), change=_without("network", "augment")),
    Upgrade(applies=_has("family", "conditional"), change=_class_condition),
    Upgrade(applies=_has("sample", "label"), change=_sampled_class),
    Upgrade(applies=_has("family", "told"), change=_renamed("family", "told", "noise_input")),
)
"""In chronological order. New keys need no upgrade; they take their defaults."""


def upgrade(raw: dict, upgrades: Sequence[Upgrade] | None = None) -> dict:
    """The config of an older run in today's form, with keys renamed, removed or moved. Every stored
    config is read through this function."""
    return _upgraded(raw, upgrades)[0]


def outdated(raw: dict, upgrades: Sequence[Upgrade] | None = None) -> list[str]:
    """Why the checkpoints of a run with this stored config can no longer be read; empty if they
    can."""
    return [each.tree for each in _upgraded(raw, upgrades)[1] if each.tree]


def _upgraded(raw: dict, upgrades: Sequence[Upgrade] | None) -> tuple[dict, list[Upgrade]]:
    """(the config in today's form, the upgrades that were applied)."""
    raw, taken = copy.deepcopy(raw), []
    if not all(isinstance(section, Mapping) for key, section in raw.items() if key != "seed"):
        return raw, []  # damaged; the checks name the section
    for each in UPGRADES if upgrades is None else upgrades:
        if each.applies(raw):
            raw = each.change(raw)
            taken.append(each)
    return raw, taken


class Checker:
    """Resolves a config against the settings of its sections and collects every problem.

    An invalid value is replaced by its default, so that it does not hide other problems. problems:
    sentences for the user. wrong: the dotted keys with invalid values. usable: whether each of them
    had a default.
    """

    def __init__(self):
        self.problems: list[str] = []
        self.wrong: set[str] = set()
        self.usable = True

    def refuse(self, problem: str) -> None:
        """Records a problem after which the resolved config cannot be checked further."""
        self.problems.append(problem)
        self.usable = False

    def section(self, values: object, keys: Section, where: str) -> dict:
        """`values` with defaults filled in and converted to the declared types."""
        if not isinstance(values, Mapping):
            self.refuse(f"{where} must be a section (a dict), not {values!r}.")
            return {}
        for name in sorted(values.keys() - keys.keys()):
            self.problems.append(f"{where}.{name} is not a known key: {nearest(name, keys)}")
        resolved = {}
        for name, setting in keys.items():
            place = f"{where}.{name}"
            if name in values:
                resolved[name] = self.value(values[name], setting, place)
            elif setting.default is REQUIRED:
                self.refuse(f"{place} must be given.")
            else:
                resolved[name] = setting.default
        return resolved

    def value(self, value: object, setting: Setting, where: str) -> object:
        """One value in its declared type and within its bounds, or else the default."""
        before = len(self.problems)
        typed = self._typed(value, setting.type, where)
        if len(self.problems) == before:
            self.problems += setting.problems(where, typed)
        elif typing.get_origin(setting.type) in (dict, Mapping) and isinstance(typed, Mapping):
            return typed  # invalid values inside have already been replaced
        if len(self.problems) == before:
            return typed
        self.wrong.add(where)
        self.usable &= setting.default is not REQUIRED
        return setting.default

    def _typed(self, value: object, kind: object, where: str) -> object:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is types.UnionType:
            matching = [one for one in arguments if _may_be(value, one)]
            if matching:
                return self._typed(value, matching[0], where)
        if origin is tuple and isinstance(value, list | tuple):
            kinds = arguments
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                kinds = arguments[:1] * len(value)
            if any(typing.get_origin(kind) is tuple for kind in kinds) and not all(
                isinstance(entry, list | tuple) for entry in value
            ):
                self.problems.append(
                    f"{where} = {value!r} must be a tuple of tuples: one alone is followed by a "
                    f"comma, ({value!r},)."
                )
                return value
            if len(kinds) == len(value):
                return tuple(
                    self._typed(v, kind, where) for v, kind in zip(value, kinds, strict=True)
                )
        if origin in (dict, Mapping) and isinstance(value, Mapping):
            inner = settings_of(arguments[1])
            return {k: self.section(v, inner, f"{where}.{k}") for k, v in value.items()}
        if kind is dict and isinstance(value, Mapping):
            return dict(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is str and isinstance(value, int) and not isinstance(value, bool):
            return str(value)  # --config.data.dir=2024
        if not (kind in (int, float, str, bool) and type(value) is kind):
            alone = origin is tuple and type(value) in (int, float)
            hint = f": one alone is followed by a comma, ({value!r},)" if alone else ""
            self.problems.append(f"{where} = {value!r} must be {_in_words(kind)}{hint}.")
        return value


_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "True or False"}


def _may_be(value: object, kind: object) -> bool:
    """Whether a value may be meant as this member of a union of types."""
    if typing.get_origin(kind) is tuple:
        return isinstance(value, list | tuple)
    return type(value) is kind


def _in_words(kind: object) -> str:
    if typing.get_origin(kind) is types.UnionType:
        return " or ".join(_in_words(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple and typing.get_args(kind)[0] not in _NAMES:
        return "a tuple of tuples"
    if typing.get_origin(kind) is tuple:
        return f"a tuple of {_NAMES[typing.get_args(kind)[0]].removeprefix('a ')}s"
    return _NAMES.get(kind, "a section (a dict)")


def parse_overrides(arguments: list[str], flags: Iterable[str] = ()) -> dict[str, str]:
    """{"train.steps": "100"} from ["--config.train.steps=100"], or with the value as the next
    argument. Raises UserError for anything else. flags: of the program, for hints in messages."""
    overrides, rest = {}, list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--config."):
            raise UserError(_not_understood(argument, flags))
        name, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"--config.{name} has no value: write --config.{name}=VALUE.")
            value = rest.pop(0)
        overrides[name] = value
    return overrides


def _not_understood(argument: str, flags: Iterable[str]) -> str:
    usage = "set a key of the config with --config.section.key=VALUE."
    if not argument.startswith("-"):
        return f"{argument!r} is not understood: {usage}"
    flag = argument.partition("=")[0]
    close = difflib.get_close_matches(flag, list(flags), n=1, cutoff=0.75)
    if close:
        return f"unknown flag {flag}: did you mean {close[0]}?"
    if "." in flag:
        section = flag.lstrip("-")
        if not difflib.get_close_matches(section.partition(".")[0], ["config"], cutoff=0.75):
            return f"unknown flag {flag}: did you mean --config.{section}?"
        return f"unknown flag {flag}: did you mean --config.{section.partition('.')[2]}?"
    return f"unknown flag {flag}: {usage}"


def override(config: Mapping, overrides: Mapping[str, object]) -> dict:
    """The config with new values for some dotted keys. A string, as from the command line, is
    parsed as a Python literal if it is one; types are checked later, as for any other value."""
    config = copy.deepcopy(config)
    for path, value in overrides.items():
        *sections, name = path.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"--config.{path}: {section} is a value, not a section.")
        place[name] = literal(value) if isinstance(value, str) else value
    return config


def freeze(resolved: dict) -> FrozenConfigDict:
    """The resolved config, by attribute and read-only; its lists become tuples."""
    return FrozenConfigDict(_immutable(resolved))


def _immutable(value: object) -> object:
    # FrozenConfigDict converts lists itself, but fails on an empty one.
    if isinstance(value, Mapping):
        return {name: _immutable(entry) for name, entry in value.items()}
    return tuple(map(_immutable, value)) if isinstance(value, list | tuple) else value


def differences(one: Mapping, other: Mapping, where: str = "") -> dict[str, tuple]:
    """Dotted key -> (value in one, value in other), for every key whose values differ. A missing
    section counts as an empty one."""
    changed = {}
    for name in sorted(one.keys() | other.keys()):
        a, b, place = one.get(name), other.get(name), f"{where}{name}"
        sections = isinstance(a, Mapping) + isinstance(b, Mapping)
        if sections == 2 or (sections and None in (a, b)):
            changed |= differences(a or {}, b or {}, place + ".")
        elif strict_json.dumps(a) != strict_json.dumps(b):
            changed[place] = (a, b)
    return changed


def write_json(path: Path, value: object) -> None:
    """Writes JSON atomically, so that a reader never sees half a file."""
    write_atomically(path, strict_json.dumps(value, indent=2) + "\n")
