"""A contender in a process of its own, which lives through all rounds of a comparison.

The process reads one request a line, "compile MEASURE", "burst MEASURE CALLS" or "profile MEASURE",
and answers each with a line "@" + JSON; {"error": ...} where it could not.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from pathlib import Path

MARK = "\n@"


def serve(contender) -> None:
    """Answers requests by the methods of the contender until there are no more."""
    for line in sys.stdin:
        method, *words = line.split()
        try:
            answer = getattr(contender, method)(*words)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(MARK + json.dumps(answer), flush=True)


class Worker:
    """The process of one contender, seen from outside."""

    def __init__(self, file: str, *words: str, env: dict | None = None):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(file)), *words], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **(env or {})},
        )  # fmt: skip
        self._answers: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def _listen(self) -> None:
        for line in self._process.stdout:
            if line.startswith("@"):
                self._answers.put(json.loads(line[1:]))
        self._answers.put({"error": f"the process ended with {self._process.wait()}"})

    def ask(self, *words: object) -> None:
        """Sends a request, which `answer` gives the answer to."""
        try:
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended, and that is the answer

    def answer(self, seconds: float) -> dict:
        """What it says, or {"error": ...} if it has said nothing after so many seconds. It is then
        ended, since what it would say later is no answer to the next request."""
        try:
            found = self._answers.get(timeout=max(seconds, 0.1))
        except queue.Empty:
            self._process.kill()
            return {"error": f"no answer after {seconds:.0f} s"}
        if "ended with" in found.get("error", ""):
            self._answers.put(found)
        return found

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
