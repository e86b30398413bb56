"""How the processes of one run find each other at its start.

Flags state it explicitly. Without flags JAX detects it if it sees the variables of a scheduler that
it knows (SLURM, Open MPI, GKE) or the chips of a TPU. A single process needs nothing.
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
# By scheduler: the variable with the number of processes, and those that tell them apart.
_SCHEDULERS = {
    "SLURM": ("SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID",
                               "SLURM_LOCALID")),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri")),
    "TPU slice": ("TPU_WORKER_HOSTNAMES", ("TPU_WORKER_ID", "MEGASCALE_NUM_SLICES",
                                           "MEGASCALE_SLICE_ID")),
}  # fmt: skip
_RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
# When JAX's own timeout expires it ends the process without a helpful message, so it gets a
# slightly longer one than ours.
_LONGER = 30


class Group:
    """The processes of a run, as one of them sees it."""

    def __init__(self, stop: Stop):
        self._stop, self._begun = stop, False
        self.speaks = True
        """Whether this process prints the messages that are the same in all processes."""

    def join(self, flags: argparse.Namespace) -> None:
        """Waits for the other processes, if there are any. Must precede any other use of JAX.
        Raises Alone if some fail to join."""
        arguments = _arguments(flags, os.environ)
        if arguments is None:
            return
        self._begun = True
        # We handle signals ourselves: JAX polls once a second, and ignores Ctrl-C.
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
                self._begun = False  # a TPU with one host: there is nobody to wait for
                return
            raise Alone(_failure(error, flags)) from error
        if jax.process_count() > 1:
            self._stop.among_several()
        self.speaks = jax.process_index() == 0
        _log.info("Process %d of %d.", jax.process_index(), jax.process_count())
        if not self.speaks:
            _log.setLevel(logging.WARNING)

    def leave(self, code: int, *, together: bool) -> int:
        """Ends this process's part of the run and returns the exit code. together: whether the
        others leave too, in the same way. A process that leaves alone exits at once, because JAX
        would make it wait for the others to shut down."""
        if self._begun and not together:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        if jax.distributed.is_initialized():
            jax.distributed.shutdown()
        return code


def _arguments(flags: argparse.Namespace, seen: Mapping[str, str]) -> dict | None:
    """The arguments of `jax.distributed.initialize`; None for a single process."""
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
    """Whether JAX found TPU chips on this host when it was imported: it sets these variables. On a
    Cloud TPU VM it learns of the other hosts from the metadata server."""
    return seen.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in seen


def scheduler(seen: Mapping[str, str]) -> str | None:
    """The name of the scheduler that started this process among others; None if there is none."""
    for name, (size, _) in _SCHEDULERS.items():
        value = seen.get(size, "")
        count = len(value.split(",")) if size == "TPU_WORKER_HOSTNAMES" else int(value or 1)
        # An interactive shell in an allocation sees its size but is not one of its tasks.
        if count > 1 and any(key in seen for key in _RANKS):
            return name
    return None


def _within(seconds: float, work: Callable[[], object]) -> None:
    """Runs the work in a thread, so that the timeout takes effect. Raises TimeoutError."""
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
            raise TimeoutError("the other processes did not join in time")
    if failure:
        raise failure[0]


def _failure(error: Exception, flags: argparse.Namespace) -> str:
    seen = {name: os.environ[name] for name in _variables() if name in os.environ}
    rank = next((seen[name] for name in _RANKS if name in seen), flags.process)
    reason = " ".join(str(error).split())[:600]
    variables = ", ".join(f"{name}={value}" for name, value in seen.items()) or "none"
    return (
        f"Process {rank} of this run did not find all the others: {reason}. Flags: coordinator="
        f"{flags.coordinator}, processes={flags.processes}, process={flags.process}; environment "
        f"variables: {variables}. Start the missing processes, or raise --start_timeout (now "
        f"{flags.start_timeout} s)."
    )


def _variables() -> list[str]:
    return [name for size, others in _SCHEDULERS.values() for name in (size, *others)]
