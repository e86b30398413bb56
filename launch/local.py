"""Runs genzoo in N processes on this host: on the CPU, or with one GPU each.

    python launch/local.py -n 2 -- --config=configs/ddpm_fashion.py:smoke --workdir=runs/two

Every process runs `python -m genzoo.main --coordinator=... --processes=N --process=I` followed by
the arguments after `--`. Each line of its output is prefixed with `[I] `. The first process that
fails stops the others; the launcher repeats its last lines at the end and exits with its code.
Ctrl-C and SIGTERM are passed on to all processes; a second Ctrl-C kills them. Uses only the
standard library.
"""

import argparse
import collections
import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PROGRAM = (sys.executable, "-m", "genzoo.main")
USER_ERROR, PREEMPTED = 2, 75
_POLL = 0.02  # seconds between two checks of the processes
_TAIL = 12  # lines of standard error that are repeated after a failure
_DEVICES_FLAG = "--xla_force_host_platform_device_count"
_OURS = ("--coordinator", "--processes", "--process")
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def free_port() -> int:
    """A port of this host on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def visible_gpus(environ, devices: Path = Path("/dev")) -> list[str]:
    """The names of the GPUs in the form of CUDA_VISIBLE_DEVICES; empty if there are none."""
    if "CUDA_VISIBLE_DEVICES" in environ:
        names = environ["CUDA_VISIBLE_DEVICES"].split(",")
        return [name.strip() for name in names if name.strip() not in ("", "-1")]
    numbers = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*"))
    return sorted((name for name in numbers if name.isdigit()), key=int)


def environments(n: int, devices_per_process: int | None, environ, gpus) -> list[dict[str, str]]:
    """The changes to our environment for each process. Raises ValueError if GPUs are lacking."""
    if devices_per_process is None and environ.get("JAX_PLATFORMS") != "cpu" and gpus:
        if n > len(gpus):
            raise ValueError(f"{n} processes need a GPU each, and {len(gpus)} can be seen: give "
                             f"-n {len(gpus)}, or --devices-per-process for the CPU.")  # fmt: skip
        # Ids count among the visible GPUs. Without them JAX uses those of a surrounding SLURM task.
        return [{"CUDA_VISIBLE_DEVICES": gpu, "JAX_LOCAL_DEVICE_IDS": "0"} for gpu in gpus[:n]]
    kept = [f for f in environ.get("XLA_FLAGS", "").split() if not f.startswith(_DEVICES_FLAG)]
    flags = " ".join([*kept, f"{_DEVICES_FLAG}={devices_per_process or 1}"])
    return [{"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags} for _ in range(n)]


def commands(program, n: int, port: int, arguments) -> list[list[str]]:
    """The command line of each process."""
    own = [f"--coordinator=127.0.0.1:{port}", f"--processes={n}"]
    return [[*program, *own, f"--process={index}", *arguments] for index in range(n)]


def shares(n: int, cores) -> list[set[int]]:
    """The cores of each of n processes: equally many for each and none shared, or all cores for
    each if there are more processes than cores."""
    cores = sorted(cores)
    size = len(cores) // n
    return [set(cores[i * size : (i + 1) * size]) if size else set(cores) for i in range(n)]


def _before_exec(cores: set[int]) -> Callable[[], None]:
    """What the child process does before it runs its program (Linux).

    cores: that it may use; an empty set changes nothing. Processes that compute on the same cores
    slow each other down, and so do the threads of one process: the thread of JAX's collectives
    (gloo) spins while another one writes, and takes the core from it just then. In the batch class
    a thread that wakes up does not preempt a running one. On two cores, a step of two processes
    with two threads each took 0.23 s; 0.63 s with one core per process; 0.15 s with one core per
    process in the batch class; and 0.15 s for a single process on both cores.
    """

    def prepare() -> None:
        if _LIBC is not None:  # if the launcher is killed, its processes are killed too
            _LIBC.prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
        if cores:
            with contextlib.suppress(OSError):  # a container may forbid it
                os.sched_setaffinity(0, cores)
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

    return prepare


def say(message: str) -> None:
    """Prints a message of the launcher itself, without the prefix of a process."""
    print(f"launch/local.py: {message}", file=sys.stderr, flush=True)


class Process:
    """One process with its prefixed output. code: its exit code in the convention of shells, None
    while it runs."""

    def __init__(self, index: int, command: list[str], changes: dict[str, str], cores: set[int]):
        self.index, self.code = index, None
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._threads: list[threading.Thread] = []
        self._popen = subprocess.Popen(
            command, env={**os.environ, "PYTHONUNBUFFERED": "1", **changes},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True, preexec_fn=_before_exec(cores),
        )  # fmt: skip

    def listen(self, lock: threading.Lock) -> None:
        """Starts to forward the output."""
        for pipe in (self._popen.stdout, sys.stdout), (self._popen.stderr, sys.stderr):
            thread = threading.Thread(target=self._forward, args=(*pipe, lock), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _forward(self, source, target, lock) -> None:
        for line in source:
            if target is sys.stderr:
                self.tail.append(line.rstrip())
            # If our own output is closed we keep reading, so that the process does not block.
            with lock, contextlib.suppress(OSError, ValueError):
                target.write(f"[{self.index}] {line.rstrip()}\n")
                target.flush()

    def poll(self) -> int | None:
        """The exit code, or None. After the end, kills the processes that it left behind."""
        if self.code is None and (code := self._popen.poll()) is not None:
            for thread in self._threads:
                thread.join(timeout=1)  # helpers of the process may still end by themselves
            self._signal_group(signal.SIGKILL)
            self.code = 128 - code if code < 0 else code
        return self.code

    def send(self, number: int) -> None:
        """Sends a signal to the process; SIGKILL also goes to the processes that it started."""
        if self.code is None and number == signal.SIGKILL:
            self._signal_group(number)
        elif self.code is None:
            # Not to the group: its data workers must live until the checkpoint is written.
            self._popen.send_signal(number)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)


def culprit(ended: list[Process]) -> Process | None:
    """The process that best explains why a run failed, or None if none failed.

    ended: the processes that ended by themselves, in that order. A user's mistake explains more
    than a preemption, which explains more than a crash; a process that was aborted because its peer
    had gone (SIGABRT) explains least. Mistakes and preemptions are common to all processes, of
    which process 0 reports them.
    """
    ranks = {USER_ERROR: 0, PREEMPTED: 1, 128 + signal.SIGABRT: 3}
    failed = [process for process in ended if process.code]

    def rank(process: Process) -> tuple[int, int]:
        common = process.code in (USER_ERROR, PREEMPTED)
        return ranks.get(process.code, 2), process.index if common else 0

    return min(failed, key=rank, default=None)


class Attempt:
    """One start of all processes, until the last one has ended.

    signals: received ones, appended by a handler while we watch; each kind is passed on once.
    """

    def __init__(self, lines: list[list[str]], changes: list[dict[str, str]],
                 cores: list[set[int]], signals: list[int]):  # fmt: skip
        # All are started before the first thread, because forking beside threads is not safe.
        each = zip(lines, changes, cores, strict=True)
        self.processes = [Process(index, *own) for index, own in enumerate(each)]
        self.ended: list[Process] = []
        self._signals, self._passed_on = signals, 0
        lock = threading.Lock()
        for process in self.processes:
            process.listen(lock)

    def finish(self, grace: float, settle: float) -> int:
        """Waits for the end, reports which process failed, and returns the exit code."""
        self._watch(until_failure=True)
        if first := culprit(self.ended):
            # After a preemption the others are about to end too, since all agreed to stop.
            self._watch(grace if first.code == PREEMPTED else settle)
        guilty = culprit(self.ended)
        if not self._signals:  # otherwise they have already been asked to stop
            self._send(signal.SIGTERM)
        self._watch(grace)
        self._send(signal.SIGKILL)
        self._watch()
        if guilty is None:
            return 0
        by = f" ({signal.Signals(guilty.code - 128).name})" if guilty.code > 128 else ""
        if guilty.code == PREEMPTED:
            say("all processes stopped on request; the same command resumes the run.")
            return guilty.code
        last = "\n".join(guilty.tail) or "it wrote nothing to standard error."
        say(f"process {guilty.index} failed with exit code {guilty.code}{by}: {last}")
        return guilty.code

    def _watch(self, seconds: float = float("inf"), until_failure: bool = False) -> None:
        end = time.monotonic() + seconds
        while True:
            self._pass_signals_on()
            running = [process for process in self.processes if process.code is None]
            self.ended += [process for process in running if process.poll() is not None]
            over = len(self.ended) == len(self.processes) or time.monotonic() > end
            if over or (until_failure and culprit(self.ended)):
                return
            time.sleep(_POLL)

    def _pass_signals_on(self) -> None:
        for number in self._signals[self._passed_on :]:
            again = number in self._signals[: self._passed_on]
            self._passed_on += 1
            if not again:
                self._send(number)
            elif number == signal.SIGINT:
                self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        for process in self.processes:
            process.send(number)


def launch(n: int, arguments, *, changes: list[dict[str, str]], cores: list[set[int]],
           program=PROGRAM, restarts: int = 0, grace: float = 30.0,
           settle: float = 1.0) -> int:  # fmt: skip
    """Runs n processes to their end and restarts them after a failure; returns the exit code.

    Args:
        arguments: of the program, the same for all.
        changes: to our environment, for each process.
        cores: that each process may use; an empty set leaves the choice to the system.
        program: the command before its arguments.
        restarts: maximum number of restarts, each with a new port; none after a user's mistake or a
            signal to us.
        grace: seconds between SIGTERM and SIGKILL for processes whose peer has failed.
        settle: seconds in which the others may end by themselves after the first failure.
    """
    signals: list[int] = []
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda got, _: signals.append(
                signal.SIGTERM if got == signal.SIGHUP else got))  # fmt: skip
    for attempt in range(restarts + 1):
        lines = commands(program, n, free_port(), arguments)
        code = Attempt(lines, changes, cores, signals).finish(grace, settle)
        if code in (0, USER_ERROR) or signals or attempt == restarts:
            break
        say(f"restarting, {attempt + 1} of {restarts}.")
    return code


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python launch/local.py", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s -n N [options] -- <arguments of genzoo.main>",
    )  # fmt: skip
    add = parser.add_argument
    add("-n", type=int, required=True, help="processes to start")
    add("--devices-per-process", type=int, metavar="K",
        help="run on CPU, with K virtual devices in each process (default 1)")
    add("--restarts", type=int, default=0, metavar="R",
        help="restart up to R times after a crash or exit code 75")
    add("--grace", type=float, default=30.0, metavar="SECONDS",
        help="time from SIGTERM to SIGKILL for the peers of a failed process (default 30)")
    add("--dry-run", action="store_true", help="print the commands, start nothing")
    cut = argv.index("--") if "--" in argv else len(argv)
    settings = parser.parse_args(argv[:cut])
    settings.arguments = argv[cut + 1 :]
    if settings.n < 1:
        raise ValueError(f"-n {settings.n}: at least one process is needed.")
    if settings.devices_per_process is not None and settings.devices_per_process < 1:
        raise ValueError("--devices-per-process must be at least 1.")
    if settings.restarts < 0 or settings.grace < 0:
        raise ValueError("--restarts and --grace cannot be negative.")
    if not settings.arguments:
        raise ValueError("no arguments for genzoo.main: give them after --, as in -n 2 -- "
                         "--config=configs/ddpm_fashion.py:smoke --workdir=DIR")  # fmt: skip
    if ours := [a for a in settings.arguments if a.split("=")[0] in _OURS]:
        raise ValueError(f"{ours[0]} is set by this launcher: leave it out.")
    return settings


def main(argv: list[str]) -> int:
    """Parses the command line and runs the processes; returns the exit code."""
    try:
        settings = _parsed(argv)
        n, gpus = settings.n, visible_gpus(os.environ)
        changes = environments(n, settings.devices_per_process, os.environ, gpus)
        cores: list[set[int]] = [set()] * n
        if sys.platform == "linux" and changes[0].get("JAX_PLATFORMS") == "cpu":
            cores = shares(n, os.sched_getaffinity(0))
    except ValueError as error:
        say(str(error))
        return USER_ERROR
    if settings.dry_run:
        lines = commands(PROGRAM, n, free_port(), settings.arguments)
        for change, own, command in zip(changes, cores, lines, strict=True):
            where = f"taskset --cpu-list {','.join(map(str, sorted(own)))} chrt --batch 0"
            settings_shown = [f"{k}={shlex.quote(v)}" for k, v in change.items()]
            print(*settings_shown, *([where] if own else []), shlex.join(command))
        return 0
    return launch(n, settings.arguments, changes=changes, cores=cores, restarts=settings.restarts,
                  grace=settings.grace)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
