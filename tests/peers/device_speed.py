"""Times the training step and sampler of a case against torch: images/s, share of peak, memory.

    python tests/peers/device_speed.py CASE

Each contender is a process that lives through all rounds. In every round each one runs a burst of
calls, in random order; ratios are computed within a round, and their median and range are reported.
The first burst is dropped. Contenders compile at the same time, so with too few cores compile times
are longer than for one alone. The operations of a step are counted in genzoo's program before
compilation and assumed for torch too, whose network has the same number of params.
"""

import importlib.util
import json
import os
import random
import subprocess
import sys

from device_cases import CASES, Case
from device_report import DRY, ROOT, Report, seconds_left
from device_worker import Worker
from overheads import ratios

PEAK = 989e12  # operations a second: H100 and H200 (SXM), dense bfloat16, NVIDIA's data sheets
BURST = 0.05 if DRY else 0.6  # minimum seconds
ROUNDS = 1 if DRY else 6


def missing(contender: str) -> str:
    """Why a contender cannot take part; "" if it can."""
    wanted = () if contender == "genzoo" else ("torch", "diffusers")
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class Counts:
    """The counts of `--mode=describe` for a case, computed on the CPU in the background."""

    def __init__(self, case: Case):
        changes = [f"--config.{k}={v}" for k, v in case.settings(case.measures[0]).items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "genzoo.main", "--mode=describe", f"--config={case.config}",
             *changes], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        self._read: dict | None = None

    def read(self) -> dict:
        """`parameters`, `config`, `flops_per_example` (almost only the network) and
        `flops_per_trained`, for one example in a training step."""
        if self._read is None:
            stdout, _ = self._process.communicate()
            if self._process.returncode:
                raise SystemExit("--mode=describe has failed; its message is above")
            counts = json.loads(stdout)
            each = counts["train_step_flops"] / counts["train_step_examples"]
            self._read = {**counts, "flops_per_trained": each}
        return self._read


def figures(case: Case, measure: str, seconds: float, counts: dict, device: str) -> dict:
    """Images per second and the share of peak."""
    kind, size = measure.split("_")
    each = counts["flops_per_trained"]
    if kind == "ddim":
        each = case.sample_steps * counts["flops_per_example"]
    done = each * int(size) / seconds
    summary = {"images_per_second": round(int(size) / seconds, 2), "tflops": round(done / 1e12, 3)}
    if "H100" in device or "H200" in device:
        summary["share_of_peak"] = round(done / PEAK, 4)
    return summary


class Comparison:
    """The contenders of a case, measure by measure."""

    def __init__(self, name: str, report: Report):
        self._name, self._case, self._report = name, CASES[name], report
        self._counts = Counts(self._case)
        self._workers: dict[str, Worker] = {}
        self._worker("genzoo")

    def measure(self, measure: str, share: float) -> bool:
        """Compiles a measure and times it in rounds; returns whether genzoo was timed. share: the
        fraction of the remaining time that it may take."""
        ends = seconds_left() * (1 - share)
        wanted = ("genzoo", *dict(self._case.contenders).get(measure, ()))
        outcomes = {name: {"status": missing(name)} for name in wanted if missing(name)}
        times: dict[str, list[float]] = {name: [] for name in wanted if not missing(name)}
        for name in times:
            self._worker(name).ask("compile", measure)
        for name in list(times):
            outcomes[name] = self._worker(name).answer(seconds_left() - ends)
            self._drop_failed(name, outcomes, times)
        self._report.put(measure, value=outcomes)
        self._check_counts({name: outcomes[name]["parameters"] for name in times})
        calls = {}
        for name in list(times):  # not counted: it says how many calls make a burst
            first = self._burst(name, measure, 1 if DRY else 2, outcomes, times)
            calls[name] = max(1, round(BURST / first)) if first else 0
        for done in range(ROUNDS):
            if "genzoo" not in times or (done and seconds_left() < ends):
                break
            for name in random.sample(list(times), len(times)):
                times[name].append(self._burst(name, measure, calls[name], outcomes, times))
            self._count(measure, outcomes, times)
        self._report.put(measure, value=outcomes)
        return bool(times.get("genzoo"))

    def _burst(self, name: str, measure: str, calls: int, outcomes: dict, times: dict):
        """Seconds per call; None after a failure, which excludes the contender from this measure.
        """
        worker = self._worker(name)
        worker.ask("burst", measure, calls)
        answer = worker.answer(seconds_left())
        outcomes[name] |= {k: v for k, v in answer.items() if k != "seconds"}
        self._drop_failed(name, outcomes, times)
        return answer.get("seconds")

    def _drop_failed(self, name: str, outcomes: dict, times: dict) -> None:
        if "error" in outcomes[name]:
            times.pop(name, None)

    def _count(self, measure: str, outcomes: dict, times: dict) -> None:
        """Reports the figures that follow from the seconds of all rounds."""
        if "genzoo" not in times:
            return
        device = outcomes["genzoo"]["device"]
        for name, timing in ratios(times, "genzoo").items():
            work = figures(self._case, measure, timing["seconds"], self._counts.read(), device)
            outcomes[name] |= {**timing, **work, "rounds": len(times[name])}
        self._report.put(measure, value=outcomes)

    def profile(self, measure: str) -> None:
        """The kernels of the contenders that are still running."""
        for name, worker in self._workers.items():
            if worker.alive:
                worker.ask("profile", measure)
                self._report.put("profile", name, value=worker.answer(seconds_left() / 4))

    def end(self) -> None:
        """Ends the processes."""
        for worker in self._workers.values():
            worker.end()

    def _worker(self, name: str) -> Worker:
        if name in self._workers and not self._workers[name].alive:
            del self._workers[name]
        if name == "genzoo" and name not in self._workers:
            self._workers[name] = Worker("device_genzoo.py", self._name)
        elif name not in self._workers:
            counts = self._counts.read()
            data = {key: counts["data"][key] for key in ("shape", "classes")}
            settings = json.dumps({**counts["config"], **data})
            self._workers[name] = Worker("device_torch.py", self._name, name, settings)
        return self._workers[name]

    def _check_counts(self, parameters: dict[str, int]) -> None:
        expected = self._counts.read()["parameters"]
        if not set(parameters.values()) <= {expected}:
            raise SystemExit(f"{self._name}: the networks differ: {parameters}, not {expected}")


def main() -> int:
    """Runs the part named after its case."""
    name = sys.argv[1]
    report = Report(name)
    report.start()
    comparison = Comparison(name, report)
    timed = False
    try:
        measures = CASES[name].measures
        for i, measure in enumerate(measures):
            last = i + 1 == len(measures)
            timed |= comparison.measure(measure, 0.95 if last else 0.6)
            if i == 0:
                comparison.profile(measure)
    finally:
        comparison.end()
    return not timed


if __name__ == "__main__":
    sys.exit(main())
