"""The conditions of samples: a value of each condition for each sample.

`sample.conditions` holds values in the notation of their fields: a class by name or number, a text,
numbers, or a file; "none" makes a condition absent. Samples cycle through a list of values. If no
value is given, they cycle through the records of the test split or, if that leaves only classes,
through all classes. With `sample.repeat`, that many samples in a row have the same conditions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.builders import conditions
from genzoo.core.conditions import Conditions, Given, field, gather
from genzoo.core.contract import Family, Variables, conditions_of
from genzoo.core.errors import UserError, nearest
from genzoo.core.types import Array, Batch
from genzoo.data import records
from genzoo.data.fields import Classes, Field, Image, Tokens
from genzoo.experiment import Experiment

NONE = "none"
_LABEL = "label"  # the condition that a guiding classifier uses


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """The n values that samples cycle through.

    stored: in their stored form, [n, ...]. present: bool [n]; absent values are stored as zeros.
    """

    stored: np.ndarray
    present: np.ndarray

    @property
    def absent(self) -> bool:
        """Whether all are absent."""
        return not self.present.any()


@dataclass(frozen=True, kw_only=True, eq=False)
class Requests:
    """The requested conditions of a run's samples. family: that samples, perhaps with a guide."""

    experiment: Experiment
    family: Family

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Condition -> the field that it is made from, including the label of a classifier."""
        known = conditions.sources(self.experiment.config.conditions)
        sources = {name: known[name] for name in conditions_of(self.family)}
        if getattr(self.family, "classifier", None) is not None:
            sources.setdefault(_LABEL, _LABEL)
        return sources

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """The fields that conditions are made from."""
        known = self.experiment.spec.fields
        return {name: known[name] for name in dict.fromkeys(self.sources.values())}

    @property
    def labelled(self) -> bool:
        """Whether each sample has a class."""
        return _LABEL in self.fields

    @property
    def classes(self) -> int:
        """The number of classes that samples cycle through; 0 if they have no class, or requested
        ones, or those of test records."""
        label = self.fields.get(_LABEL)
        return label.count if label and self._in_turn else 0

    @cached_property
    def _in_turn(self) -> bool:
        """Whether samples cycle through all classes. If other conditions come from test records,
        the class does too, so that it matches them, unless a label of -1 asks for all classes."""
        asked = self.experiment.config.sample.get("conditions", {})
        labels = [name for name, source in self.sources.items() if source == _LABEL]
        if any(asked.get(name) in (-1, "-1") for name in labels):
            return True
        others = self.fields.keys() - {_LABEL}
        return _LABEL not in self._requested and others <= self._requested.keys()

    @property
    def repeat(self) -> int:
        """The number of samples in a row that have the same conditions."""
        return self.experiment.config.sample.repeat

    @property
    def of_x(self) -> tuple[str, ...]:
        """The conditions that are made from an image x, such as a smaller copy."""
        if not isinstance(self.fields.get("x"), Image):
            return ()
        return tuple(name for name, source in self.sources.items() if source == "x")

    @property
    def restores(self) -> bool:
        """Whether conditions are made from images of the test split, the `x` of `rows`, with which
        samples can then be compared."""
        return bool(self.of_x) and "x" not in self._requested

    def texts(self, rows: Batch) -> list[str]:
        """The requested text of each row; [] if the model takes no text."""
        for name, kind in self.fields.items():
            if isinstance(kind, Tokens):
                return [kind.text(ids) for ids in rows[name]]
        return []

    def captions(self, rows: Batch) -> list[str]:
        """The requested text of each row, or else the name of its class; [] if there is neither, or
        if the names are mere numbers."""
        label = self.fields.get(_LABEL)
        if label and not all(name.isdecimal() for name in label.names):
            numbers = rows[_LABEL]
            present = np.ones(len(numbers), bool)
            if asked := self._requested.get(_LABEL):
                present = asked.present[self._turn(rows["index"], asked)]
            named = [label.names[n] if p else NONE for n, p in zip(numbers, present, strict=True)]
            return self.texts(rows) or named
        return self.texts(rows)

    def check(self) -> None:
        """Raises UserError if a value is not valid for its condition."""
        self._requested, self._avoided  # noqa: B018

    @cached_property
    def _requested(self) -> Mapping[str, Values]:
        """Field -> the values that the user requested."""
        return self._parsed("conditions")

    @cached_property
    def _avoided(self) -> Mapping[str, Values]:
        return self._parsed("negative")

    def _parsed(self, key: str) -> dict[str, Values]:
        values, problems = {}, []
        for name, given in self.experiment.config.sample.get(key, {}).items():
            place = f"sample.{key}.{name}"
            if name not in self.sources:
                known = nearest(name, self.sources) if self.sources else "it has none."
                problems.append(f"{place} = {given!r} is not a condition of this model: {known}")
                continue
            source = self.sources[name]
            kind = self.fields[source]
            if given in (-1, "-1") and isinstance(kind, Classes):
                if key == "negative":
                    problems.append(f"{place} = {given!r} is no class: give one, or leave it out.")
                continue  # all in turn
            try:
                parsed = _values(given, kind, self._parse(name, kind), place)
            except UserError as error:
                problems += error.problems
                continue
            if source in values and not _equal(values[source], parsed):
                problems.append(
                    f"{place} = {given!r} contradicts another condition made from {source}: give "
                    "both the same value."
                )
            values[source] = parsed
        if problems:
            raise UserError(*problems)
        return values

    def _parse(self, name: str, kind: Field) -> Callable[[object, str], np.ndarray]:
        own = self.experiment.config.conditions.get(name)
        if own is None:  # the label of a classifier
            return kind.parse
        settings = conditions.ConditionSettings(**own)
        return lambda value, place: conditions.parsed(settings, kind, value, place)

    def rows(self, index: np.ndarray) -> Batch:
        """The requests of the samples with these indices [n]: `index`, int32, and a stored value of
        every field that conditions are made from."""
        rows, read = {"index": index.astype(np.int32)}, None
        request = index // self.repeat
        for name, kind in self.fields.items():
            if values := self._requested.get(name):
                rows[name] = values.stored[self._turn(index, values)]
            elif isinstance(kind, Classes) and self._in_turn:
                rows[name] = (request % kind.count).astype(np.int32)
            else:
                read = read or self._records(request)
                rows[name] = read[name]
        return rows

    def _records(self, index: np.ndarray) -> Batch:
        source = self._test
        return source.read(np.asarray(index) % len(source))

    @cached_property
    def _test(self):
        return self.experiment.open("test")

    def example(self, size: int, sharding: jax.sharding.Sharding | None = None) -> Batch:
        """The shapes of `rows` for `size` samples."""
        index = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=sharding)
        own = {k: v.stored_example(size, sharding=sharding) for k, v in self.fields.items()}
        return {"index": index, **own}

    def conditions(self, variables: Variables, rows: Batch) -> Conditions:
        """The conditions of `rows`."""
        given = self._gathered(variables, rows)
        return {
            name: self._masked(given[name], self._requested.get(source), rows)
            for name, source in self.sources.items()
        }

    def negative(self, variables: Variables, rows: Batch) -> Conditions:
        """The conditions that guidance moves away from, in place of absent ones."""
        avoided = {name: values for name, values in self._avoided.items() if not values.absent}
        if not avoided:
            return {}
        stored = {
            name: jnp.asarray(values.stored)[self._turn(rows["index"], values)]
            for name, values in avoided.items()
        }
        given = self._gathered(variables, {**rows, **stored})
        return {
            name: self._masked(given[name], avoided[source], rows)
            for name, source in self.sources.items()
            if source in avoided
        }

    def _turn(self, index: Array | np.ndarray, values: Values) -> Array | np.ndarray:
        """Which of the values each of the samples with these indices has: [n]."""
        return index // self.repeat % len(values.present)

    def _masked(self, given: Given, values: Values | None, rows: Batch) -> Given:
        """The condition of `rows`, absent where the user's value of it is; None asks for nothing.
        """
        if values is None:
            return given
        present = jnp.asarray(values.present)[self._turn(rows["index"], values)]
        return given._replace(present=given.present & present)

    def _gathered(self, variables: Variables, rows: Batch) -> Conditions:
        batch = records.prepare(rows, fields=self.fields)
        given = gather(conditions_of(self.family), batch, variables.frozen)
        if _LABEL in self.sources and _LABEL not in given:
            label = field(_LABEL)(batch, {})
            given = {**given, _LABEL: Given(label, jnp.ones(label.shape, bool))}
        return given


def _values(
    given: object, kind: Field, parse: Callable[[object, str], np.ndarray], place: str
) -> Values:
    """The values of one entry of the config. parse: (value, place) -> its stored form. place: the
    config key to name in errors. Raises UserError."""
    several = isinstance(given, list | tuple) and (
        isinstance(kind, Classes | Image | Tokens)
        or any(isinstance(part, str | list | tuple) for part in given)
    )
    if several and not given:
        raise UserError(f"{place} is an empty list: give at least one value, or leave it out.")
    stored, present = [], []
    for value in given if several else (given,):
        present.append(value != NONE)
        absent = np.zeros(kind.shape, kind.dtype)
        stored.append(parse(value, place) if present[-1] else absent)
    return Values(stored=np.stack(stored), present=np.array(present))


def _equal(one: Values, other: Values) -> bool:
    return np.array_equal(one.stored, other.stored) and np.array_equal(one.present, other.present)
