"""The folder of a run that was never trained, for tests of its report."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CONFIG = {
    "seed": 0,
    "data": {"name": "fashion_mini", "dir": ""},
    "family": {"name": "ddpm", "steps": 1000, "schedule": "cosine"},
    "train": {"steps": 400, "batch_size": 32, "log_every": 10, "averages": {"ema": {"decay": 0.9}}},
    "sample": {"steps": 20, "method": "ddim"},
}
SCORES = {
    "loss": {"loss": 0.148, "loss_q0": 0.25},
    "bits_per_dim": 4.03,
    "bits_per_dim_standard_error": 0.19,
    "bits_per_dim_curve": {"t": [0.1, 0.5, 0.9], "value": [2.0, 0.1, 0.01]},
    "protocol": {"data": "fashion_mini", "split": "test", "n": 500, "seed": 0},
}
START = {
    "started": "2026-11-27T21:10:00+00:00",
    "command": "python -m genzoo.main --config=ddpm_fashion:laptop",
    "config": "ddpm_fashion:laptop",
    "changed": {"train.steps": [1800, 400]},
    "from_step": 0, "to_step": 400, "device": "NVIDIA H100", "devices": 2, "processes": 1,
    "peak_flops": 2e15, "parameters": 1_234_567, "flops_per_step": 1e13,
    "peak_memory_bytes": 10**9, "versions": {"jax": "0.10.2"},
    "seconds": {"steps": 80.0, "compile": 15.0, "data": 5.0},
}  # fmt: skip


def picture(path: Path, height: int = 60, width: int = 90, seed: int = 0, factor: int = 1) -> None:
    """Saves noise as PNG, each of its pixels as a block."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1)).save(path)


def make(folder: Path, **changes: object) -> Path:
    """The folder of a run. changes: config, scores or start in place of the usual ones."""
    folder.mkdir(parents=True)
    for name, content in (
        ("config.json", changes.get("config", CONFIG)),
        ("eval.json", changes.get("scores", SCORES)),
        ("run.json", {"starts": [changes.get("start", START)]}),
        ("data.json", {"examples": 10000}),
    ):
        (folder / name).write_text(json.dumps(content))
    lines = [
        {"step": s, "loss": 1 / s, "loss_q0": 2 / s, "loss_q3": 1 / s, "gradient_norm": 0.5,
         "learning_rate": 1e-3, "steps_per_second": 5.0, "examples_per_second": 160.0}
        for s in range(10, 401, 10)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (40, 126, 400):
        for weights in ("raw", "ema"):
            picture(folder / "samples" / "training" / f"step_{step:08d}_{weights}.png", factor=6)
    call = folder / "samples" / "step_00000400"
    for name in ("grid", "guidance", "000000"):
        picture(call / f"{name}.png", seed=1)
    settings = {"step": 400, "evaluations": 20.0, "sample": {"method": "ddim", "steps": 20}}
    (call / "settings.json").write_text(json.dumps(settings))
    picture(folder / "samples" / "reconstruction.png", seed=2)
    return folder
