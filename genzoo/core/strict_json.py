"""JSON as its standard has it: no NaN or Infinity, no key twice, and a bounded depth.

Python's own module writes and reads more than that, and other programs then refuse the file.
"""

import json
import math
from collections.abc import Mapping

_DEPTH = 100  # levels of nesting; functions that walk a document are recursive


def loads(text: str | bytes) -> object:
    """The value of a document. Raises ValueError for anything that is not JSON, for numbers that a
    float cannot hold, repeated keys and deep nesting."""
    try:
        value = json.loads(
            text, object_pairs_hook=_section, parse_constant=_no_number, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _check_depth(value)
    return value


def dumps(value: object, indent: int | None = None) -> str:
    """The document of a value. A float without a JSON number becomes the string "NaN", "Infinity"
    or "-Infinity", so that the document is valid and still says what the number was."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _section(pairs: list[tuple[str, object]]) -> dict:
    section = dict(pairs)
    if len(section) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return section


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_DEPTH):
        entries = (e.values() if isinstance(e, dict) else e for e in level if type(e) in _NESTED)
        level = [entry for inside in entries for entry in inside]
        if not level:
            return
    raise ValueError("it is nested too deeply")


_NESTED = (dict, list)
