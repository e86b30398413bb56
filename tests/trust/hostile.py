"""Values that no config should contain, for every field of every config."""

import importlib.util
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from genzoo import check, config

_FOLDER = Path(__file__).parents[2] / "configs"


def deep(kind: type) -> object:
    """A value nested 100,000 times, deeper than Python's stack."""
    value: object = 1
    for _ in range(100_000):
        value = [value] if kind is list else {"a": value}
    return value


TEXTS = (  # as on the command line
    "0", "-1", "1", "2", "3", "1000000000000", "1" + 30 * "0", "9" * 400, "9" * 5000, "-" * 60_000,
    "1e-300", "1e30", "1e999", "-1e999", "nan", "-0.0", "0.5", "1.0", "(1e999,)", "(1e400, 1)",
    "()", "(1,)", "(0,)", "(-1,)", "((1,),)", "(('a', 1e999),)", "[]", "[1, [2, [3]]]", "{}",
    "{1: 2}", "{'a': {1: 2}}", "{(1, 2): 3}", "{1, 2}", "b'x'", "1j", "...", "None", "True", "",
    " ", ".", "\0", "²", "x" * 100_000, "(" * 5000, "[" * 150 + "]" * 150, "'", "name", "\ud800",
    "../..", "a.b", "10**12", "{'name': 'ddpm'}", "16", "(16,)", "64", "1000000", "(1000000,)",
    "(8, 8)", "1" + "+1" * 5000,
)  # fmt: skip
OBJECTS = (  # as from Python
    None, [], {}, [None], (), float("nan"), math.inf, -math.inf, (math.nan,), [[math.inf]], 10**400,
    -(10**400), (10**400,), 2**63, 10**12, 1e308, 5e-324, True, {1: 2}, {None: {}}, {"": 1},
    {"a.b": 1}, {"a": {"b": {"c": {}}}}, {"x": math.nan}, {1, 2}, b"x", 1j, ..., object(), int, "x",
    "x" * 100_000, [0] * 200_000, [{}], [{"a": 1}], {"a": [1, {}]}, ("a", 1), 7, 0.1, -1, 0, 1,
    "raw", "label", "none", {"label": 1}, {"name": []}, {"name": {}}, frozenset(), range(3),
    {"items": {}}, {"get": {"dropout": 0.1}}, {"_fields": 1}, {"lock": {}}, {"to_dict": {}},
    {"x y": {}}, {"__class__": {}}, {"__init__": 1}, {"NAME": {"decay": 0.5}}, deep(list),
    deep(dict),
)  # fmt: skip


def names() -> list[str]:
    """Every config with each of its variants."""
    found = []
    for file in sorted(_FOLDER.glob("*.py")):
        spec = importlib.util.spec_from_file_location("config_file", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += [f"{file}:{variant}" for variant in ("", *module.VARIANTS)]
    return found


def places(raw: dict) -> list[str]:
    """The dotted keys of a config: its sections and all of their fields, set or not."""
    resolved = check.check(raw, 1)
    keys = [*check.documented(resolved)]
    return sorted({*_keys(resolved.to_dict()), *(k for k in keys if "NAME" not in k)})


def _keys(section: Mapping, where: str = "") -> Iterator[str]:
    for name, value in section.items():
        yield f"{where}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{where}{name}.")


def inputs(count: int) -> Iterator[tuple[dict, str, object]]:
    """`count` triples (config, dotted key, hostile value)."""
    configs = [config.load(name) for name in names()]
    everywhere = [(raw, key) for raw in configs for key in places(raw)]
    values = (*TEXTS, *OBJECTS)
    draw = random.Random(14)
    draw.shuffle(everywhere)
    for i in range(count):
        yield *everywhere[i % len(everywhere)], draw.choice(values)
