"""`--mode=describe` and `--mode=bench`: what a config costs, by count and by clock."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.builders.sampling import ADAPTIVE
from genzoo.core import tree
from genzoo.core.compilation import compile_program, flops
from genzoo.core.contract import Context, Fits, capabilities
from genzoo.core.errors import UserError
from genzoo.evaluate import cost
from genzoo.experiment import Experiment, flat, variables_of
from genzoo.modes.sample import draw, sample_batch
from genzoo.train.state import TrainState


def _costs(experiment: Experiment) -> dict:
    """Counts that follow from shapes alone: no memory, no compile."""
    family, state = experiment.family, experiment.abstract_state

    def forward(params, stats, frozen, batch):
        for player in family.losses.values():
            context = Context(
                batch=batch,
                key=experiment.root,
                step=jnp.int32(0),
                stats=stats,
                frozen=frozen,
                train=False,
            )
            values, _ = player.loss(params, context)
        return values

    size = experiment.config.train.batch_size
    batch = experiment.example(size)
    batch["image"] = jax.ShapeDtypeStruct(batch["image"].shape, jnp.uint8)
    training = {}
    if not isinstance(family, Fits):
        # Accumulation does the same work in a loop, which the count would take for one pass.
        training["train_step_flops"] = flops(experiment.updater(1).update, state, batch)
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
    if isinstance(experiment.family, Fits):
        raise UserError(
            f"--mode=bench times training steps, and {config.family.name} is fitted in closed form."
        )
    costs, placement = _costs(experiment), experiment.placement
    size, stride = config.train.batch_size, config.train.steps_per_call
    state = experiment.new_state()
    random = np.random.default_rng(0)
    made_up = {
        "image": random.integers(0, 256, (2 * size, *experiment.shape), np.uint8),
        "label": np.zeros(2 * size, np.int32),
    }
    data = placement.put_everywhere(flat(made_up))
    rows = random.integers(0, 2 * size, (stride, size)).astype(np.int32)
    inputs = placement.put_batch({"rows": rows[:, placement.rows(size)]}, leading=1)
    program = compile_program(experiment.training(state, data, inputs))
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
    """The sampler, over a few steps where it takes steps; each step costs the same."""
    steps, shorter = 1, config.to_dict()
    adaptive = config.sample.get("method") == ADAPTIVE  # as many as it takes, from start to end
    if "steps" in config.sample and not adaptive:
        steps = min(config.bench.sample_steps, config.sample.steps or config.bench.sample_steps)
        shorter["sample"] |= {"steps": steps}
    experiment = Experiment(FrozenConfigDict(shorter))
    variables, programs = variables_of(state, config.sample.weights), {}
    size = config.sample.batch_size

    def once():
        list(draw(experiment, variables, programs, size))

    seconds = cost.time_calls(once, config.bench.seconds)
    (program,) = programs.values()
    rows = {k: jax.ShapeDtypeStruct((size,), jnp.int32) for k in ("index", "label")}
    one_step = flops(partial(sample_batch, experiment.family, 0), variables, rows)
    found = cost.summary(
        program, seconds, examples=size, parts=steps, flops=one_step
    )
    return {"steps": steps, **found}
