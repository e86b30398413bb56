"""Plain data, of which configs are made: what they may contain, and how text becomes a value.

Configs come from Python files, JSON, the command line and callers. Whatever they hold is bounded
here in depth, number and kind, so that the checks that follow can look inside without surprises.
"""

import ast
import math
import re
from collections.abc import Mapping

_DEPTH = 32  # of sections and tuples; the config of a frozen model adds three levels
_ENTRIES = 150_000  # of a whole config; the longest are vocabularies, also of frozen models
_NAME, _TEXT = 200, 20_000  # characters of a key and of a value
_LITERAL = 2_000_000  # characters that are parsed
_WHOLE = 2**63
_SHOWN = 600  # characters
_UNFIT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # not those of undecodable file names
_SCALARS = (str, int, float, bool, type(None))


def problems(value: object) -> list[str]:
    """Why a config is no plain data, as sentences; at most one for each key.

    Plain data are nested dicts with short names as keys and lists or tuples, of strings, finite
    numbers, bools and None, to a limited depth, length and size of whole numbers.
    """
    sentences, pending, count, longest = [], [("", value, 0)], 0, (0, "")
    while pending:
        where, value, depth = pending.pop()
        if depth > _DEPTH:
            return [f"{where[:_NAME]} is nested more than {_DEPTH} deep: make it flatter."]
        if isinstance(value, Mapping | list | tuple):
            count, longest = count + len(value), max(longest, (len(value), where))
            if count > _ENTRIES:
                return [
                    f"The config has more than {_ENTRIES} entries, {longest[0]} of them in "
                    f"{longest[1]}: use fewer."
                ]
        if isinstance(value, Mapping):
            for name, entry in value.items():
                if problem := _name_problem(where, name):
                    sentences.append(problem)
                else:
                    pending.append((f"{where}.{name}" if where else name, entry, depth + 1))
        elif isinstance(value, list | tuple):
            # Entries share the name of the whole, because only settings know what they are.
            if any(isinstance(entry, Mapping) for entry in value):
                sentences.append(f"{where} has a dict in a tuple: use tuples in its place.")
            elif not _fine_texts(value):
                pending += [(where, entry, depth + 1) for entry in reversed(value)]
        elif problem := _scalar_problem(where, value):
            sentences.append(problem)
    return list(dict.fromkeys(reversed(sentences)))


def _name_problem(where: str, name: object) -> str:
    section = where or "The config"
    if type(name) is not str:
        return f"{section} has a key of type {type(name).__name__}: keys must be names in quotes."
    if not name or len(name) > _NAME or "." in name or name.startswith("__"):
        return (
            f"{section} has the key {name[:_NAME]!r}: keys must have 1 to {_NAME} characters, no "
            "dot, and no __ at the start."
        )
    return ""


def _fine_texts(entries: list | tuple) -> bool:
    """Whether they are all texts without problems, as in a vocabulary, which may be long."""
    return (
        set(map(type, entries)) == {str}
        and max(map(len, entries)) <= _TEXT
        and not _UNFIT.search("\n".join(entries))
    )


def _scalar_problem(where: str, value: object) -> str:
    if type(value) not in _SCALARS:
        return (
            f"{where} holds a value of type {type(value).__name__}: use strings, numbers, True or "
            "False, and tuples or dicts of these."
        )
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} = {value} must be a finite number."
    if isinstance(value, int) and not -_WHOLE <= value < _WHOLE:
        return f"{where} is a whole number beyond 2^63: give a smaller one."
    if isinstance(value, str) and len(value) > _TEXT:
        return f"{where} is a text of {len(value)} characters: give at most {_TEXT}."
    if isinstance(value, str) and _UNFIT.search(value):
        return f"{where} = {value!r} has a character that is no text: leave it out."
    return ""


def literal(text: str) -> object:
    """The value of a text from the command line: a Python literal, true or false in any case, or
    the text itself if it is neither or is too long or too deeply nested to be meant as one."""
    lowered = text.strip().lower() if len(text) < 100 else ""
    if lowered in ("true", "false"):
        return lowered == "true"
    if len(text) > _LITERAL:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text


def shortened(text: str) -> str:
    """A sentence or a value, without its middle if it is too long to read."""
    if len(text) <= _SHOWN:
        return text
    return f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"
