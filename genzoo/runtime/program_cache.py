"""A disk cache of compiled programs, so that a second start need not compile again."""

import logging
from pathlib import Path

import jax

from genzoo.core.ownership import permissions, writable_by_others

_log = logging.getLogger("genzoo")


def keep_programs(folder: Path, most_bytes: int = 4 << 30) -> None:
    """Keeps compiled programs in a folder for later starts, and removes the least recently used
    ones above `most_bytes`. The folder is private: anyone who can write to it could run code as
    this user."""
    if jax.config.jax_compilation_cache_dir is not None:  # the user's own choice
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = writable_by_others(folder)
    except OSError:
        return  # a missing cache is no reason to stop
    if place is not None:
        _log.warning(
            "Compiled programs are not cached, because other users can write to %s (%s). Run chmod "
            "go-w on it, set GENZOO_CACHE, or give --no_compile_cache.", place, permissions(place),
        )  # fmt: skip
        return
    mend(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", most_bytes)


def mend(folder: Path) -> None:
    """Gives every program in the folder a time of last use.

    A process that is killed between writing the two files of a program leaves it without one. JAX
    reads all of these times before it writes a program, so a single missing one would keep it from
    ever writing another (jax 0.10).
    """
    for program in folder.glob("*-cache"):
        used = program.with_name(f"{program.name.removesuffix('-cache')}-atime")
        try:
            if not used.exists():
                used.write_bytes(program.stat().st_mtime_ns.to_bytes(8, "little"))
        except OSError:  # another process has removed it
            continue
