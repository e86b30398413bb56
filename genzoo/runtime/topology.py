"""Machines that need not be present: topologies by name, and the limits of their chips.

`named("v5e-16")` returns a plan: the kind, number and layout of chips. `devices(plan)` returns JAX
devices to compile for: descriptions by libtpu for a TPU or by the CUDA plugin for a GPU, virtual
devices for a CPU. Nothing can run on a description.

Names follow Google Cloud, which counts chips for v5e and v6e but TensorCores for v5p. A v5p chip
has two TensorCores, which JAX uses as one device (v5p-64 is 32 devices).
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
    """The limits of one device, from its maker's tables.

    memory_bytes: available to a program; for a TPU, the compiler's limit, which reserves a part.
    peak_flops: multiplications and additions per second with dense bfloat16 matrices.
    hbm_bandwidth: bytes per second. network_bandwidth: bytes per second that leave the chip over
    all its links together, to the other chips of its slice or host.
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
# A GPU's properties in the fields of XLA's GpuTargetConfigProto: Hopper, compute capability 9.0 of
# the CUDA programming guide, with 132 multiprocessors at 1.98 GHz on both GPUs.
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
_MAX_COUNT = {"cpu": 1024, "cuda": 8, "tpu": 2**17}  # against typos; GPUs of one host
_LONGEST = 40  # characters of a name
_KNOWN = (
    "v5e:4x4, v5e-16, v5p:2x4x4, v5p-64, v6e-16 (or several slices, 2xv5e-256), h100:8, "
    "h200:4, cpu:8"
)
_NAME = re.compile(r"(?:(\d+)x)?([a-z]\w*)(?:([:-])([\dx]+))?")


_KINDS: Mapping[str, str] = {
    "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5p": "v5p", "TPU v5": "v5p", "TPU v6 lite": "v6e",
    "TPU v6e": "v6e", "NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200",
}  # fmt: skip


def chip_of_kind(device_kind: str) -> Chip | None:
    """The limits of a device by JAX's name for its kind; None if they are unknown."""
    return _CHIPS.get(_KINDS.get(device_kind, ""))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Devices of one kind. platform: "tpu", "cuda" or "cpu". layout: the layout of the chips in a
    slice, such as 4x4. count: devices in all slices. chip: None if its limits are unknown (CPU)."""

    name: str
    platform: str
    kind: str
    layout: str
    count: int
    slices: int = 1
    chip: Chip | None = None


def named(name: str) -> Plan:
    """The plan of a name. Raises a UserError with examples if the name is unknown."""
    match = _NAME.fullmatch(name) if len(name) <= _LONGEST else None
    slices, kind, mark, size = match.groups() if match else (None, "", "", "")
    plan = None
    if kind in _SLICES:
        plan = _slices(name, int(slices or 1), kind, mark, size)
    elif kind in ("cpu", *_CARDS) and not slices and (size or "1").isdecimal():
        count, platform = int(size or 1), "cpu" if kind == "cpu" else "cuda"
        if 1 <= count <= _MAX_COUNT[platform]:
            plan = Plan(name=name, platform=platform, kind=kind, layout=str(count), count=count,
                        chip=_CHIPS.get(kind))  # fmt: skip
    if plan is None:
        raise UserError(f"compile.topology = {name!r} is unknown. Examples of names: {_KNOWN}.")
    return plan


def _slices(name: str, slices: int, kind: str, mark: str | None, size: str | None) -> Plan | None:
    """A plan of slices by size (v5e-16) or layout (v5e:4x4); None if there is no such layout."""
    layout = size
    if mark == "-" and size.isdecimal():
        layout = _SLICES[kind].get(int(size))
        if layout is None:
            sizes = ", ".join(f"{kind}-{n}" for n in _SLICES[kind])
            raise UserError(f"compile.topology = {name!r}: the slices available are {sizes}.")
    axes = len(next(iter(_SLICES[kind].values())).split("x"))
    if not slices or not re.fullmatch("x".join([r"[1-9]\d*"] * axes), layout or ""):
        return None
    count = slices * math.prod(int(side) for side in layout.split("x"))
    if count > _MAX_COUNT["tpu"]:
        return None
    return Plan(name=name, platform="tpu", kind=kind, layout=layout, count=count, slices=slices,
                chip=_CHIPS[kind])  # fmt: skip


def prepare(plan: Plan) -> None:
    """Makes JAX run on this machine's CPU, with as many virtual devices as a CPU plan has. Call it
    before JAX has looked for devices, in a process that only compiles."""
    jax.config.update("jax_platforms", "cpu")
    if plan.platform == "cpu":
        os.environ["XLA_FLAGS"] = re.sub(
            r"--xla_force_host_platform_device_count=\S*", "", os.environ.get("XLA_FLAGS", "")
        )
        jax.config.update("jax_num_cpu_devices", plan.count)
    elif plan.platform == "tpu" and not _has_tpu():
        # Without these, libtpu queries a metadata server that does not exist, logs at length, and
        # admits one process at a time to guard a chip that does not exist either.
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
    """The devices to compile for. Raises a UserError if the package that describes them is not
    installed."""
    return {"cpu": _cpu, "tpu": _tpu, "cuda": _cuda}[plan.platform](plan)


def _cpu(plan: Plan) -> tuple[jax.Device, ...]:
    available = jax.devices("cpu")
    if len(available) < plan.count:
        raise UserError(
            f"compile.topology = {plan.name!r}: this process has {len(available)} CPU device(s) "
            "already; compile in a separate process."
        )
    return tuple(available[: plan.count])


def _tpu(plan: Plan) -> tuple[jax.Device, ...]:
    _require("libtpu", "libtpu", "tpu-compile", plan)
    # One chip is less than a whole host, which libtpu assumes otherwise.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if plan.layout in ("1x1", "1x1x1") else {}
    several = {"num_slices": plan.slices} if plan.slices > 1 else {}
    try:
        description = topologies.get_topology_desc(
            f"{plan.kind}:{plan.layout}", platform="tpu", **alone, **several
        )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"libtpu refuses compile.topology = {plan.name!r}: {reason}") from error
    return tuple(description.devices)


def _cuda(plan: Plan) -> tuple[jax.Device, ...]:
    _require("jax_plugins.xla_cuda13", "jax-cuda13-plugin", "gpu-compile", plan)
    description = topologies.get_topology_desc(
        plan.kind,
        platform="cuda",
        target_config=_HOPPER.format(chip=plan.chip),
        topology=f"1x1x{plan.count}",
    )
    return tuple(description.devices)


def _require(module: str, package: str, extra: str, plan: Plan) -> None:
    try:
        installed = find_spec(module) is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise UserError(
            f"compile.topology = {plan.name!r} needs the package {package}: "
            f"pip install 'genzoo[{extra}]'."
        )
