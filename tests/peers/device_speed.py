"""Training step and sampler of a case, beside torch: seconds, images/s, share of the peak, memory.

    python tests/peers/device_speed.py CASE

Each contender is a process that lives through all rounds. In every round each one does a burst of
calls, in random order; ratios are taken within a round, and their median and range reported. The
first burst is dropped. Contenders compile at the same time, so with too few cores for that, compile
times are longer than alone. The operations of a step are counted in genzoo's program, before the
compiler has looked at it, and are taken for torch's too: the networks are the same, to the number
of params.
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
BURST = 0.05 if DRY else 0.6  # seconds at least
ROUNDS = 1 if DRY else 6


def missing(contender: str) -> str:
    """Why a contender cannot take part; "" if it can."""
    wanted = () if contender == "genzoo" else ("torch", "diffusers")
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class Counts:
    """What `--mode=describe` says of a case, on the CPU and beside everything else."""

    def __init__(self, case: Case):
        changes = [f"--config.{k}={v}" for k, v in case.settings(case.measures[0]).items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "genzoo.main", "--mode=describe", f"--config={case.config}",
             *changes], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        self._found: dict | None = None

    def read(self) -> dict:
        """`parameters`, `config`, `flops_per_example` (of the network alone, nearly) and
        `flops_per_trained`, of an example in a training step."""
        if self._found is None:
            said, _ = self._process.communicate()
            if self._process.returncode:
                raise SystemExit("--mode=describe has failed; its message is above")
            found = json.loads(said)
            each = found["train_step_flops"] / found["train_step_examples"]
            self._found = {**found, "flops_per_trained": each}
        return self._found


def figures(case: Case, measure: str, seconds: float, counts: dict, device: str) -> dict:
    """Images a second and the share of the peak."""
    kind, size = measure.split("_")
    each = counts["flops_per_trained"]
    if kind == "ddim":
        each = case.sample_steps * counts["flops_per_example"]
    done = each * int(size) / seconds
    found = {"images_per_second": round(int(size) / seconds, 2), "tflops": round(done / 1e12, 3)}
    if "H100" in device or "H200" in device:
        found["share_of_peak"] = round(done / PEAK, 4)
    return found


class Comparison:
    """The contenders of a case, measure by measure."""

    def __init__(self, name: str, report: Report):
        self._name, self._case, self._report = name, CASES[name], report
        self._counts = Counts(self._case)
        self._workers: dict[str, Worker] = {}
        self._worker("genzoo")

    def measure(self, measure: str, share: float) -> bool:
        """Compiles a measure and times it in rounds; whether genzoo was timed. share: of the time
        left that it may take."""
        ends = seconds_left() * (1 - share)
        wanted = ("genzoo", *dict(self._case.contenders).get(measure, ()))
        found = {name: {"status": missing(name)} for name in wanted if missing(name)}
        times: dict[str, list[float]] = {name: [] for name in wanted if not missing(name)}
        for name in times:
            self._worker(name).ask("compile", measure)
        for name in list(times):
            found[name] = self._worker(name).answer(seconds_left() - ends)
            self._drop_failed(name, found, times)
        self._report.put(measure, value=found)
        self._check_counts({name: found[name]["parameters"] for name in times})
        calls = {}
        for name in list(times):  # not counted: it says how many calls make a burst
            first = self._burst(name, measure, 1 if DRY else 2, found, times)
            calls[name] = max(1, round(BURST / first)) if first else 0
        for done in range(ROUNDS):
            if "genzoo" not in times or (done and seconds_left() < ends):
                break
            for name in random.sample(list(times), len(times)):
                times[name].append(self._burst(name, measure, calls[name], found, times))
            self._count(measure, found, times)
        self._report.put(measure, value=found)
        return bool(times.get("genzoo"))

    def _burst(self, name: str, measure: str, calls: int, found: dict, times: dict):
        """Seconds a call; None after a failure, which ends the contender's part in this measure."""
        worker = self._worker(name)
        worker.ask("burst", measure, calls)
        answer = worker.answer(seconds_left())
        found[name] |= {k: v for k, v in answer.items() if k != "seconds"}
        self._drop_failed(name, found, times)
        return answer.get("seconds")

    def _drop_failed(self, name: str, found: dict, times: dict) -> None:
        if "error" in found[name]:
            times.pop(name, None)

    def _count(self, measure: str, found: dict, times: dict) -> None:
        """Puts what follows from the seconds of all rounds."""
        if "genzoo" not in times:
            return
        device = found["genzoo"]["device"]
        for name, told in ratios(times, "genzoo").items():
            work = figures(self._case, measure, told["seconds"], self._counts.read(), device)
            found[name] |= {**told, **work, "rounds": len(times[name])}
        self._report.put(measure, value=found)

    def profile(self, measure: str) -> None:
        """The kernels of those that are still there."""
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
    """The part of the name of its case."""
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
