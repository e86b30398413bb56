"""Memory and disk do not grow with the number of steps. Slow, and of Linux only: it reads /proc.

    python -m pytest -m slow
"""

import json
import os
import re
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
def test_memory_over_2000_steps(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "genzoo.main", "--config=configs/ddpm_fashion.py:smoke",
         f"--workdir={tmp_path}", "--config.train.steps=2000", "--config.train.save_every=100",
         "--config.train.picture_first=100"],
        cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ},
    )  # fmt: skip
    sizes = {}
    while process.poll() is None:
        step = step_of(tmp_path)
        sizes[step] = resident_bytes(process) if process.poll() is None else 0
        time.sleep(0.2)
    assert process.returncode == 0
    # From 500 on every program is compiled and every kind of work has been done at least once.
    early = max(size for step, size in sizes.items() if 500 <= step < 1000)
    late = max(size for step, size in sizes.items() if step >= 1500)
    print({step: size >> 20 for step, size in sizes.items() if step % 250 == 0})
    assert late <= 1.02 * early, (early, late)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
