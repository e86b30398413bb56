"""Runs killed at chosen and at random moments, and then finished, are those that nobody killed: the
final state, the curve, eval.json and every picture and sample, bit for bit.

A run here is training, evaluation and sampling, one after the other. SIGKILL leaves no time to tidy
up. At a chosen moment a process kills itself, before or after a given call of a function.
"""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import chex
import pytest
from runs import final_state

from genzoo.main import main

ROOT = Path(__file__).parents[2]
STEPS, SAVE_EVERY = 60, 10
CONFIG = (
    "--config=toy_mixture:smoke", f"--config.train.steps={STEPS}", "--config.train.keep=1",
    "--config.train.steps_per_call=5", f"--config.train.save_every={SAVE_EVERY}",
    "--config.train.log_every=10", "--config.train.picture_first=10", "--config.sample.npz=True",
    "--config.eval.count=40",
)  # fmt: skip
# Runs `main` in the modes of which --workdir lacks the result, and kills itself at the moment in
# KILL, "INDEX MODULE:NAME TURN before|after|halfway", if it is the process of this index.
JOB = """
    import importlib, os, signal, sys
    from genzoo import main
    from genzoo.modes import evaluate, sample, train  # so that each has its own name of a function

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def halved(self, step, values):
        self._file.write('{"step": ' + str(step) + ', "lo')
        self._file.flush()
        die()

    mine = next((a[10:] for a in sys.argv if a.startswith("--process=")), "0")
    index, place, turn, when = os.environ.get("KILL", "none - 0 -").split()
    if index == mine:
        module, _, name = place.partition(":")
        *owner, name = name.split(".")
        owner = getattr(importlib.import_module(module), *owner) if owner else (
            importlib.import_module(module))
        function, calls = getattr(owner, name), []
        def called(*arguments, **named):
            calls.append(1)
            now = len(calls) == int(turn)
            if now and when != "after":
                (halved if when == "halfway" else die)(*arguments)
            result = function(*arguments, **named)
            return die() if now else result
        setattr(owner, name, called)
    modes = os.environ["MODES"].split(",")
    codes = [main.main([*sys.argv[1:], f"--mode={mode}"]) for mode in modes]
    sys.exit(max(codes))
"""
# Name: the function, which of its calls, and when.
TRAIN, EVAL, SAMPLE = "genzoo.modes.train", "genzoo.modes.evaluate", "genzoo.modes.sample"
MOMENTS = {
    "the folder has a config": ("genzoo.workdir:Workdir.claim", 1, "after"),
    "compiling": (f"{TRAIN}:compile_program", 1, "before"),
    "a save begins": ("genzoo.train.checkpoint:Checkpoints._begin", 2, "after"),
    "a save writes arrays": ("genzoo.train.checkpoint:Checkpoints.save", 3, "after"),
    "a save lacks its manifest": ("genzoo.train.checkpoint:write_manifest", 2, "before"),
    "a save writes its manifest": ("genzoo.train.manifest:write_atomically", 3, "before"),
    "a save gets its name": ("genzoo.train.step_folders:StepFolders.finish", 1, "before"),
    "a save has its name": ("genzoo.train.step_folders:StepFolders.finish", 3, "after"),
    "an old save is removed": ("genzoo.train.step_folders:StepFolders.remove_rest", 2, "before"),
    "the last save": ("genzoo.train.checkpoint:write_manifest", STEPS // SAVE_EVERY, "before"),
    "a line of metrics": ("genzoo.train.writers:JsonLines.write", 4, "halfway"),
    "pictures of a saved step": (f"{TRAIN}:draw", 1, "before"),
    "pictures, one of two": (f"{TRAIN}:save_samples", 2, "before"),
    "pictures between saves": (f"{TRAIN}:save_samples", 4, "before"),
    "a file of pictures": ("matplotlib.figure:Figure.savefig", 1, "after"),
    "pictures of the last step": (f"{TRAIN}:save_samples", 6, "before"),
    "evaluation": (f"{EVAL}:score_batch", 1, "before"),
    "evaluation, its last batch": ("genzoo.evaluate.score:_Collected.add", 3, "before"),
    "evaluation has its figures": (f"{EVAL}:Workdir.write", 1, "before"),
    "eval.json is written": ("genzoo.workdir:write_json", 3, "after"),
    "sampling": (f"{SAMPLE}:draw", 1, "before"),
    "samples have a folder": ("genzoo.workdir:Workdir.begin_samples", 1, "after"),
    "samples are written": (f"{SAMPLE}:np.savez_compressed", 1, "before"),
    "samples lack settings": ("genzoo.workdir:Workdir.end_samples", 1, "before"),
    "samples are not yet the latest": ("genzoo.workdir:point_latest_to", 1, "before"),
}
OF_TWO = {
    "the first, a save lacks its manifest": (0, *MOMENTS["a save lacks its manifest"]),
    "the second, a save writes arrays": (1, *MOMENTS["a save writes arrays"]),
    "the first, pictures": (0, *MOMENTS["pictures of a saved step"]),
    "the second, pictures of the last step": (1, f"{TRAIN}:draw", 6, "before"),
    "the second, compiling": (1, *MOMENTS["compiling"]),
}
RANDOM = {1: 6, 2: 3}  # processes -> kills
RATES = ("steps_per_second", "examples_per_second")


@pytest.fixture(scope="module")
def job(surroundings, tmp_path_factory):
    """(workdir, processes, moment) -> the started run; processes: 1 or 2."""
    place = tmp_path_factory.mktemp("job")
    (place / "job.py").write_text(textwrap.dedent(JOB))
    (place / "two.py").write_text(
        "import sys; import local\n"
        f"local.launch.__kwdefaults__['program'] = ({sys.executable!r}, {str(place)!r} + '/job.py')"
        "\nsys.exit(local.main(['-n', '2', '--grace', '5', '--', *sys.argv[1:]]))\n"
    )

    def start(workdir, processes=1, moment=None, modes="train,eval,sample"):
        environment = {
            **surroundings(haste=True), "MODES": modes,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "launch")]),
            **({"KILL": " ".join(map(str, moment))} if moment else {}),
        }  # fmt: skip
        script = place / ("job.py" if processes == 1 else "two.py")
        return subprocess.Popen(
            [sys.executable, script, *CONFIG, f"--workdir={workdir}"], cwd=ROOT, env=environment,
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


def finished(job, workdir, processes) -> str:
    """What a run said that was left to its end. With several processes only training is theirs."""
    said = ""
    for count, modes in {1: [(1, "train,eval,sample")],
                         2: [(2, "train"), (1, "eval,sample")]}[processes]:  # fmt: skip
        process = job(workdir, count, modes=modes)
        said += process.communicate(timeout=600)[1]
        assert process.returncode == 0 and "Traceback" not in said, said[-3000:]
    return said


def contents(workdir: Path) -> dict[str, object]:
    """All that a run has made, without times."""
    found: dict[str, object] = {"latest": os.readlink(workdir / "samples" / "latest")}
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: v for k, v in row.items() if k not in RATES} for row in rows]
    scores = json.loads((workdir / "eval.json").read_text())
    assert scores["protocol"].pop("seconds") >= 0
    found["eval.json"] = scores
    for file in sorted((workdir / "samples").rglob("[!.]*")):
        if file.is_symlink() or file.is_dir():
            continue
        name = str(file.relative_to(workdir))
        found[name] = file.read_bytes()
        if file.name == "settings.json":
            found[name] = {k: v for k, v in json.loads(found[name]).items() if k != "seconds"}
    return found


def assert_same(workdir: Path, straight: Path) -> None:
    chex.assert_trees_all_equal(final_state(workdir), final_state(straight))
    ours, theirs = contents(workdir), contents(straight)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] != theirs[name]]
    config = [json.loads((each / "config.json").read_text()) for each in (workdir, straight)]
    assert config[0] == config[1]


def killed_and_finished(job, workdir, straight, processes, text) -> str:
    """How it ended, after the run was killed that had said this text."""
    saved = map(int, re.findall(r"saved (\d+)", text))
    said = finished(job, workdir, processes)
    gone_on = re.search(r"Resuming from the checkpoint of step (\d+)", said)
    reached = int(gone_on[1]) if gone_on else 0
    assert reached >= max(saved, default=0)  # what was said to be saved is there
    assert_same(workdir, straight)
    return f"went on from step {reached}, same bits"


@pytest.fixture(scope="module")
def straight(job, tmp_path_factory):
    """processes -> (workdir of a run that nobody killed, {1: the lines that it wrote, 2: those of
    its training by two processes})."""
    made = {}

    def of(processes):
        if processes not in made:
            workdir = tmp_path_factory.mktemp("straight") / str(processes)
            said = finished(job, workdir, processes).splitlines()
            of_two = sum(line.startswith("[") for line in said)
            made[processes] = workdir, {1: len(said), 2: of_two}
        return made[processes]

    return of


def test_pictures_that_a_kill_prevented_are_drawn_when_the_run_goes_on(tmp_path):
    """Before, a run that was killed after the save of a step never drew those of the step."""
    arguments = [*CONFIG, "--config.train.steps=20", f"--workdir={tmp_path}"]
    assert main([*arguments, "--config.train.steps=10"]) == 0
    pictures = {file: file.read_bytes() for file in (tmp_path / "samples").rglob("*.png")}
    assert len(pictures) == 2
    for steps in (10, 20):  # a run that is done, and one that goes on
        for file in pictures:
            file.unlink()
        assert main([*arguments, f"--config.train.steps={steps}"]) == 0
        assert {file: file.read_bytes() for file in pictures} == pictures


@pytest.mark.slow
@pytest.mark.parametrize("name", MOMENTS)
def test_killed_at_a_chosen_moment(job, straight, tmp_path, tried, name):
    process = job(tmp_path, 1, (0, *MOMENTS[name]))
    _, text = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL, text[-3000:]
    tried(f"killed: {name}", killed_and_finished(job, tmp_path, straight(1)[0], 1, text))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TWO)
def test_one_of_two_processes_killed_at_a_chosen_moment(job, straight, tmp_path, tried, name):
    process = job(tmp_path, 2, OF_TWO[name], modes="train")
    _, text = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGKILL, text[-3000:]
    ended = killed_and_finished(job, tmp_path, straight(2)[0], 2, text)
    tried(f"one of two killed: {name}", ended)


def children(process) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_moments(job, straight, tmp_path, tried, processes):
    chance, (whole, lines) = random.Random(processes), straight(processes)
    for number in range(RANDOM[processes]):
        workdir = tmp_path / str(number)
        process = job(workdir, processes, modes="train,eval,sample" if processes == 1 else "train")
        text = "".join(itertools.islice(process.stderr, chance.randrange(lines[processes])))
        time.sleep(chance.uniform(0, 0.3))
        started = children(process) if processes == 2 else [process.pid]
        if started and process.poll() is None:  # otherwise it has only begun, or is about to end
            os.kill(chance.choice(started), signal.SIGKILL)
        text += process.communicate(timeout=600)[1]
        how = "killed" if process.returncode else "had ended"
        ended = killed_and_finished(job, workdir, whole, processes, text)
        tried(f"{how} at a random moment, {processes} process(es)", ended)
