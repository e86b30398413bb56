"""The conditions of samples: a value of each condition for each sample.

`sample.conditions` holds values in the notation of `builders/values.py`: a class by name or number,
a text, numbers, or a file; "none" makes a condition absent, which training must have done too.
Samples cycle through a list of values. If no value is given, they cycle through the records of the
test split or, if that leaves only classes, through all classes. With `sample.repeat`, that many
samples in a row have the same conditions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.builders import conditions, values
from genzoo.builders.conditions import ConditionSettings
from genzoo.builders.values import NONE, Values
from genzoo.core.conditions import Conditions, Given, Specs, field, gather
from genzoo.core.contract import Family, Variables, conditions_of
from genzoo.core.errors import UserError, nearest
from genzoo.core.types import Array, Batch
from genzoo.data import records
from genzoo.data.fields import Classes, Field, Image, Tokens
from genzoo.experiment import Experiment

_LABEL = "label"  # the condition that a guiding classifier uses


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

    def classed(self, rows: Batch) -> np.ndarray:
        """Whether each row requests a class: bool [n]."""
        asked = self._requested.get(_LABEL)
        if asked is None:
            return np.full(len(rows["index"]), _LABEL in self.fields)
        return asked.present[self._turn(rows["index"], asked.present)]

    @property
    def classes(self) -> int:
        """The number of classes that samples cycle through; 0 if they have no class, or requested
        ones, or those of test records."""
        label, asked = self.fields.get(_LABEL), self._requested.get(_LABEL)
        if label is None:
            return 0
        every = np.arange(label.count)
        requested = asked and asked.present.all() and np.array_equal(asked.stored, every)
        return label.count if requested or self._in_turn else 0

    @cached_property
    def _in_turn(self) -> bool:
        """Whether samples cycle through all classes although none is requested. If other conditions
        come from test records, the class does too, so that it matches them."""
        others = self.fields.keys() - {_LABEL}
        return _LABEL not in self._requested and others <= self._requested.keys()

    @cached_property
    def distinct(self) -> int:
        """The number of different requests, after which they repeat."""
        counts = [len(asked) for asked in self._requested.values()]
        if self.fields.keys() - self._requested.keys():
            counts.append(self.fields[_LABEL].count if self._in_turn else len(self._test))
        return math.lcm(*counts)

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
        """The requested text of each row or, where that is absent, the name of its class, or else
        "none"; [] if the model takes neither texts nor classes with names, or if the names are mere
        numbers."""
        label, texts = self.fields.get(_LABEL), self.texts(rows)
        names = [NONE] * len(texts)
        if label and not all(name.isdecimal() for name in label.names):
            pairs = zip(rows[_LABEL], self.classed(rows), strict=True)
            names = [label.names[n] if has else NONE for n, has in pairs]
        return [text or name for text, name in zip(texts or names, names, strict=True)]

    def check(self) -> None:
        """Raises UserError if a value is not valid for its condition."""
        problems = self._absence_problems("conditions", self._given, self._requested)
        problems += self._absence_problems("negative", self._not, {})
        if problems:
            raise UserError(*problems)

    @cached_property
    def _given(self) -> Mapping[str, Values]:
        """Condition -> the values that the user requested."""
        return self._parsed("conditions")

    @cached_property
    def _not(self) -> Mapping[str, Values]:
        """Condition -> the values that guidance moves away from."""
        return self._parsed("negative")

    @cached_property
    def _requested(self) -> Mapping[str, Values]:
        """Field -> the values that the user requested for the conditions made from it."""
        return self._by_field("conditions", self._given)

    @cached_property
    def _avoided(self) -> Mapping[str, Values]:
        return self._by_field("negative", self._not)

    def _parsed(self, key: str) -> dict[str, Values]:
        parsed, problems = {}, []
        for name, given in self.experiment.config.sample.get(key, {}).items():
            place = f"sample.{key}.{name}"
            if name not in self.sources:
                known = nearest(name, self.sources) if self.sources else "it has none."
                problems.append(f"{place} = {given!r} is not a condition of this model: {known}")
                continue
            # A classifier's label is no condition of the model, so it has no settings.
            own = ConditionSettings(**self.experiment.config.conditions.get(name, {}))
            try:
                source = self.fields[self.sources[name]]
                parsed[name] = values.values(own, source, given, place, every=key == "conditions")
            except UserError as error:
                problems += error.problems
        if problems:
            raise UserError(*problems)
        return parsed

    def _by_field(self, key: str, given: Mapping[str, Values]) -> dict[str, Values]:
        """The values of each field. A field is not requested if the user gives no value and only
        leaves out some of the conditions made from it."""
        fields = {}
        for source in self.fields:
            names = [name for name, made_from in self.sources.items() if made_from == source]
            asked = [name for name in names if name in given]
            if not asked:
                continue
            fields[source] = values.joined([given[name] for name in asked])
            if fields[source] is None:
                raise UserError(
                    f"{' and '.join(f'sample.{key}.{name}' for name in asked)} contradict each "
                    f"other, because both are made from {source}: give them the same value."
                )
            if fields[source].absent and asked != names:
                del fields[source]
        return fields

    def _presence(
        self, name: str, given: Mapping[str, Values], requested: Mapping[str, Values]
    ) -> np.ndarray | None:
        """For which samples a condition is present, bool [n]; None if its value is not given."""
        asked = given.get(name) or requested.get(self.sources[name])
        return None if asked is None else asked.present

    def _absence_problems(
        self, key: str, given: Mapping[str, Values], requested: Mapping[str, Values]
    ) -> list[str]:
        """Requests to leave out what training never left out."""
        specs, problems, usual = conditions_of(self.family), [], np.array([key == "conditions"])
        present = {name: self._presence(name, given, requested) for name in self.sources}
        present = {name: usual if known is None else known for name, known in present.items()}
        for name in self.sources if key == "conditions" else ():
            if present[name].all():
                continue
            place = f"sample.conditions.{name} = {NONE!r}"
            if name not in given:
                place = f"sample.conditions also leaves out {name}, made from {self.sources[name]}"
            if name == _LABEL and getattr(self.family, "classifier", None) is not None:
                problems.append(
                    f"{place}, but sample.classifier guides to a class: give one, or leave "
                    "sample.classifier empty."
                )
            elif not specs[name].dropout:
                problems.append(
                    f"{place}, but this model never saw it left out: give a value, or train with "
                    f"conditions.{name}.dropout above 0."
                )
        return problems or _together_problems(key, specs, present)

    def rows(self, index: np.ndarray) -> Batch:
        """The requests of the samples with these indices [n]: `index`, int32, and a stored value of
        every field that conditions are made from."""
        rows, read = {"index": index.astype(np.int32)}, None
        request = index // self.repeat
        for name, kind in self.fields.items():
            if asked := self._requested.get(name):
                rows[name] = asked.stored[self._turn(index, asked.stored)]
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
        asked = {
            name: self._masked(given[name], name, self._given, self._requested, rows)
            for name in self.sources
        }
        return {**given, **asked}  # the others tell levels of noise

    def negative(self, variables: Variables, rows: Batch) -> Conditions:
        """The conditions that guidance moves away from, in place of absent ones."""
        avoided = {name: asked for name, asked in self._avoided.items() if not asked.absent}
        if not avoided:
            return {}
        stored = {
            name: jnp.asarray(asked.stored)[self._turn(rows["index"], asked.present)]
            for name, asked in avoided.items()
        }
        given = self._gathered(variables, {**rows, **stored})
        return {
            name: self._masked(given[name], name, self._not, avoided, rows)
            for name in self._not
            if self.sources[name] in avoided
        }

    def _turn(self, index: Array | np.ndarray, cycle: np.ndarray) -> Array | np.ndarray:
        """Which entry of a cycle [n, ...] each of the samples with these indices has: [B]."""
        return index // self.repeat % len(cycle)

    def _masked(
        self,
        condition: Given,
        name: str,
        given: Mapping[str, Values],
        requested: Mapping[str, Values],
        rows: Batch,
    ) -> Given:
        """The condition of `rows`, absent where the user leaves it out."""
        cycle = self._presence(name, given, requested)
        if cycle is None:
            return condition
        present = jnp.asarray(cycle)[self._turn(rows["index"], cycle)]
        return condition._replace(present=condition.present & present)

    def _gathered(self, variables: Variables, rows: Batch) -> Conditions:
        batch = records.prepare(rows, fields=self.fields)
        given = gather(conditions_of(self.family), batch, variables.frozen)
        if _LABEL in self.sources and _LABEL not in given:
            label = field(_LABEL)(batch, {})
            given = {**given, _LABEL: Given(label, jnp.ones(label.shape, bool))}
        return given


def _together_problems(key: str, specs: Specs, present: Mapping[str, np.ndarray]) -> list[str]:
    """Conditions that training leaves out only together, but these requests do not. present: for
    which samples each is present."""
    problems = []
    for group in dict.fromkeys(spec.together for spec in specs.values() if spec.together):
        first, *others = (name for name, spec in specs.items() if spec.together == group)
        problems += [
            f"sample.{key} has {first} or {other} without the other, which this model never saw, "
            "because training drops them together: give a value for both, or none for both."
            for other in others
            if not values.same_turns(present[first], present[other])
        ]
    return problems
