"""How the processes of one run find each other at its start.

Flags say it outright; else JAX finds it out, where the variables of a scheduler that it knows are
there (SLURM, Open MPI, GKE) or the chips of a TPU. A process that is alone needs nothing.
"""

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping

import jax

from genzoo.core.errors import Alone, UserError
from genzoo.runtime import roll_call
from genzoo.runtime.stopping import Stop

_log = logging.getLogger("genzoo")
# By scheduler: the variable with the number of processes, and what else tells who is who.
_SCHEDULERS = {
    "SLURM": ("SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID",
                               "SLURM_LOCALID")),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri")),
    "TPU slice": ("TPU_WORKER_HOSTNAMES", ("TPU_WORKER_ID", "MEGASCALE_NUM_SLICES",
                                           "MEGASCALE_SLICE_ID")),
}  # fmt: skip
_RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
# JAX ends the process, without a word that one could act on, when its own time is over: it gets a
# little more of it than we take.
_LONGER = 30


class Group:
    """The processes of a run, as one of them sees it."""

    def __init__(self, stop: Stop):
        self._stop, self._begun = stop, False
        self.speaks = True
        """Whether what all would say alike is for this process to say."""

    def join(self, flags: argparse.Namespace) -> None:
        """Waits for the others, where there are any. Must come before any other use of JAX. Raises
        Alone where they do not all come, and Interrupted on a signal meanwhile."""
        arguments = _arguments(flags, os.environ)
        if arguments is None:
            return
        self._begun = True
        # Ours are the handlers: JAX's own look once a second, and not at Ctrl-C.
        jax.config.update("jax_enable_preemption_service", False)
        seconds = flags.start_timeout
        try:
            if arguments:
                roll_call.answer(
                    flags.coordinator, flags.processes, flags.process, seconds=seconds
                )
            _within(
                seconds,
                lambda: jax.distributed.initialize(
                    **arguments,
                    initialization_timeout=seconds + _LONGER,
                    heartbeat_timeout_seconds=flags.heartbeat_timeout,
                    shutdown_timeout_seconds=seconds,
                ),
            )
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            if isinstance(error, ValueError) and not arguments and not scheduler(os.environ):
                self._begun = False  # a TPU of one host: there is nobody to wait for
                return
            raise Alone(_failure(error, flags)) from error
        self._stop.several = jax.process_count() > 1
        self.speaks = jax.process_index() == 0
        _log.info("Process %d of %d.", jax.process_index(), jax.process_count())
        if not self.speaks:
            _log.setLevel(logging.WARNING)

    def leave(self, code: int, *, together: bool) -> int:
        """Ends this process's part of the run; gives the code back. together: whether the others
        leave too, in the same way. One that leaves alone ends here and now: JAX would have it wait
        for the farewell of all."""
        if self._begun and not together:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        if jax.distributed.is_initialized():
            jax.distributed.shutdown()
        return code


def _arguments(flags: argparse.Namespace, seen: Mapping[str, str]) -> dict | None:
    """What `jax.distributed.initialize` is to be given; None for a process that is alone."""
    given = {
        "coordinator_address": flags.coordinator,
        "num_processes": flags.processes,
        "process_id": flags.process,
    }
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        if not 0 <= flags.process < flags.processes:
            raise UserError(
                f"--process={flags.process} must be from 0 to {flags.processes - 1}, one less than "
                f"--processes={flags.processes}."
            )
        host, colon, port = flags.coordinator.rpartition(":")
        if not (host and colon and port.isdecimal()):
            raise UserError(f"--coordinator={flags.coordinator} must be HOST:PORT.")
        return given if flags.processes > 1 else None
    if len(missing) < 3:
        raise UserError("--coordinator, --processes and --process go together: give all or none.")
    return {} if scheduler(seen) or _has_tpu(seen) else None


def _has_tpu(seen: Mapping[str, str]) -> bool:
    """Whether JAX, when it was imported, found TPU chips on this host: it leaves these words. On a
    Cloud TPU VM it learns of the other hosts from the metadata server."""
    return seen.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in seen


def scheduler(seen: Mapping[str, str]) -> str | None:
    """The scheduler that has started more than this process."""
    for name, (size, _) in _SCHEDULERS.items():
        value = seen.get(size, "")
        count = len(value.split(",")) if size == "TPU_WORKER_HOSTNAMES" else int(value or 1)
        # An interactive shell of an allocation has the size and is no task of it.
        if count > 1 and any(key in seen for key in _RANKS):
            return name
    return None


def _within(seconds: float, work: Callable[[], object]) -> None:
    """Does the work in a thread, so that signals and the clock are heeded meanwhile. Raises
    TimeoutError."""
    failure: list[BaseException] = []

    def run():
        try:
            work()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="join", daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    while thread.is_alive():
        thread.join(0.1)
        if time.monotonic() > deadline:
            raise TimeoutError("the others did not come")
    if failure:
        raise failure[0]


def _failure(error: Exception, flags: argparse.Namespace) -> str:
    seen = {name: os.environ[name] for name in _variables() if name in os.environ}
    rank = next((seen[name] for name in _RANKS if name in seen), flags.process)
    said = " ".join(str(error).split())[:600]
    told = ", ".join(f"{name}={value}" for name, value in seen.items()) or "none"
    return (
        f"Process {rank} of this run did not find all others: {said}. Flags: coordinator="
        f"{flags.coordinator}, processes={flags.processes}, process={flags.process}; variables "
        f"seen: {told}. Start what is missing, or give --start_timeout (now "
        f"{flags.start_timeout} s) more time."
    )


def _variables() -> list[str]:
    return [name for size, others in _SCHEDULERS.values() for name in (size, *others)]
