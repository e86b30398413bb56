"""`--mode=compile`: compiles a config's programs for devices that need not be there.

The very training step and sampler that would run there, from shapes alone, for a TPU slice, for
GPUs or for virtual CPU devices: what they hold, compute and say to each other per chip, and whether
they fit; if not, what would make them. What was found is kept, so that an unchanged program is not
compiled again.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.check import check
from genzoo.config import freeze
from genzoo.core import tree
from genzoo.core.contract import Fits, Variables, capabilities
from genzoo.core.errors import UserError
from genzoo.core.types import Batch
from genzoo.data.fetch import cache_dir
from genzoo.experiment import Experiment, variables_of
from genzoo.modes.sample import sample_batch
from genzoo.requests import Requests
from genzoo.runtime import topology
from genzoo.runtime.compilation import flops
from genzoo.runtime.compiled import measured, shown, versions
from genzoo.runtime.topology import Plan

_log = logging.getLogger("genzoo")
_PROGRAMS = ("train", "sample")
# Training examples of the sets that are held on the devices, by their publishers.
_EXAMPLES = {
    "cifar10": 50_000, "mnist": 60_000, "fashion_mnist": 60_000,
}  # fmt: skip


def prepare(raw: Mapping) -> int:
    """Makes this process one that only compiles, for the topology that a config (unchecked) names.
    Returns how many devices that is; UserError if there is no such topology. To be called before
    JAX has looked for devices."""
    settings = raw.get("compile", {})
    settings = settings if isinstance(settings, Mapping) else {}
    name = settings.get("topology", "")
    if not name:
        raise UserError(
            "--mode=compile needs --config.compile.topology=NAME, such as v5e:4x4, v5p-64, h200:4 "
            "or cpu:8."
        )
    plan = topology.named(str(name))
    topology.prepare(plan)
    # What is kept of such programs could not be read back: the TPU's compiler has no client here.
    jax.config.update("jax_enable_compilation_cache", False)
    return plan.count


def compile_ahead(config: FrozenConfigDict, plan: Plan | None = None) -> dict:
    """What the programs of a config cost on the topology that it names, or on a plan's."""
    settings = config.compile
    plan = plan or topology.named(settings.topology)
    wanted = _PROGRAMS if settings.program == "all" else (settings.program,)
    devices = topology.devices(plan)
    reports = {}
    for name in wanted:
        report = _report(name, Experiment(config, devices=devices), plan)
        if report.get("fits") is False and settings.suggest and name == "train":
            report["suggestion"] = _suggestion(config, plan, devices)
        reports[name] = report
    return {
        "topology": {"name": plan.name, "platform": plan.platform, "layout": plan.layout,
                     "devices": plan.count, "slices": plan.slices},
        "chip": asdict(plan.chip) if plan.chip else None,
        "level": settings.level,
        "versions": versions(plan.platform),
        "programs": reports,
    }  # fmt: skip


def _report(name: str, experiment: Experiment, plan: Plan) -> dict:
    """What one program costs; with the reason where the family has no such program."""
    family, config = experiment.family, experiment.config
    if name == "train" and isinstance(family, Fits):
        return {"skipped": f"{config.family.name} is fitted in closed form, in no steps"}
    if name == "sample" and "sample" not in capabilities(family):
        return {"skipped": f"{config.family.name} cannot sample"}
    lowered, about = {"train": _training, "sample": _sampler}[name](experiment)
    found = measured(lowered, plan, config.compile.level, cache_dir() / "compiled")
    if found["out_of_memory"]:
        return {**about, "cached": found["cached"], "fits": False,
                "bytes_per_chip": {"total": found["needed"]}}  # fmt: skip
    if name == "train" or found["flops"] is None:
        whole = _operations(config, name) / plan.count
        if about.get("steps_per_call", 1) * about.get("accumulate", 1) > 1:
            # A loop counts as one pass in both, so what is missing of one is missing of the other.
            if found["flops"]:
                found["bytes_accessed"] *= whole / found["flops"]
            found["flops"] = whole
        # The compiler may make loops of its own, such as to gather params while it uses them.
        found["flops"] = max(found["flops"] or 0.0, whole)
    return {**about, **shown(found, plan, about.get("steps_per_call"))}


# --- the programs ---------------------------------------------------------------------------------


def _training(experiment: Experiment) -> tuple[jax.stages.Lowered, dict]:
    config, placement = experiment.config, experiment.placement
    state = experiment.abstract_state
    data, inputs, held = _inputs(experiment)
    lowered = experiment.training(state, data, inputs)
    whole = placement.unsplit(state.params)
    size, passes = config.train.batch_size, config.train.steps_per_call
    return lowered, {
        "batch_size": size,
        "steps_per_call": passes,
        "accumulate": config.train.accumulate,
        "mesh": dict(placement.mesh.shape),
        "examples_on_every_device": held,
        "state_bytes": tree.size_in_bytes(state),
        "state_bytes_per_chip": _held(state),
        "whole_on_every_device": {"arrays": len(whole), "bytes": sum(whole.values())},
        "counts_per": "step",
    }


def _operations(config: FrozenConfigDict, name: str) -> float:
    """Of a step, or of a pass of the sampler's loop, on all devices together; as it would be
    counted on one device. Without the loops over steps and parts, since a loop counts as one pass.
    """
    one = freeze(config.to_dict() | {"mesh": {**config.mesh, "data": -1, "fsdp": 1}})
    alone = Experiment(one, devices=(jax.devices("cpu")[0],))
    if name == "train":
        batch = alone.stored(config.train.batch_size)
        return flops(alone.updater(1).update, alone.abstract_state, batch)
    return flops(*_sampling(alone))


def _held(state) -> int:
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(state)
    )


def _inputs(experiment: Experiment) -> tuple[Batch, Batch, int]:
    """(what is held on the devices, the inputs of a call, how many examples are held)."""
    config, placement = experiment.config, experiment.placement
    size, passes = config.train.batch_size, config.train.steps_per_call
    count = _examples(experiment)
    if not count:
        return {}, experiment.stored(passes, size, sharding=placement.batch(1)), 0
    rows = jax.ShapeDtypeStruct((passes, size), jnp.int32, sharding=placement.batch(1))
    data = jax.eval_shape(experiment.flat, experiment.stored(count))
    held = jax.tree.map(partial(_placed, placement.replicated), data)
    return held, {"rows": rows}, count


def _examples(experiment: Experiment) -> int:
    """Examples of the training set, where it is held on the devices; 0 where batches come from the
    host, as is taken for folders and TFDS sets of unknown size."""
    name = experiment.config.data.name
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    return len(experiment.open("train")) if name in build.DATA else 0  # in the package, or made up


def _placed(sharding, shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _sampling(experiment: Experiment) -> tuple[Callable, Variables, Batch]:
    """The sampler of one batch, and the shapes of what it takes."""
    config, placement = experiment.config, experiment.placement
    wanted = min(config.sample.batch_size, config.sample.count)
    size = -(-wanted // placement.devices) * placement.devices
    variables = variables_of(experiment.abstract_state, config.sample.weights)
    requests = Requests(experiment=experiment, family=experiment.family)
    rows = requests.example(size, placement.batch())
    return partial(sample_batch, requests), variables, rows


def _sampler(experiment: Experiment) -> tuple[jax.stages.Lowered, dict]:
    placement = experiment.placement
    function, variables, rows = _sampling(experiment)
    return experiment.lowered(function, variables, rows), {
        "batch_size": rows["index"].shape[0],
        "mesh": dict(placement.mesh.shape),
        "counts_per": "one pass of each loop; the collectives with all passes",
    }


# --- what would make it fit -----------------------------------------------------------------------


def _suggestion(config: FrozenConfigDict, plan: Plan, devices: tuple) -> dict | str:
    """The first of the usual remedies, each on top of those before, with which training fits."""
    changes: dict[str, object] = {}
    for key, value in _remedies(config, plan):
        raw = config.to_dict()
        for name, chosen in {**changes, key: value}.items():
            part, leaf = name.split(".")
            raw[part] = {**raw[part], leaf: chosen}
        try:
            tried = check(raw, plan.count)
        except UserError:  # such as parts of a batch that the family must see whole
            continue
        changes[key] = value
        said = ", ".join(f"{k} = {v!r}" for k, v in changes.items())
        _log.info("It does not fit on %s; trying %s.", plan.name, said)
        report = _report("train", Experiment(tried, devices=devices), plan)
        if report["fits"]:
            return {**changes, "total_bytes_per_chip": report["bytes_per_chip"]["total"]}
    return "nothing tried fits" + (f" (the last: {said})" if changes else "")


def _remedies(config: FrozenConfigDict, plan: Plan) -> Iterator[tuple[str, object]]:
    share = plan.count & -plan.count  # the largest power of two that divides it
    if share > config.mesh.fsdp:
        if config.mesh.data != -1:  # not tried alone: fsdp follows
            yield "mesh.data", -1
        yield "mesh.fsdp", share
    if config.network.get("remat", "full") != "full":
        yield "network.remat", "full"
    parts = 2 * config.train.accumulate
    while config.train.batch_size % (parts * plan.count) == 0:
        yield "train.accumulate", parts
        parts *= 2
