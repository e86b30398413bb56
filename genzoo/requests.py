"""What samples are asked to be: a value of each condition for each sample.

`sample.conditions` names values as the fields of the data understand them: a class or its name, a
text, numbers, a file; "none" leaves a condition out. A class that is not named runs through all of
them in turn; any other condition is then that of the records of the test split, one after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.builders import conditions
from genzoo.core.conditions import Conditions, Given, field, gather, without
from genzoo.core.contract import Family, Variables, conditions_of
from genzoo.core.errors import UserError, nearest
from genzoo.core.types import Batch
from genzoo.data import fields
from genzoo.data.fields import Classes, Field
from genzoo.experiment import Experiment

NONE = "none"
_LABEL = "label"  # what a classifier is asked for


@dataclass(frozen=True, kw_only=True, eq=False)
class Requests:
    """The requests of a run. family: the one that samples, perhaps with a guide."""

    experiment: Experiment
    family: Family

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """Condition -> the field that it is made of; a classifier's label among them."""
        known = conditions.sources(self.experiment.config.conditions)
        sources = {name: known[name] for name in conditions_of(self.family)}
        if getattr(self.family, "classifier", None) is not None:
            sources.setdefault(_LABEL, _LABEL)
        return sources

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """The fields that conditions are made of."""
        known = self.experiment.spec.fields
        return {name: known[name] for name in dict.fromkeys(self.sources.values())}

    @property
    def labelled(self) -> bool:
        """Whether samples are of a class each."""
        return _LABEL in self.fields

    @property
    def classes(self) -> int:
        """How many classes samples go through in turn; 0 where they are not of a class, or of one
        alone."""
        label = self.fields.get(_LABEL)
        return label.count if label and _LABEL not in self._named else 0

    def check(self) -> None:
        """Raises UserError where a value is none of its condition."""
        self._named  # noqa: B018

    @cached_property
    def _named(self) -> Mapping[str, np.ndarray | None]:
        """Field -> the stored value that the user named, None for absent."""
        return self._parsed("conditions")

    @cached_property
    def _avoided(self) -> Mapping[str, np.ndarray | None]:
        return self._parsed("negative")

    def _parsed(self, key: str) -> dict[str, np.ndarray | None]:
        values, problems = {}, []
        for name, said in self.experiment.config.sample.get(key, {}).items():
            place = f"sample.{key}.{name}"
            if name not in self.sources:
                known = nearest(name, self.sources) if self.sources else "it has none."
                problems.append(f"{place} = {said!r} is no condition of this model: {known}")
                continue
            source = self.sources[name]
            if said in (-1, "-1") and isinstance(self.fields[source], Classes):
                continue  # all in turn
            try:
                value = None if said == NONE else self.fields[source].parse(said, place)
            except UserError as error:
                problems += error.problems
                continue
            if source in values and not np.array_equal(values[source], value):
                problems.append(f"{place} = {said!r}: another condition has {source} otherwise.")
            values[source] = value
        if problems:
            raise UserError(*problems)
        return values

    def rows(self, index: np.ndarray) -> Batch:
        """What samples of these numbers [n] are asked to be: `index`, and a stored value of every
        field that conditions are made of."""
        rows, read = {"index": index.astype(np.int32)}, None
        for name, kind in self.fields.items():
            if name in self._named:
                value = self._named[name]
                value = np.zeros(kind.shape, kind.dtype) if value is None else value
                rows[name] = np.broadcast_to(value, (len(index), *kind.shape))
            elif isinstance(kind, Classes):
                rows[name] = (index % kind.count).astype(np.int32)
            else:
                read = read or self._records(index)
                rows[name] = read[name]
        return rows

    def _records(self, index: np.ndarray) -> Batch:
        source = self._test
        return source.read(np.asarray(index) % len(source))

    @cached_property
    def _test(self):
        return self.experiment.open("test")

    def example(self, size: int, sharding: jax.sharding.Sharding | None = None) -> Batch:
        """The shapes of `rows`."""
        index = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=sharding)
        own = {k: v.stored_example(size, sharding=sharding) for k, v in self.fields.items()}
        return {"index": index, **own}

    def conditions(self, variables: Variables, rows: Batch) -> Conditions:
        """The conditions that rows stand for."""
        given = self._gathered(variables, rows)
        absent = {n for n, source in self.sources.items() if self._named.get(source, 0) is None}
        return without(given, absent)

    def negative(self, variables: Variables, rows: Batch) -> Conditions:
        """The conditions that guidance leans away from, in place of absent ones."""
        if not self._avoided:
            return {}
        count = rows["index"].shape[0]
        stored = {
            name: jnp.broadcast_to(value, (count, *value.shape))
            for name, value in self._avoided.items()
            if value is not None
        }
        given = self._gathered(variables, {**rows, **stored})
        return {n: given[n] for n, source in self.sources.items() if source in stored}

    def _gathered(self, variables: Variables, rows: Batch) -> Conditions:
        batch = fields.prepare(rows, fields=self.fields)
        given = gather(conditions_of(self.family), batch, variables.frozen)
        if _LABEL in self.sources and _LABEL not in given:
            label = field(_LABEL)(batch, {})
            given = {**given, _LABEL: Given(label, jnp.ones(label.shape, bool))}
        return given
