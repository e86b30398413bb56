"""The machine and the software that a run uses, as plain data for its record."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from genzoo.core.version import VERSION
from genzoo.runtime.topology import chip_of_kind

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def machine() -> dict[str, object]:
    """Devices, processors and versions. "peak_flops": of all devices together, None if unknown."""
    first = jax.devices()[0]
    chip = chip_of_kind(first.device_kind)
    return {
        "device": first.device_kind if first.platform != "cpu" else "CPU",
        "platform": first.platform,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "peak_flops": chip.peak_flops * jax.device_count() if chip else None,
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"genzoo": VERSION, "Python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The name of the processor; "" if the system does not say."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").split("\n"):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
