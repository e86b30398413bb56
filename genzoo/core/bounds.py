"""Constraints on settings: bounds and choices in annotations, and the messages that users get.

    @dataclass(frozen=True, kw_only=True)
    class DDPMSettings:
        steps: Annotated[int, AtLeast(2), "Steps T of the table."] = 1000

A settings class is a frozen dataclass of such fields. Checks, error messages and the list of keys
in `--mode=describe` all come from these annotations. Every number has a bound on both sides, every
tuple one on its length. Rules that involve several keys are in the class's own method `problems`.
"""

import math
import operator
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import ClassVar, Protocol

from genzoo.core.errors import nearest


class Constraint(Protocol):
    """A condition on one value. Its text completes the sentence "the value must be ..."."""

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest number that it allows; infinite without a bound."""

    def problems(self, key: str, value: object) -> list[str]:
        """One sentence that names the key, the value and the bound; none if the value is fine."""


UNBOUNDED = (-math.inf, math.inf)


def _unless(holds: bool, key: str, value: object, bound: object) -> list[str]:
    return [] if holds else [f"{key} = {value!r} must be {bound}."]


@dataclass(frozen=True)
class _End:
    """A bound on a number."""

    end: float
    words: ClassVar[str]
    holds: ClassVar[Callable[[float, float], bool]]

    @property
    def ends(self) -> tuple[float, float]:
        """See Constraint."""
        upper = self.holds(-math.inf, self.end)
        return (-math.inf, self.end) if upper else (self.end, math.inf)

    def __str__(self) -> str:
        return f"{self.words} {self.end}"

    def problems(self, key: str, value: float) -> list[str]:
        """See Constraint."""
        return _unless(self.holds(value, self.end), key, value, self)


class AtLeast(_End):
    """value >= end."""

    words, holds = "at least", operator.ge


class AtMost(_End):
    """value <= end."""

    words, holds = "at most", operator.le


class Limit(AtMost):
    """value <= end, for an end beyond all sensible values, which keeps memory and time finite. It
    is not mentioned when another bound is violated."""


class Above(_End):
    """value > end."""

    words, holds = "above", operator.gt


class Below(_End):
    """value < end."""

    words, holds = "below", operator.lt


@dataclass(frozen=True)
class Between:
    """low <= value <= high. low_means, high_means: the meaning of each end, if it has one."""

    low: float
    high: float
    low_means: str = ""
    high_means: str = ""

    def __str__(self) -> str:
        low, high = (
            f"{end} ({means})" if means else f"{end}"
            for end, means in ((self.low, self.low_means), (self.high, self.high_means))
        )
        return f"between {low} and {high}"

    @property
    def ends(self) -> tuple[float, float]:
        """See Constraint."""
        return self.low, self.high

    def problems(self, key: str, value: float) -> list[str]:
        """See Constraint."""
        return _unless(self.low <= value <= self.high, key, value, self)


@dataclass(frozen=True)
class ZeroOr:
    """0, which has a meaning of its own, or a value that another constraint allows."""

    means: str
    other: Constraint

    def __str__(self) -> str:
        return f"0 ({self.means}) or {self.other}"

    @property
    def ends(self) -> tuple[float, float]:
        """See Constraint."""
        low, high = self.other.ends
        return min(low, 0), max(high, 0)

    def problems(self, key: str, value: float) -> list[str]:
        """See Constraint."""
        return _unless(value == 0 or not self.other.problems(key, value), key, value, self)


@dataclass(frozen=True)
class OneOf:
    """A name from a table, or one of a few values."""

    known: Iterable

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.known))}"

    @property
    def ends(self) -> tuple[float, float]:
        """See Constraint."""
        known = tuple(self.known)
        numbers = all(isinstance(name, int | float) for name in known)
        return (min(known), max(known)) if numbers else UNBOUNDED

    def problems(self, key: str, value: object) -> list[str]:
        """See Constraint."""
        if value in self.known:
            return []
        if isinstance(value, str):
            return [f"{key} = {value!r} is unknown: {nearest(value, self.known)}"]
        return [f"{key} = {value!r} must be {' or '.join(map(str, self.known))}."]


@dataclass(frozen=True)
class Entries:
    """A tuple with at least `least` and, if given, at most `most` entries."""

    least: int
    most: int | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Unbounded: this bounds the length alone."""
        return UNBOUNDED

    def __str__(self) -> str:
        if self.most is None:
            return f"a tuple with at least {self.least} {_entries(self.least)}"
        return f"a tuple with {self.least} to {self.most} entries"

    def problems(self, key: str, value: tuple) -> list[str]:
        """See Constraint."""
        fits = self.least <= len(value) <= (math.inf if self.most is None else self.most)
        return _unless(fits, key, value, self)


def _entries(count: int) -> str:
    return "entry" if count == 1 else "entries"


@dataclass(frozen=True)
class Each:
    """A constraint on every entry of a tuple."""

    entry: Constraint

    def __str__(self) -> str:
        return f"each {self.entry}"

    @property
    def ends(self) -> tuple[float, float]:
        """Those of an entry."""
        return self.entry.ends

    def problems(self, key: str, value: tuple) -> list[str]:
        """See Constraint."""
        return [
            problem
            for i, entry in enumerate(value)
            for problem in self.entry.problems(f"{key}[{i}]", entry)
        ]


@dataclass(frozen=True)
class Numbers:
    """A constraint on every number of a value that may be one number, or a nest of tuples of
    numbers and names."""

    number: Constraint

    def __str__(self) -> str:
        return f"every number {self.number}"

    @property
    def ends(self) -> tuple[float, float]:
        """Those of a number."""
        return self.number.ends

    def problems(self, key: str, value: object) -> list[str]:
        """See Constraint."""
        if isinstance(value, tuple):
            return Each(self).problems(key, value)
        return [] if isinstance(value, str) else self.number.problems(key, value)


NOT_ONE = Limit(1 - 1e-7)
"""For a fraction below 1: closer to 1, float32 would round it to 1."""
_LEAST = 2.0**-126
"""The smallest number that float32 can represent in full."""


REQUIRED = MISSING
"""Stands for the default of a setting that has none and must be given."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of a settings class. about: its one-sentence documentation."""

    type: object
    default: object
    constraints: tuple[Constraint, ...] = ()
    about: str = ""

    def problems(self, key: str, value: object) -> list[str]:
        """The first constraint that a value of the right type violates, as a list of sentences: at
        most one, or one per entry of a tuple. Floats must be finite, and not 0 in float32 alone."""
        if isinstance(value, float) and not math.isfinite(value):
            return [f"{key} = {value} must be a finite number."]
        if isinstance(value, float) and 0 < abs(value) < _LEAST:
            return [f"{key} = {value} is 0 in float32: set it to 0, or to a larger number."]
        ends = [c for c in self.constraints if isinstance(c, _End) and not isinstance(c, Limit)]
        if any(end.problems(key, value) for end in ends):
            return [f"{key} = {value!r} must be {' and '.join(map(str, ends))}."]
        for constraint in self.constraints:
            if problems := constraint.problems(key, value):
                return problems
        return []

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest number that the constraints allow."""
        lows, highs = zip(UNBOUNDED, *(c.ends for c in self.constraints), strict=True)
        return max(lows), min(highs)

    @property
    def documented(self) -> dict:
        """Type, bounds or choices, default and meaning, ready for JSON."""
        choices = [sorted(c.known) for c in self.constraints if isinstance(c, OneOf)]
        bounds = [str(c) for c in self.constraints if not isinstance(c, OneOf)]
        entry: dict = {"type": _type_name(self.type)}
        if bounds:
            entry["bounds"] = " and ".join(bounds)
        if choices:
            (entry["choices"],) = choices
        if self.default is not REQUIRED:
            entry["default"] = self.default
        return {**entry, "about": self.about}


def _type_name(kind: object) -> str:
    if kind is dict or typing.get_origin(kind) in (dict, Mapping):
        return "section"
    return str(kind) if typing.get_origin(kind) else getattr(kind, "__name__", str(kind))


def settings_of(kind: type) -> dict[str, Setting]:
    """The fields of a settings class, by name."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        field.name: _setting(hints[field.name], field.default, field.default_factory)
        for field in fields(kind)
    }


def _setting(annotation: object, default: object, factory: object) -> Setting:
    extras = getattr(annotation, "__metadata__", ())
    return Setting(
        type=typing.get_args(annotation)[0] if extras else annotation,
        default=factory() if isinstance(factory, Callable) else default,
        constraints=tuple(extra for extra in extras if not isinstance(extra, str)),
        about=next((extra for extra in extras if isinstance(extra, str)), ""),
    )


def unmentioned(sentences: Iterable[str], keys: Iterable[str]) -> list[str]:
    """The sentences that mention none of the keys, so that a value already reported as wrong is
    not reported again through its consequences."""
    patterns = [re.compile(rf"(?<![\w.]){re.escape(key)}(?![\w])") for key in keys]
    return [s for s in sentences if not any(pattern.search(s) for pattern in patterns)]


class WithoutEffect(str):
    """A sentence about a key that is set but has no effect.

    key: the dotted key. default: its default, which replaces the value when the config of an older
    run is read, from a time when this was not yet an error.
    """

    key: str
    default: object


def without_effect(
    settings: object, where: str, keys: Iterable[str], why: str, remedy: str
) -> list[str]:
    """A sentence for each of these keys that differs from its default although it has no effect.

    why: completes "has no effect", such as "with ..." or "without ...". remedy: what would make the
    key take effect, as an imperative.
    """
    known, sentences = settings_of(type(settings)), []
    for key in sorted(keys):
        value, default = getattr(settings, key), known[key].default
        if value == default:
            continue
        sentence = WithoutEffect(
            f"{where}.{key} = {value!r} has no effect {why}: leave it at {default!r}, or {remedy}."
        )
        sentence.key, sentence.default = f"{where}.{key}", default
        sentences.append(sentence)
    return sentences


def ignored(
    settings: object, where: str, choice: str, uses: Mapping[str, Iterable[str]]
) -> list[str]:
    """A sentence for each key that is set although the chosen name ignores it.

    choice: the key that holds the name. uses: the keys that each name uses; keys that no name uses
    are not checked.
    """
    name, sentences = getattr(settings, choice), []
    for key in {key for keys in uses.values() for key in keys} - set(uses.get(name, ())):
        users = ", ".join(repr(user) for user, keys in uses.items() if key in keys)
        why = f"with {where}.{choice} = {name!r}"
        article = "an" if choice[0] in "aeiou" else "a"
        remedy = f"choose {article} {choice} that uses it ({users})"
        sentences += without_effect(settings, where, (key,), why, remedy)
    return sorted(sentences)
