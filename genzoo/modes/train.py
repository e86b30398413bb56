"""`--mode=train`: trains, or goes on with what the workdir holds."""

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.core import tree
from genzoo.core.compilation import Program, compile_program, run_once
from genzoo.core.contract import capabilities
from genzoo.core.errors import UserError
from genzoo.core.types import Batch
from genzoo.data import batches, order
from genzoo.data.source import Source
from genzoo.evaluate import pictures
from genzoo.experiment import Experiment, variables_of
from genzoo.modes.sample import draw
from genzoo.settings import RAW
from genzoo.train import writers
from genzoo.train.loop import LoopSettings, picture_steps
from genzoo.train.loop import train as train_loop
from genzoo.train.state import TrainState
from genzoo.workdir import Workdir

_log = logging.getLogger("genzoo")


def train(config: FrozenConfigDict, workdir: Path) -> dict:
    """Trains to train.steps, going on from what the workdir holds."""
    started = time.perf_counter()
    experiment, settings = Experiment(config), config.train
    place = Workdir(workdir)
    place.check(config)
    source = experiment.open("train")
    place.claim(config)
    checkpoints = place.checkpoints(keep=settings.keep, keep_every=settings.keep_every)
    state = checkpoints.restore(experiment.abstract_state)
    if state is None:
        where = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state)
        state = run_once(experiment.initial_state, out_shardings=where)
    else:
        _log.info("Going on from the checkpoint of step %d.", state.step)
    step = int(state.step)
    if step % settings.steps_per_call:
        raise UserError(
            f"The checkpoint is at step {step}, not a multiple of train.steps_per_call = "
            f"{settings.steps_per_call}; give one that divides it."
        )
    if step >= settings.steps:
        _log.info("Nothing to do: step %d of %d is done. Raise train.steps.", step, settings.steps)
        checkpoints.close()
        return {"step": step}
    data, inputs = _inputs(experiment, source, step)
    first = next(inputs)
    program = compile_program(
        experiment.updater(settings.accumulate).call, state, data, first, donate_argnums=(0,)
    )
    _log.info(
        "%s: %d parameters, %d examples, %d device(s); ready after %.1f s (%.1f s to compile).",
        config.family.name,
        tree.count(state.params),
        len(source),
        jax.device_count(),
        time.perf_counter() - started,
        program.compile_seconds,
    )
    fields = {f.name for f in dataclasses.fields(LoopSettings)}
    loop_settings = LoopSettings(**{k: v for k, v in settings.items() if k in fields})
    only_first = jax.process_index() == 0
    outputs = writers.open_writers(workdir, step, first_process=only_first)
    progress = writers.Progress(settings.steps, only_first)
    try:
        state = train_loop(
            state,
            lambda state, rows: program(state, data, rows),
            itertools.chain([first], inputs),
            settings=loop_settings,
            checkpoints=checkpoints,
            writers=outputs,
            progress=progress,
            pictures=_training_pictures(experiment, place),
            picture_at=_picture_steps(experiment),
        )
    finally:
        inputs.close()
        checkpoints.close()
        progress.close()
        for output in outputs:
            output.close()
    return {"step": int(state.step), "seconds": round(time.perf_counter() - started, 1)}


def _inputs(experiment: Experiment, source: Source, start: int) -> tuple[Batch, Iterator[Batch]]:
    """(what is held on the devices, the inputs of each call from step `start` on)."""
    config, placement = experiment.config, experiment.placement
    size, stride = config.train.batch_size, config.train.steps_per_call
    low, high = experiment.local_rows(size)
    if batches.fits_in_memory(source):

        def rows() -> Iterator[Batch]:
            for step in range(start, config.train.steps, stride):
                found = order.indices(config.seed, step * size, stride * size, len(source))
                found = found.reshape(stride, size)[:, low:high].astype(np.int32)
                yield placement.put_batch({"rows": found}, leading=1)

        return placement.put_everywhere(dict(source.arrays)), rows()

    def stacked() -> Iterator[Batch]:
        reader = batches.train_batches(
            source, seed=config.seed, batch_size=size, start_step=start, rows=(low, high)
        )
        try:
            while True:
                several = [next(reader) for _ in range(stride)]
                joined = {k: np.stack([b[k] for b in several]) for k in several[0]}
                yield placement.put_batch(joined, leading=1)
        finally:
            reader.close()

    return {}, stacked()


def _picture_steps(experiment: Experiment) -> set[int]:
    settings = experiment.config.train
    if not settings.picture_count or "sample" not in capabilities(experiment.family):
        return set()
    return picture_steps(settings.steps, settings.picture_first)


def _training_pictures(experiment: Experiment, place: Workdir) -> Callable:
    """Grids of the same samples, from the params and from every average."""
    count = experiment.config.train.picture_count

    def save(state: TrainState, step: int) -> None:
        for weights in (RAW, *experiment.config.train.averages):
            images, _ = draw(experiment, variables_of(state, weights), programs, count)
            if jax.process_index() == 0:
                pictures.save_grid(place.training_grid(step, weights), images)

    programs: dict[int, Program] = {}
    return save
