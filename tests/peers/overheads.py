"""Measures the overhead of genzoo's own machinery over the compiled programs, on this machine.

    python tests/peers/overheads.py [--rounds 5] [--measure loop scaling start] [--json FILE]

loop: the training loop against bare calls of a compiled step that does nothing.
scaling: a training step of the same global batch on one device, on two virtual devices of one
process, and in two processes with launch/local.py, in turns. All use the same cores, so a ratio of
1 is the best possible.
start: seconds until the first step is done and logged, with an empty cache of compiled programs and
with the cache of the first start.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAPTOP = "configs/ddpm_fashion.py:laptop"
DEVICES = "--xla_force_host_platform_device_count=2"


def ratios(times: dict[str, list[float]], base: str) -> dict:
    """The median seconds of each, and the median and range of its ratio to the base per round."""
    summary = {}
    for name, seconds in times.items():
        each = [a / b for a, b in zip(seconds, times[base], strict=True)]
        summary[name] = {
            "seconds": round(statistics.median(seconds), 6),
            f"over_{base}": round(statistics.median(each), 4),
            "range": [round(min(each), 4), round(max(each), 4)],
        }
    return summary


def loop(rounds: int) -> dict:
    """Microseconds of host time that the loop takes per call, with a step that does nothing: rows
    of the batch, checking for a stop, metrics, logs every 100 steps and checking what is due. A
    busy device waits for them only if its step is shorter."""
    figures = {}
    for path, stride in ((LAPTOP, 1), ("configs/toy_mixture.py", 100)):
        calls = _loop(path, stride, 2000, rounds)
        figures[f"{Path(path).stem}, {stride} steps a call"] = {
            "microseconds_a_call": round(1e6 * statistics.median(calls), 1),
            "microseconds_a_step": round(1e6 * statistics.median(calls) / stride, 2),
            "of_a_50_ms_call": f"{100 * statistics.median(calls) / 0.05:.2f} %",
        }
    return figures


def _loop(path: str, stride: int, calls: int, rounds: int) -> list[float]:
    """Seconds per call in excess of bare calls of the same empty program."""
    import jax
    import jax.numpy as jnp

    from genzoo import build, check, config
    from genzoo.experiment import Experiment
    from genzoo.modes import train as mode
    from genzoo.runtime.signals import Signals
    from genzoo.runtime.stopping import Stop
    from genzoo.train import writers
    from genzoo.train.checkpoint import Checkpoints
    from genzoo.train.guard import Guard
    from genzoo.train.loop import train
    from genzoo.train.state import Faults, TrainState

    many = str(10**8)
    raw = config.override(
        config.load(path),
        {"train.steps": many, "train.steps_per_call": str(stride), "train.save_every": many,
         "train.log_every": "100"},
    )  # fmt: skip
    experiment = Experiment(check.check(raw))
    _, inputs = mode._inputs(experiment, experiment.open("train"), 0)
    settings = build.section(experiment.config, "train")

    def empty(state, rows):
        sums = {k: (jnp.float32(stride), jnp.float32(stride)) for k in ("loss", "gradient_norm")}
        return TrainState(**{**vars(state), "step": state.step + stride}), sums

    state = TrainState(step=jnp.int32(0), params={}, stats={}, opt_state={}, averages={},
                       faults=Faults.none())  # fmt: skip
    rows = next(inputs)
    program = jax.jit(empty, donate_argnums=0).lower(state, rows).compile()
    extra = []
    with tempfile.TemporaryDirectory() as folder, Signals() as signals:
        for _ in range(rounds + 1):
            began = time.perf_counter()
            for _ in range(calls):
                state, _ = program(state, rows)
            jax.block_until_ready(state)
            bare = time.perf_counter() - began
            ends = int(state.step) + calls * stride
            checkpoints = Checkpoints(directory=Path(folder))
            checkpoints.last_saved = ends  # nothing is saved here
            began = time.perf_counter()
            state = train(
                state, program, inputs, settings=replace(settings, steps=ends),
                guard=Guard(checkpoints=checkpoints, limit=settings.fault_limit),
                writers=writers.open_writers(Path(folder), 0, first_process=True),
                progress=writers.Progress(ends, False), pictures=lambda *_: None,
                picture_at=set(), report=mode.Watch(experiment.family),
                stop=Stop(signals),
            )  # fmt: skip
            jax.block_until_ready(state)
            extra.append((time.perf_counter() - began - bare) / calls)
            checkpoints.close()
    inputs.close()
    return extra[1:]  # the first warms up


def scaling(rounds: int) -> dict:
    """Seconds of a step, from `--mode=bench`."""
    arguments = [
        "--mode=bench", f"--config={LAPTOP}", "--config.bench.seconds=8",
        "--config.bench.sample_steps=1", "--config.sample.batch_size=2",
    ]  # fmt: skip
    alone = [sys.executable, "-m", "genzoo.main", *arguments]
    launcher = [sys.executable, "launch/local.py", "-n", "2", "--devices-per-process", "1", "--"]
    contenders = {
        "one": (alone, ""),
        "two virtual devices": (alone, DEVICES),
        "two processes": ([*launcher, *arguments], ""),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (command, flags) in contenders.items():
            times[name].append(_bench(command, flags))
    return ratios(times, "one")


def _bench(command: list[str], flags: str) -> float:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    )  # fmt: skip
    lines = (line.removeprefix("[0] ") for line in done.stdout.splitlines())
    # Lines with a prefix come from gloo and from process 1.
    report = "\n".join(line for line in lines if not line.startswith("["))
    return json.loads(report)["train"]["step_seconds"]["median"]


def start(rounds: int) -> dict:
    """Seconds until the first step of a run is done, without and with cached programs."""
    times: dict[str, list[float]] = {"first": [], "second": []}
    for _ in range(min(rounds, 3)):
        with tempfile.TemporaryDirectory() as folder:
            for name in times:
                command = [
                    sys.executable, "-m", "genzoo.main", "--config=configs/ddpm_fashion.py",
                    "--config.network.dtype=float32", "--config.train.batch_size=2",
                    "--config.train.steps=1", "--config.train.save_every=1",
                    "--config.train.picture_count=0", f"--workdir={folder}/{name}",
                ]  # fmt: skip
                times[name].append(_first_step(command, folder))
    return ratios(times, "first")


def _first_step(command: list[str], cache: str) -> float:
    began, done = time.perf_counter(), None
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "GENZOO_CACHE": cache},
    )  # fmt: skip
    for line in process.stdout:
        if "step 1/1 " in line:
            done = time.perf_counter() - began
    if process.wait() or done is None:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    return done


MEASURES = {"loop": loop, "scaling": scaling, "start": start}


def main() -> None:
    """Parses flags and prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs="+", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict = {"cores": len(os.sched_getaffinity(0)), "machine": platform.platform()}
    for name in arguments.measure:
        report[name] = MEASURES[name](arguments.rounds)
        print(name, json.dumps(report[name], indent=1), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
