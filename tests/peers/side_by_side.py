"""Times contenders side by side on this machine: the harness of the speed scripts.

Each contender is a process that lives through all rounds. In every round each one runs a burst of
calls, in random order, and the first call is dropped, unless a burst is one call. Ratios are
computed within a round and their median and range are printed, because times of different minutes
cannot be compared on a shared machine. Other work on the machine slows genzoo down more than torch:
stop it.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

Calls = Mapping[str, Callable[[], None]]
EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a script compares. contenders: name -> makes its calls by measure, the first one being
    what the others are compared with. measures: name -> (calls in a burst, facts for the report).
    """

    contenders: Mapping[str, Callable[[], Calls]]
    measures: Mapping[str, tuple[int, Mapping]]


def work(comparison: Comparison, contender: str) -> None:
    """The process of one contender: reads a measure per line, answers with seconds per call."""
    calls = comparison.contenders[contender]()
    for line in sys.stdin:
        measure = line.strip()
        count, _ = comparison.measures[measure]
        seconds = []
        for _ in range(count + (count > 1)):
            start = time.perf_counter()
            calls[measure]()
            seconds.append(time.perf_counter() - start)
        kept = seconds[1:] if count > 1 else seconds
        print("\n@" + json.dumps(statistics.mean(kept)), flush=True)


class Worker:
    """A contender's process. flags: of the script, for the worker as well. environment: in addition
    to that of the script."""

    def __init__(
        self, contender: str, flags: Sequence[str] = (), environment: Mapping[str, str] = EMPTY
    ):
        self._process = subprocess.Popen(
            [sys.executable, sys.argv[0], "--worker", contender, *flags], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment},
        )  # fmt: skip

    def ask(self, wish: str):
        """The answer to a line, such as the seconds per call of a measure."""
        self._process.stdin.write(wish + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit("a contender has ended; its message is above")

    def end(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(
    comparison: Comparison, measures: list[str], rounds: int, contenders: list[str],
    flags: list[str],
) -> dict:  # fmt: skip
    """Seconds per call and the ratio of each contender's time to the first one's, paired by round.
    """
    workers = {name: Worker(name, flags) for name in contenders}
    result, first = {}, contenders[0]
    for measure in measures:
        for worker in workers.values():
            worker.ask(measure)  # compiles
        seconds = {name: [] for name in workers}
        for _ in range(rounds):
            for name in random.sample(list(workers), len(workers)):
                seconds[name].append(workers[name].ask(measure))
        result[measure] = {**comparison.measures[measure][1]}
        for name, times in seconds.items():
            ratios = [t / own for t, own in zip(times, seconds[first], strict=True)]
            result[measure][name] = {
                "seconds": round(statistics.median(times), 4),
                f"over_{first}": round(statistics.median(ratios), 3),
                "range": [round(min(ratios), 3), round(max(ratios), 3)],
            }
            print(measure, name, json.dumps(result[measure][name]), flush=True)
    for worker in workers.values():
        worker.end()
    return result


def run(comparison: Comparison, about: str, rounds: int, flags: tuple[str, ...] = ()) -> None:
    """The program of a script: parses flags and prints the comparison. about: its documentation.
    rounds: by default. flags: of the script itself, without values, which workers get too."""
    measures, contenders = list(comparison.measures), list(comparison.contenders)
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--worker", choices=contenders, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--measure", nargs="+", default=measures, choices=measures)
    parser.add_argument("--contenders", nargs="+", default=contenders, choices=contenders)
    parser.add_argument("--json")
    for flag in flags:
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(comparison, arguments.worker)
        return
    given = [flag for flag in flags if flag in sys.argv]
    compared = compare(
        comparison, arguments.measure, arguments.rounds, arguments.contenders, given
    )
    report = {"cores": len(os.sched_getaffinity(0)), "machine": platform.platform(), **compared}
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(report, file, indent=2)
