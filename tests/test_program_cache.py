"""The disk cache of compiled programs."""

import subprocess
import sys

from genzoo.runtime import program_cache

PROGRAM = """
import sys
from pathlib import Path
import jax
from genzoo.runtime.program_cache import keep_programs

keep_programs(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: 2 * x + int(sys.argv[2]))(1.0))
"""


def test_a_program_without_its_time_of_use_does_not_prevent_others_from_being_written(
    tmp_path, surroundings
):
    env = {k: v for k, v in surroundings().items() if not k.startswith("JAX_COMPILATION_CACHE")}

    def run(number: int) -> set[str]:
        command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path), str(number)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return {path.name for path in tmp_path.glob("*-cache")}

    first = run(1)
    assert first
    for used in tmp_path.glob("*-atime"):  # as by a kill between the two files
        used.unlink()
    assert run(2) > first
    assert not (tmp_path.stat().st_mode & 0o077)


def test_complete_programs_are_left_unchanged(tmp_path):
    (tmp_path / "one-cache").write_bytes(b"program")
    program_cache.mend(tmp_path)
    used = tmp_path / "one-atime"
    moment = used.read_bytes()
    assert int.from_bytes(moment, "little") == (tmp_path / "one-cache").stat().st_mtime_ns
    used.write_bytes(b"12345678")
    program_cache.mend(tmp_path)
    assert used.read_bytes() == b"12345678"
    program_cache.mend(tmp_path / "none")
