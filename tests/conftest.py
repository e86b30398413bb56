"""What all tests share: a way to run the program, with one compile cache for all runs."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent


_MOST = 3 << 30  # bytes of this process at which compiled programs are let go


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Programs compiled in this process are kept for the files that come, which share the small
    ones, until they take too much: those of all smoke runs together take gigabytes."""
    yield
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else _MOST  # without: always
    if pages * os.sysconf("SC_PAGE_SIZE") > _MOST:
        jax.clear_caches()


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory) -> Path:
    """A folder that subprocesses keep compiled programs in, so that each is compiled once."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def genzoo(compile_cache):
    """Runs `python -m genzoo.main` with the given arguments in a process of its own."""

    def run(*arguments, devices: int = 1, check: int | None = 0, env: dict | None = None):
        surroundings = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(compile_cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **(env or {}),
        }
        done = subprocess.run(
            [sys.executable, "-m", "genzoo.main", *map(str, arguments)],
            cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        if check is not None:
            assert done.returncode == check, done.stderr[-3000:]
        return done

    return run
