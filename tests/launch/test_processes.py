"""Real processes: they train together, stop together, and go on in another number."""

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
# A network that compiles in a second, trained for long enough to be interrupted.
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
        ({"SLURM_NTASKS": "8"}, False),  # the shell of an allocation is no task of it
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, False),
        ({"TPU_ML_PLATFORM": "JAX"}, True),  # chips are here
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, False),
    ],
)
def test_whether_there_are_others_is_seen(seen, several):
    assert processes._arguments(flags(), seen) == ({} if several else None)


def test_flags_say_it_outright():
    given = flags(coordinator="host:1234", processes=2, process=1)
    expected = {"coordinator_address": "host:1234", "num_processes": 2, "process_id": 1}
    assert processes._arguments(given, {}) == expected
    assert processes._arguments(flags(coordinator="h:1", processes=1, process=0), {}) is None


def called(numbers, count, seconds=1.0):
    """What each process is told, by number: None where all are there."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    told = {}

    def answer(number):
        try:
            roll_call.answer(f"127.0.0.1:{port}", count, number, seconds=seconds)
            told[number] = None
        except OSError as error:
            told[number] = str(error)

    threads = [threading.Thread(target=answer, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return told


def test_a_process_that_does_not_come_is_named():
    assert called([2, 0, 1], 3) == {0: None, 1: None, 2: None}
    assert called([0, 2], 4) == dict.fromkeys((0, 2), "missing: process 1, 3 of 0 to 3")
    assert "process 0 is missing" in called([1], 2)[1]
    assert called([0, 1, 1], 3) == dict.fromkeys((0, 1), "two processes are number 1")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """The environment of all processes here: one cache, and programs compiled in haste."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "GENZOO_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture
def start(surroundings):
    """Starts N processes through launch/local.py, or one without it; with several devices each."""
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
    """What they print until they are all done, with exit code 0 or the one given."""

    def run(n, *arguments, code=0, devices=1):
        process = start(n, *arguments, devices=devices)
        said, _ = process.communicate(timeout=240)
        assert process.returncode == code, said
        return said

    return run


def children(process) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


def interrupted(process, words, number, whom=None) -> tuple[int, str]:
    """Sends a signal once the words are printed: to one of the processes, or to what started
    them; (exit code, all that was printed)."""
    said, sent = [], False
    for line in process.stdout:
        said.append(line)
        if not sent and re.search(words, line):
            sent = True
            os.kill(process.pid if whom is None else children(process)[whom], number)
    assert sent, "".join(said)
    return process.wait(timeout=120), "".join(said)


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
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and "fine" in said, said


def test_elastic_training_scoring_and_sampling(done, start, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    # No mean over steps that a stop cuts in two; pictures at the end only.
    each = ("--config.train.log_every=1", "--config.train.picture_count=0")
    done(0, SMOKE, f"--workdir={alone}", *each)
    # Four processes are killed, two are asked to stop, one of eight devices ends what they began.
    code, said = interrupted(
        start(4, SMOKE, f"--workdir={together}", *each, "--config.train.save_every=5"),
        r"step 10/20", signal.SIGKILL, 2,
    )  # fmt: skip
    assert code == 128 + signal.SIGKILL, said
    code, said = interrupted(
        start(2, f"--workdir={together}"), r"Going on from", signal.SIGTERM, 1
    )
    assert code == 75 and "[0] genzoo: Stopped by SIGTERM at step" in said, said
    assert "[1] genzoo" not in said  # what all would say, the first says
    said = done(1, f"--workdir={together}", "--config.train.picture_count=3", devices=8)
    assert "Going on from the checkpoint of step" in said and "8 device(s)" in said
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
        said = done(
            n, f"--workdir={together}", "--mode=sample", "--config.sample.count=5",
            "--config.sample.batch_size=3", "--config.sample.pictures=denoising",
        )  # fmt: skip
        folder = together / "samples" / "latest"
        assert said.count('"count": 5') == 1 and (folder / "denoising.png").is_file()
        return np.stack([np.asarray(Image.open(folder / f"{i:06d}.png")) for i in range(5)])

    assert np.abs(sampled(0).astype(int) - sampled(2)).max() <= 1


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


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("phase", ["compile", "train"])
def test_sigterm_in_training_leaves_one_agreed_checkpoint(start, done, tmp_path, n, phase):
    words = {"compile": "Compiling", "train": "step 40/2000"}[phase]
    code, said = interrupted(
        start(n, *POINTS, f"--workdir={tmp_path}"), words, signal.SIGTERM, n - 1
    )
    assert code == 75, said
    (step,) = map(int, re.findall(r"Stopped by SIGTERM at step (\d+), saved", said))
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [step]
    # At once: in training within a step or two of the signal, whose step was being logged.
    assert step <= 1 if phase == "compile" else 40 <= step < 80
    more = done(n, f"--workdir={tmp_path}", f"--config.train.steps={step + 20}",
                "--config.train.save_every=20")  # fmt: skip
    assert f"Going on from the checkpoint of step {step}." in more


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


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("phase", LONG)
def test_sigterm_elsewhere_ends_all_processes_alike(start, trained, n, phase):
    mode, arguments, words = LONG[phase]
    if phase == "start" and n == 1:
        words = "Going on from"
    process = start(n, f"--workdir={trained}", f"--mode={mode}", *arguments)
    code, said = interrupted(process, words, signal.SIGTERM, n - 1)
    assert code == 75 and said.count("genzoo: Stopped by SIGTERM") == 1, said
    assert "Traceback" not in said


def test_bad_input_is_said_once(done, trained):
    said = done(2, f"--workdir={trained}", "--config.train.stesp=3", code=2)
    assert said.count("genzoo: train.stesp is not a known key") == 2  # repeated by local.py
    assert "[1] genzoo" not in said


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
