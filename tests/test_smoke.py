"""Trains one config of each family and each kind of data and runs all modes on it, as a user would
but in this process. A mode that a family cannot run is refused with a message.

`-m slow` runs the `:smoke` variant of every other config; test_config.py traces its shapes.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core.contract import Reconstructs, Samples
from genzoo.data import toys
from genzoo.experiment import Experiment
from genzoo.main import main

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
_CHOSEN = (
    "classifier_fashion", "clip_shapes", "dae_fashion", "ddpm_fashion_cond", "dvae_cifar",
    "mae_fashion", "pca_fashion", "prior_vqvae_fashion", "sde_vp_cifar", "simclr_fashion",
    "text_minilm", "toy_mixture", "toy_swissroll", "toy_waves", "vae_fashion", "vdm_cifar",
    "vqvae_fashion",
)  # fmt: skip
_FAMILY_OF = {
    file.stem: config.load(f"configs/{file.stem}.py:smoke")["family"]["name"] for file in CONFIGS
}
# The first config of a family that has none among the chosen ones joins them.
_LACKING = set(build.FAMILIES) - {_FAMILY_OF[name] for name in _CHOSEN}
ONE_OF_A_KIND = _CHOSEN + tuple(
    next(name for name, own in _FAMILY_OF.items() if own == family)
    for family in sorted(_LACKING & set(_FAMILY_OF.values()))
)
# The other ddpm_* smoke runs have their own tests, or need CIFAR-10 or a folder.
EVERY = [
    name if name in ONE_OF_A_KIND else pytest.param(name, marks=pytest.mark.slow)
    for name in (file.stem for file in CONFIGS)
    if not name.startswith("ddpm") or name.endswith("_cond")
]
DENOISING = ("ddpm", "score_sde", "edm", "vdm", "flow_matching", "controlnet")
MODES = {
    "sample": ("pca", "vae", "gan", "token_prior", *DENOISING),
    "reconstruct": ("pca", "autoencoder", "vae", "vqvae", "dvae", "mae", *DENOISING),
}
CAPABILITIES = {"sample": Samples, "reconstruct": Reconstructs}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Name of a config -> the workdir of its smoke run, which is trained at the first call."""
    done = {}

    def trained(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name) / "run"
            stages = config.load(f"configs/{name}.py:smoke").get("frozen", {})
            first = [
                f"--config.frozen.{stage}.workdir={trained(Path(values['workdir']).name)}"
                for stage, values in stages.items()
            ]
            # Classifies noisy images, so that it can guide another run.
            own = ["--config.family.noisy=True"] if name == "classifier_fashion" else []
            settings = [f"--config=configs/{name}.py:smoke", f"--workdir={done[name]}"]
            code = main([*settings, *first, *own])
            assert code == 0
        return done[name]

    return trained


def test_every_family_is_run():
    assert {_FAMILY_OF[name] for name in ONE_OF_A_KIND} == set(build.FAMILIES)


@pytest.mark.parametrize("name", EVERY)
def test_training(name, workdir):
    place = workdir(name)
    family = json.loads((place / "config.json").read_text())["family"]["name"]
    steps = [int(p.name) for p in (place / "checkpoints").iterdir()]
    assert max(steps) == (1 if build.FAMILIES[family].fitted else 20)
    pictures = list((place / "samples" / "training").glob("*.png"))
    assert bool(pictures) != (
        family in ("classifier", "contrastive", "text_encoder") or name.endswith("documents")
    )
    if not build.FAMILIES[family].fitted:
        rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(row["loss"]) for row in rows)
    page = (place / "report.html").read_text()
    assert "What you should see" in page and "Missing or damaged" not in page


def can(mode: str, name: str, settings: dict) -> bool:
    """Whether the family of a config can: as `MODES` says or, where a new family's first config
    joined the smoke runs by itself, as the family says."""
    if name in _CHOSEN or name not in ONE_OF_A_KIND:
        return settings["family"]["name"] in MODES[mode]
    return isinstance(Experiment(check.check(settings)).family, CAPABILITIES[mode])


@pytest.mark.parametrize("name", EVERY)
def test_modes(name, workdir, capsys):
    place = workdir(name)
    settings = json.loads((place / "config.json").read_text())
    family = settings["family"]["name"]
    assert main([f"--workdir={place}", "--mode=eval"]) == 0
    report = json.loads((place / "eval.json").read_text())
    assert report["examples"] == settings["eval"]["count"]
    assert np.isfinite(report["loss"]["loss"])
    for mode in MODES:
        capsys.readouterr()
        code = main([f"--workdir={place}", f"--mode={mode}"])
        if mode == "reconstruct" and name.startswith("toy"):
            assert code == 2 and "compares images, but" in capsys.readouterr().err
        elif can(mode, name, settings) and name.endswith("documents"):
            assert code == 2 and "but docstrings holds documents: use" in capsys.readouterr().err
        elif can(mode, name, settings):
            assert code == 0
            made = {"sample": "latest/grid.png", "reconstruct": "reconstruction.png"}[mode]
            assert (place / "samples" / made).is_file()
            if family in DENOISING and mode == "sample":
                assert json.loads(capsys.readouterr().out)["evaluations"] > 3
        else:
            message = capsys.readouterr().err
            assert code == 2 and f"needs a family that can {mode}; {family} can:" in message
            if mode == "sample" and family in ("vqvae", "dvae"):
                assert "Train a token_prior" in message


def test_pictures_of_images(workdir, capsys):
    place = workdir("ddpm_fashion_cond")
    wanted = "--config.sample.pictures=denoising,guidance,inpainting"
    assert main([f"--workdir={place}", "--mode=sample", "--config.sample.resample=2", wanted]) == 0
    for name in ("denoising", "guidance", "inpainting"):
        assert (place / "samples" / "latest" / f"{name}.png").is_file()
    capsys.readouterr()
    for names, message in {
        "colourisation": "these are grey",
        "field": "'field' is unknown",
        "denoisng": "did you mean 'denoising'?",
    }.items():
        wrong = f"--config.sample.pictures={names}"
        assert main([f"--workdir={place}", "--mode=sample", wrong]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_of_points(workdir):
    place = workdir("toy_swissroll")
    wanted = "--config.sample.pictures=field,trajectories,density"
    assert main([f"--workdir={place}", "--mode=sample", wanted]) == 0
    for name in ("grid", "field", "trajectories", "density"):
        assert (place / "samples" / "latest" / f"{name}.png").is_file()
    points = np.load(place / "samples" / "latest" / "samples.npz")["x"]
    assert points.shape == (8, 2) and points.dtype == np.float32
    assert main([f"--workdir={place}", "--mode=eval"]) == 0
    report = json.loads((place / "eval.json").read_text())
    # The exact density, averaged over the first 16 test points with a loop over components.
    spec, x = toys.SWISSROLL_SPEC.density, toys.open_swissroll("test").arrays["x"][:16]
    squares = np.square(x[:, None] - spec.means).sum(-1) / (2 * spec.deviations**2)
    parts = spec.weights * np.exp(-squares) / (2 * np.pi * spec.deviations**2)
    assert report["nats_exact"] == pytest.approx(-np.log(parts.sum(1)).mean(), rel=1e-4)


def test_signals_are_drawn_and_kept(workdir):
    place = workdir("toy_waves")
    flags = ["--config.sample.conditions.label=octave", "--config.sample.method=euler"]
    assert main([f"--workdir={place}", "--mode=sample", *flags]) == 0
    samples = place / "samples" / "latest"
    arrays = np.load(samples / "samples.npz")
    assert arrays["x"].shape == (6, 64, 2) and arrays["x"].dtype == np.float32
    assert (arrays["label"] == 1).all() and not list(samples.glob("0*.png"))
    assert (samples / "grid.png").is_file()
    data = json.loads((place / "data.json").read_text())
    assert data["fields"] == {
        "x": "Signal (64, 2) of float32",
        "label": "3 classes",
        "frequency": "Vector (1,) of float32",
    }


def test_a_weaker_model_and_a_classifier_steer(workdir, tmp_path, capsys):
    place, classifier = workdir("ddpm_fashion_cond"), workdir("classifier_fashion")
    sample = [f"--workdir={place}", "--mode=sample", "--config.sample.seed=5"]
    assert main(sample) == 0
    plain = (place / "samples" / "latest" / "000000.png").read_bytes()
    steered = [f"--config.sample.guide={place}", f"--config.sample.classifier={classifier}"]
    assert main([*sample, *steered, "--config.sample.guide_weights=raw"]) == 0
    assert (place / "samples" / "latest" / "000000.png").read_bytes() != plain
    capsys.readouterr()
    for wrong, message in {
        f"guide={tmp_path}": "holds no run",
        f"guide={classifier}": "it must be a weaker model of the same data",
        f"classifier={place}": "trained with family.noisy = True",
    }.items():
        assert main([*sample, f"--config.sample.{wrong}"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_every_solver_samples_a_trained_model(workdir):
    place = workdir("fm_fashion")
    solvers = "--config.sample.pictures=solvers"
    assert main([f"--workdir={place}", "--mode=sample", solvers]) == 0
    assert (place / "samples" / "latest" / "solvers.png").is_file()
