"""The files of launch/: linted, dry runs, and runs with fake cluster tools that record their
arguments."""

import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
LAUNCH = ROOT / "launch"
SHELL = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
TEMPLATES = sorted(LAUNCH.glob("*.yaml"))
GIVEN = {
    "gke_jobset.yaml": ["IMAGE=repo/genzoo:1", "BUCKET=my-runs", "GSA=runner@p.iam"],
    "skypilot.yaml": ["BUCKET=gs://my-runs"],
}


class FakePrograms:
    """Fake programs, first on PATH, that record their arguments and then run a given script."""

    def __init__(self, folder: Path):
        self.folder, self.record = folder / "bin", folder / "record"
        self.folder.mkdir()
        self.home = folder / "home"
        self.home.mkdir()

    def add(self, name: str, body: str = "") -> None:
        file = self.folder / name
        file.write_text(
            f"#!{shutil.which('bash')}\n"  # an absolute path, because bash itself may be faked
            f"{{ printf '{name}'; printf ' %q' \"$@\"; echo; }} >>{shlex.quote(str(self.record))}\n"
            f"{body}\n"
        )
        file.chmod(0o755)

    def run(self, *command, timeout: float = 60, **knobs: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=timeout,
            env=self.environment(knobs), cwd=ROOT,
        )  # fmt: skip

    def environment(self, knobs: dict[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.folder}:{os.environ['PATH']}", "HOME": str(self.home),
            "TMPDIR": str(self.home), **knobs,
        }  # fmt: skip

    @property
    def calls(self) -> list[list[str]]:
        if not self.record.exists():
            return []
        return [shlex.split(line) for line in self.record.read_text().splitlines()]

    def called(self, name: str) -> list[list[str]]:
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def cloud(tmp_path) -> FakePrograms:
    made = FakePrograms(tmp_path)
    for name in ("gcloud", "kubectl", "sky", "srun", "scontrol", "sbatch"):
        made.add(name)
    return made


# --- Lint.


@pytest.mark.parametrize("file", SHELL, ids=lambda f: f.name)
def test_bash_can_parse_it(file):
    done = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", SHELL, ids=lambda f: f.name)
def test_shellcheck_passes(file):
    beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    tool = shutil.which("shellcheck", path=beside)
    if tool is None:
        pytest.skip("shellcheck is not installed: pip install -e '.[test]'")
    done = subprocess.run([tool, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", SHELL, ids=lambda f: f.name)
def test_every_setting_of_a_shell_file_has_a_default_and_a_comment(file):
    lines = [line for line in file.read_text().splitlines() if line.startswith(': "${')]
    assert lines
    for line in lines:
        assert re.match(r': "\$\{\w+:=.*\}"\s+# \S', line) or line == ': "${dry_run:=0}"', line


def test_every_file_is_described_in_the_readme():
    text = (LAUNCH / "README.md").read_text()
    for file in LAUNCH.iterdir():
        if file.is_file() and file.name != "README.md":
            assert f"`{file.name}`" in text or f"launch/{file.name}" in text, file.name


def test_commands_of_the_readme_name_what_there_is():
    text = (LAUNCH / "README.md").read_text()
    for name in re.findall(r"launch/(\w+\.\w+)", text):
        assert (LAUNCH / name).is_file(), name
    for config in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / config).is_file(), config
    own = set(re.findall(r"\b([A-Z_]{3,})=", text))
    known = set(re.findall(r"\$\{(\w+):=|^# ([A-Z_]+)=", "\n".join(
        file.read_text() for file in [*SHELL, *TEMPLATES]), re.M))  # fmt: skip
    assert own <= {name for pair in known for name in pair} | {"JAX_PLATFORMS"}


# --- again.sh.


def again(cloud: FakePrograms, codes: list[int], restarts: int) -> tuple[int, int]:
    """Exit code and number of runs of a program that exits with these codes, one after another."""
    cloud.add("program", f"codes=({' '.join(map(str, codes))})\n"
              f"exit ${{codes[$(grep -c ^program {cloud.record}) - 1]}}")  # fmt: skip
    done = cloud.run("bash", LAUNCH / "again.sh", restarts, "program", "a b", PAUSE="0")
    assert all(call == ["a b"] for call in cloud.called("program"))
    return done.returncode, len(cloud.called("program"))


@pytest.mark.parametrize(
    ("codes", "restarts", "code", "runs"),
    [
        ([0], 3, 0, 1),
        ([2, 0], 3, 2, 1),
        ([75, 75, 75, 0], 0, 0, 4),
        ([1, 75, 134, 0], 2, 0, 4),
        ([1, 139, 0], 1, 139, 2),
    ],
)
def test_again(cloud, codes, restarts, code, runs):
    assert again(cloud, codes, restarts) == (code, runs)


def test_again_waits_for_the_checkpoint_after_sigterm_and_starts_nothing(cloud):
    cloud.add("program", "trap 'sleep 0.3; echo saved; exit 75' TERM; echo ready\n"
              "for ((i = 0; i < 300; i++)); do sleep 0.05; done")  # fmt: skip
    process = subprocess.Popen(
        ["bash", LAUNCH / "again.sh", "3", "program"], stdout=subprocess.PIPE, text=True,
        env=cloud.environment({"PAUSE": "0"}),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (75, "saved\n")
    assert len(cloud.called("program")) == 1


def test_a_signal_at_the_very_start_is_not_lost(cloud):
    cloud.add("program", "trap 'exit 75' TERM\nkill -s TERM $PPID\n"
              "for ((i = 0; i < 300; i++)); do sleep 0.05; done")  # fmt: skip
    for _ in range(10):
        done = cloud.run("bash", LAUNCH / "again.sh", "0", "program", PAUSE="0", timeout=10)
        assert done.returncode == 75
    assert len(cloud.called("program")) == 10


def test_again_says_what_is_wrong_with_its_arguments(cloud):
    for arguments in ((), ("3",), ("x", "program")):
        done = cloud.run("bash", LAUNCH / "again.sh", *arguments)
        assert done.returncode == 2 and "number of restarts" in done.stderr


# --- slurm.sbatch.


def directives() -> dict[str, str]:
    text = (LAUNCH / "slurm.sbatch").read_text()
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.M))


def test_slurm_asks_for_what_a_restart_needs():
    asked = directives()
    assert asked["signal"] == "TERM@300"  # to the steps; `B:` would be to the script alone
    assert "requeue" in asked and asked["open-mode"] == "append"
    # Every task sees all GPUs of its node, which has as many tasks as GPUs.
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert not {"gpus-per-task", "gpu-bind", "gpus"} & asked.keys()
    first_command = re.search(r"^(?!#|$)", (LAUNCH / "slurm.sbatch").read_text(), re.M).start()
    assert "#SBATCH" not in (LAUNCH / "slurm.sbatch").read_text()[first_command:]


def slurm(cloud: FakePrograms, *arguments, **knobs: str) -> subprocess.CompletedProcess:
    knobs = {"VENV": sys.prefix, "REPO": str(ROOT), "SLURM_JOB_ID": "7"} | knobs
    return cloud.run("bash", LAUNCH / "slurm.sbatch", *arguments, **knobs)


@pytest.mark.parametrize(
    ("code", "requeued_before", "again"),
    [(0, 0, False), (2, 0, False), (75, 0, True), (75, 99, True), (1, 2, True), (1, 3, False)],
)
def test_slurm_requeues_by_the_exit_code(cloud, code, requeued_before, again):
    cloud.add("srun", f"exit {code}")
    done = slurm(cloud, SLURM_RESTART_COUNT=str(requeued_before))
    assert done.returncode == code
    assert cloud.called("scontrol") == ([["requeue", "7"]] if again else [])


def test_slurm_runs_genzoo_in_every_task(cloud):
    slurm(cloud, CONFIG="configs/a.py:b", WORKDIR="/shared/a run", EXTRA="--x=1 --y", MODE="eval")
    (call,) = cloud.called("srun")
    assert "--kill-on-bad-exit=1" in call and not any("gpu" in part for part in call)
    assert call[call.index("-m") - 1] == f"{sys.prefix}/bin/python"
    assert call[call.index("-m") :] == [
        "-m", "genzoo.main", "--config=configs/a.py:b", "--workdir=/shared/a run", "--mode=eval",
        "--x=1", "--y",
    ]  # fmt: skip


def test_slurm_waits_for_the_tasks_when_the_script_is_signalled(cloud):
    cloud.add("srun", "kill -TERM $PPID; sleep 0.3; echo saved; exit 75")
    done = slurm(cloud)
    assert "saved" in done.stdout and done.returncode == 75
    assert cloud.called("scontrol") == [["requeue", "7"]]


@pytest.mark.parametrize(("tasks", "seen"), [("1", "0,1,2,3"), ("4", "unset")])
def test_a_single_task_of_a_node_gets_all_of_its_gpus(cloud, tasks, seen):
    cloud.add("srun", "echo devices ${JAX_LOCAL_DEVICE_IDS-unset}")
    done = slurm(cloud, SLURM_NTASKS_PER_NODE=tasks, SLURM_GPUS_ON_NODE="4")
    assert f"devices {seen}\n" in done.stdout


def test_slurm_dry_run_runs_nothing(cloud):
    done = slurm(cloud, "--dry-run", WORKDIR="/shared/run", SLURM_JOB_ID="")
    assert done.returncode == 0 and cloud.calls == []
    assert "-m genzoo.main --config=configs/ddpm_cifar.py --workdir=/shared/run" in done.stdout
    assert "75: scontrol requeue" in done.stdout


def test_slurm_says_what_is_wrong(cloud):
    for done, part in (
        (slurm(cloud, SLURM_JOB_ID=""), "submit it with sbatch"),
        (slurm(cloud, "--dryrun"), "--dryrun is unknown"),
        (slurm(cloud, VENV="/nowhere"), "set VENV"),
    ):
        assert done.returncode == 2 and part in done.stderr
    assert cloud.calls == []


# --- tpu_vm.sh.


def tpu(cloud: FakePrograms, *arguments, **knobs: str) -> subprocess.CompletedProcess:
    return cloud.run("bash", LAUNCH / "tpu_vm.sh", *arguments, **({"BUCKET": "my-runs"} | knobs))


VERBS = ["create", "copy", "run", "all", "logs", "status", "stop", "delete"]


@pytest.mark.parametrize("verb", VERBS)
def test_tpu_only_prints_without_yes(cloud, verb):
    for flags in ((), ("--dry-run",)):
        done = tpu(cloud, verb, *flags, NAME="mine", ZONE="z", PROJECT="p")
        assert done.returncode == 0 and cloud.calls == [] and list(cloud.home.iterdir()) == []
        assert "nothing was done" in done.stderr
        lines = [shlex.split(line) for line in done.stdout.splitlines()]
        clouds = [line for line in lines if line[0] == "gcloud"]
        assert clouds and len(clouds) >= len(lines) - 1  # the other one packs the checkout
        for line in clouds:
            assert line[:3] == ["gcloud", "compute", "tpus"]
            assert {"--zone=z", "--project=p"} <= set(line)
            assert "mine" in line or "mine:genzoo.tar.gz" in line


def test_tpu_creates_and_deletes_what_was_asked_for(cloud):
    for queued, spot in (("0", "1"), ("1", "0")):
        cloud.record.unlink(missing_ok=True)
        tpu(cloud, "create", "--yes", TYPE="v6e-16", VERSION="x", QUEUED=queued, SPOT=spot)
        tpu(cloud, "delete", "--yes", QUEUED=queued)
        made, deleted = cloud.called("gcloud")
        assert "--accelerator-type=v6e-16" in made
        assert ("--spot" in made) == (spot == "1")
        kind = "queued-resources" if queued == "1" else "tpu-vm"
        assert made[2:5] == [kind, "create", "genzoo"]
        assert deleted[2:5] == [kind, "delete", "genzoo"]
        assert ("--runtime-version=x" if queued == "1" else "--version=x") in made
        assert ("--node-id=genzoo" in made) == ("--force" in deleted) == (queued == "1")


@pytest.fixture
def worker(cloud):
    """A cloud with one worker: this machine with another home folder."""
    cloud.add("gcloud", """
case $4 in
    ssh) for part in "$@"; do
            case $part in --command=*) cd "$HOME"; exec bash -c "${part#--command=}" ;; esac
        done ;;
    scp) cp "$5" "$HOME/genzoo.tar.gz" ;;
esac""")
    cloud.add("uv", 'if [[ $1 == venv ]]; then mkdir -p "$HOME/genzoo-venv/bin"; fi')
    cloud.add("gcsfuse")
    cloud.add("sudo")
    return cloud


def put_program(worker: FakePrograms, body: str) -> None:
    """Puts a program on the worker in place of Python."""
    worker.add("python", body)
    there = worker.home / "genzoo-venv" / "bin"
    there.mkdir(parents=True)
    shutil.move(worker.folder / "python", there / "python")
    (worker.home / "genzoo").symlink_to(ROOT)


def until(holds) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_tpu_copies_the_checkout_and_prepares_the_worker(worker):
    (worker.home / "genzoo" / "configs").mkdir(parents=True)
    (worker.home / "genzoo" / "configs" / "stale.py").touch()
    (worker.home / "genzoo" / "runs").mkdir()
    done = tpu(worker, "copy", "--yes", MOUNT=str(worker.home / "bucket"), PYTHON="3.13")
    assert done.returncode == 0, done.stderr
    there = worker.home / "genzoo"
    assert (there / "genzoo" / "main.py").read_text() == (ROOT / "genzoo" / "main.py").read_text()
    assert {p.name for p in there.iterdir()} == {
        "pyproject.toml", "README.md", "LICENSE", "genzoo", "configs", "launch", "runs"
    }  # fmt: skip
    assert not (there / "configs" / "stale.py").exists()
    venv, install = worker.called("uv")
    assert venv[-3:] == ["--python", "3.13", f"{worker.home}/genzoo-venv"]
    assert install[-2:] == ["-e", f"{there}[tpu]"]
    (mount,) = worker.called("gcsfuse")
    assert mount[-2:] == ["my-runs", str(worker.home / "bucket")]
    with tarfile.open(worker.home / "genzoo.tar.gz") as archive:
        assert not [name for name in archive.getnames() if "__pycache__" in name]


def test_tpu_runs_in_the_background_restarts_and_stops(worker):
    put_program(worker, """
if [[ ! -e $HOME/crashed ]]; then touch "$HOME/crashed"; exit 1; fi
if [[ ! -e $HOME/preempted ]]; then touch "$HOME/preempted"; exit 75; fi
trap 'echo saved; exit 75' TERM
for ((i = 0; i < 300; i++)); do sleep 0.05; done""")
    knobs = {"EXTRA": "--config.train.steps=10 --x", "PAUSE": "0", "RESTARTS": "1"}
    assert tpu(worker, "run", "--yes", **knobs).returncode == 0
    until(lambda: len(worker.called("python")) == 3)
    second = tpu(worker, "run", "--yes", **knobs)
    assert second.returncode == 2 and "a run is in progress" in second.stderr
    stopped = tpu(worker, "stop", "--yes")
    assert stopped.returncode == 0 and "saved" in stopped.stdout
    calls = worker.called("python")
    assert len(calls) == 3  # a crash, a preemption, and not again after the stop
    assert calls[0] == [
        "-m", "genzoo.main", "--config=configs/ddpm_cifar.py", "--workdir=/mnt/genzoo/genzoo",
        "--mode=train", "--config.train.steps=10", "--x",
    ]  # fmt: skip
    assert "crashed with exit code 1" in (worker.home / "genzoo.log").read_text()
    assert tpu(worker, "stop", "--yes").returncode == 0  # with nothing there


def test_tpu_does_not_retry_a_mistake(worker):
    put_program(worker, "exit 2")
    tpu(worker, "run", "--yes", PAUSE="0")
    pid = int((worker.home / "genzoo.pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert len(worker.called("python")) == 1


def test_tpu_says_what_is_wrong(cloud):
    for arguments, part in (
        ((), "give one of"),
        (("fly",), "give one of"),
        (("run", "--now"), "one verb"),
        (("run", "--yes", "x"), "one verb"),
    ):
        done = tpu(cloud, *arguments)
        assert done.returncode == 2 and part in done.stderr
    done = tpu(cloud, "run", "--yes", BUCKET="")
    assert done.returncode == 2 and "set BUCKET, or WORKDIR" in done.stderr
    (cloud.folder / "gcloud").unlink()
    if shutil.which("gcloud") is None:
        done = tpu(cloud, "create", "--yes")
        assert done.returncode == 2 and "gcloud is missing" in done.stderr
    assert cloud.calls == []


# --- Templates and submit.py.


def submit(cloud: FakePrograms, *arguments) -> subprocess.CompletedProcess:
    return cloud.run(sys.executable, LAUNCH / "submit.py", *arguments)


def documents(cloud: FakePrograms, file: str, *knobs: str) -> list[dict]:
    done = submit(cloud, LAUNCH / file, *GIVEN[file], *knobs, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert cloud.calls == []
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda f: f.name)
def test_every_setting_is_used_and_every_place_has_a_setting(file):
    text = file.read_text()
    knobs = set(re.findall(r"^# ([A-Z_]+)=\S*\s+\S", text, re.M))
    assert knobs - {"KIND"} == set(re.findall(r"\$\{(\w+)\}", text))
    assert set(GIVEN) == {template.name for template in TEMPLATES}


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_job_set(cloud, kind):
    made = documents(
        cloud, "gke_jobset.yaml", f"KIND={kind}", "NAME=mine", "HOSTS=4", "NAMESPACE=lab"
    )
    assert [document["kind"] for document in made] == ["ServiceAccount", "Service", "JobSet"]
    assert {document["metadata"]["namespace"] for document in made} == {"lab"}
    account, service, jobset = made
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert account["metadata"]["annotations"] == {"iam.gke.io/gcp-service-account": "runner@p.iam"}

    (workers,) = jobset["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["completions"] == job["parallelism"] == 4
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    assert pod["restartPolicy"] == "Never"  # required beside a podFailurePolicy
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert job["template"]["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"

    # The service gives pods DNS names and selects them by their label.
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert jobset["spec"]["network"] == {
        "enableDNSHostnames": True, "subdomain": service["metadata"]["name"]
    }  # fmt: skip
    assert service["spec"]["selector"].items() <= job["template"]["metadata"]["labels"].items()

    # Exit code 2 fails the job by its policy and thereby the set; 75 is an ordinary failure.
    actions = {
        code: rule["action"] for rule in job["podFailurePolicy"]["rules"]
        for code in rule["onExitCodes"]["values"]
    }  # fmt: skip
    assert actions == {2: "FailJob", 75: "Count"}
    for rule in job["podFailurePolicy"]["rules"]:
        assert rule["onExitCodes"]["containerName"] == container["name"]
        assert rule["onExitCodes"]["operator"] == "In"
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert [(r["action"], r["onJobFailureReasons"]) for r in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]

    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    (arguments,) = container["args"]
    words = shlex.split(arguments)
    assert words[:4] == ["exec", "python", "-m", "genzoo.main"]
    assert f"--workdir={mounts['runs']}/mine" in words
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    if kind == "tpu":
        selector = pod["nodeSelector"]
        chips = math.prod(map(int, selector["cloud.google.com/gke-tpu-topology"].split("x")))
        assert chips == limits["google.com/tpu"] * job["completions"]
        assert not [word for word in words if word.startswith("--coordinator")]
    else:
        assert limits["nvidia.com/gpu"] == 8
        first = f"{jobset['metadata']['name']}-{workers['name']}-0-0"
        host, port = next(
            word.removeprefix("--coordinator=").split(":")
            for word in words if word.startswith("--coordinator=")
        )  # fmt: skip
        assert host == f"{first}.{service['metadata']['name']}"
        assert int(port) in {p["containerPort"] for p in container["ports"]}
        assert "--processes=4" in words and "--process=$JOB_COMPLETION_INDEX" in words


def test_managed_spot_job(cloud):
    (job,) = documents(cloud, "skypilot.yaml", "NODES=2", "NAME=mine", "EXTRA=--config.seed=1")
    assert job["num_nodes"] == 2 and job["resources"]["use_spot"] is True
    # SkyPilot restarts after 75; again.sh handles crashes and mistakes, which it distinguishes.
    assert job["resources"]["job_recovery"] == {
        "recover_on_exit_codes": [75], "max_restarts_on_errors": 0
    }  # fmt: skip
    ((place, mount),) = job["file_mounts"].items()
    assert mount == {"source": "gs://my-runs", "mode": "MOUNT"}
    # The script of the second node, with genzoo and the loop around it faked.
    cloud.add("bash")
    run = f"set -e\n{job['run']}"
    done = cloud.run(
        shutil.which("bash"), "-c", run, SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2",
        SKYPILOT_NUM_NODES="2", SKYPILOT_NODE_RANK="1", SKYPILOT_NUM_GPUS_PER_NODE="8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert cloud.called("bash") == [[
        "launch/again.sh", "3", ".venv/bin/python", "-m", "genzoo.main",
        "--coordinator=10.0.0.1:1234", "--processes=2", "--process=1",
        "--config=configs/ddpm_cifar.py", f"--workdir={place}/mine", "--mode=train",
        "--config.seed=1",
    ]]  # fmt: skip


def test_submit_passes_the_file_on_and_returns_the_exit_code(cloud):
    kept = cloud.home / "submitted.yaml"
    for tool in ("kubectl", "sky"):
        cloud.add(tool, f'cp "${{@: -1}}" {kept}; exit 5')
    for file, start in (("gke_jobset.yaml", ["kubectl", "apply", "-f"]),
                        ("skypilot.yaml", ["sky", "jobs", "launch", "--yes"])):  # fmt: skip
        done = submit(cloud, LAUNCH / file, *GIVEN[file], "NAME=mine")
        assert done.returncode == 5
        assert cloud.calls[-1][:-1] == start
        assert "${" not in kept.read_text() and "mine" in kept.read_text()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["gke_jobset.yaml"], "give these settings as NAME=value: IMAGE, BUCKET, GSA"),
        (["gke_jobset.yaml", "HOST=3"], "HOST is not a setting of this file: did you mean HOSTS?"),
        (["skypilot.yaml", "BUCKET=b", "nodes=2"], "did you mean NODES?"),
        (["skypilot.yaml", "BUCKET"], "give settings as NAME=value"),
        (["skypilot.yaml", "BUCKET=b", "GPUS=[1"], "with these values the file is not valid YAML"),
        (["skypilot.yaml", "BUCKET=b", "NAME="], "name is missing"),
        (["gke_jobset.yaml", *GIVEN["gke_jobset.yaml"], "KIND=cpu"], "must be one of tpu, gpu"),
        (["gke_jobset.yaml", *GIVEN["gke_jobset.yaml"], "TOPOLOGY=4x8"], "not HOSTS=4 machines"),
        (["gke_jobset.yaml", *GIVEN["gke_jobset.yaml"], "TOPOLOGY=16"], "must have the form 4x4"),
        (["absent.yaml"], "there is no"),
    ],
)
def test_submit_says_what_is_wrong_and_submits_nothing(cloud, arguments, part):
    done = submit(cloud, LAUNCH / arguments[0], *arguments[1:])
    assert done.returncode == 2
    assert part in done.stderr and "Traceback" not in done.stderr
    assert cloud.calls == []


def test_a_missing_tool_is_named(cloud):
    (cloud.folder / "sky").unlink()
    if shutil.which("sky") is None:
        done = submit(cloud, LAUNCH / "skypilot.yaml", *GIVEN["skypilot.yaml"])
        assert done.returncode == 2 and "sky is not installed here" in done.stderr


def test_a_place_without_a_setting_is_refused(cloud, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("# A=1  a knob\nname: ${A}${B}\n")
    done = submit(cloud, file)
    assert done.returncode == 2 and "${B} is used in the file" in done.stderr
