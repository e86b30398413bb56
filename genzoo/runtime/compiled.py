"""The compiler's report on a program, for devices that need not be present.

Reports are cached on disk, so that an unchanged program is not compiled again. The cache holds
figures in JSON and never the program itself, which could not be loaded without its device.
"""

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

from genzoo.core import strict_json
from genzoo.core.files import write_atomically
from genzoo.runtime.collectives import collectives
from genzoo.runtime.compilation import OutOfMemory, compile_for
from genzoo.runtime.roofline import estimate
from genzoo.runtime.topology import Plan

_log = logging.getLogger("genzoo")
_FORM = 3  # the version of the cached report; a new one invalidates older entries
_MAX_KEPT = 500  # reports in the cache; the least recently used are deleted


def versions(platform: str) -> dict[str, str | None]:
    """Versions of the packages that compile for a platform; None for one that is not installed."""
    extra = {"tpu": ["libtpu"], "cuda": ["jax-cuda13-plugin"]}.get(platform, [])
    installed = {}
    for package in ("jax", "jaxlib", *extra):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return installed


def measured(lowered: jax.stages.Lowered, plan: Plan, level: str, folder: Path) -> dict:
    """The figures of a program per device and call, from `folder` if it was compiled before.

    cached: whether the figures come from `folder`. out_of_memory: whether the compiler ran out of
    memory; the only other figure is then needed, in bytes or None. Otherwise: compile_seconds;
    memory, in bytes by kind; flops and bytes_accessed, which count each loop as one pass and the
    costliest branch of each condition, or None if the compiler does not count them; collectives, by
    kind, with all passes and the cheapest branches; collectives_once, with one pass;
    collectives_at_most, with the costliest branches. These three are None if the text of the
    program is not available.
    """
    # The text names everything the program is compiled for, except the kind of device.
    about = [_FORM, plan.kind, plan.layout, plan.slices, level, versions(plan.platform)]
    text = lowered.as_text()
    stamp = hashlib.sha256(strict_json.dumps(about).encode() + text.encode()).hexdigest()
    path = folder / f"{stamp}.json"
    with contextlib.suppress(OSError, ValueError):
        figures = strict_json.loads(path.read_bytes())
        if isinstance(figures, dict):
            path.touch()
            return {**figures, "cached": True}
    _log.info("Compiling for %s at level %s; this can take minutes.", plan.name, level)
    figures = _compiled(lowered, plan.platform, level)
    with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to fail
        write_atomically(path, strict_json.dumps(figures))
        kept = sorted(folder.glob("*.json"), key=lambda file: -file.stat().st_mtime)
        for old in kept[_MAX_KEPT:]:
            old.unlink(missing_ok=True)
    return {**figures, "cached": False}


def _compiled(lowered: jax.stages.Lowered, platform: str, level: str) -> dict:
    try:
        program = compile_for(platform, lowered, level)
    except OutOfMemory as error:
        return {"out_of_memory": True, "needed": error.needed}
    memory, cost = program.compiled.memory_analysis(), program.compiled.cost_analysis() or {}
    try:
        text = program.compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        # libtpu may write instructions that jaxlib's own XLA cannot parse.
        _log.warning("Communication between the chips is unknown: %s", str(error).splitlines()[0])
        text = None
    return {
        "out_of_memory": False,
        "compile_seconds": round(program.compile_seconds, 1),
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "aliased": memory.alias_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        "flops": cost.get("flops"),
        "bytes_accessed": cost.get("bytes accessed"),
        "collectives": _plain(text),
        "collectives_once": _plain(text, once=True),
        "collectives_at_most": _plain(text, most=True),
    }


def _plain(text: str | None, *, once: bool = False, most: bool = False) -> dict[str, dict] | None:
    if text is None:
        return None
    counted = collectives(text, once=once, most=most)
    return {kind: asdict(collective) for kind, collective in counted.items()}


def shown(figures: dict, plan: Plan, steps: int | None = None) -> dict:
    """The figures of `measured` in the form of a report: the program's memory against the chip's,
    the collectives, and a lower bound on the time.

    steps: training steps per call; collectives and time are then per step. Without it, collectives
    are per call, and the time, like the operations, counts one pass of each loop.
    """
    room = plan.chip.memory_bytes if plan.chip else None
    held = figures["memory"]
    total = held["arguments"] + held["outputs"] + held["temporary"] - held["aliased"]
    # Only a TPU keeps its code in the memory of the arrays.
    total += held["code"] if plan.platform == "tpu" else 0
    share = total / room if room else None
    report = {
        "compile_seconds": figures["compile_seconds"],
        "cached": figures["cached"],
        "bytes_per_chip": {**held, "total": total, "share_of_memory": share},
        "fits": total <= room if room else None,
        "flops_per_chip": figures["flops"],
        "bytes_accessed_per_chip": figures["bytes_accessed"],
        "collectives": _divided(figures["collectives"], steps or 1),
    }
    if figures["collectives_at_most"] != figures["collectives"]:  # some are in a rare branch
        report["collectives_at_most"] = _divided(figures["collectives_at_most"], steps or 1)
    if plan.chip:
        counted = figures["collectives" if steps else "collectives_once"]
        sent = None if counted is None else sum(kind["sent"] for kind in counted.values())
        report["roofline"] = estimate(
            plan.chip,
            flops=figures["flops"],
            bytes_accessed=figures["bytes_accessed"],
            bytes_sent=None if sent is None else sent / (steps or 1),
        )
        if plan.slices > 1:
            report["roofline"]["note"] += (
                "; the slower network between slices is counted as the one within a slice"
            )
    return report


def _divided(counted: Mapping[str, dict] | None, parts: int) -> dict[str, dict] | None:
    if counted is None:
        return None
    return {
        kind: {key: _whole(collective[key] / parts) for key in ("count", "bytes")}
        for kind, collective in counted.items()
    }


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number
