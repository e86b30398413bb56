"""Runs a fast part of the suite on the GPU: formulas, samplers and networks, with float32 products
in full float32, for which the tests' tolerances are chosen. device_precision.py measures the error
of the platform's default; the tests of bfloat16 have their own tolerances.

    python tests/peers/device_suite.py
"""

import importlib.util
import json
import os
import subprocess
import sys
import time

from device_report import DRY, ROOT, SCRATCH, Report, seconds_left

FOLDERS = ("tests/nets", "tests/samplers", "tests/math")
TINY = ("tests/nets/test_unet_check.py", "tests/nets/test_interface.py")
PROCESSES = 8  # they share the GPU's memory


def command() -> list[str]:
    """The pytest command, with several processes if xdist is installed and there are enough cores.
    The options in pyproject.toml do not suit this machine."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", "not slow", "-p",
        "device_outcomes", "-p", "no:cacheprovider", *(TINY if DRY else FOLDERS),
    ]  # fmt: skip
    processes = min(PROCESSES, len(os.sched_getaffinity(0)) // 2)
    if not DRY and processes > 1 and importlib.util.find_spec("xdist"):
        command += ["-n", str(processes), "--dist", "worksteal"]
    return command


def outcomes(file) -> dict:
    """Counts, the failed tests with the ends of their messages, and the slowest tests."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    slowest = sorted(lines, key=lambda line: -line["seconds"])[:10]
    return {
        **{
            outcome: sum(line["outcome"] == outcome for line in lines)
            for outcome in ("passed", "failed", "skipped")
        },
        "failures": {line["test"]: line["message"] for line in lines if "message" in line},
        "slowest": {line["test"]: round(line["seconds"], 1) for line in slowest},
    }


def main() -> int:
    """The part `suite`."""
    report = Report("suite")
    report.start()
    file = SCRATCH / "outcomes.jsonl"
    env = {
        **os.environ,
        "DEVICE_OUTCOMES": str(file),
        "GENZOO_TEST_SECONDS": "0",  # compiling for a GPU takes longer than the limit
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "peers"), os.environ["PYTHONPATH"]]),
        # Otherwise the suite would set its own flags, which are for a CPU.
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    report.put("command", value=" ".join(command()[1:]))
    process = subprocess.Popen(command(), cwd=ROOT, env=env)
    while process.poll() is None:
        time.sleep(1 if DRY else 5)
        if seconds_left() < 8:
            process.terminate()
            report.put("cut off", value=True)
            process.wait()
        report.put("outcomes", value=outcomes(file))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
