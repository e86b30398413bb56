"""Machines that need not be there: what a topology's name means, and what its chips can do.

`named("v5e-16")` is a plan: so many chips of one kind, wired so. `devices(plan)` are JAX's devices
to compile for: described by libtpu for a TPU and by the CUDA plugin for a GPU, real but virtual for
a CPU. Nothing can run on the described ones.

Cloud names count what Google sells: chips of v5e and v6e, TensorCores of v5p, two to a chip, which
JAX uses as one device (v5p-64 is 32 devices).
"""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import jax
from jax.experimental import topologies

from genzoo.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Chip:
    """What one device offers, by its maker's table.

    memory_bytes: of which a program can have this much; for a TPU it is what its compiler allows,
    which keeps a part for itself. peak_flops: per second, multiplications and additions of dense
    bfloat16 matrices. hbm_bandwidth: bytes per second. network_bandwidth: bytes per second that
    leave the chip over all its links together, to the chips of its slice or of its host.
    """

    name: str
    memory_bytes: int
    peak_flops: float
    hbm_bandwidth: float
    network_bandwidth: float
    source: str


_GIB = 2**30
_TPU_TABLES = "Google Cloud's system architecture pages of the chip; half the two-way ICI bandwidth"
_CARD_SHEETS = "NVIDIA's data sheet (SXM, no sparsity); half the two-way NVLink bandwidth"
_CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(
        name="TPU v5e", memory_bytes=int(15.75 * _GIB), peak_flops=197e12, hbm_bandwidth=819e9,
        network_bandwidth=200e9, source=_TPU_TABLES,
    ),
    "v5p": Chip(
        name="TPU v5p", memory_bytes=int(95.73 * _GIB), peak_flops=459e12, hbm_bandwidth=2765e9,
        network_bandwidth=600e9, source=_TPU_TABLES,
    ),
    "v6e": Chip(
        name="TPU v6e", memory_bytes=int(31.24 * _GIB), peak_flops=918e12, hbm_bandwidth=1640e9,
        network_bandwidth=400e9, source=_TPU_TABLES,
    ),
    "h100": Chip(
        name="NVIDIA H100 SXM", memory_bytes=80 * 10**9, peak_flops=989e12, hbm_bandwidth=3350e9,
        network_bandwidth=450e9, source=_CARD_SHEETS,
    ),
    "h200": Chip(
        name="NVIDIA H200 SXM", memory_bytes=141 * 10**9, peak_flops=989e12, hbm_bandwidth=4800e9,
        network_bandwidth=450e9, source=_CARD_SHEETS,
    ),
}  # fmt: skip

_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {
    8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8", 512: "4x8x8",
    1024: "8x8x8", 2048: "8x8x16", 4096: "8x16x16",
}  # fmt: skip
_SLICES: Mapping[str, Mapping[int, str]] = {"v5e": _FLAT, "v5p": _CUBES, "v6e": _FLAT}
# What XLA asks of a card, in the fields of its GpuTargetConfigProto: of Hopper, compute capability
# 9.0 of the CUDA programming guide, with 132 multiprocessors at 1.98 GHz on both cards.
_HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 l2_cache_size: 52428800
  memory_bandwidth: {chip.hbm_bandwidth:.0f} device_memory_size: {chip.memory_bytes}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
device_description_str: "{chip.name}"
"""
_CARDS = ("h100", "h200")
_MOST = {"cpu": 1024, "cuda": 8}  # devices: against a slip of the finger; cards of one host
_KNOWN = (
    "v5e:4x4, v5e-16, v5p:2x4x4, v5p-64, v6e-16 (also in several slices, 2xv5e-256), h100:8, "
    "h200:4, cpu:8"
)
_NAME = re.compile(r"(?:(\d+)x)?([a-z]\w*)(?:([:-])([\dx]+))?")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Devices of one kind. platform: "tpu", "cuda" or "cpu". layout: of the chips of a slice, such
    as 4x4. count: devices of all slices. chip: None where nothing is known of it (a CPU)."""

    name: str
    platform: str
    kind: str
    layout: str
    count: int
    slices: int = 1
    chip: Chip | None = None


def named(name: str) -> Plan:
    """The plan of a name; UserError with the known ones if it is none."""
    found = _NAME.fullmatch(name)
    slices, kind, mark, size = found.groups() if found else (None, "", "", "")
    plan = None
    if kind in _SLICES:
        plan = _slices(name, int(slices or 1), kind, mark, size)
    elif kind in ("cpu", *_CARDS) and not slices and (size or "1").isdecimal():
        count, platform = int(size or 1), "cpu" if kind == "cpu" else "cuda"
        if 1 <= count <= _MOST[platform]:
            plan = Plan(name=name, platform=platform, kind=kind, layout=str(count), count=count,
                        chip=_CHIPS.get(kind))  # fmt: skip
    if plan is None:
        raise UserError(f"compile.topology = {name!r} is unknown. Known are such as: {_KNOWN}.")
    return plan


def _slices(name: str, slices: int, kind: str, mark: str | None, size: str | None) -> Plan | None:
    """So many slices of a size (v5e-16) or a layout (v5e:4x4); None if there is no such layout."""
    layout = size
    if mark == "-" and size.isdecimal():
        layout = _SLICES[kind].get(int(size))
        if layout is None:
            sizes = ", ".join(f"{kind}-{n}" for n in _SLICES[kind])
            raise UserError(f"compile.topology = {name!r}: slices are {sizes}.")
    axes = len(next(iter(_SLICES[kind].values())).split("x"))
    if not slices or not re.fullmatch("x".join([r"[1-9]\d*"] * axes), layout or ""):
        return None
    count = slices * math.prod(int(side) for side in layout.split("x"))
    return Plan(name=name, platform="tpu", kind=kind, layout=layout, count=count, slices=slices,
                chip=_CHIPS[kind])  # fmt: skip


def prepare(plan: Plan) -> None:
    """Makes JAX run on this machine's CPU, with as many devices as the plan has if it is of CPUs.
    To be called before JAX has looked for devices, in a process that only compiles."""
    jax.config.update("jax_platforms", "cpu")
    if plan.platform == "cpu":
        os.environ["XLA_FLAGS"] = re.sub(
            r"--xla_force_host_platform_device_count=\S*", "", os.environ.get("XLA_FLAGS", "")
        )
        jax.config.update("jax_num_cpu_devices", plan.count)
    elif plan.platform == "tpu" and not _has_tpu():
        # Without these libtpu asks a metadata server that is not there, complains at length, and
        # lets one process at a time in, to guard a chip that is not there either.
        absent = {
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-1",
            "TPU_LOG_DIR": "disabled",
            "TPU_STDERR_LOG_LEVEL": "3",
            "TPU_MIN_LOG_LEVEL": "3",
        }
        for key, value in absent.items():
            os.environ.setdefault(key, value)


def _has_tpu() -> bool:
    devices = Path("/dev")
    return any(devices.glob("accel[0-9]*")) or any(devices.glob("vfio/[0-9]*"))


def devices(plan: Plan) -> tuple[jax.Device, ...]:
    """The devices to compile for; UserError where what describes them is not installed."""
    return {"cpu": _cpu, "tpu": _tpu, "cuda": _cuda}[plan.platform](plan)


def _cpu(plan: Plan) -> tuple[jax.Device, ...]:
    found = jax.devices("cpu")
    if len(found) < plan.count:
        raise UserError(
            f"compile.topology = {plan.name!r}: this process has {len(found)} CPU device(s) "
            "already; compile in a process of its own."
        )
    return tuple(found[: plan.count])


def _tpu(plan: Plan) -> tuple[jax.Device, ...]:
    _require("libtpu", "libtpu", "tpu-compile", plan)
    # One chip is less than a host holds, which has to be said.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if plan.layout in ("1x1", "1x1x1") else {}
    several = {"num_slices": plan.slices} if plan.slices > 1 else {}
    try:
        found = topologies.get_topology_desc(
            f"{plan.kind}:{plan.layout}", platform="tpu", **alone, **several
        )
    except jax.errors.JaxRuntimeError as error:
        said = str(error).split("\n")[0]
        raise UserError(
            f"compile.topology = {plan.name!r} is refused by libtpu: {said}"
        ) from error
    return tuple(found.devices)


def _cuda(plan: Plan) -> tuple[jax.Device, ...]:
    _require("jax_plugins.xla_cuda13", "jax-cuda13-plugin", "gpu-compile", plan)
    found = topologies.get_topology_desc(
        plan.kind,
        platform="cuda",
        target_config=_HOPPER.format(chip=plan.chip),
        topology=f"1x1x{plan.count}",
    )
    return tuple(found.devices)


def _require(module: str, package: str, extra: str, plan: Plan) -> None:
    try:
        there = find_spec(module) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise UserError(
            f"compile.topology = {plan.name!r} needs the package {package}: "
            f"pip install 'genzoo[{extra}]'."
        )
