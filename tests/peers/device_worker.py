"""A contender in its own process, which lives through all rounds of a comparison.

The process reads one request per line, "compile MEASURE", "burst MEASURE CALLS" or "profile
MEASURE", and answers each with a line "@" + JSON; {"error": ...} if it failed.
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
    """Answers requests with the methods of the contender until its input ends."""
    for line in sys.stdin:
        method, *words = line.split()
        try:
            answer = getattr(contender, method)(*words)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(MARK + json.dumps(answer), flush=True)


class Worker:
    """The process of one contender, as seen by the comparison."""

    def __init__(self, file: str, *words: str, env: dict | None = None):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(file)), *words], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **(env or {})},
        )  # fmt: skip
        self._answers: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def _listen(self) -> None:
        for line in self._process.stdout:
            if line.startswith("@"):
                self._answers.put(json.loads(line[1:]))
        self._answers.put({"error": f"the process ended with {self._process.wait()}"})

    def ask(self, *words: object) -> None:
        """Sends a request; `answer` returns the answer."""
        try:
            self._process.stdin.write(" ".join(map(str, words)) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended, which `answer` reports

    def answer(self, seconds: float) -> dict:
        """Its answer, or {"error": ...} if none comes within so many seconds. The process is then
        ended, because a late answer would be mistaken for that to the next request."""
        try:
            answer = self._answers.get(timeout=max(seconds, 0.1))
        except queue.Empty:
            self._process.kill()
            return {"error": f"no answer after {seconds:.0f} s"}
        if "ended with" in answer.get("error", ""):
            self._answers.put(answer)
        return answer

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
