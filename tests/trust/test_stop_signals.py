"""SIGTERM and Ctrl-C end a real process at once, whatever it does; training saves first.

`-m slow` sends 200 signals at random times to eight modes and prints how each process ended.
"""

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from genzoo.train.loop import INPUTS_LATE
from genzoo.workdir import Workdir

ROOT = Path(__file__).parents[2]
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # the tests run in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
LIMIT = 2.0  # seconds from a signal to the end
CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
START = """
    import gc, hashlib, logging, os, signal, subprocess, sys, threading, time
    from genzoo.core.errors import Interrupted, UserError
    from genzoo.runtime.signals import Signals
    signals = Signals()
    signals.start()
    def ready():
        print("ready", flush=True)
"""
# What a main thread may be doing. The first ones swallow every exception; in the others no Python
# handler runs.
DOES = {
    "swallows": """
        ready()
        while True:
            try:
                time.sleep(.01)
            except BaseException:
                pass
    """,
    "collects": """
        gc.callbacks.append(lambda *_: sum(range(20_000)))
        ready()
        while True:
            gc.collect()
    """,
    "finalizes": """
        class Short:
            def __del__(self):
                sum(range(20_000))
        ready()
        while True:
            Short()
    """,
    "logs": """
        class Slow(logging.Handler):
            def emit(self, record):
                try:
                    time.sleep(.05)
                except BaseException:
                    self.handleError(record)
        log = logging.Logger("aside")
        log.addHandler(Slow())
        ready()
        while True:
            log.info("whoever catches everything")
    """,
    "computes": """
        ready()
        while True:
            pass
    """,
    "reads": """
        ready()
        os.read(os.pipe()[0], 1)
    """,
    "compiles": """
        ready()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # in C, as a compilation
    """,
    "waits for a lock": """
        lock = threading.Lock()
        lock.acquire()
        ready()
        lock.acquire()
    """,
    "waits for a process": """
        ready()
        subprocess.run(["sleep", "5"])
    """,
    "waits for a thread": """
        threading.Thread(target=time.sleep, args=[60]).start()
        ready()
        sys.exit(0)  # waits for the thread
    """,
    "cannot write": """
        ready()
        print("x" * 1_000_000, file=sys.stderr)  # more than the pipe holds
    """,
    "at exit": """
        import atexit
        atexit.register(time.sleep, 60)
        ready()
    """,
}


def started(script: str, *arguments) -> subprocess.Popen:
    """A process that has printed `ready`."""
    text = textwrap.dedent(START) + textwrap.dedent(script)
    process = subprocess.Popen(
        [sys.executable, "-c", text, *arguments], cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    time.sleep(0.03)  # to be well in the middle of it
    return process


def sent(process: subprocess.Popen, *numbers: int, apart: float = 0.2) -> tuple[int, str, float]:
    """(exit code, what was written, seconds since the last signal)."""
    for number in numbers[:-1]:
        process.send_signal(number)
        time.sleep(apart)
        assert process.poll() is None, "the first signal was not held back"
    began = time.monotonic()
    process.send_signal(numbers[-1])
    try:
        process.wait(timeout=30)
    finally:
        process.kill()
    seconds = time.monotonic() - began
    return process.returncode, process.stdout.read() + process.stderr.read(), seconds


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("doing", DOES)
def test_a_signal_ends_a_process_whatever_it_does(doing, number):
    code, text, seconds = sent(started(DOES[doing]), number)
    assert code == CODES[number] and seconds < LIMIT, (seconds, text[-500:])
    assert "Traceback" not in text
    if doing != "cannot write":
        words = f"genzoo: Stopped by {number.name}; what had been saved is kept.\n"
        assert text == words


@pytest.mark.parametrize("number", CODES)
def test_a_signal_that_a_process_was_started_to_ignore_is_ignored(number):
    """Shells start background jobs of scripts so that Ctrl-C does not end them."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = started("""
            ready()
            time.sleep(.5)
            print("done")
        """)
    finally:
        signal.signal(number, before)
    assert sent(process, number)[:2] == (0, "done\n")


# Name: script, number of signals, exit code, last words.
HELD = {
    "the loop saves": ("""
        try:
            with signals.held():
                ready()
                while signals.number is None:
                    time.sleep(.01)
                raise Interrupted(signals.number, 7)
        except Interrupted as error:
            print(f"genzoo: {error}", file=sys.stderr)
            signals.settle(error.code)
            sys.exit(error.code)
    """, 1, 75, "genzoo: Stopped by SIGTERM at step 7, saved."),
    "what is closed afterwards hangs": ("""
        try:
            with signals.held():
                ready()
                while signals.number is None:
                    time.sleep(.01)
                raise Interrupted(signals.number, 7)
        finally:
            time.sleep(60)
    """, 1, 75, "genzoo: Stopped by SIGTERM at step 7, saved."),
    "the input hangs": ("""
        def leave(number):
            raise Interrupted(number, 7)
        with signals.held(), signals.interruptible(leave):
            ready()
            os.read(os.pipe()[0], 1)
    """, 1, 75, "genzoo: Stopped by SIGTERM at step 7, saved."),
    "the loop waits for the other thread": ("""
        def leave(number):
            time.sleep(.5)
            raise Interrupted(number, 7)
        with signals.held():
            ready()
            with signals.interruptible(leave):
                time.sleep(.8)
            print("the state is donated")
    """, 1, 75, "genzoo: Stopped by SIGTERM at step 7, saved."),
    "the loop waits for an input that comes": ("""
        def leave(number):
            raise Interrupted(number, 99)
        with signals.held():
            ready()
            while signals.number is None:
                time.sleep(.01)
            signals._received_at -= 100  # as if a long step had gone before
            with signals.interruptible(leave, after=60):
                time.sleep(.3)
            signals.settle(75, "genzoo: Stopped by SIGTERM at step 7, saved.")
        time.sleep(60)
    """, 1, 75, "genzoo: Stopped by SIGTERM at step 7, saved."),
    "the disk is full": ("""
        def leave(number):
            raise UserError("The disk is full.")
        with signals.held(), signals.interruptible(leave):
            ready()
            time.sleep(60)
    """, 1, 2, "genzoo: The disk is full."),
    "a step hangs": ("""
        with signals.held():
            ready()
            time.sleep(60)
    """, 2, 75, "genzoo: Ended at once by a second signal, SIGTERM; what had been saved is kept."),
    "saving hangs": ("""
        with signals.held(), signals.interruptible(lambda number: time.sleep(60)):
            ready()
            time.sleep(60)
    """, 2, 75, "genzoo: Ended at once by a second signal, SIGTERM; what had been saved is kept."),
    "the work was done": ("""
        with signals.held():
            pass
        signals.settle(0)
        ready()
        time.sleep(60)  # as the end of Python may
    """, 1, 0, "")
}  # fmt: skip


@pytest.mark.parametrize("doing", HELD)
def test_training_saves_first(doing):
    script, count, expected, words = HELD[doing]
    process = started(script)
    code, text, seconds = sent(process, *[signal.SIGTERM] * count, apart=0.7)
    first = "genzoo: SIGTERM: the run stops after the current step, batch or compilation. A second "
    lines = [f"{first}signal ends it at once.", words] if words else []
    assert (code, text.splitlines()) == (expected, lines) and seconds < LIMIT


@pytest.mark.parametrize("code", [0, 2])
def test_finished_work_keeps_its_exit_code_to_the_very_end(code):
    """The last thing that is called is ours: Python never gives the signals back, and what it
    would tear down after that is never reached."""
    script = """
        import atexit
        import genzoo.main
        class Torn:
            def __del__(self):
                os.write(1, b"torn down")
        kept = Torn()
        def last():
            ready()
            time.sleep(.2)
            print("written, not flushed", end="")
        def main(*_):
            atexit.register(last)
            return int(sys.argv[1])
        genzoo.main.main = main
        signals.close()
        genzoo.main._process()
    """
    process = started(script, str(code))
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (code, "written, not flushed", "")
    assert sent(started(script, str(code)), signal.SIGTERM)[:2] == (code, "")


POINTS = ("--config=toy_mixture:smoke", "--config.train.steps=100000",
          "--config.train.steps_per_call=1", "--config.train.save_every=50000",
          "--config.train.picture_count=0", "--config.train.log_every=20")  # fmt: skip
# Runs `main` with inputs, or pictures, that hang after 30 steps.
HANGS = """
    import itertools, os, sys
    import genzoo.main
    from genzoo.modes import train
    def hang(*_):
        print("ready", flush=True)
        os.read(os.pipe()[0], 1)
    inputs = train._inputs
    def hanging(*arguments):
        data, batches = inputs(*arguments)
        def some():
            yield from itertools.islice(batches, 30)
            hang()
        return data, some()
    what = sys.argv.pop(1)
    if what == "inputs":
        train._inputs = hanging
    if what == "pictures":
        train._picture_steps, train._training_pictures = (lambda _: {30}), (lambda *_: hang)
    genzoo.main._process()
"""


@pytest.mark.parametrize("what", ["inputs", "pictures"])
def test_a_run_whose_inputs_or_pictures_hang_is_saved(surroundings, tmp_path, what):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HANGS), what, *POINTS, f"--workdir={tmp_path}"],
        cwd=ROOT, env=surroundings(haste=True), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    code, text, seconds = sent(process, signal.SIGTERM)
    assert code == 75 and "Traceback" not in text, text
    assert text.endswith("genzoo: Stopped by SIGTERM at step 30, saved.\n")
    assert seconds < LIMIT + 2 and Workdir(tmp_path).checkpoints(keep=1).steps() == [30]


@pytest.mark.slow
def test_one_of_two_processes_whose_inputs_hang_ends_alone(surroundings, tmp_path, monkeypatch):
    """It cannot save without the other, which waits for it in the next step; a second signal ends
    that one."""
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    import local

    script = tmp_path / "hangs.py"
    script.write_text(textwrap.dedent(HANGS))
    changes = local.environments(2, 1, surroundings(haste=True), [])
    arguments = [*POINTS, "--config.train.log_every=1", f"--workdir={tmp_path}/run"]
    port, lines = local.free_port(), []
    for process, what in enumerate(["nothing", "inputs"]):
        program = (sys.executable, str(script), what)
        lines.append(local.commands(program, 2, port, arguments)[process])
    first, second = (
        subprocess.Popen(
            line, cwd=ROOT, env={**surroundings(haste=True), "PYTHONPATH": str(ROOT), **change},
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for line, change in zip(lines, changes, strict=True)
    )  # fmt: skip
    try:
        # Gloo announces its peers on standard output.
        assert "ready\n" in second.stdout, second.stderr.read()
        time.sleep(1)
        code, text, seconds = sent(second, signal.SIGTERM)
        assert code == 75 and INPUTS_LATE <= seconds < INPUTS_LATE + LIMIT, text
        assert text.endswith("genzoo: Stopped by SIGTERM; what had been saved is kept.\n")
        first.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        first.send_signal(signal.SIGTERM)
        first.wait(timeout=LIMIT)
    finally:
        first.kill()
        second.kill()


def caught(process: subprocess.Popen) -> bool:
    """Whether the process handles SIGTERM by itself, because `main` runs."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def early(arguments, seconds: float, environment: dict) -> str:
    """How a run ended that was sent SIGTERM so many seconds after its start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "genzoo.main", *arguments], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        handled, began = caught(process), time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        late = "" if time.monotonic() - began < LIMIT else " too late"
    else:
        return "had ended" if process.returncode == 0 else f"failed: {errors}"
    if process.returncode == -signal.SIGTERM and not handled:
        return "before main" if not errors else f"before main: {errors}"
    if process.returncode == 0 and json.loads(output):
        return "ended"
    last = (errors.splitlines() or [""])[-1]
    if process.returncode == 75 and "Traceback" not in errors and "Exception" not in errors:
        if last == "genzoo: Stopped by SIGTERM; what had been saved is kept.":
            return "75" + late
        if last.startswith("genzoo: Stopped by SIGTERM at step") and "train" in arguments[0]:
            return "75, saved"
    return f"exit code {process.returncode}{late}: {errors}"


GOOD = {"75", "75, saved", "ended", "had ended", "before main"}


def test_twenty_early_signals(surroundings, tried):
    chance = random.Random(14)
    ends = Counter(
        early(["--mode=list"], chance.uniform(0.05, 0.8), surroundings()) for _ in range(20)
    )
    for end, times in ends.items():
        tried("an early SIGTERM in list", end, times)
    assert set(ends) <= GOOD and ends["75"] >= 10, ends


@pytest.mark.slow
def test_two_hundred_early_signals_in_all_kinds_of_modes(surroundings, tmp_path, tried):
    chance, environment = random.Random(200), surroundings(haste=True)
    trained = tmp_path / "trained"
    subprocess.run(
        [sys.executable, "-m", "genzoo.main", "--config=toy_mixture:smoke", f"--workdir={trained}"],
        cwd=ROOT, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    modes = ("train", "sample", "eval", "describe", "bench", "doctor", "list")
    ends = {mode: Counter() for mode in modes}
    for index in range(200):
        mode = modes[index % len(modes)]
        workdir = tmp_path / str(index) if mode == "train" else trained
        arguments = {
            "train": (*POINTS, f"--workdir={workdir}"), "list": (),
            "describe": POINTS[:1], "bench": POINTS[:1],
        }.get(mode, (f"--workdir={workdir}",))  # fmt: skip
        seconds = chance.uniform(0.05, 8.0 if mode == "train" else 4.0)
        ends[mode][early([f"--mode={mode}", *arguments], seconds, environment)] += 1
    for mode in modes:
        for end, times in ends[mode].items():
            tried(f"an early SIGTERM in {mode}", end, times)
    assert set().union(*ends.values()) <= GOOD
    # Whatever a run left behind, the next one goes on from it.
    left = [p for p in tmp_path.iterdir() if (p / "checkpoints").is_dir() and p != trained]
    for workdir in left[:2]:
        subprocess.run(
            [sys.executable, "-m", "genzoo.main", f"--workdir={workdir}",
             f"--config.train.steps={max(Workdir(workdir).checkpoints(keep=1).steps()) + 20}"],
            cwd=ROOT, env=environment, check=True, capture_output=True,
        )  # fmt: skip
