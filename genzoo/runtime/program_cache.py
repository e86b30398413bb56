"""Compiled programs kept on the disk, so that a second start need not compile again."""

import logging
import os
from pathlib import Path

import jax

_log = logging.getLogger("genzoo")


def keep_programs(folder: Path, most_bytes: int = 4 << 30) -> None:
    """Keeps compiled programs in a folder for later starts, the least used of them going when they
    are too many. The folder is made private: who may write there may run code in our name."""
    if jax.config.jax_compilation_cache_dir is not None:  # the user's own choice
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
    except OSError:
        return  # a cache that cannot be is no reason to stop
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        _log.warning(
            "Compiled programs are not kept: %s can be written by others. Mend that by chmod 700, "
            "or give --no_compile_cache.", folder,
        )  # fmt: skip
        return
    mend(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", most_bytes)


def mend(folder: Path) -> None:
    """Gives every program in the folder a time of last use.

    A process that is killed between the two files of a program leaves one without. JAX reads all of
    these times before it writes a program, so that a single one missing would keep it from writing
    any other, for good (jax 0.10).
    """
    for program in folder.glob("*-cache"):
        used = program.with_name(f"{program.name.removesuffix('-cache')}-atime")
        try:
            if not used.exists():
                used.write_bytes(program.stat().st_mtime_ns.to_bytes(8, "little"))
        except OSError:  # another process has taken it away
            continue
