"""The conditions of samples: a value of each condition for each sample.

`sample.conditions` holds values in the notation of their fields: a class or its name, a text,
numbers, or a file; "none" makes a condition absent. If no class is given, samples cycle through all
classes; for other conditions, they cycle through the records of the test split.
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

    @property
    def labelled(self) -> bool:
        """Whether each sample has a class."""
        return _LABEL in self.fields

    @property
    def classes(self) -> int:
        """The number of classes that samples cycle through; 0 if they have no class, or all the
        same one."""
        label = self.fields.get(_LABEL)
        return label.count if label and _LABEL not in self._requested else 0

    def check(self) -> None:
        """Raises UserError if a value is not valid for its condition."""
        self._requested  # noqa: B018

    @cached_property
    def _requested(self) -> Mapping[str, np.ndarray | None]:
        """Field -> the stored value that the user requested, None for an absent condition."""
        return self._parsed("conditions")

    @cached_property
    def _avoided(self) -> Mapping[str, np.ndarray | None]:
        return self._parsed("negative")

    def _parsed(self, key: str) -> dict[str, np.ndarray | None]:
        values, problems = {}, []
        for name, text in self.experiment.config.sample.get(key, {}).items():
            place = f"sample.{key}.{name}"
            if name not in self.sources:
                known = nearest(name, self.sources) if self.sources else "it has none."
                problems.append(f"{place} = {text!r} is not a condition of this model: {known}")
                continue
            source = self.sources[name]
            if text in (-1, "-1") and isinstance(self.fields[source], Classes):
                continue  # all in turn
            try:
                value = None if text == NONE else self.fields[source].parse(text, place)
            except UserError as error:
                problems += error.problems
                continue
            if source in values and not np.array_equal(values[source], value):
                problems.append(
                    f"{place} = {text!r} contradicts another condition made from {source}: give "
                    "both the same value."
                )
            values[source] = value
        if problems:
            raise UserError(*problems)
        return values

    def rows(self, index: np.ndarray) -> Batch:
        """The requests of the samples with these indices [n]: `index`, int32, and a stored value of
        every field that conditions are made from."""
        rows, read = {"index": index.astype(np.int32)}, None
        for name, kind in self.fields.items():
            if name in self._requested:
                value = self._requested[name]
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
        """The shapes of `rows` for `size` samples."""
        index = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=sharding)
        own = {k: v.stored_example(size, sharding=sharding) for k, v in self.fields.items()}
        return {"index": index, **own}

    def conditions(self, variables: Variables, rows: Batch) -> Conditions:
        """The conditions of `rows`."""
        given = self._gathered(variables, rows)
        absent = {n for n, source in self.sources.items() if self._requested.get(source, 0) is None}
        return without(given, absent)

    def negative(self, variables: Variables, rows: Batch) -> Conditions:
        """The conditions that guidance moves away from, in place of absent ones."""
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
