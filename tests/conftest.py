"""What all tests share: compiler flags and the program cache, the order of the files, and a fixture
that runs the program in its own process."""

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

# The suite spends most of its time compiling tiny programs that run once or twice. Without LLVM's
# optimisations, with the older emitters and in one piece they compile in a third of the time. Tests
# of exact bits run in their own processes with the compiler's default settings, as a user's
# programs do. To use these for all tests: `XLA_FLAGS= python -m pytest`.
HASTE = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# The longest files go first, so that the two workers finish at about the same time.
LONGEST = (
    "test_smoke.py", "test_processes.py", "test_modes.py", "test_sharding.py", "test_resume.py",
    "test_config.py", "test_device_script.py", "test_unet.py", "test_compile.py", "test_ddpm.py",
    "test_vae.py",
)  # fmt: skip
_MOST_KEPT = 4 << 30  # bytes of compiled programs on disk
_MOST = 3 << 30  # memory of this process, in bytes, above which compiled programs are freed


def _known(flags: tuple[str, ...]) -> list[str]:
    """The flags that this jaxlib knows; it exits on any other. The name of a removed flag may still
    occur in its library as part of a longer string, so the whole string must match."""
    names = {flag: b"\0" + flag[2:].partition("=")[0].encode() + b"\0" for flag in flags}
    present = set()
    for library in Path(jaxlib.__file__).parent.glob("*.so"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            present |= {flag for flag in flags if m.find(names[flag]) >= 0}
    return [flag for flag in flags if flag in present]


def _kept_programs() -> Path:
    """The folder of compiled programs that are kept between runs, one for each set of versions and
    each kind of processor, whose machine code would not run on another."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n") if info.exists() else []
    processor = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    machine = (version("jax"), version("jaxlib"), platform.machine(), *sorted(set(processor)))
    name = hashlib.sha256(repr(machine).encode()).hexdigest()[:16]
    return ROOT / ".pytest_cache" / "programs" / name


# Must come before NumPy and JAX are imported. Workers inherit it from the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    # If all cores are busy, the threads of NumPy's linear algebra spin while they wait for each
    # other: an eigendecomposition of 0.05 s took 7 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("XLA_FLAGS", " ".join(_known(HASTE)))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # JAX would look for a TPU if libtpu is installed
    # Programs shared by tests, processes or runs of the suite are compiled once, and not stored in
    # the user's cache, which `main` would use.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_kept_programs()))
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(_MOST_KEPT)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

# Tracing makes many objects that live on in caches. Python's collector would go through all of
# them every 700 new ones.
gc.set_threshold(100_000, 20, 20)

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


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out
def pytest_collection_modifyitems(config, items):
    """Every case runs jitted; the first case of each function also runs without jit (the fixture
    `compiled`) with `-m slow`, since every operation is then compiled by itself. The longest files
    come first; --no-loadscope-reorder keeps this order."""
    seen, kept, dropped = set(), [], []
    for item in items:
        case = getattr(item, "callspec", None)
        function = item.nodeid.partition("[")[0]
        again = case is not None and case.params.get("compiled") == "plain" and function in seen
        (dropped if again else kept).append(item)
        if case is not None and case.params.get("compiled") == "plain":
            seen.add(function)
            item.add_marker(pytest.mark.slow)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    place = {name: i for i, name in enumerate(LONGEST)}
    items[:] = sorted(kept, key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Keeps the programs compiled in this process for later files, which share the small ones, and
    frees them when they take too much memory: those of all smoke runs take gigabytes."""
    yield
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else _MOST  # if unknown, always
    if pages * os.sysconf("SC_PAGE_SIZE") <= _MOST:
        return
    jax.clear_caches()
    gc.collect()
    if statm.exists():
        # The C library keeps freed memory, so without this the caches would be cleared after every
        # file from now on. Not every C library has malloc_trim.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page in a browser, for tests marked `browser.NEEDED`."""
    import browser

    with browser.opened(browser.found(), tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="session")
def surroundings():
    """(devices, haste) -> the environment of a process with so many devices. haste: whether it
    compiles with the suite's fast flags rather than as a user's process does."""

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
    """Runs `python -m genzoo.main` with the given arguments in its own process."""

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
