"""The memory that a config needs, from its settings alone, before anything is built or traced.

    state   (params, moments of the optimizer, averages) + statistics + frozen models          (1)
    batch   rows (bytes of an example + bytes of the largest array that it becomes)            (2)

Both are lower bounds: what a program needs besides depends on the compiler. Sizes that no machine
could hold are refused by every check, those that are too large for this machine only by the modes
that allocate here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from ml_collections import FrozenConfigDict

from genzoo import build
from genzoo.builders import datasets
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.runtime import memory
from genzoo.train.optimizer import METHODS

_MOST = 2**50  # bytes: 1 PiB, far more than any device has
_BATCHES = {"train": "train", "bench": "train", "eval": "eval", "sample": "sample",
            "rerank": "sample"}  # fmt: skip
"""Mode -> the section whose batch it holds."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What every device holds of something. what: for messages. remedy: how to need less, as an
    imperative."""

    what: str
    bytes: int
    remedy: str


def problems(config: FrozenConfigDict, devices: int) -> list[str]:
    """A sentence if no machine could hold the model or its batches. devices: their number."""
    for section in ("train", "sample", "eval"):
        needs = of(config, section, devices)
        if (total := sum(need.bytes for need in needs)) > _MOST:
            return [
                f"The model and its batches would need {memory.shown(total)} of memory on every "
                f"device, more than any has: {_remedy(needs)}."
            ]
    return []


def require(config: FrozenConfigDict, mode: str) -> None:
    """Raises UserError if the devices of this machine cannot hold what a mode needs."""
    needs = of(config, _BATCHES.get(mode, ""), jax.device_count())
    (room, place), total = memory.per_device(), sum(need.bytes for need in needs)
    if total > room:
        each = " and ".join(f"{memory.shown(need.bytes)} for {need.what}" for need in needs)
        raise UserError(
            f"--mode={mode} needs at least {memory.shown(total)} of memory ({each}), but {place} "
            f"has {memory.shown(room)}: {_remedy(needs)}."
        )


def _remedy(needs: Sequence[Need]) -> str:
    return max(needs, key=lambda need: need.bytes).remedy


def of(config: FrozenConfigDict, section: str, devices: int) -> list[Need]:
    """The needs on every device: the model, and a batch of the section, if it is not "". Empty for
    a model that cannot be built yet, because others that it needs are unknown."""
    if not all(stage.config for stage in config.frozen.values()):
        return []
    try:
        size = build.size(config)
        frozen = sum(_variables(build.size(stage.config)) for stage in config.frozen.values())
    except UserError:  # reported where the model is built
        return []
    trained = not build.FAMILIES[config.family.name].fitted
    moments = METHODS[config.optimizer.method].moments if trained else 0
    copies = 1 + moments + len(config.train.averages) + (section == "train")  # and the gradient
    state = 4 * (copies * size.params + size.stats) + frozen
    remedy = "use a smaller network, or split it over devices (mesh.fsdp)"
    needs = [Need(what="the model", bytes=state // config.mesh.fsdp, remedy=remedy)]
    return [*needs, _batch(config, section, devices, size)] if section else needs


def _batch(config: FrozenConfigDict, section: str, devices: int, size: Size) -> Need:
    rows, indices, parts = config[section].batch_size, 0, ""
    key = f"{section}.batch_size = {rows}"
    if section == "train":
        indices = 4 * rows * config.train.steps_per_call
        rows, parts = rows // config.train.accumulate, ", more parts (train.accumulate)"
    if section == "sample":
        rows = min(rows, config.sample.count)
    x = datasets.spec(build.section(config, "data")).fields["x"].example(1)
    each = math.prod(x.shape) * x.dtype.itemsize + size.layer
    return Need(
        what=f"a batch of {key}",
        bytes=(rows * each + indices) // devices,
        remedy=f"use a smaller {section}.batch_size{parts}, smaller data or a smaller network",
    )


def _variables(size: Size) -> int:
    return 4 * (size.params + size.stats)
