"""Several processes on one machine at once do not disturb each other: two runs, and a run with ten
readers. The numbers of each run are those of an undisturbed one, bit for bit."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import pytest
from runs import final_state

ROOT = Path(__file__).parents[2]
CONFIG = (
    "--config=toy_mixture:smoke", "--config.train.steps_per_call=5", "--config.train.keep=1",
    "--config.train.save_every=50", "--config.train.log_every=50",
    "--config.train.picture_count=0", "--config.optimizer.decay=constant",
)  # fmt: skip
READERS = {
    "sample": ("--config.sample.count=4",),
    "eval": ("--config.eval.count=16",),
}


@pytest.fixture
def start(surroundings):
    """Starts `main`; all that still run are killed at the end."""
    started = []

    def run(*arguments, log=subprocess.PIPE):
        started.append(subprocess.Popen(
            [sys.executable, "-m", "genzoo.main", *map(str, arguments)], cwd=ROOT,
            env=surroundings(haste=True), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log,
        ))  # fmt: skip
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def ended(process, code=0) -> tuple[str, str]:
    """(standard output, standard error) of a process that has ended with this code."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code and "Traceback" not in errors, errors[-3000:]
    return output, errors


@pytest.mark.slow
def test_two_runs_at_once(start, tmp_path):
    seeds = (1, 2)

    def begin(kind, seed):
        return start(*CONFIG, f"--config.seed={seed}", "--config.train.steps=2000",
                     f"--workdir={tmp_path}/{kind}-{seed}")  # fmt: skip

    for process in [begin("together", seed) for seed in seeds]:
        ended(process)
    for seed in seeds:
        ended(begin("alone", seed))
        chex.assert_trees_all_equal(
            final_state(tmp_path / f"together-{seed}"), final_state(tmp_path / f"alone-{seed}")
        )


@pytest.mark.slow
def test_ten_readers_of_a_run_that_prunes_its_checkpoints(start, tmp_path, tried):
    workdir, straight, log = tmp_path / "run", tmp_path / "straight", tmp_path / "log"
    with log.open("w") as file:
        training = start(*CONFIG, f"--workdir={workdir}", "--config.train.steps=10_000_000",
                         log=file)  # fmt: skip
    limit = time.monotonic() + 120
    while not re.search(r"saved \d", log.read_text()):
        assert training.poll() is None and time.monotonic() < limit, log.read_text()
        time.sleep(0.1)
    kinds = [kind for _ in range(5) for kind in READERS]
    readers = [
        start(f"--workdir={workdir}", f"--mode={kind}", *READERS[kind]) for kind in kinds
    ]
    reports = [json.loads(ended(reader)[0]) for reader in readers]
    steps = [report.get("protocol", report)["step"] for report in reports]
    assert training.poll() is None, log.read_text()[-3000:]
    training.send_signal(signal.SIGTERM)
    assert training.wait(timeout=60) == 75
    (stopped,) = map(int, re.findall(r"Stopped by SIGTERM at step (\d+), saved", log.read_text()))
    ended(start(*CONFIG, f"--workdir={straight}", f"--config.train.steps={stopped}"))
    chex.assert_trees_all_equal(final_state(workdir), final_state(straight))
    tried("readers of a run that prunes", f"of {len(set(steps))} steps", len(steps))
