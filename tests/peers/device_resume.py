"""Checks that a run that is killed on the GPU resumes bit for bit.

    python tests/peers/device_resume.py

One run is uninterrupted; another gets SIGKILL as soon as a checkpoint is complete and is restarted.
XLA uses deterministic operations on the GPU; otherwise cuDNN may sum in an order that differs from
call to call. The runs share their compiled programs, because autotuning may choose another kernel
in the next process.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from device_report import DRY, ROOT, SCRATCH, Report

KILLED_AT = 100
CONFIG = "configs/toy_mixture.py:smoke" if DRY else "configs/fm_fashion.py"
LENGTH = [
    f"--config.train.steps={4 * KILLED_AT}", f"--config.train.save_every={KILLED_AT}",
    f"--config.train.log_every={KILLED_AT // 2}", "--config.train.picture_count=0",
    "--config.train.steps_per_call=1",
]  # fmt: skip
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def start(workdir: Path) -> subprocess.Popen:
    """Starts or resumes a run."""
    flags = os.environ.get("XLA_FLAGS", "") + ("" if DRY else f" {DETERMINISTIC}")
    return subprocess.Popen(
        [sys.executable, "-m", "genzoo.main", f"--config={CONFIG}", f"--workdir={workdir}",
         *LENGTH], cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "XLA_FLAGS": flags},
    )  # fmt: skip


def kill_at_checkpoint(workdir: Path) -> bool:
    """Starts a run and kills it when its first checkpoint is complete; False if it ended first."""
    process = start(workdir)
    manifest = workdir / "checkpoints" / str(KILLED_AT) / "genzoo_manifest.json"
    while not manifest.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def difference(workdirs: list[Path]) -> tuple[bool, float]:
    """Whether the final states have the same bits, and the largest difference in them."""
    import jax
    import numpy as np

    sys.path.insert(0, str(ROOT / "tests"))
    from runs import final_state

    states = [jax.tree.leaves(final_state(workdir)) for workdir in workdirs]
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(*states, strict=True)]
    equal = all(a.tobytes() == b.tobytes() for a, b in pairs)
    floats = [(a, b) for a, b in pairs if np.issubdtype(a.dtype, np.floating)]
    return equal, max(float(np.abs(a - b).max(initial=0)) for a, b in floats)


def main() -> int:
    """The part `resume`."""
    report = Report("resume")
    report.start()
    straight, stopped = SCRATCH / "straight", SCRATCH / "stopped"
    if code := start(straight).wait():
        raise SystemExit(f"the run ended with exit code {code}")
    report.put("straight", value="done")
    report.put("killed before its end", value=kill_at_checkpoint(stopped))
    if code := start(stopped).wait():
        raise SystemExit(f"the killed run, started again, ended with exit code {code}")
    equal, largest = difference([straight, stopped])
    report.put("same bits", value=equal)
    report.put("largest difference", value=largest)
    return not equal


if __name__ == "__main__":
    sys.exit(main())
