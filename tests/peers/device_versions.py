"""Versions, the card, and whether all that device.sh needs can be imported.

    python tests/peers/device_versions.py [--imports]

--imports: only tries the imports, and fails where one does not work (device_wheels.sh does that).
"""

import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys

from device_report import ROOT, Report

# What the parts import beside genzoo itself, whose own imports are tried file by file. The modules
# that prepare TFDS sets need TensorFlow and are not used here.
NEEDED = ("beartype", "grain", "jaxtyping", "pytest", "scipy")
OF_TORCH = ("torch", "diffusers")
NOT_USED = ("genzoo.data.prepare_tfds",)
VERSIONS = (
    "jax", "jaxlib", "jax-cuda13-plugin", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
    "ml_collections", "torch", "triton", "diffusers", "transformers", "nvidia-cudnn-cu13",
)  # fmt: skip


def modules() -> list[str]:
    """All of genzoo's, by their full names."""
    files = sorted((ROOT / "genzoo").rglob("*.py"))
    names = (".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files)
    return [n.removesuffix(".__init__") for n in names if n not in NOT_USED]


def imports() -> dict[str, str]:
    """What cannot be imported, with the reason; of torch's side only where torch is installed."""
    problems = {}
    of_torch = OF_TORCH if importlib.util.find_spec("torch") else ("diffusers",)
    for name in (*modules(), *NEEDED, *of_torch):
        try:
            importlib.import_module(name)
            if name == "diffusers" and "torch" in of_torch:
                from diffusers import UNet2DModel  # noqa: F401  (its package imports it lazily)
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {error}"
    return problems


def versions() -> dict[str, str]:
    """Of what is installed."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def card() -> dict:
    """The devices that JAX sees, and what the driver says of them."""
    import jax

    found = {
        "platform": jax.default_backend(),
        "devices": [d.device_kind for d in jax.devices()],
        "cores": len(os.sched_getaffinity(0)),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "memory_bytes": (jax.devices()[0].memory_stats() or {}).get("bytes_limit"),
    }
    try:
        query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv"], capture_output=True, text=True, timeout=20
        )
        found["nvidia-smi"] = done.stdout.splitlines()
    except FileNotFoundError:
        found["nvidia-smi"] = "not installed"
    return found


def main() -> int:
    """The part `versions`."""
    if "--imports" in sys.argv:
        problems = imports()
        for name, reason in problems.items():
            print(f"{name} cannot be imported: {reason}", file=sys.stderr)
        return len(problems) > 0
    report = Report("versions")
    report.start()
    report.put("versions", value=versions())
    report.put("card", value=card())
    problems = imports()
    report.put("cannot be imported", value=problems)
    return any(name.split(".")[0] == "genzoo" for name in problems)


if __name__ == "__main__":
    sys.exit(main())
