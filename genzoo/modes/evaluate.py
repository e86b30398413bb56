"""`--mode=eval`: scores the model on a split, measures distances, and writes `eval.json`."""

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.config import read_json
from genzoo.core import streams
from genzoo.core.contract import Variables, conditions_of
from genzoo.core.errors import UserError
from genzoo.core.types import Batch
from genzoo.data import batches
from genzoo.evaluate.score import score, score_batch
from genzoo.experiment import Experiment, variables_of
from genzoo.modes import distances, reconstructions
from genzoo.modes import report as reports
from genzoo.runtime.agreement import is_first
from genzoo.runtime.progress import tracked
from genzoo.runtime.stopping import Stop
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir, announced

_log = logging.getLogger("genzoo")


def evaluate(config: FrozenConfigDict, workdir: Path, stop: Stop | None = None) -> dict:
    """Scores the model on eval.split and measures eval.reconstructions and eval.distances; writes
    `eval.json` with the protocol beside the figures."""
    experiment, place, settings = Experiment(config, stop or Stop()), Workdir(workdir), config.eval
    rulers = distances.check(experiment) if settings.distances else {}
    judges = reconstructions.check(experiment) if settings.reconstructions else None
    place.check_writable()
    state = place.load(config, experiment.abstract_state)
    report = _scores(experiment, state) if settings.losses else {}
    made = [place.path / "eval.json"]
    if judges:
        variables = variables_of(state, settings.weights)
        own = reconstructions.measure(experiment, judges, variables, int(state.step))
        report["reconstructions"] = own
    if settings.distances:
        variables = variables_of(state, config.sample.weights)
        measured = distances.measure(experiment, rulers, variables, int(state.step), place)
        report["distances"], made = measured.report, [*made, *measured.files]
    # What was not measured this time stays as it was: each part has its own protocol.
    place.write("eval.json", {**_kept(place.path / "eval.json", settings), **report})
    shown = {k: v for k, v in report.items() if k != "bits_per_dim_curve"}
    pages = reports.write_beside(place.path) if is_first() else []
    return shown | {"files": announced([*made, *pages])}


def _kept(file: Path, settings: FrozenConfigDict) -> dict:
    """The parts of an earlier `eval.json` that this call does not measure."""
    wanted = {"distances": settings.distances, "reconstructions": settings.reconstructions}
    if not file.exists() or (settings.losses and all(wanted.values())):
        return {}
    try:
        before = read_json(file)
    except UserError as error:
        _log.warning("%s It will be overwritten.", error)
        return {}
    return {k: v for k, v in before.items() if not wanted.get(k, settings.losses)}


def _scores(experiment: Experiment, state: TrainState) -> dict:
    """The loss and the likelihood on eval.split, with their protocol."""
    config, settings = experiment.config, experiment.config.eval
    variables = variables_of(state, settings.weights)
    source = experiment.open(settings.split)
    placement, started = experiment.placement, time.perf_counter()
    count = min(settings.count or len(source), len(source))
    on_host = batches.eval_batches(
        source,
        batch_size=settings.batch_size,
        count=count,
        rows=placement.rows(settings.batch_size),
    )
    total = -(-count // settings.batch_size)
    _log.info("Scoring %d examples on %d device(s).", count, jax.device_count())
    on_host = tracked(on_host, "evaluating", total=total)

    def placed() -> Iterator[Batch]:
        for batch in on_host:
            experiment.stop.check()
            yield placement.put_batch(batch)

    on_device = placed()
    example = next(on_device)
    root = streams.root(settings.seed)

    def one(variables: Variables, batch: Batch) -> dict:
        prepared = experiment.prepared(batch)
        return score_batch(experiment.family, variables, prepared, root, state.step)

    program = experiment.program(one, variables, example)
    report, warnings = score(
        lambda batch: program(variables, batch),
        itertools.chain([example], on_device),
        dimensions=int(np.prod(experiment.shape)),
        family=experiment.family,
    )
    exact = experiment.exact_density
    if "nats" in report and exact and not conditions_of(experiment.family):
        examples = source.read(np.arange(count))["x"]
        report["nats_exact"] = -float(np.mean(exact.log_density(examples)))
    for warning in warnings.values():
        _log.warning(warning)
    report["protocol"] = {
        "data": config.data.name,
        "split": settings.split,
        "n": count,
        "batch_size": settings.batch_size,
        "weights": settings.weights,
        "step": int(state.step),
        "seed": settings.seed,
        **{k: settings[k] for k in build.FAMILIES[config.family.name].own_keys["eval"]},
        "devices": jax.device_count(),
        "platform": jax.default_backend(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return report
