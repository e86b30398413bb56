"""A roll call of all processes of a run before JAX joins them.

If a process is missing, JAX waits and then exits without naming it. The first process therefore
listens briefly at the coordinator's address, where the others report their numbers. Once all have
reported, or the time is up, it sends the verdict to each of them.
"""

import socket
import time

_GO = "go"


def answer(coordinator: str, processes: int, process: int, *, seconds: float) -> None:
    """Returns in all processes once all have reported. Raises a TimeoutError that names the missing
    ones, or a ConnectionError if their numbers are inconsistent."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + seconds
    if process == 0:
        _listen(int(port), processes, deadline)
    else:
        _report(host.strip("[]"), int(port), f"{process} {processes}", deadline)


def _listen(port: int, processes: int, deadline: float) -> None:
    missing, there = set(range(1, processes)), []
    verdict = _GO
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.create_server(
        ("", port), family=family, backlog=processes, dualstack_ipv6=family == socket.AF_INET6
    ) as server:
        server.settimeout(0.2)
        while missing and verdict == _GO:
            if time.monotonic() > deadline:
                numbers = ", ".join(map(str, sorted(missing)))
                verdict = f"missing: process {numbers} of 0 to {processes - 1}"
                break
            try:
                caller, _ = server.accept()
            except TimeoutError:
                continue
            caller.settimeout(5)
            try:
                number, count = map(int, caller.makefile().readline().split())
            except (OSError, ValueError):  # not one of our processes
                caller.close()
                continue
            there.append(caller)
            if count != processes:
                verdict = f"process {number} expects {count} processes, process 0 {processes}"
            elif number not in missing:
                verdict = f"two processes are number {number}"
            missing.discard(number)
        for caller in there:
            with caller:
                caller.sendall(verdict.encode() + b"\n")
    if verdict != _GO:
        raise (TimeoutError if verdict.startswith("missing") else ConnectionError)(verdict)


def _report(host: str, port: int, words: str, deadline: float) -> None:
    verdict = ""
    while True:
        try:
            with socket.create_connection((host, port), timeout=5) as caller:
                caller.sendall(words.encode() + b"\n")
                # The first process may still be waiting for others when our time is up, and its
                # verdict says more than ours.
                caller.settimeout(max(deadline - time.monotonic(), 0) + 10)
                verdict = caller.makefile().readline().strip()
                break
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"nobody answers at {host}:{port} ({error}), so process 0 is missing"
                ) from error
            time.sleep(0.2)
    if verdict != _GO:
        raise ConnectionError(verdict or "process 0 has ended")
