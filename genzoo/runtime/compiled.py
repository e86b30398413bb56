"""What the compiler says of a program for devices that need not be there, kept on the disk so that
an unchanged program is not compiled again: figures in JSON, never the program itself, which a
compiler without a device could not read back.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

from genzoo.core.files import write_atomically
from genzoo.runtime.collectives import collectives
from genzoo.runtime.compilation import OutOfMemory, compile_for
from genzoo.runtime.roofline import estimate
from genzoo.runtime.topology import Plan

_log = logging.getLogger("genzoo")
_FORM = 3  # of what is kept: another one makes what was kept before useless
_MOST_KEPT = 500


def versions(platform: str) -> dict[str, str | None]:
    """Of what compiles for a platform; None for what is not installed under its own name."""
    extra = {"tpu": ["libtpu"], "cuda": ["jax-cuda13-plugin"]}.get(platform, [])
    found = {}
    for package in ("jax", "jaxlib", *extra):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def measured(lowered: jax.stages.Lowered, plan: Plan, level: str, folder: Path) -> dict:
    """The figures of a program per device and call, from `folder` if it was compiled before.

    cached: whether it was. out_of_memory: whether the compiler gave it up; then only needed, bytes
    or None. Else compile_seconds; memory, in bytes by kind; flops and bytes_accessed, None where it
    does not count them, with each loop as one pass and the costliest branch of each condition;
    collectives, by kind, with all passes and the cheapest branches; collectives_once, with one
    pass; collectives_at_most, with the costliest branches; these None where the text of the program
    cannot be had.
    """
    # What it is compiled for stands in the text, but for the kind of the devices.
    about = [_FORM, plan.kind, plan.layout, plan.slices, level, versions(plan.platform)]
    text = lowered.as_text()
    stamp = hashlib.sha256(json.dumps(about).encode() + text.encode()).hexdigest()
    path = folder / f"{stamp}.json"
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        path.touch()
        return {**found, "cached": True}
    _log.info("Compiling for %s at level %s; this takes up to minutes.", plan.name, level)
    found = _compiled(lowered, plan.platform, level)
    with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to fail
        write_atomically(path, json.dumps(found))
        kept = sorted(folder.glob("*.json"), key=lambda file: -file.stat().st_mtime)
        for old in kept[_MOST_KEPT:]:
            old.unlink(missing_ok=True)
    return {**found, "cached": False}


def _compiled(lowered: jax.stages.Lowered, platform: str, level: str) -> dict:
    try:
        program = compile_for(platform, lowered, level)
    except OutOfMemory as error:
        return {"out_of_memory": True, "needed": error.needed}
    memory, cost = program.compiled.memory_analysis(), program.compiled.cost_analysis() or {}
    try:
        text = program.compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        # libtpu may write instructions that the reader of another XLA, jaxlib's, does not take.
        _log.warning("What the chips say is not known: %s", str(error).splitlines()[0])
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
    return {kind: asdict(what) for kind, what in collectives(text, once=once, most=most).items()}


def shown(figures: dict, plan: Plan, steps: int | None = None) -> dict:
    """The figures of `measured` as a report has them: the memory of the program against the chip's,
    the collectives, and the least time that the chip takes for its work.

    steps: of training in a call; then collectives and time are those of one step. Else collectives
    are those of a call, and the time that of one pass of each loop, as the operations are.
    """
    room = plan.chip.memory_bytes if plan.chip else None
    held = figures["memory"]
    total = held["arguments"] + held["outputs"] + held["temporary"] - held["aliased"]
    total += held["code"] if plan.platform == "tpu" else 0  # elsewhere it is not beside the arrays
    share = total / room if room else None
    found = {
        "compile_seconds": figures["compile_seconds"],
        "cached": figures["cached"],
        "bytes_per_chip": {**held, "total": total, "share_of_memory": share},
        "fits": total <= room if room else None,
        "flops_per_chip": figures["flops"],
        "bytes_accessed_per_chip": figures["bytes_accessed"],
        "collectives": _divided(figures["collectives"], steps or 1),
    }
    if figures["collectives_at_most"] != figures["collectives"]:  # in a branch that is rare
        found["collectives_at_most"] = _divided(figures["collectives_at_most"], steps or 1)
    if plan.chip:
        said = figures["collectives" if steps else "collectives_once"]
        sent = None if said is None else sum(what["sent"] for what in said.values())
        found["roofline"] = estimate(
            plan.chip,
            flops=figures["flops"],
            bytes_accessed=figures["bytes_accessed"],
            bytes_sent=None if sent is None else sent / (steps or 1),
        )
        if plan.slices > 1:
            found["roofline"]["note"] += "; the slower network between slices counts as that within"
    return found


def _divided(said: Mapping[str, dict] | None, parts: int) -> dict[str, dict] | None:
    if said is None:
        return None
    return {
        kind: {key: _whole(what[key] / parts) for key in ("count", "bytes")}
        for kind, what in said.items()
    }


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number
