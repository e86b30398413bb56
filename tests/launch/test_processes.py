"""Real processes: they train together, stop together, and resume in another number."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import chex
import numpy as np
import pytest
from oracles import few
from PIL import Image
from runs import metrics

from genzoo import check
from genzoo.experiment import Experiment
from genzoo.main import main
from genzoo.runtime import processes, roll_call
from genzoo.train.frozen import FrozenModels
from genzoo.workdir import Workdir

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "launch" / "local.py"
TOKENIZER, PRIOR = "configs/vqvae_fashion.py:smoke", "configs/prior_vqvae_fashion.py:smoke"
SMOKE = "--config=configs/ddpm_fashion.py:smoke"
# A network that compiles in a second, trained long enough to be interrupted.
POINTS = (
    "--config=configs/toy_mixture.py:smoke", "--config.train.steps=2000",
    "--config.train.steps_per_call=1", "--config.train.save_every=1000",
    "--config.train.picture_count=0", "--config.train.log_every=20",
)  # fmt: skip
PROGRAM = (sys.executable, "-m", "genzoo.main")


def flags(**given):
    return argparse.Namespace(**{"coordinator": None, "processes": None, "process": None} | given)


@pytest.mark.parametrize(
    ("seen", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, True),
        ({"SLURM_NTASKS": "8"}, False),  # a shell in an allocation is not one of its tasks
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, False),
        ({"TPU_ML_PLATFORM": "JAX"}, True),  # there are chips
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, False),
    ],
)
def test_other_processes_are_detected(seen, several):
    assert processes._arguments(flags(), seen) == ({} if several else None)


def test_flags_state_it_explicitly():
    given = flags(coordinator="host:1234", processes=2, process=1)
    expected = {"coordinator_address": "host:1234", "num_processes": 2, "process_id": 1}
    assert processes._arguments(given, {}) == expected
    assert processes._arguments(flags(coordinator="h:1", processes=1, process=0), {}) is None


def called(numbers, count, seconds=1.0):
    """The verdict for each process by number, None if all are present."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    verdicts = {}

    def answer(number):
        try:
            roll_call.answer(f"127.0.0.1:{port}", count, number, seconds=seconds)
            verdicts[number] = None
        except OSError as error:
            verdicts[number] = str(error)

    threads = [threading.Thread(target=answer, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return verdicts


def test_a_missing_process_is_named():
    assert called([2, 0, 1], 3) == {0: None, 1: None, 2: None}
    assert called([0, 2], 4) == dict.fromkeys((0, 2), "missing: process 1, 3 of 0 to 3")
    assert "process 0 is missing" in called([1], 2)[1]
    assert called([0, 1, 1], 3) == dict.fromkeys((0, 1), "two processes are number 1")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """The environment of all processes here: one cache, and the suite's fast compiler flags."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"],
        "GENZOO_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture
def start(surroundings):
    """Starts N processes with launch/local.py, or one without it, each with several devices."""
    running = []

    def run(n, *arguments, devices=1):
        launcher = (sys.executable, str(LOCAL), "-n", str(n), "--grace", "60",
                    "--devices-per-process", str(devices), "--")  # fmt: skip
        command = (*(launcher if n else PROGRAM), *map(str, arguments))
        running.append(subprocess.Popen(
            command, cwd=ROOT, env=surroundings, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ))  # fmt: skip
        return running[-1]

    yield run
    for process in running:
        process.kill()


@pytest.fixture
def done(start):
    """Their output, after all have ended with exit code 0 or the given one."""

    def run(n, *arguments, code=0, devices=1):
        process = start(n, *arguments, devices=devices)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == code, output
        return output

    return run


def children(process) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


def interrupted(process, words, number, whom=None) -> tuple[int, str]:
    """Sends a signal once the words are printed, to one of the processes or to their launcher;
    returns (exit code, output)."""
    output, sent = [], False
    for line in process.stdout:
        output.append(line)
        if not sent and re.search(words, line):
            sent = True
            os.kill(process.pid if whom is None else children(process)[whom], number)
    assert sent, "".join(output)
    return process.wait(timeout=120), "".join(output)


def test_decisions_are_taken_together(start, surroundings, tmp_path):
    sys.path.insert(0, str(LOCAL.parent))
    try:
        import local
    finally:
        sys.path.pop(0)
    script = Path(__file__).parent / "decisions.py"
    changes = local.environments(2, 2, surroundings, [])
    program, port = (sys.executable, str(script)), local.free_port()
    lines = local.commands(program, 2, port, [str(tmp_path / "saved")])
    running = [
        subprocess.Popen(line, cwd=ROOT, env={**surroundings, **change}, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line, change in zip(lines, changes, strict=True)
    ]  # fmt: skip
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "fine" in output, output


def test_a_run_of_two_killed_processes_is_finished_by_one(done, start, tmp_path):
    # Logs every step, so that a stop cuts no mean in two.
    alone, together = tmp_path / "alone", tmp_path / "together"
    each = (*POINTS, "--config.train.steps=400", "--config.train.log_every=1",
            "--config.train.save_every=50")  # fmt: skip
    done(0, *each, f"--workdir={alone}")
    code, output = interrupted(
        start(2, *each, f"--workdir={together}"), r"step 100/400", signal.SIGKILL, 1
    )
    assert code == 128 + signal.SIGKILL, output
    output = done(1, f"--workdir={together}", devices=8)
    assert "Resuming from the checkpoint of step" in output and "8 device(s)" in output
    names = ("step", "loss", "gradient_norm")
    np.testing.assert_allclose(metrics(together, *names), metrics(alone, *names), rtol=1e-4)


@pytest.mark.slow
def test_elastic_training_scoring_and_sampling(done, start, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    # Logs every step, so that a stop cuts no mean in two; pictures only at the end.
    each = ("--config.train.log_every=1", "--config.train.picture_count=0")
    done(0, SMOKE, f"--workdir={alone}", *each)
    # Four processes are killed, two are stopped, and one with eight devices finishes the run.
    code, output = interrupted(
        start(4, SMOKE, f"--workdir={together}", *each, "--config.train.save_every=5"),
        r"step 10/20", signal.SIGKILL, 2,
    )  # fmt: skip
    assert code == 128 + signal.SIGKILL, output
    code, output = interrupted(
        start(2, f"--workdir={together}"), r"Resuming from", signal.SIGTERM, 1
    )
    assert code == 75 and "[0] genzoo: Stopped by SIGTERM at step" in output, output
    assert "[1] genzoo" not in output  # only the first process prints a message common to all
    output = done(1, f"--workdir={together}", "--config.train.picture_count=3", devices=8)
    assert "Resuming from the checkpoint of step" in output and "8 device(s)" in output
    assert (together / "samples" / "training" / "step_00000020_ema.png").is_file()
    names = ("step", "loss", "gradient_norm")
    np.testing.assert_allclose(metrics(together, *names), metrics(alone, *names), rtol=1e-4)

    def scored(n):
        done(n, f"--workdir={together}", "--mode=eval", "--config.eval.count=11",
             "--config.eval.batch_size=4")  # fmt: skip
        return json.loads((together / "eval.json").read_text())

    one, two = scored(0), scored(2)
    assert one["examples"] == two["examples"] == 11 and two["protocol"]["devices"] == 2
    assert two["bits_per_dim"] == pytest.approx(one["bits_per_dim"], rel=1e-5)

    def sampled(n):
        output = done(
            n, f"--workdir={together}", "--mode=sample", "--config.sample.count=5",
            "--config.sample.batch_size=3", "--config.sample.pictures=denoising",
        )  # fmt: skip
        folder = together / "samples" / "latest"
        assert output.count('"count": 5') == 1 and (folder / "denoising.png").is_file()
        return np.stack([np.asarray(Image.open(folder / f"{i:06d}.png")) for i in range(5)])

    assert np.abs(sampled(0).astype(int) - sampled(2)).max() <= 1


@pytest.mark.slow
def test_two_processes_train_on_a_frozen_model(done, tmp_path):
    few = ("--config.train.steps=4", "--config.train.log_every=1", "--config.train.save_every=4",
           "--config.train.picture_count=0")  # fmt: skip
    frozen, alone, together = (tmp_path / name for name in ("frozen", "alone", "together"))
    prior = (f"--config={PRIOR}", *few, f"--config.frozen.tokenizer.workdir={frozen}")
    assert main([f"--config={TOKENIZER}", *few, f"--workdir={frozen}"]) == 0
    assert main([*prior, f"--workdir={alone}"]) == 0
    done(2, *prior, f"--workdir={together}")
    # Written once, and read by both.
    written, kept = (FrozenModels(where / "frozen") for where in (alone, together))
    abstract = Experiment(check.check(Workdir(alone).config())).abstract_state.frozen
    chex.assert_trees_all_equal(kept.read(abstract), written.read(abstract))
    names = ("step", "loss", "gradient_norm")
    np.testing.assert_allclose(metrics(together, *names), metrics(alone, *names), rtol=1e-4)


ONE_OR_TWO = pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.slow), 2])


@ONE_OR_TWO
@pytest.mark.parametrize("phase", [pytest.param("compile", marks=pytest.mark.slow), "train"])
def test_sigterm_in_training_leaves_one_agreed_checkpoint(start, done, tmp_path, n, phase):
    words = {"compile": "Compiling", "train": "step 40/2000"}[phase]
    code, output = interrupted(
        start(n, *POINTS, f"--workdir={tmp_path}"), words, signal.SIGTERM, n - 1
    )
    assert code == 75, output
    if phase == "compile" and n == 1:  # at once, since no step has been made
        assert "Stopped by SIGTERM; what had been saved" in output
        return
    (step,) = map(int, re.findall(r"Stopped by SIGTERM at step (\d+), saved", output))
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [step]
    # At once: within a step or two of the signal, while its step was being logged.
    assert step <= 1 if phase == "compile" else 40 <= step < 80
    if phase == "compile" or n == 2:  # test_resume.py resumes a stopped run bit for bit
        return
    more = done(n, f"--workdir={tmp_path}", f"--config.train.steps={step + 20}",
                "--config.train.save_every=20")  # fmt: skip
    assert f"Resuming from the checkpoint of step {step}." in more


@pytest.fixture(scope="module")
def trained(tmp_path_factory, surroundings):
    workdir = tmp_path_factory.mktemp("trained")
    command = [*PROGRAM, *POINTS, f"--workdir={workdir}", "--config.train.steps=20",
               "--config.train.save_every=20"]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=surroundings, check=True, capture_output=True)
    return workdir


LONG = {
    "start": ("train", ("--config.train.steps=4000000",), "Process 1 of 2"),
    "sample": ("sample", ("--config.sample.count=2000000", "--config.sample.batch_size=64",
                          "--config.sample.steps=200"), "Sampling"),
    "eval": ("eval", ("--config.eval.count=0", "--config.eval.batch_size=2"), "Scoring"),
}  # fmt: skip


@ONE_OR_TWO
@pytest.mark.parametrize("phase", few(LONG, 2))
def test_sigterm_elsewhere_ends_all_processes_alike(start, trained, n, phase):
    mode, arguments, words = LONG[phase]
    if phase == "start" and n == 1:
        words = "Resuming from"
    process = start(n, f"--workdir={trained}", f"--mode={mode}", *arguments)
    code, output = interrupted(process, words, signal.SIGTERM, n - 1)
    assert code == 75 and output.count("genzoo: Stopped by SIGTERM") == 1, output
    assert "Traceback" not in output


def test_bad_input_is_reported_once(done, trained):
    output = done(2, f"--workdir={trained}", "--config.train.stesp=3", code=2)
    assert output.count("genzoo: train.stesp is not a known key") == 2  # repeated by local.py
    assert "[1] genzoo" not in output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--processes=2",), "go together: give all or none"),
        (("--coordinator=here", "--processes=2", "--process=1"), "must be HOST:PORT"),
        (("--coordinator=h:1", "--processes=2", "--process=2"), "must be from 0 to 1"),
    ],
)
def test_wrong_flags_are_refused(done, tmp_path, flags, words):
    assert words in done(0, SMOKE, f"--workdir={tmp_path}/run", *flags, code=2)
    assert not (tmp_path / "run").exists()
