"""Scores of a model on a data set: its loss, and its likelihood if it has one.

Every batch is padded to one shape and masked, so the scores are exact for any number of examples.
Every example has its own key, so its likelihood does not depend on the batch.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from genzoo.core import streams
from genzoo.core.contract import Context, Family, Likelihoods, Variables, weighted
from genzoo.core.reports import by_name, reported
from genzoo.core.types import Array, Batch, Key
from genzoo.math.likelihood import bits_per_dim


def score_batch(
    family: Family, variables: Variables, batch: Batch, root: Key, step: Array
) -> dict:
    """Scores of one padded batch: {"loss": name -> (sum, weight), "mask": [B]}.

    A family with a likelihood adds "likelihood", with per-example totals [B], terms [B] and curve
    ([K], [B, K]) in nats.

    batch: prepared, with `mask` [B] and `index` [B] beside the data. root: the key from which all
    randomness derives. step: the training step, on which a loss may depend.
    """
    mask, index = batch["mask"], batch["index"]
    key = streams.at(streams.named(root, "evaluate"), index[0])
    sums: dict = {"mask": mask}
    measured = {}
    for name, player in family.losses.items():
        context = Context(
            batch=batch,
            key=streams.named(key, name),
            step=step,
            stats=variables.stats,
            frozen=variables.frozen,
            mask=mask if player.couples_rows else None,
            train=False,
        )
        values, aux = player.loss(variables.params, context)
        metrics = {"loss": values, **aux.metrics}
        measured[name] = {k: weighted(v, mask) for k, v in metrics.items()}
    sums["loss"] = by_name(measured)
    if isinstance(family, Likelihoods):
        keys = streams.per_example(streams.named(root, "likelihood"), index)
        sums["likelihood"] = family.likelihood(variables, batch, keys)
    return sums


@dataclass
class _Mean:
    """Mean and standard error of numbers that arrive in batches."""

    total: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, values: np.ndarray) -> None:
        values = values.astype(np.float64)
        self.total += values.sum()
        self.squares += np.square(values).sum()
        self.count += len(values)

    def mean(self) -> float:
        return self.total / self.count

    def standard_error(self) -> float | None:
        if self.count < 2:
            return None
        variance = max(self.squares - self.total**2 / self.count, 0) / (self.count - 1)
        return math.sqrt(variance / self.count)


@dataclass
class _Collected:
    """The scores summed over batches."""

    loss: dict[str, list] = field(default_factory=dict)
    total: _Mean = field(default_factory=_Mean)
    terms: dict[str, _Mean] = field(default_factory=dict)
    curve: tuple[np.ndarray, np.ndarray] | None = None
    density: bool = False
    of: str = ""
    dimensions: int = 0  # of the variable that is scored, if it is not the data
    examples: int = 0

    def add(self, scores: dict, real: np.ndarray) -> None:
        self.examples += int(real.sum())
        for name, (total, weight) in scores["loss"].items():
            sums = self.loss.setdefault(name, [0.0, 0.0])
            sums[0] = sums[0] + np.asarray(total, np.float64)
            sums[1] += float(weight)
        if "likelihood" not in scores:
            return
        likelihood = scores["likelihood"]
        self.density, self.of = likelihood.density, likelihood.of
        self.dimensions = likelihood.dimensions
        self.total.add(likelihood.total[real])
        for name, values in likelihood.terms.items():
            self.terms.setdefault(name, _Mean()).add(values[real])
        if likelihood.curve is not None:
            positions, values = likelihood.curve
            summed = values[real].astype(np.float64).sum(0)
            before = 0 if self.curve is None else self.curve[1]
            self.curve = (positions, before + summed)

    def measured(self) -> dict[str, np.ndarray]:
        return {k: s / w for k, (s, w) in self.loss.items() if w > 0}

    def likelihoods(self, dimensions: int) -> dict:
        if not self.total.count:
            return {}
        terms = {k: m.mean() for k, m in self.terms.items()}
        result: dict = {
            "nats": self.total.mean(),
            "nats_standard_error": self.total.standard_error(),
            "nats_terms": terms,
        }
        if self.density:
            of = self.of or "a density of data in [-1, 1]: it has no bits/dim"
            return {**result, "likelihood_of": of}

        def bits(nats):
            each = self.dimensions or dimensions
            return None if nats is None else float(bits_per_dim(nats, each))

        if self.of:
            result["likelihood_of"] = self.of
        result["bits_per_dim"] = bits(self.total.mean())
        result["bits_per_dim_standard_error"] = bits(self.total.standard_error())
        result["bits_per_dim_terms"] = {k: bits(v) for k, v in terms.items()}
        if self.curve is not None:
            positions, sums = self.curve
            result["bits_per_dim_curve"] = {
                "t": [round(float(t), 6) for t in positions],
                "value": [bits(v / self.total.count) for v in sums],
            }
        return result


def score(
    evaluate: Callable[[Batch], dict],
    batches: Iterable[Batch],
    dimensions: int,
    family: Family,
) -> tuple[dict, Mapping[str, str]]:
    """The report over all batches, and the family's warnings.

    The report has the loss, and for a likelihood nats and bits/dim with terms, curve and standard
    error. evaluate: the compiled `score_batch`. batches: padded, with `mask` and `index`.
    dimensions: numbers in one datum, for bits/dim.
    """
    collected = _Collected()
    for batch in batches:
        sums = jax.device_get(evaluate(batch))
        collected.add(sums, sums["mask"] > 0)
    report = reported(family, collected.measured())
    values = {"examples": collected.examples, "loss": dict(report.values)}
    return values | collected.likelihoods(dimensions), report.warnings
