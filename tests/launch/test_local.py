"""launch/local.py with one-line programs instead of genzoo: process I runs the Python source in
argument I."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "launch" / "local.py"
LINUX = sys.platform == "linux"
spec = importlib.util.spec_from_file_location("launch_local", FILE)
local = importlib.util.module_from_spec(spec)
spec.loader.exec_module(local)

# The program: its own flags, then one source for each process.
PROGRAM = """
import os, signal, sys, time
own, sources = sys.argv[1:4], sys.argv[4:]
me = int(own[2].removeprefix("--process="))
def on_term(act): signal.signal(signal.SIGTERM, act)
def stop(*_): print("asked"); os._exit(75)
def say(text): print(text, file=sys.stderr)
exec(sources[me])
"""
# A background job of a shell, as this suite may be, ignores Ctrl-C from its start, and so do its
# children.
DRIVER = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
import local
sources = sys.argv[3:]
program = [sys.executable, "-S", "-c", json.loads(sys.argv[2]).pop("program")]
options = {k: v for k, v in json.loads(sys.argv[2]).items() if k != "program"}
each = {"changes": [{} for _ in sources], "cores": [set() for _ in sources]}
sys.exit(local.launch(len(sources), sources, program=program, **each | options))
"""


def start(*sources: str, **options) -> subprocess.Popen:
    options = {"settle": 0.3, "grace": 5.0, **options}
    return subprocess.Popen(
        [sys.executable, "-S", "-c", DRIVER, str(FILE.parent),
         json.dumps(options | {"program": PROGRAM}), *sources],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(*sources: str, **options) -> tuple[int, str, str]:
    process = start(*sources, **options)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def alive(pid: int) -> bool:
    """Whether a process is running, not a zombie."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")")[-1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize("n", [1, 3])
def test_lines_are_prefixed_each_in_its_stream(n):
    code, out, err = run(*["print('one'); say('two'); print('three')"] * n)
    assert code == 0
    assert sorted(out.splitlines()) == [f"[{i}] {w}" for i in range(n) for w in ("one", "three")]
    assert sorted(err.splitlines()) == [f"[{i}] two" for i in range(n)]


def test_all_get_one_coordinator_and_a_number_each():
    _, out, _ = run(*["print(*own)"] * 2)
    flags = [line.split()[1:] for line in sorted(out.splitlines())]
    assert flags[0][0] == flags[1][0]
    assert flags[0][0].startswith("--coordinator=127.0.0.1:")
    assert [f[1:] for f in flags] == [["--processes=2", f"--process={i}"] for i in range(2)]


def test_the_first_failure_stops_the_others_and_is_repeated_at_the_end():
    code, out, err = run(
        "on_term(stop); time.sleep(60)",
        "say('before'); say('no such config'); sys.exit(3)",
    )
    assert code == 3
    assert "[0] asked" in out
    lines = err.splitlines()
    assert lines[-2:] == [
        "launch/local.py: process 1 failed with exit code 3: before", "no such config"
    ]  # fmt: skip


def test_processes_that_do_not_stop_are_killed():
    began = time.monotonic()
    code, _, err = run(
        "on_term(signal.SIG_IGN); time.sleep(60)", "time.sleep(0.3); sys.exit(1)", grace=0.3
    )
    assert time.monotonic() - began < 10
    assert code == 1 and "process 1 failed with exit code 1" in err


def test_a_mistake_explains_more_than_the_abort_of_a_peer_that_came_first():
    code, _, err = run("os.abort()", "time.sleep(0.1); say('the cause'); sys.exit(2)", settle=2.0)
    assert code == 2
    assert err.splitlines()[-1] == "launch/local.py: process 1 failed with exit code 2: the cause"


def test_a_signal_is_128_and_its_number():
    code, _, err = run("os.kill(os.getpid(), signal.SIGKILL)")
    assert code == 137
    assert "process 0 failed with exit code 137 (SIGKILL)" in err


class Ended:
    def __init__(self, index, code):
        self.index, self.code = index, code


@pytest.mark.parametrize(
    ("codes", "index"),
    [
        ([0, 0], None),
        ([0, 1], 1),
        ([134, 1], 1),
        ([134, 134], 0),
        ([1, 137], 0),
        ([1, 75], 1),
        ([75, 75], 0),
        ([1, 75, 2], 2),
    ],
)
def test_which_process_explains_the_failure(codes, index):
    culprit = local.culprit([Ended(i, code) for i, code in enumerate(codes)])
    assert (culprit.index if culprit else None) == index


def wait_for_lines(process: subprocess.Popen, count: int) -> None:
    for _ in range(count):
        assert process.stdout.readline().endswith("ready\n")


def test_sigterm_is_passed_on_once_and_ends_the_restarts():
    saves = "on_term(lambda *_: print('asked')); print('ready'); time.sleep(1.2); sys.exit(75)"
    process = start("on_term(stop); print('ready'); time.sleep(60)", saves, restarts=3, grace=0.4)
    wait_for_lines(process, 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 75
    assert sorted(out.splitlines()) == ["[0] asked", "[1] asked"]
    assert "restarting" not in err


def test_a_preempted_process_gives_its_peer_time_to_end_by_itself():
    code, out, _ = run(
        "on_term(stop); time.sleep(0.8); print('saved'); sys.exit(75)", "sys.exit(75)", settle=0.1
    )
    assert code == 75
    assert out == "[0] saved\n"


def test_the_second_ctrl_c_kills():
    waits = "signal.signal(signal.SIGINT, lambda *_: print('ready')); print('ready')\n" + (
        "while True: time.sleep(60)"
    )
    process = start(waits)
    wait_for_lines(process, 1)
    process.send_signal(signal.SIGINT)
    wait_for_lines(process, 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 137


def test_a_helper_that_outlives_its_process_is_ended(tmp_path):
    source = (
        "import subprocess; p = subprocess.Popen(['sleep', '60']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); sys.exit(1)"
    )
    assert run(source)[0] == 1
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(not LINUX, reason="the kernel's help is Linux's")
def test_a_launcher_that_is_killed_leaves_nothing_behind():
    process = start("print(os.getpid()); time.sleep(60)")
    pid = int(process.stdout.readline().split()[1])
    assert alive(pid)
    process.kill()
    process.communicate(timeout=10)
    assert gone(pid)


@pytest.mark.parametrize(
    ("codes", "restarts", "code", "runs"),
    [
        ([75, 0], 3, 0, 2),
        ([1, 75, 0], 2, 0, 3),
        ([1, 1, 1], 1, 1, 2),
        ([75, 0], 0, 75, 1),
        ([2, 0], 3, 2, 1),
    ],
)
def test_restarts(tmp_path, codes, restarts, code, runs):
    counter = tmp_path / "runs"
    source = (
        f"f = open({str(counter)!r}, 'a'); f.write('x'); f.flush();"
        f"sys.exit({codes}[os.path.getsize(f.name) - 1])"
    )
    assert run(source, restarts=restarts)[0] == code
    assert len(counter.read_text()) == runs


def test_a_dry_run_prints_the_commands_and_starts_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, FILE, "-n", "2", "--devices-per-process", "3", "--dry-run", "--",
         "--config=configs/ddpm_fashion.py:smoke", f"--workdir={tmp_path}/a run"],
        capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": "--xla_a=1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for index, line in enumerate(lines):
        flag = "--xla_force_host_platform_device_count=3"
        its = sorted(local.shares(2, os.sched_getaffinity(0))[index]) if LINUX else []
        where = f"taskset --cpu-list {','.join(map(str, its))} chrt --batch 0 " if LINUX else ""
        xla = f"XLA_FLAGS='--xla_a=1 {flag}'"
        assert line.startswith(f"JAX_PLATFORMS=cpu {xla} {where}{sys.executable}")
        assert " -m genzoo.main --coordinator=127.0.0.1:" in line
        assert line.endswith(f"--processes=2 --process={index} "
                             "--config=configs/ddpm_fashion.py:smoke "
                             f"'--workdir={tmp_path}/a run'")  # fmt: skip
    assert not (tmp_path / "a run").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-n", "0", "--", "--mode=train"], "at least one process"),
        (["-n", "2"], "no arguments for genzoo.main"),
        (["-n", "2", "--"], "no arguments for genzoo.main"),
        (["-n", "2", "--devices-per-process", "0", "--", "--mode=train"], "at least 1"),
        (["-n", "2", "--restarts", "-1", "--", "--mode=train"], "negative"),
        (["-n", "2", "--", "--process=1"], "--process=1 is set by this launcher"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, part, capfd):
    assert local.main(arguments) == 2
    err = capfd.readouterr().err
    assert part in err and err.count("\n") == 1


def test_the_environment_of_each_process():
    flag = "--xla_force_host_platform_device_count"
    four = {"XLA_FLAGS": f"{flag}=8 --xla_a=1"}
    assert local.environments(2, None, four, []) == [
        {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_a=1 {flag}=1"}
    ] * 2  # fmt: skip
    on_gpus = local.environments(2, None, {}, ["3", "5", "7"])
    assert [e["CUDA_VISIBLE_DEVICES"] for e in on_gpus] == ["3", "5"]
    assert all("JAX_PLATFORMS" not in e for e in on_gpus)
    for environ, devices in (({}, 2), ({"JAX_PLATFORMS": "cpu"}, None)):
        (one,) = local.environments(1, devices, environ, ["0"])
        assert one["JAX_PLATFORMS"] == "cpu"
    with pytest.raises(ValueError, match="4 processes need a GPU each, and 3"):
        local.environments(4, None, {}, ["3", "5", "7"])


def test_each_process_has_cores_of_its_own():
    assert local.shares(1, {0, 1}) == [{0, 1}]
    assert local.shares(2, {5, 2, 3, 7}) == [{2, 3}, {5, 7}]
    assert local.shares(2, range(5)) == [{0, 1}, {2, 3}]
    assert local.shares(3, {0, 1}) == [{0, 1}] * 3


@pytest.mark.skipif(not LINUX, reason="the kernel's help is Linux's")
def test_a_process_begins_on_its_cores_and_in_the_batch_class():
    core = max(os.sched_getaffinity(0))
    asks = "print(os.sched_getaffinity(0), os.sched_getscheduler(0) == os.SCHED_BATCH)"
    code, out, err = run(asks, asks, changes=[{}] * 2, cores=[[core], []])
    assert code == 0, err
    assert sorted(out.splitlines()) == [
        f"[0] {{{core}}} True", f"[1] {os.sched_getaffinity(0)} False"
    ]  # fmt: skip


def test_which_gpus_can_be_seen(tmp_path):
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert local.visible_gpus({}, tmp_path) == ["2", "10"]
    assert local.visible_gpus({"CUDA_VISIBLE_DEVICES": "1, 4"}, tmp_path) == ["1", "4"]
    assert local.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert local.visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == []
