"""`--mode=doctor`: what this machine offers, and its problems. Needs no config."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

import jax

import genzoo
from genzoo.data.doctor import cached
from genzoo.data.fetch import cache_dir, cache_problem
from genzoo.runtime.processes import scheduler

_PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "chex", "ml-collections",
    "tensorflow-datasets", "numpy", "pillow", "tensorboard", "tensorflow", "torch",
)  # fmt: skip


def examine(workdir: Path | None) -> dict:
    """Devices, versions, disk, cache, available data, and whether TensorFlow or PyTorch is loaded;
    neither should be, because it would occupy the accelerator's memory."""
    # Packages that training may import; they must not import TensorFlow.
    for name in ("grain", "tensorflow_datasets"):
        importlib.import_module(name)
    disk = shutil.disk_usage(_existing(workdir or Path.cwd()))
    heavy = [name for name in ("tensorflow", "torch") if name in sys.modules]
    return {
        "genzoo": genzoo.__version__,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "processes": jax.process_count(),
        "scheduler": scheduler(os.environ),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "disk_free_bytes": disk.free,
        "cache": str(cache_dir()),
        "cache_writable": os.access(_existing(cache_dir()), os.W_OK),
        "data_in_package": ["fashion_mini"],
        "data_in_cache": cached(),
        "npm": shutil.which("npm") is not None,
        "tensorflow_or_torch_in_process": heavy,
        "problems": _problems(disk.free, heavy),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def _problems(free: int, heavy: list[str]) -> list[str]:
    problems = []
    if free < 2**30:
        problems.append("Less than 1 GiB of disk is free: checkpoints may not fit.")
    if heavy:
        problems.append(f"{' and '.join(heavy)} was imported and may occupy accelerator memory.")
    if not os.access(_existing(cache_dir()), os.W_OK):
        problems.append(f"The cache folder {cache_dir()} cannot be written: set GENZOO_CACHE.")
    if problem := cache_problem():
        problems.append(problem)
    return problems
