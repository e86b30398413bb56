"""A run that is killed or stopped by SIGTERM and resumed has the same bits as an uninterrupted one.
Each is its own process, compiled as for a user."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import pytest
from runs import final_state, metrics

from genzoo.workdir import Workdir

ROOT = Path(__file__).parent.parent
SMOKE = "--config=configs/ddpm_fashion.py:smoke"
LONGER = [
    "--config.train.steps=80", "--config.train.picture_count=0", "--config.train.log_every=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def straight(tmp_path_factory, genzoo):
    """A workdir with an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("run") / "straight"
    genzoo(SMOKE, f"--workdir={workdir}", *LONGER)
    return workdir


def run_until_killed(workdir, number, at_step, env, *more):
    """Starts a run and sends it a signal as soon as the checkpoint of `at_step` is complete."""
    process = subprocess.Popen(
        [sys.executable, "-m", "genzoo.main", SMOKE, f"--workdir={workdir}", *more],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env,
    )  # fmt: skip
    manifest = workdir / "checkpoints" / str(at_step) / "genzoo_manifest.json"
    limit = time.monotonic() + 300
    while not manifest.exists():
        assert process.poll() is None and time.monotonic() < limit, process.stderr.read()[-2000:]
        time.sleep(0.005)
    process.send_signal(number)
    _, output = process.communicate(timeout=120)
    return process.returncode, output


def test_killed_then_stopped_then_finished_equals_straight_bit_for_bit(
    tmp_path, genzoo, surroundings, straight
):
    stopped, reached = tmp_path / "stopped", []
    for number, at_step in ((signal.SIGKILL, 20), (signal.SIGTERM, 50)):
        code, output = run_until_killed(stopped, number, at_step, surroundings(), *LONGER)
        assert code == (75 if number == signal.SIGTERM else -signal.SIGKILL), output
        assert all(f"Resuming from the checkpoint of step {step}." in output for step in reached)
        reached.append(Workdir(stopped).checkpoints(keep=2).steps()[0])
        assert at_step <= reached[-1] < 80
    done = genzoo(f"--workdir={stopped}", *LONGER)
    assert f"Resuming from the checkpoint of step {reached[-1]}." in done.stderr
    chex.assert_trees_all_equal(final_state(straight), final_state(stopped))
    # The curve has every step once; values logged before a kill are the same numbers.
    names = ("step", "loss", "loss_q0", "gradient_norm")
    expected = {row[0]: row for row in metrics(straight, *names)}
    rows = metrics(stopped, *names)
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    # A log interval that a stop cut in two averages over fewer steps; all others are equal.
    cut = {step // 5 + 1 for step in reached}
    whole = [row for row in rows if row[0] // 5 not in cut and row[0] in expected]
    assert len(whole) >= 12 and all(row == expected[row[0]] for row in whole)
