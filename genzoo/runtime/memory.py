"""The memory that the programs of this machine can use."""

import os
from pathlib import Path

import jax

_GROUPS = ("memory.max", "memory/memory.limit_in_bytes")  # of Linux, versions 2 and 1
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def of_machine(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The main memory in bytes, or the part of it that this container may use. groups: the folder
    with the limits of containers."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _GROUPS:
        try:
            most = min(most, int((groups / name).read_text()))
        except (OSError, ValueError):  # no container, or one without a limit ("max")
            continue
    return most


def per_device() -> tuple[int, str]:
    """(the bytes that each of our devices can hold, what holds them, for messages)."""
    devices = jax.local_devices()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if devices[0].platform != "cpu" and limit:
        return int(limit), f"each {devices[0].device_kind} of this machine"
    if len(devices) == 1:
        return of_machine(), "this machine"
    return of_machine() // len(devices), f"each of the {len(devices)} devices of this machine"


def shown(count: float) -> str:
    """A number of bytes for people: three digits and a binary unit."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.3g} {unit}"
