"""`--mode=train`: trains, or resumes the run in the workdir."""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build, runs
from genzoo.core import streams, tree
from genzoo.core.contract import Family, Fits, Variables, capabilities
from genzoo.core.errors import UserError
from genzoo.core.latents import Measures
from genzoo.core.reports import reported
from genzoo.core.types import Batch
from genzoo.data import batches, order
from genzoo.data.records import only
from genzoo.data.source import Source
from genzoo.evaluate import pictures
from genzoo.experiment import Experiment, variables_of
from genzoo.modes import distances
from genzoo.modes import report as reports
from genzoo.modes.diverged import Divergence, check_fitted
from genzoo.modes.measure import check_first, measured
from genzoo.modes.reconstruct import reconstructed
from genzoo.modes.recording import Recording
from genzoo.modes.rulers import Ruler
from genzoo.modes.sample import DRAWN, draw, save_samples, together
from genzoo.requests import Requests
from genzoo.restart import start_over
from genzoo.runtime.agreement import agreed, by_first, is_first, of_first
from genzoo.runtime.compilation import Program, compile_program
from genzoo.runtime.progress import Progress, waiting
from genzoo.runtime.stopping import Stop
from genzoo.settings import RAW, TrainSettings
from genzoo.train import rewind, weights_and_biases, writers
from genzoo.train.account import Account
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.guard import Guard
from genzoo.train.loop import INPUTS_LATE, leave, picture_steps
from genzoo.train.loop import train as train_loop
from genzoo.train.starts import Origin
from genzoo.train.state import TrainState
from genzoo.train.weights_and_biases import WeightsAndBiases
from genzoo.workdir import Workdir, announced

_log = logging.getLogger("genzoo")
_PICTURED = {"sample", "reconstruct"}  # capabilities, one of which training grids need


def train(
    config: FrozenConfigDict,
    workdir: Path,
    stop: Stop | None = None,
    origin: Origin | None = None,
) -> dict:
    """Trains to train.steps, resuming the run in the workdir if there is one.

    origin: of this start, for the record. Returns the step and the files.
    """
    place, account = Workdir(workdir), Account()
    started = account.began
    experiment = Experiment(config, stop or Stop())
    settings, stop = build.section(config, "train"), experiment.stop
    rulers = agreed(lambda: _check(experiment, place))
    source = agreed(lambda: experiment.open("train"))
    with contextlib.ExitStack() as cleanup:
        # The folder is claimed before anything in it changes, and after the input was checked.
        about = {
            "examples": len(source),
            **source.identity(),
            "fields": {name: str(field) for name, field in source.spec.fields.items()},
        }
        claim = cleanup.enter_context(agreed(lambda: place.claim(config, about)))
        checkpoints = place.checkpoints(
            keep=settings.keep,
            keep_every=settings.keep_every,
            about={"config": config.to_dict(), "data": about},
            claim=claim,
        )
        cleanup.callback(checkpoints.close)
        if settings.restart:
            by_first(lambda: start_over(place.path, checkpoints))
        state = _start(experiment, place, checkpoints)
        step = int(state.step)
        if step == 0 and isinstance(experiment.family, Measures):
            check_first(experiment, state)
            state = measured(experiment, state, source)
        guard = Guard(
            checkpoints=checkpoints,
            limit=settings.fault_limit,
            total=int(state.faults.total),
            inquiry=Divergence(
                experiment=experiment, source=source, place=place, checkpoints=checkpoints
            ),
        )
        if _lacks_pictures(experiment, place, step):
            _training_pictures(experiment, place)(state, step)
        if step >= settings.steps:
            _log.info("Step %d of %d is done: raise train.steps to train on.", step, settings.steps)
            return {"step": step}
        record = Recording(
            place=place, claim=claim, account=account, origin=origin or Origin(), reached=step
        )
        cleanup.callback(record.close)
        if isinstance(experiment.family, Fits):
            record.begin(experiment, state)
            state = _fitted(experiment, state, source)
            check_fitted(state, source.name)
            with stop.gently():
                checkpoints.save(state)
                checkpoints.wait()
            record.reached = int(state.step)
            if _picture_steps(experiment):
                with account.on("pictures"):
                    _training_pictures(experiment, place)(state, int(state.step))
            record.close()
            return _report(experiment, place, state, started)
        data, inputs = _inputs(experiment, source, step)
        cleanup.callback(inputs.close)
        leaving = partial(leave, state, guard=guard)
        with stop.interruptible(leaving, alone_after=INPUTS_LATE):
            example = next(inputs)
        if number := stop.reached():  # with several processes; one alone would have ended already
            leaving(number)
        _log_unsplit(experiment, state)
        _log.info("Compiling the training step for %d device(s).", jax.device_count())
        with account.on("compile"):
            lowered = experiment.training(state, data, example)
            program = compile_program(lowered, announced=True)
        record.begin(experiment, state, lowered)
        del lowered
        account.settle("start")
        _log.info(
            "%s: %d parameters, %d examples, %d device(s); ready after %.1f s (%.1f s to compile).",
            config.family.name,
            tree.count(state.params),
            len(source),
            jax.device_count(),
            time.perf_counter() - started,
            program.compile_seconds,
        )
        outputs = writers.open_writers(place.path, step, first_process=is_first())
        if settings.wandb != "off" and is_first():
            remote = (settings.wandb, settings.wandb_project, config.to_dict())
            outputs.append(WeightsAndBiases(place.path, *remote))
        for output in outputs:
            cleanup.callback(output.close)
        progress = writers.Progress(settings.steps, is_first(), experiment.unit)
        cleanup.callback(progress.close)
        watch = Watch(experiment.family)

        def report(measured: dict) -> dict:
            agreed(claim.check)
            return watch(measured)

        outputs.append(record)
        draw_pictures = _training_pictures(experiment, place)

        def pictured(state: TrainState, step: int) -> None:
            agreed(claim.check)  # files are not written into the folder of another run
            draw_pictures(state, step)

        state = train_loop(
            state,
            lambda state, rows: program(state, data, rows),
            itertools.chain([example], inputs),
            settings=_paced(settings),
            guard=guard,
            writers=outputs,
            progress=progress,
            pictures=pictured,
            picture_at=_picture_steps(experiment),
            report=report,
            stop=stop,
            account=account,
            evaluate=distances.in_training(experiment, rulers),
        )
    return _report(experiment, place, state, started)


def _paced(settings: TrainSettings) -> TrainSettings:
    """The settings, without a first picture by time if only the last picture is wanted."""
    return settings if settings.picture_first else replace(settings, picture_minutes=0.0)


def _report(experiment: Experiment, place: Workdir, state: TrainState, started: float) -> dict:
    """The report on a finished run, with the files it wrote."""
    step, seconds = int(state.step), round(time.perf_counter() - started, 1)
    _log.info("Step %d is done, %s after this start.", step, writers.duration(seconds))
    weights = (RAW, *experiment.config.train.averages)
    made = [place.path / "metrics.jsonl", place.path / "checkpoints" / str(step)]
    made += [place.training_grid(step, name) for name in weights]
    made += reports.write_beside(place.path) if is_first() else []
    return {"step": step, "seconds": seconds, "files": announced(p for p in made if p.exists())}


def _log_unsplit(experiment: Experiment, state: TrainState) -> None:
    if whole := experiment.placement.unsplit({"params": state.params}):
        largest = max(whole, key=whole.get)
        _log.info(
            "With mesh.fsdp = %d, %d arrays of params stay whole on every device, %.2f MB in all; "
            "the largest is %s.",
            experiment.config.mesh.fsdp, len(whole), sum(whole.values()) / 1e6, largest,
        )  # fmt: skip


def _check(experiment: Experiment, place: Workdir) -> Mapping[str, Ruler]:
    """The rulers of eval.distances, if training measures them. Raises UserError."""
    weights_and_biases.check(experiment.config.train.wandb)
    build.require_installed(experiment.config)
    place.check(experiment.config)
    Requests(experiment=experiment, family=experiment.family).check()
    wanted = experiment.config.train.evaluate_every
    rulers = distances.check(experiment) if wanted else {}
    if rulers:
        runs.steering(experiment)  # raises if a model that steers the samples is missing
    experiment.updater(experiment.config.train.accumulate)  # raises if the players do not fit
    if not place.begun:
        runs.check(experiment)
    return rulers


def _start(experiment: Experiment, place: Workdir, checkpoints: Checkpoints) -> TrainState:
    """The newest state of the run, or a new one."""
    stride = experiment.config.train.steps_per_call
    rewind.go_back(checkpoints, experiment.config.to_dict(), place.path / "metrics.jsonl")
    state = checkpoints.restore(experiment.abstract_state)
    if state is None:
        return runs.first_state(experiment, place)
    if int(state.step) % stride:
        raise UserError(
            f"train.steps_per_call = {stride} does not divide the step of the checkpoint, "
            f"{state.step}: choose a divisor of it."
        )
    _log.info("Resuming from the checkpoint of step %d.", state.step)
    if doubts := checkpoints.doubts(int(state.step)):
        good = checkpoints.newest_sound()
        back = "" if good is None else f" Go back with --config.train.resume_from={good}."
        _log.warning("This state is doubtful: %s.%s", "; ".join(doubts), back)
    runs.keep_frozen(state, place)
    return place.completed(state, experiment.abstract_state)


def _inputs(experiment: Experiment, source: Source, start: int) -> tuple[Batch, Iterator[Batch]]:
    """(the data held on the devices, the inputs of each call from step `start` on)."""
    config, placement = experiment.config, experiment.placement
    size, stride = config.train.batch_size, config.train.steps_per_call
    mine = placement.rows(size)
    if batches.fits_in_memory(source):

        def rows() -> Iterator[Batch]:
            for step in range(start, config.train.steps, stride):
                indices = order.indices(config.seed, step * size, stride * size, len(source))
                indices = indices.reshape(stride, size)[:, mine].astype(np.int32)
                yield placement.put_batch({"rows": indices}, leading=1)

        return placement.put_everywhere(experiment.flat(source.arrays)), rows()

    def stacked() -> Iterator[Batch]:
        reader = batches.train_batches(
            source, seed=config.seed, batch_size=size, start_step=start, rows=mine
        )
        try:
            while True:
                several = [only(next(reader), experiment.spec.fields) for _ in range(stride)]
                joined = {k: np.stack([b[k] for b in several]) for k in several[0]}
                yield placement.put_batch(joined, leading=1)
        finally:
            reader.close()

    return {}, stacked()


def _fitted(experiment: Experiment, state: TrainState, source: Source) -> TrainState:
    """The state after one pass over the data, for a family fitted in closed form."""

    def prepared():
        size, unit = experiment.config.train.batch_size, experiment.unit
        with Progress(len(source), "fitting", unit) as bar:
            for start in range(0, len(source), size):
                rows = np.arange(start, min(start + size, len(source)))
                experiment.stop.check()
                yield jax.device_get(experiment.prepared(source.read(rows)))
                bar.update(len(rows))

    variables = experiment.family.fit(prepared(), streams.named(experiment.root, "fit"))
    fitted = experiment.placement.put(
        {"params": variables.params, "stats": variables.stats},
        jax.tree.map(lambda leaf: leaf.sharding, {"params": state.params, "stats": state.stats}),
    )
    averages = {name: jax.tree.map(jnp.copy, fitted["params"]) for name in state.averages}
    return replace(state, step=state.step + 1, averages=averages, **fitted)


class Watch:
    """Turns averaged metrics into logged values with the family's own report. A warning is logged
    after three reports in a row, because the first steps of a run look like a failure."""

    def __init__(self, family: Family):
        self._family, self._streak = family, {}

    def __call__(self, measured: dict) -> dict:
        """The values to log. measured: averaged metrics by name."""
        report = reported(self._family, measured)
        self._streak = {k: self._streak.get(k, 0) + 1 for k in report.warnings}
        for about, warning in report.warnings.items():
            if self._streak[about] == 3:
                _log.warning(warning)
        return dict(report.values)


def _picture_steps(experiment: Experiment) -> set[int]:
    settings = experiment.config.train
    able = _PICTURED & set(capabilities(experiment.family)) and isinstance(experiment.drawn, DRAWN)
    if not settings.picture_count or not able:
        return set()
    return picture_steps(settings.steps, settings.picture_first)


def _lacks_pictures(experiment: Experiment, place: Workdir, step: int) -> bool:
    """Whether pictures are due at the step of the checkpoint from which a run resumes, and a kill
    after the save kept them from being drawn."""
    before = step - experiment.config.train.steps_per_call
    if not any(before < at <= step for at in _picture_steps(experiment)):
        return False
    grids = [place.training_grid(step, w) for w in (RAW, *experiment.config.train.averages)]
    return bool(of_first(lambda: int(not all(grid.is_file() for grid in grids))))


def _training_pictures(experiment: Experiment, place: Workdir) -> Callable:
    """A function (state, step) that draws the same samples, or the same reconstructions for a
    family that cannot sample, from the params and from every average."""
    count = experiment.config.train.picture_count
    samples = "sample" in capabilities(experiment.family)
    programs: dict[int, Program] = {}
    source = None if samples else experiment.open(experiment.config.eval.split)

    def drawn_page(variables: Variables) -> Callable:
        if samples:
            requests = Requests(experiment=experiment, family=experiment.family)
            drawn = draw(requests, variables, programs, count)
            images, requested = together(list(drawn))
            return partial(save_samples, requests, samples=images, requested=requested)
        page = reconstructed(experiment, variables, programs, source, count)
        return partial(pictures.save_grid, images=page.side_by_side(), caption=page.caption)

    def save(state: TrainState, step: int) -> None:
        for weights in (RAW, *experiment.config.train.averages):
            with waiting(f"Drawing the pictures of step {step}, weights {weights}."):
                write = drawn_page(variables_of(state, weights))
            if is_first():
                write(path=place.training_grid(step, weights))

    return save
