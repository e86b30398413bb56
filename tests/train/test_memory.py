"""Memory and disk do not grow with the number of steps. Slow, and only on Linux: it reads /proc.

    python -m pytest -m slow
"""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def resident_bytes(process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))


def step_of(workdir) -> int:
    log = workdir / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


@pytest.mark.slow
def test_memory_over_8000_steps(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "genzoo.main", "--config=configs/ddpm_fashion.py:smoke",
         f"--workdir={tmp_path}", "--config.train.steps=8000", "--config.train.save_every=100",
         "--config.train.picture_first=100"],
        cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ},
    )  # fmt: skip
    sizes = []
    while process.poll() is None:
        # The status of a finished process that was not waited for has no size.
        with contextlib.suppress(AttributeError, OSError):
            sizes.append((step_of(tmp_path), resident_bytes(process)))
        time.sleep(0.1)
    assert process.returncode == 0
    # The allocator returns freed memory in jumps, a few thousand steps apart, and grows by a few
    # percent in between. Only a run over several jumps distinguishes a leak from this sawtooth.
    # By step 500 every program is compiled and every kind of work was done at least once.
    # The median, because a save briefly holds a second copy of the state.
    early = statistics.median(size for step, size in sizes if 500 <= step < 1000)
    late = statistics.median(size for step, size in sizes if step >= 6000)
    print(f"median resident MB: {early / 2**20:.0f} at 500-1000, {late / 2**20:.0f} at 6000-8000")
    assert late <= 1.02 * early, (early, late)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
