"""From a checked config to work done: one function per mode.

Each mode builds what it needs from the config, looks at the family through the contract alone, and
returns a JSON-like dict of what it found or did.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import FrozenConfigDict
from tqdm import tqdm

from genzoo import build
from genzoo.core import streams, tree
from genzoo.core.compilation import Program, compile_program, flops
from genzoo.core.contract import CAPABILITIES, Context, Family, Variables, capabilities
from genzoo.core.errors import UserError
from genzoo.core.types import Array, Batch, Key
from genzoo.data import batches, order, transforms
from genzoo.data.source import Source
from genzoo.evaluate import cost, pictures
from genzoo.evaluate.score import score, score_batch
from genzoo.settings import RAW
from genzoo.train import sharding, writers
from genzoo.train.checkpoint import Checkpoints
from genzoo.train.loop import LoopSettings, picture_steps
from genzoo.train.loop import train as train_loop
from genzoo.train.optimizer import for_players
from genzoo.train.state import TrainState, initial
from genzoo.train.step import Updater
from genzoo.workdir import Workdir

_log = logging.getLogger("genzoo")


@dataclass(frozen=True, eq=False)
class Experiment:
    """What every mode shares: the config and what is built from it, each part on first use."""

    config: FrozenConfigDict

    @cached_property
    def family(self) -> Family:
        """The model family."""
        return build.family(self.config)

    @cached_property
    def placement(self) -> sharding.Placement:
        """The mesh and the shardings on it."""
        return sharding.placement(self.config.mesh.data, self.config.mesh.fsdp)

    @cached_property
    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """By player."""
        return dict(for_players(self.family.losses, build.optimizer(self.config)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one example."""
        return build.example_shape(build.section(self.config, "data"))

    @property
    def root(self) -> Key:
        """The key of the run."""
        return streams.root(self.config.seed)

    def example(self, count: int) -> Batch:
        """Shapes of a prepared batch."""
        return {
            "image": jax.ShapeDtypeStruct((count, *self.shape), jnp.float32),
            "label": jax.ShapeDtypeStruct((count,), jnp.int32),
        }

    def initial_state(self) -> TrainState:
        """The state at step 0."""
        zeros = {k: jnp.zeros(v.shape, v.dtype) for k, v in self.example(1).items()}
        names = tuple(self.config.train.averages)
        key = streams.stream(self.root, "init")
        return initial(self.family, self.optimizers, names, key, zeros)

    @cached_property
    def abstract_state(self) -> TrainState:
        """Shapes and shardings of the state, without its memory."""
        shapes = jax.eval_shape(self.initial_state)
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            shapes,
            self.placement.state(shapes),
        )

    def updater(self, accumulate: int) -> Updater:
        """The training step."""
        return Updater(
            family=self.family,
            optimizers=self.optimizers,
            learning_rate=build.optimizer(self.config).schedule(),
            averages=build.averages(self.config),
            prepare=partial(prepare, mirrored=self.config.data.flip),
            root=self.root,
            accumulate=accumulate,
            fault_limit=self.config.train.fault_limit,
        )

    def open(self, split: str) -> Source:
        """A split of the data, seen to have the promised shape."""
        return build.open_source(build.section(self.config, "data"), split)

    def local_rows(self, batch_size: int) -> tuple[int, int]:
        """The rows of a global batch that this process reads."""
        share = batch_size // jax.process_count()
        return jax.process_index() * share, (jax.process_index() + 1) * share


def prepare(batch: Batch, key: Key | None, mirrored: bool = False) -> Batch:
    """A uint8 batch as the models see it: images in [-1, 1], at random mirrored where asked to."""
    image = transforms.to_float(batch["image"])
    if mirrored:
        image = transforms.flip(image, key)
    return {**batch, "image": image}


def variables_of(state: TrainState, weights: str) -> Variables:
    """The params themselves ("raw") or an average of them, with the stats."""
    params = state.params if weights == RAW else state.averages[weights]
    return Variables(params=params, stats=state.stats)


def require(family: Family, name: str, capability: str, mode: str) -> None:
    """Raises UserError when the family lacks what a mode needs."""
    if not isinstance(family, CAPABILITIES[capability]):
        can = ", ".join(capabilities(family)) or "nothing beyond training"
        raise UserError(f"--mode={mode} needs a family that can {capability}; {name} can: {can}.")


# --- train ------------------------------------------------------------------------------------------


def train(config: FrozenConfigDict, workdir: Path) -> dict:
    """Trains to train.steps, going on from what the workdir holds."""
    started = time.perf_counter()
    experiment, settings = Experiment(config), config.train
    place = Workdir(workdir)
    place.claim(config)
    source = experiment.open("train")
    checkpoints = place.checkpoints(keep=settings.keep, keep_every=settings.keep_every)
    state = checkpoints.restore(experiment.abstract_state)
    if state is None:
        where = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state)
        state = jax.jit(experiment.initial_state, out_shardings=where)()
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
        "%s: %d parameters, %d examples, %d device(s); ready to train after %.1f s (compiling %.1f).",
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
            _chain(first, inputs),
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


def _chain(first: Batch, rest: Iterator[Batch]) -> Iterator[Batch]:
    yield first
    yield from rest


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

    def draw(state: TrainState, step: int) -> None:
        for weights in (RAW, *experiment.config.train.averages):
            images, _ = _draw(experiment, variables_of(state, weights), programs, count)
            if jax.process_index() == 0:
                pictures.save_grid(place.training_grid(step, weights), images)

    programs: dict[int, Program] = {}
    return draw


# --- sample -----------------------------------------------------------------------------------------


def _draw(
    experiment: Experiment,
    variables: Variables,
    programs: dict[int, Program],
    count: int,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples first .. first + count - 1 in one batch: (uint8 [count, H, W, C], labels [count]).

    The batch is filled up to a multiple of the devices; programs: compiled ones by batch size.
    """
    config, placement = experiment.config, experiment.placement
    size = -(-count // placement.devices) * placement.devices
    classes = getattr(experiment.family, "num_classes", 0)
    index = np.arange(first, first + size, dtype=np.int32)
    fixed = np.full(size, config.sample.label, np.int32)
    label = fixed if config.sample.label >= 0 else index % max(classes, 1)
    low, high = experiment.local_rows(size)
    rows = placement.put_batch({"index": index[low:high], "label": label[low:high]})
    if size not in programs:
        programs[size] = compile_program(
            partial(_sample, experiment.family, config.sample.seed),
            variables,
            rows,
            out_shardings=placement.replicated,
        )
    images = jax.device_get(programs[size](variables, rows))
    return images[:count], label[:count]


def _sample(family: Family, seed: int, variables: Variables, rows: Batch) -> Array:
    keys = streams.per_example(streams.stream(streams.root(seed), "sample"), rows["index"])
    return transforms.to_uint8(family.sample(variables, keys, {"label": rows["label"]}))


def sample(config: FrozenConfigDict, workdir: Path) -> dict:
    """Draws sample.count images into the workdir's `samples/`: one PNG each and a grid."""
    experiment, place = Experiment(config), Workdir(workdir)
    require(experiment.family, config.family.name, "sample", "sample")
    classes = getattr(experiment.family, "num_classes", 0)
    if config.sample.label >= max(classes, 1):
        raise UserError(
            f"sample.label = {config.sample.label}: this model has "
            + (f"the classes 0 to {classes - 1}." if classes else "no classes; leave it at -1.")
        )
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, config.sample.weights)
    programs: dict[int, Program] = {}
    images, labels = [], []
    started = time.perf_counter()
    place.clear_samples()
    with tqdm(total=config.sample.count, desc="sampling", unit="image", disable=None) as bar:
        for first in range(0, config.sample.count, config.sample.batch_size):
            count = min(config.sample.batch_size, config.sample.count - first)
            # The last batch has the size of the others: one compile serves all.
            drawn, label = _draw(
                experiment, variables, programs, config.sample.batch_size, first
            )
            drawn, label = drawn[:count], label[:count]
            if jax.process_index() == 0:
                pictures.save_each(place.samples, drawn, first)
            if config.sample.npz or first < pictures.LARGEST_GRID:
                images.append(drawn)
                labels.append(label)
            bar.update(count)
    if jax.process_index() == 0:
        everything = np.concatenate(images)
        grid = everything[: pictures.LARGEST_GRID]
        columns = classes if classes and config.sample.label < 0 and len(grid) > classes else 0
        pictures.save_grid(place.samples / "grid.png", grid, columns=columns)
        if config.sample.npz:
            arrays = {"image": everything, "label": np.concatenate(labels)}
            np.savez_compressed(place.samples / "samples.npz", **arrays)
    seconds = time.perf_counter() - started
    _log.info("%d samples in %.1f s: %s", config.sample.count, seconds, place.samples / "grid.png")
    return {"samples": str(place.samples), "count": config.sample.count, "step": int(state.step)}


# --- eval -------------------------------------------------------------------------------------------


def evaluate(config: FrozenConfigDict, workdir: Path) -> dict:
    """Scores the model on eval.split into `eval.json`, with the protocol beside the figures."""
    experiment, place, settings = Experiment(config), Workdir(workdir), config.eval
    state = place.load(config, experiment.abstract_state)
    variables = variables_of(state, settings.weights)
    source = experiment.open(settings.split)
    placement, started = experiment.placement, time.perf_counter()
    count = min(settings.count or len(source), len(source))
    found = batches.eval_batches(
        source,
        batch_size=settings.batch_size,
        count=count,
        rows=experiment.local_rows(settings.batch_size),
    )
    total = -(-count // settings.batch_size)
    found = tqdm(found, total=total, desc="evaluating", unit="batch", disable=None)
    on_device = (placement.put_batch(batch) for batch in found)
    first = next(on_device)
    root = streams.root(settings.seed)

    def one(variables: Variables, batch: Batch) -> dict:
        return score_batch(experiment.family, variables, prepare(batch, None), root)

    program = compile_program(one, variables, first, out_shardings=placement.replicated)
    dimensions = int(np.prod(experiment.shape))
    gather = partial(jax.device_get)
    report = score(
        lambda batch: {**program(variables, batch), "mask": _whole(batch["mask"], placement)},
        _chain(first, on_device),
        dimensions,
        gather,
    )
    report["protocol"] = {
        "data": config.data.name,
        "split": settings.split,
        "weights": settings.weights,
        "step": int(state.step),
        "seed": settings.seed,
        "bound_steps": settings.bound_steps or "every",
        "devices": jax.device_count(),
        "platform": jax.default_backend(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    place.write("eval.json", report)
    return {k: v for k, v in report.items() if k != "bits_per_dim_curve"}


def _whole(array: Array, placement: sharding.Placement) -> Array:
    return jax.device_put(array, placement.replicated)


# --- describe and bench -----------------------------------------------------------------------------


def _costs(experiment: Experiment) -> dict:
    """Counts that follow from shapes alone: no memory, no compile."""
    family, state = experiment.family, experiment.abstract_state

    def forward(params, stats, batch):
        for player in family.losses.values():
            context = Context(
                batch=batch, key=experiment.root, step=jnp.int32(0), stats=stats, train=False
            )
            values, _ = player.loss(params, context)
        return values

    size = experiment.config.train.batch_size
    batch = experiment.example(size)
    batch["image"] = jax.ShapeDtypeStruct(batch["image"].shape, jnp.uint8)
    return {
        "parameters": tree.count(state.params),
        "parameter_bytes": tree.size_in_bytes(state.params),
        "state_bytes": tree.size_in_bytes(state),
        "flops_per_example": flops(forward, state.params, state.stats, experiment.example(1)),
        # Accumulation does the same work in a loop, which the count would take for one pass.
        "train_step_flops": flops(experiment.updater(1).update, state, batch),
        "train_step_examples": size,
    }


def describe(config: FrozenConfigDict) -> dict:
    """What the config makes, without making it."""
    experiment = Experiment(config)
    return {
        "family": config.family.name,
        "capabilities": list(capabilities(experiment.family)),
        **_costs(experiment),
        "config": config.to_dict(),
    }


def bench(config: FrozenConfigDict) -> dict:
    """Times the training step and the sampler on the devices at hand, on made-up data."""
    experiment, settings = Experiment(config), config.bench
    costs, placement = _costs(experiment), experiment.placement
    size, stride = config.train.batch_size, config.train.steps_per_call
    where = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state)
    state = jax.jit(experiment.initial_state, out_shardings=where)()
    random = np.random.default_rng(0)
    made_up = {
        "image": random.integers(0, 256, (2 * size, *experiment.shape), np.uint8),
        "label": np.zeros(2 * size, np.int32),
    }
    data = placement.put_everywhere(made_up)
    rows = random.integers(0, 2 * size, (stride, size)).astype(np.int32)
    low, high = experiment.local_rows(size)
    inputs = placement.put_batch({"rows": rows[:, low:high]}, leading=1)
    call = experiment.updater(config.train.accumulate).call
    program = compile_program(call, state, data, inputs, donate_argnums=(0,))
    holder = [state]

    def step():
        holder[0], measured = program(holder[0], data, inputs)
        return measured

    seconds = cost.time_calls(step, settings.seconds)
    result = {
        "devices": [d.device_kind for d in jax.devices()],
        "parameters": costs["parameters"],
        "train": cost.summary(
            program,
            seconds,
            examples=size * stride,
            parts=stride,
            flops=costs["train_step_flops"],
        ),
    }
    if "sample" in capabilities(experiment.family):
        result["sample"] = _bench_sampler(config, holder[0])
    return result


def _bench_sampler(config: FrozenConfigDict, state: TrainState) -> dict:
    """The sampler over a few steps; each step costs the same."""
    steps = min(config.bench.sample_steps, config.sample.steps or config.bench.sample_steps)
    shorter = config.to_dict()
    shorter["sample"] |= {"steps": steps}
    experiment = Experiment(FrozenConfigDict(shorter))
    variables, programs = variables_of(state, config.sample.weights), {}
    draw = partial(_draw, experiment, variables, programs, config.sample.batch_size)
    seconds = cost.time_calls(draw, config.bench.seconds)
    (program,) = programs.values()
    rows = {k: jax.ShapeDtypeStruct((config.sample.batch_size,), jnp.int32)
            for k in ("index", "label")}  # fmt: skip
    one_step = flops(partial(_sample, experiment.family, 0), variables, rows)
    found = cost.summary(
        program, seconds, examples=config.sample.batch_size, parts=steps, flops=one_step
    )
    return {"steps": steps, **found}
