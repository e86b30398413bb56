"""What all tests share: how programs are compiled and kept, the order of the files, and a way to
run the program in a process of its own."""

import ctypes
import gc
import hashlib
import mmap
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jaxlib
import pytest

ROOT = Path(__file__).parent.parent

# Most of the suite's time goes to the compiler, for tiny programs that run once or twice: without
# LLVM's optimisations, by the older emitters and in one piece they take it a third of the time.
# Tests of bits run in processes of their own with the compiler's own settings, as a user's programs
# do. With those for everything: `XLA_FLAGS= python -m pytest`.
HASTE = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# Those take longest, so they go first: the two workers then end at about the same time.
LONGEST = (
    "test_smoke.py", "test_processes.py", "test_modes.py", "test_sharding.py", "test_resume.py",
    "test_config.py", "test_device_script.py", "test_unet.py", "test_compile.py", "test_ddpm.py",
    "test_vae.py",
)  # fmt: skip
_MOST_KEPT = 4 << 30  # bytes of compiled programs on the disk
_MOST = 3 << 30  # bytes of this process at which compiled programs are let go


def _known(flags: tuple[str, ...]) -> list[str]:
    """Those that this jaxlib knows; it ends the process at any other. A flag that was removed may
    live on as the name of a field in its library, so the name must be a string of its own."""
    names = {flag: b"\0" + flag[2:].partition("=")[0].encode() + b"\0" for flag in flags}
    found = set()
    for library in Path(jaxlib.__file__).parent.glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            found |= {flag for flag in flags if m.find(names[flag]) >= 0}
    return [flag for flag in flags if flag in found]


def _kept_programs() -> Path:
    """Where compiled programs are kept from run to run: one folder for each set of versions and
    each kind of processor, since machine code of another would not run."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n") if info.exists() else []
    processor = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    told = (version("jax"), version("jaxlib"), platform.machine(), *sorted(set(processor)))
    name = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    return ROOT / ".pytest_cache" / "programs" / name


# Before NumPy and JAX are imported. The workers have it from the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Threads of NumPy's linear algebra that find every core busy wait for each other, without rest:
    # an eigendecomposition that takes 0.05 s took 7.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("XLA_FLAGS", " ".join(_known(HASTE)))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # not to look for a TPU where libtpu is
    # Programs that several tests, processes or runs of the suite want are compiled once, and never
    # kept in the cache of the user, to which `main` would go.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_kept_programs()))
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(_MOST_KEPT)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax  # noqa: E402
from budget import (  # noqa: E402, F401
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_terminal_summary,
)
from shapes import check_shapes  # noqa: E402

check_shapes()  # before genzoo is imported

from genzoo.runtime import program_cache  # noqa: E402

if "PYTEST_XDIST_WORKER" not in os.environ:  # tests kill processes
    program_cache.mend(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))


def pytest_collection_modifyitems(config, items):
    """Every case runs jitted, and the first of each function without jit as well (the fixture
    `compiled`). The longest files come first; --no-loadscope-reorder leaves it so."""
    seen, kept, dropped = set(), [], []
    for item in items:
        case = getattr(item, "callspec", None)
        function = item.nodeid.partition("[")[0]
        again = case is not None and case.params.get("compiled") == "plain" and function in seen
        (dropped if again else kept).append(item)
        if case is not None and case.params.get("compiled") == "plain":
            seen.add(function)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    place = {name: i for i, name in enumerate(LONGEST)}
    items[:] = sorted(kept, key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Programs compiled in this process are kept for the files that come, which share the small
    ones, until they take too much: those of all smoke runs together take gigabytes."""
    yield
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else _MOST  # without: always
    if pages * os.sysconf("SC_PAGE_SIZE") <= _MOST:
        return
    jax.clear_caches()
    gc.collect()
    if statm.exists():
        # The C library keeps what it was given back, and then this would come after every file.
        # Not every C library can be asked for it.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


@pytest.fixture(scope="session")
def surroundings():
    """Of a process with so many devices, its programs compiled as a user's are, or in haste."""

    def made(devices: int = 1, haste: bool = False) -> dict[str, str]:
        flags = [f"--xla_force_host_platform_device_count={devices}", *(_known(HASTE) * haste)]
        return {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": " ".join(flags),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    return made


@pytest.fixture(scope="session")
def genzoo(surroundings):
    """Runs `python -m genzoo.main` with the given arguments in a process of its own."""

    def run(
        *arguments,
        devices: int = 1,
        check: int | None = 0,
        env: dict | None = None,
        haste: bool = False,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "genzoo.main", *map(str, arguments)],
            cwd=ROOT, env={**surroundings(devices, haste), **(env or {})},
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        if check is not None:
            assert done.returncode == check, done.stderr[-3000:]
        return done

    return run
