"""Every config's `:smoke` that needs no download: trained, scored, sampled from, reconstructed and
looked into, as a user would, but in this process. What a family cannot do, it says."""

import json
from pathlib import Path

import numpy as np
import pytest

from genzoo import config
from genzoo.core import compilation
from genzoo.main import main

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
# The other ddpm_* smoke runs have tests of their own, or want CIFAR-10 or a folder.
WING = [f.stem for f in CONFIGS if not f.stem.startswith("ddpm") or f.stem.endswith("_cond")]
DENOISING = ("ddpm", "score_sde", "edm", "vdm", "flow_matching")
MODES = {
    "sample": ("pca", "vae", "token_prior", *DENOISING),
    "reconstruct": ("pca", "autoencoder", "vae", "vqvae", "dvae", *DENOISING),
}


@pytest.fixture(scope="module", autouse=True)
def _compiled_in_haste():
    """Twenty steps of a tiny network take less time than optimising their programs does."""
    before = dict(compilation._CPU_OPTIONS)
    compilation._CPU_OPTIONS["xla_backend_optimization_level"] = 0
    yield
    compilation._CPU_OPTIONS.clear()
    compilation._CPU_OPTIONS.update(before)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Name of a config -> the workdir of its smoke run, trained at the first call."""
    done = {}

    def trained(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name) / "run"
            stages = config.load(f"configs/{name}.py:smoke").get("frozen", {})
            first = [
                f"--config.frozen.{stage}.workdir={trained(Path(values['workdir']).name)}"
                for stage, values in stages.items()
            ]
            code = main([f"--config=configs/{name}.py:smoke", f"--workdir={done[name]}", *first])
            assert code == 0
        return done[name]

    return trained


@pytest.mark.parametrize("name", WING)
def test_smoke(name, workdir, capsys):
    place = workdir(name)
    settings = json.loads((place / "config.json").read_text())
    family = settings["family"]["name"]
    steps = [int(p.name) for p in (place / "checkpoints").iterdir()]
    assert max(steps) == (1 if family == "pca" else 20)
    pictures = list((place / "samples" / "training").glob("*.png"))
    assert pictures or family == "classifier", "training left no picture"
    if family != "pca":
        rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(row["loss"]) for row in rows)
    assert main([f"--workdir={place}", "--mode=eval"]) == 0
    report = json.loads((place / "eval.json").read_text())
    assert report["examples"] == settings["eval"]["count"]
    assert np.isfinite(report["loss"]["loss"])
    for mode, can in MODES.items():
        capsys.readouterr()
        code = main([f"--workdir={place}", f"--mode={mode}"])
        if mode == "reconstruct" and name.startswith("toy"):
            assert code == 2 and "is points" in capsys.readouterr().err
        elif family in can:
            assert code == 0
            made = {"sample": "grid.png", "reconstruct": "reconstruction.png"}[mode]
            assert (place / "samples" / made).is_file()
            if family in DENOISING and mode == "sample":
                assert json.loads(capsys.readouterr().out)["evaluations"] > 3
        else:
            said = capsys.readouterr().err
            assert code == 2 and f"needs a family that can {mode}; {family} can:" in said
            if mode == "sample" and family in ("vqvae", "dvae"):
                assert "Train a token_prior" in said
