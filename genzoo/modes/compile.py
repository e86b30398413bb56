"""`--mode=compile`: compiles a config's programs for devices that need not be present.

It compiles the same training step and sampler that would run on a TPU slice, on GPUs or on virtual
CPU devices, from shapes alone. It reports memory, operations and communication per chip and whether
the program fits; if not, it searches for settings that make it fit. Reports are cached, so that an
unchanged program is not compiled again.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from genzoo.builders import datasets
from genzoo.check import check
from genzoo.config import freeze
from genzoo.core import tree
from genzoo.core.contract import Fits, Variables, capabilities
from genzoo.core.errors import UserError
from genzoo.core.types import Batch
from genzoo.data.batches import fits_in_memory
from genzoo.data.fetch import cache_dir
from genzoo.experiment import Experiment, variables_of
from genzoo.modes.sample import sample_batch
from genzoo.requests import Requests
from genzoo.runtime import topology
from genzoo.runtime.compilation import flops
from genzoo.runtime.compiled import measured, shown, versions
from genzoo.runtime.topology import Plan
from genzoo.train.state import TrainState

_log = logging.getLogger("genzoo")
_PROGRAMS = ("train", "sample")
# Published numbers of training examples, for the data sets that are held on the devices.
_EXAMPLES = {
    "cifar10": 50_000, "mnist": 60_000, "fashion_mnist": 60_000, "emoji": 1_826,
}  # fmt: skip


def prepare(raw: Mapping) -> int:
    """Prepares this process to compile only, for the topology of a config that is still unchecked.

    Returns the number of devices. Raises UserError if the topology is missing or unknown. Must be
    called before JAX has looked for devices.
    """
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
    # Cached programs could not be read back: there is no client for the TPU's compiler here.
    jax.config.update("jax_enable_compilation_cache", False)
    return plan.count


def compile_ahead(config: FrozenConfigDict, plan: Plan | None = None) -> dict:
    """The cost of a config's programs on the topology that it names, or on that of `plan`."""
    settings = config.compile
    plan = plan or topology.named(settings.topology)
    names = _PROGRAMS if settings.program == "all" else (settings.program,)
    devices = topology.devices(plan)
    reports = {}
    for name in names:
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
    """The cost of one program, or the reason why the family has no such program."""
    family, config = experiment.family, experiment.config
    if name == "train" and isinstance(family, Fits):
        return {"skipped": f"{config.family.name} is fitted in closed form, without steps"}
    if name == "sample" and "sample" not in capabilities(family):
        return {"skipped": f"{config.family.name} cannot sample"}
    lowered, about = {"train": _training, "sample": _sampler}[name](experiment)
    figures = measured(lowered, plan, config.compile.level, cache_dir() / "compiled")
    if figures["out_of_memory"]:
        return {**about, "cached": figures["cached"], "fits": False,
                "bytes_per_chip": {"total": figures["needed"]}}  # fmt: skip
    if name == "train" or figures["flops"] is None:
        whole = _operations(config, name) / plan.count
        if about.get("steps_per_call", 1) * about.get("accumulate", 1) > 1:
            # Operations and bytes both count a loop as one pass, so the same factor corrects both.
            if figures["flops"]:
                figures["bytes_accessed"] *= whole / figures["flops"]
            figures["flops"] = whole
        # The compiler may add loops of its own, for example to gather params while using them.
        figures["flops"] = max(figures["flops"] or 0.0, whole)
    return {**about, **shown(figures, plan, about.get("steps_per_call"))}


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
        "state_bytes_per_chip": _bytes_per_chip(state),
        "whole_on_every_device": {"arrays": len(whole), "bytes": sum(whole.values())},
        "counts_per": "step",
    }


def _operations(config: FrozenConfigDict, name: str) -> float:
    """Operations of a training step, or of one pass of the sampler's loop, on all devices together,
    as counted for one device. Leaves out the loops over steps and parts of a batch, because a loop
    counts as one pass."""
    one = freeze(config.to_dict() | {"mesh": {**config.mesh, "data": -1, "fsdp": 1}})
    alone = Experiment(one, devices=(jax.devices("cpu")[0],))
    if name == "train":
        batch = alone.stored(config.train.batch_size)
        return flops(alone.updater(1).update, alone.abstract_state, batch)
    return flops(*_sampling(alone))


def _bytes_per_chip(state: TrainState) -> int:
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(state)
    )


def _inputs(experiment: Experiment) -> tuple[Batch, Batch, int]:
    """(the data held on the devices, the inputs of a call, the number of examples held)."""
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
    """The size of the training set if it is held on the devices; 0 if batches come from the host,
    as those of scenes that are drawn when they are read. The latter is assumed for folders and TFDS
    sets, whose size is unknown."""
    name = experiment.config.data.name
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    if name not in datasets.DATA:
        return 0
    source = experiment.open("train")  # it is in the package or synthetic
    return len(source) if fits_in_memory(source) else 0


def _placed(sharding, shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _sampling(experiment: Experiment) -> tuple[Callable, Variables, Batch]:
    """The sampler of one batch, and the shapes of its arguments."""
    config, placement = experiment.config, experiment.placement
    batch = min(config.sample.batch_size, config.sample.count)
    size = -(-batch // placement.devices) * placement.devices
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
        "counts_per": "one pass of each loop; all passes for the collectives",
    }


# --- suggestions ----------------------------------------------------------------------------------


def _suggestion(config: FrozenConfigDict, plan: Plan, devices: tuple) -> dict | str:
    """The first changes with which training fits: the usual remedies, added one after the other."""
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
        settings = ", ".join(f"{k} = {v!r}" for k, v in changes.items())
        _log.info("It does not fit on %s; trying %s.", plan.name, settings)
        report = _report("train", Experiment(tried, devices=devices), plan)
        if report["fits"]:
            return {**changes, "total_bytes_per_chip": report["bytes_per_chip"]["total"]}
    return "nothing tried fits" + (f" (the last: {settings})" if changes else "")


def _remedies(config: FrozenConfigDict, plan: Plan) -> Iterator[tuple[str, object]]:
    share = plan.count & -plan.count  # the largest power of two that divides it
    if share > config.mesh.fsdp:
        if config.mesh.data != -1:  # changes nothing alone, but fsdp needs it
            yield "mesh.data", -1
        yield "mesh.fsdp", share
    if config.network.get("remat", "full") != "full":
        yield "network.remat", "full"
    parts = 2 * config.train.accumulate
    while config.train.batch_size % (parts * plan.count) == 0:
        yield "train.accumulate", parts
        parts *= 2
