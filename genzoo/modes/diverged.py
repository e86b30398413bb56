"""What a user is told about non-finite steps in training: the examples, the place, the remedy.

All of it is found afterwards: the examples from the order of the data, the place by repeating one
step (see `diagnosis`). A run without such steps pays nothing for it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core.errors import UserError, listed
from genzoo.data import order
from genzoo.data.records import only
from genzoo.data.source import Source
from genzoo.experiment import Experiment
from genzoo.runtime.agreement import agreed, is_first
from genzoo.runtime.provenance import Origin
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.diagnosis import Diagnosis, diagnose
from genzoo.train.guard import broken, exploded, sizes
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir

_SHOWN = 8  # examples or places named in a message
_READ = 1024  # examples examined at a time
_log = logging.getLogger("genzoo")


@dataclass(kw_only=True)
class Divergence:
    """The causes of non-finite steps of a run (see `guard.Inquiry`)."""

    experiment: Experiment
    source: Source
    place: Workdir
    checkpoints: Checkpoints
    _told: bool = field(default=False, init=False)
    _named: set[int] = field(default_factory=set, init=False)

    @property
    def _config(self) -> FrozenConfigDict:
        return self.experiment.config

    def skipped(self, first: int, last: int) -> None:
        """Logs, once, that some of the steps first .. last - 1 were not finite, and whenever there
        are new ones which of their examples hold NaN or infinity."""
        if not is_first():
            return
        unfit = self._unfit(self._examples(first, last))
        seen = {int(row) for rows in unfit.values() for row in rows}
        if seen <= self._named and self._told:
            return
        self._told, self._named = True, self._named | seen
        _log.warning(
            "Some of the steps %d to %d had a non-finite loss or gradient and changed nothing.%s",
            first, last - 1, _in_data(unfit),
        )  # fmt: skip

    def explained(self, state: TrainState, first: int) -> list[str]:
        """See `guard.Inquiry`. The examples of the step are also written to diverged.json."""
        examples = self._examples(first, first + 1)
        unfit = agreed(lambda: self._unfit(examples))
        grown = exploded(sizes(state))
        found, failure = self._repeated(state, first, examples)
        bad = examples[found.rows] if found else examples[:0]
        self.place.write(
            "diverged.json",
            {
                "step": first,
                "examples": examples.tolist(),
                "examples_with_non_finite_loss": bad.tolist(),
                "examples_with_non_finite_data": {k: v.tolist() for k, v in unfit.items()},
                "player": found.player if found else None,
                "params_with_non_finite_gradient": list(found.gradients) if found else [],
                "origins": [vars(origin) for origin in found.origins] if found else [],
                "exploded": grown,
            },
        )
        saw = f"Step {first} saw the examples {listed(examples, _SHOWN)} of the training data"
        if len(bad):
            whose = "all of them" if len(bad) == len(examples) else listed(bad, _SHOWN)
            saw += f", with a non-finite loss for {whose}"
        saw += f" (all in {self.place.path / 'diverged.json'}).{_in_data(unfit)}"
        remedy = self._remedy(first, unfit, grown, found)
        return [saw, _where(found, failure, grown), remedy]

    def _examples(self, first: int, last: int) -> np.ndarray:
        """The examples of the steps first .. last - 1, int64 [n], in their order."""
        size = self._config.train.batch_size
        count = size * (last - first)
        return order.indices(self._config.seed, first * size, count, len(self.source))

    def _unfit(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """The examples whose stored values are not finite, by the name of the field."""
        fields = self.experiment.spec.fields
        floats = {name for name, one in fields.items() if np.issubdtype(one.dtype, np.floating)}
        unfit: dict[str, list] = {name: [] for name in floats}
        distinct = np.unique(examples) if floats else examples[:0]
        for start in range(0, len(distinct), _READ):
            rows = distinct[start : start + _READ]
            for name, values in self.source.read(rows).items():
                if name in floats:
                    fine = np.isfinite(values).reshape(len(rows), -1).all(1)
                    unfit[name].append(rows[~fine])
        return {k: np.concatenate(v) for k, v in sorted(unfit.items()) if any(map(len, v))}

    def _repeated(
        self, state: TrainState, step: int, examples: np.ndarray
    ) -> tuple[Diagnosis | None, str]:
        """(the diagnosis of the step, or why there is none)."""
        experiment, placement = self.experiment, self.experiment.placement
        _log.info("Repeating step %d to find the cause; a large model takes minutes.", step)
        mine = placement.rows(len(examples))
        records = agreed(lambda: self.source.read(examples[mine]))
        batch = placement.put_batch(only(records, experiment.spec.fields))
        updater = experiment.updater(self._config.train.accumulate)
        state = replace(state, step=placement.put_everywhere(np.int32(step)))
        try:
            found = diagnose(updater, state, batch, placement.replicated)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None, "there is not enough memory to repeat the step and follow its numbers"
        return found, "when the step was repeated, its loss and its gradient were finite"

    def _remedy(
        self,
        first: int,
        unfit: Mapping[str, np.ndarray],
        grown: Sequence[str],
        found: Diagnosis | None,
    ) -> str:
        if unfit:
            return "Repair or remove these examples, and start again."
        good = self.checkpoints.newest_sound()
        again = "and start again"
        if good is not None:
            others = [str(step) for step in self.checkpoints.steps() if step < good]
            further = f" (or further back: {', '.join(others)})" if others else ""
            again = f"and go back with --config.train.resume_from={good}{further}"
        key, rate = self._rate(found)
        lower = f"Lower {key} (it is {rate:g}; try {rate / 10:g})"
        if first == 0:
            return (
                "Not even the first step was finite, so the cause lies in the data, the family or "
                "the network and their settings: look at the examples and the place named above."
            )
        if grown or self._config.optimizer.clip:
            return f"{lower}, {again}."
        return f"{lower} or set optimizer.clip = 1.0 (it is off), {again}."

    def _rate(self, found: Diagnosis | None) -> tuple[str, float]:
        """The key of the learning rate of the player concerned, and its value."""
        optimizer = self._config.optimizer
        own = optimizer.players.get(found.player, {}) if found else {}
        if "learning_rate" in own:
            return f"optimizer.players.{found.player}.learning_rate", own["learning_rate"]
        return "optimizer.learning_rate", optimizer.learning_rate


def check_fitted(state: TrainState, source_name: str) -> None:
    """Raises UserError if variables that were fitted in closed form are not finite."""
    if bad := broken(sizes(state)):
        raise UserError(
            f"The fit to {source_name} is not finite ({', '.join(bad[:3])}), so nothing is saved: "
            "look for NaN and infinity in the data.",
            agreed=True,
        )


def _where(found: Diagnosis | None, failure: str, grown: Sequence[str]) -> str:
    """Where the numbers went wrong."""
    large = f" The model has exploded: {', '.join(grown[:3])}." if grown else ""
    if found is None:
        return f"The place is unknown, because {failure}.{large}"
    places = [_place(origin) for origin in found.origins]
    what = "The loss was finite; the first gradients" if found.gradients else "The first values"
    return f"{what} that were not finite came from {listed(places, _SHOWN)}.{large}"


def _place(origin: Origin) -> str:
    if origin.operation == "argument":
        return f"the array {origin.place}"
    at = f" at {origin.place}" if origin.place else ""
    where = f"the module {origin.module}" if origin.module else "the loss outside the network"
    return f"{where} ({origin.operation}{at})"


def _in_data(unfit: Mapping[str, np.ndarray]) -> str:
    """A sentence that names the examples with non-finite values; "" if there are none."""
    named = [f"{name} of {listed(rows, _SHOWN)}" for name, rows in unfit.items()]
    return f" The data hold NaN or infinity in {'; '.join(named)}." if named else ""
