"""Two minutes of real training on the GPU, its samples, and the speed of reading images from files.

    python tests/peers/device_training.py

The run is configs/fm_fashion.py at a constant learning rate. It is stopped by SIGTERM, which must
end in a checkpoint and exit code 75; the samples are drawn from that checkpoint.
"""

import json
import shutil
import signal
import subprocess
import sys
import time

from device_report import DRY, OUT, ROOT, SCRATCH, Report, seconds_left

TRAINING = 120  # seconds, including the start
KEPT = 35  # seconds reserved for the samples and the reader
CONFIG = "configs/fm_fashion.py" + (":smoke" if DRY else "")
IMAGES = 32 if DRY else 4000


def genzoo(*arguments: str) -> subprocess.Popen:
    """Starts `python -m genzoo.main` with the arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "genzoo.main", *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def train(workdir) -> dict:
    """Trains until the time is over; returns the speed and loss from its log."""
    began = time.monotonic()
    process = genzoo(
        f"--config={CONFIG}", f"--workdir={workdir}", "--config.optimizer.decay=constant",
        "--config.train.picture_count=0",
    )  # fmt: skip
    try:
        process.communicate(timeout=min(TRAINING, seconds_left() - KEPT))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    if process.returncode not in (0, 75):
        raise SystemExit(f"training ended with exit code {process.returncode}")
    log = workdir / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {
        "exit code": process.returncode,
        "seconds with the start": round(time.monotonic() - began, 1),
        "first": lines[:1],
        "last": lines[-1:],
    }


def sample(workdir) -> dict:
    """Draws samples from the checkpoint and keeps the picture."""
    began = time.monotonic()
    process = genzoo(f"--workdir={workdir}", "--mode=sample")
    stdout, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"sampling ended with exit code {process.returncode}")
    (grid,) = sorted((workdir / "samples").rglob("grid.png"))[:1]
    shutil.copy(grid, OUT / "fm_fashion.png")
    seconds = round(time.monotonic() - began, 1)
    return {"seconds with the start": seconds, "picture": "fm_fashion.png", **json.loads(stdout)}


def reading() -> dict:
    """Images per second from PNG files, decoded every time by the threads of the training reader:
    the limit for a data set that does not fit in memory on this host."""
    import numpy as np
    from PIL import Image

    from genzoo.data.batches import train_batches
    from genzoo.data.folder import open_folder

    random, folder = np.random.default_rng(0), SCRATCH / "images"
    folder.mkdir()
    for i in range(IMAGES):
        image = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    source = open_folder(str(folder), size=64, memory_limit=0)
    batches = train_batches(source, seed=0, batch_size=IMAGES // 16)
    next(batches)
    began, count = time.monotonic(), 0
    while count < 8 or (not DRY and time.monotonic() - began < 3):
        next(batches)
        count += 1
    rate = count * (IMAGES // 16) / (time.monotonic() - began)
    batches.close()
    return {"images_per_second": round(rate), "side": 64, "files": IMAGES}


def main() -> None:
    """The part `training`."""
    report = Report("training")
    report.start()
    workdir = SCRATCH / "fm_fashion"
    report.put("train", value=train(workdir))
    report.put("sample", value=sample(workdir))
    report.put("reading", value=reading())


if __name__ == "__main__":
    main()
