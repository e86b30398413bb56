"""`--mode=describe` and `--mode=bench`: the cost of a config, counted and timed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.builders import datasets
from genzoo.builders.sampling import ADAPTIVE
from genzoo.check import documented
from genzoo.core import tree
from genzoo.core.contract import Context, Fits, capabilities
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment, variables_of
from genzoo.modes.sample import draw, sample_batch
from genzoo.requests import Requests
from genzoo.runtime import cost
from genzoo.runtime.compilation import compile_program, flops
from genzoo.settings import DataSettings
from genzoo.train.state import TrainState


def _costs(experiment: Experiment) -> dict:
    """Counts from shapes alone, without memory or compilation."""
    family, state = experiment.family, experiment.abstract_state

    def forward(params, stats, frozen, batch):
        ones = jnp.ones(len(batch["x"]))
        for player in family.losses.values():
            context = Context(
                batch=batch,
                key=experiment.root,
                step=jnp.int32(0),
                stats=stats,
                frozen=frozen,
                mask=ones if player.couples_rows else None,
                train=False,
            )
            values, _ = player.loss(params, context)
        return values

    size = experiment.config.train.batch_size
    training = {}
    if not isinstance(family, Fits):
        # Accumulation does the same work in a loop, which would count as one pass.
        training["train_step_flops"] = flops(
            experiment.updater(1).update, state, experiment.stored(size)
        )
        training["train_step_examples"] = size
    return {
        "parameters": tree.count(state.params),
        "parameter_bytes": tree.size_in_bytes(state.params),
        "state_bytes": tree.size_in_bytes(state),
        "flops_per_example": flops(
            forward, state.params, state.stats, state.frozen, experiment.example(1)
        ),
        **training,
    }


def describe(config: FrozenConfigDict) -> dict:
    """Parameters, operations, capabilities and keys of a config, without building the arrays."""
    experiment = Experiment(config)
    data, shown = build.section(config, "data"), config.to_dict()
    unused = datasets.unused_keys(data)
    shown["data"] = {k: v for k, v in shown["data"].items() if k not in unused}
    return {
        "family": config.family.name,
        "capabilities": list(capabilities(experiment.family)),
        "data": {
            "name": data.name,
            "shape": list(experiment.shape),
            "classes": _classes(data),
        },
        **_costs(experiment),
        "config": shown,
        "keys": documented(config),
    }


def _classes(data: DataSettings) -> int | None:
    """The number of classes in the data; None if the data is not available."""
    try:
        return datasets.class_count(data)
    except UserError:
        return None


def bench(config: FrozenConfigDict) -> dict:
    """Times the training step (or the fit) and the sampler on this machine, with synthetic data."""
    experiment = Experiment(config)
    result = {
        "devices": [d.device_kind for d in jax.devices()],
        "parameters": tree.count(experiment.abstract_state.params),
    }
    if isinstance(experiment.family, Fits):
        result["fit"] = _bench_fit(experiment)
        state = experiment.new_state()
    else:
        result["train"], state = _bench_step(experiment)
    if "sample" in capabilities(experiment.family):
        result["sample"] = _bench_sampler(config, state)
    return result


def _made_up(experiment: Experiment, count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {k: field.made_up(random, count) for k, field in experiment.spec.fields.items()}


def _bench_fit(experiment: Experiment) -> dict:
    """Times a fit in closed form on two batches."""
    size = experiment.config.train.batch_size
    batch = jax.device_get(experiment.prepared(_made_up(experiment, size)))
    seconds = cost.time_calls(
        lambda: experiment.family.fit(iter([batch, batch]), experiment.root),
        experiment.config.bench.seconds,
    )
    return {
        "examples": 2 * size,
        "seconds": float(np.median(seconds)),
        "examples_per_second": 2 * size / float(np.median(seconds)),
    }


def _bench_step(experiment: Experiment) -> tuple[dict, TrainState]:
    config, placement = experiment.config, experiment.placement
    size, stride = config.train.batch_size, config.train.steps_per_call
    state = experiment.new_state()
    data = placement.put_everywhere(experiment.flat(_made_up(experiment, 2 * size)))
    random = np.random.default_rng(1)
    rows = random.integers(0, 2 * size, (stride, size)).astype(np.int32)
    inputs = placement.put_batch({"rows": rows[:, placement.rows(size)]}, leading=1)
    program = compile_program(experiment.training(state, data, inputs))
    holder = [state]

    def step():
        holder[0], measured = program(holder[0], data, inputs)
        return measured

    seconds = cost.time_calls(step, config.bench.seconds)
    summary = cost.summary(
        program,
        seconds,
        examples=size * stride,
        parts=stride,
        flops=_costs(experiment)["train_step_flops"],
    )
    return summary, holder[0]


def _bench_sampler(config: FrozenConfigDict, state: TrainState) -> dict:
    """Times the sampler over a few of its steps, which all cost the same."""
    steps, shorter = 1, config.to_dict()
    adaptive = config.sample.get("method") == ADAPTIVE  # timed from start to end
    if "steps" in config.sample and not adaptive:
        steps = min(config.bench.sample_steps, config.sample.steps or config.bench.sample_steps)
        shorter["sample"] |= {"steps": steps}
    experiment = Experiment(FrozenConfigDict(shorter))
    variables, programs = variables_of(state, config.sample.weights), {}
    requests = Requests(experiment=experiment, family=experiment.family)
    size = config.sample.batch_size

    def once():
        list(draw(requests, variables, programs, size))

    seconds = cost.time_calls(once, config.bench.seconds)
    (program,) = programs.values()
    one_step = flops(partial(sample_batch, requests), variables, requests.example(size))
    summary = cost.summary(
        program, seconds, examples=size, parts=steps, flops=one_step
    )
    return {"steps": steps, **summary}
