"""The program as a user sees it: each mode, on the embedded data. It runs in its own process if
that matters (several devices, imports); otherwise in this one, which saves the start of JAX."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from runs import final_state, metrics

from genzoo.main import main
from genzoo.workdir import Workdir

ROOT = Path(__file__).parent.parent
SMOKE = "--config=configs/ddpm_fashion.py:smoke"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, genzoo):
    """A workdir with a finished smoke run."""
    workdir = tmp_path_factory.mktemp("run") / "smoke"
    genzoo(SMOKE, f"--workdir={workdir}", "--config.train.log_every=4", haste=True)
    return workdir


@pytest.fixture
def here(capsys, caplog):
    """Runs the program in this process, like `genzoo`. Log messages count as standard error."""

    def run(*arguments, check: int | None = 0):
        capsys.readouterr()
        caplog.clear()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # from the flag parser
            code = stopped.code
        out, err = capsys.readouterr()
        stderr = err + caplog.text
        assert check is None or code == check, stderr[-3000:]
        return SimpleNamespace(returncode=code, stdout=out, stderr=stderr)

    return run


def test_train_leaves_what_it_promises(trained):
    assert (trained / "config.json").is_file()
    assert sorted(p.name for p in (trained / "checkpoints").iterdir()) == ["10", "20"]
    rows = metrics(trained, "step", "loss", "gradient_norm", "learning_rate")
    assert [row[0] for row in rows] == [4, 8, 12, 16, 20]
    assert all(np.isfinite(row).all() for row in rows)
    grids = {p.name for p in (trained / "samples" / "training").iterdir()}
    assert grids == {f"step_{s:08d}_{w}.png" for s in (10, 20) for w in ("raw", "ema")}


def test_quartiles_of_t_are_logged(trained):
    (row, *_) = metrics(trained, "loss_q0", "loss_q1", "loss_q2", "loss_q3")
    assert all(value > 0 for value in row)


def test_a_finished_run_has_nothing_to_do(trained, here):
    done = here(SMOKE, f"--workdir={trained}")
    assert "Step 20 of 20 is done" in done.stderr


def test_steps_per_call_give_the_same_training(tmp_path, here):
    # Not the same bits: the compiler fuses a loop's body in its own way. Params are no measure: the
    # gradient of a bias before a norm is rounding noise, which Adam scales to full steps.
    for calls in (1, 2):
        here(
            "--config=configs/toy_mixture.py:smoke", f"--workdir={tmp_path}/{calls}",
            "--config.train.picture_count=0", "--config.train.log_every=4",
            f"--config.train.steps_per_call={calls}",
        )  # fmt: skip
    names = ("step", "loss", "loss_q0", "gradient_norm")
    one, two = (metrics(tmp_path / str(calls), *names) for calls in (1, 2))
    assert [row[0] for row in one] == [4, 8, 12, 16, 20]
    np.testing.assert_allclose(two, one, rtol=1e-4)


def pixels(folder, count):
    return np.stack([np.asarray(Image.open(folder / f"{i:06d}.png")) for i in range(count)])


def test_samples_do_not_depend_on_batch_or_devices(trained, genzoo, here):
    def sample(batch, devices):
        asked = [
            f"--workdir={trained}", "--mode=sample", "--config.sample.count=9",
            f"--config.sample.batch_size={batch}", "--config.sample.method=ancestral",
            "--config.sample.steps=20",
        ]  # fmt: skip
        here(*asked) if devices == 1 else genzoo(*asked, devices=devices, haste=True)
        return pixels(trained / "samples" / "latest", 9).astype(int)

    expected = sample(8, 1)
    assert expected.std() > 10 and np.abs(expected[0] - expected[1]).mean() > 5
    for batch, devices in [(3, 1), (3, 4)]:
        assert np.abs(sample(batch, devices) - expected).max() <= 1, (batch, devices)


def sampled(here, workdir, *settings):
    """The report of a call of --mode=sample, and all files below samples/ with their times."""
    asked = ["--config.sample.count=3", "--config.sample.steps=5", *settings]
    report = json.loads(here(f"--workdir={workdir}", "--mode=sample", *asked).stdout)
    files = (workdir / "samples").rglob("*")
    return report, {f: f.stat().st_mtime_ns for f in files if f.is_file()}


def test_sample_writes_files_grid_array_and_settings(trained, here):
    report, _ = sampled(here, trained, "--config.sample.npz=True", "--config.sample.seed=7")
    folder = trained / "samples" / "step_00000020_count=3_npz=True_seed=7"
    assert report["count"] == 3 and report["samples"] == str(folder)
    names = {p.name for p in folder.iterdir()}
    assert names == {"000000.png", "000001.png", "000002.png", "grid.png", "samples.npz",
                     "settings.json"}  # fmt: skip
    assert set(report["files"]) == {
        str(folder / name) for name in ("grid.png", "samples.npz", "settings.json")
    }
    with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["x"].shape == (3, 28, 28, 1) and arrays["x"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["x"][..., 0], pixels(folder, 3))
    settings = json.loads((folder / "settings.json").read_text())
    asked = settings["sample"]
    assert (asked["method"], asked["grid"], asked["steps"]) == ("ddim", "trailing", 5)
    assert (asked["seed"], asked["weights"], asked["guidance_scale"]) == (7, "ema", 1.0)
    assert settings["step"] == 20 and settings["evaluations"] == report["evaluations"] == 5


def test_a_call_keeps_the_files_of_other_calls(trained, here):
    first, before = sampled(here, trained)
    second, after = sampled(here, trained, "--config.sample.method=heun")
    assert "method=heun" in second["samples"] and first["samples"] != second["samples"]
    here(f"--workdir={trained}", "--mode=sample", "--config.sample.steps=4",
         "--config.sample.pictures=denoising")  # fmt: skip
    third, last = sampled(here, trained)
    assert third["samples"] == first["samples"]
    own = {f for f in last if str(f).startswith(first["samples"] + "/")}
    assert len(own) == 5 and all(last[f] > before[f] for f in own)  # the same call rewrites them
    others = (before.keys() | after.keys()) - own
    others -= {f for f in others if "latest" in f.parts}
    assert others and all(last[f] == {**before, **after}[f] for f in others)


@pytest.mark.parametrize("links", [True, False])
def test_the_last_call_is_found_under_a_fixed_name(trained, here, monkeypatch, links):
    if not links:
        def refuse(*_, **__):
            raise OSError("this file system has no links")

        monkeypatch.setattr(Path, "symlink_to", refuse)
    latest = trained / "samples" / "latest"
    for seed in (1, 2):
        report, _ = sampled(here, trained, f"--config.sample.seed={seed}")
        assert latest.is_symlink() == links
        for name in ("000000.png", "grid.png", "settings.json"):
            assert (latest / name).read_bytes() == (Path(report["samples"]) / name).read_bytes()


def test_a_named_folder_is_not_overwritten(trained, here, tmp_path):
    report, _ = sampled(here, trained, "--config.sample.into=mine")
    assert report["samples"] == str(trained / "samples" / "mine")
    sampled(here, trained, "--config.sample.into=mine")  # the same call
    run = {"check": None}
    other = ["--mode=sample", "--config.sample.into=mine", "--config.sample.count=2"]
    refused(here(f"--workdir={trained}", *other, **run), "samples/mine holds", "count = 3")
    for name in ("latest", "training", "a/b", "..", ".hidden"):
        asked = ["--mode=sample", f"--config.sample.into={name}"]
        refused(here(f"--workdir={trained}", *asked, **run), "must be the name of a folder")
    (trained / "samples" / "photos").mkdir()
    (trained / "samples" / "photos" / "000000.png").write_text("precious")
    asked = ["--mode=sample", "--config.sample.into=photos"]
    refused(here(f"--workdir={trained}", *asked, **run), "has no settings.json")
    assert (trained / "samples" / "photos" / "000000.png").read_text() == "precious"


def test_what_the_run_calls_its_own_may_change_without_loss(trained, here):
    # Two calls may get the same name from the settings that differ, but not the same folder.
    first, _ = sampled(here, trained, "--config.sample.seed=7")
    raw = json.loads((trained / "config.json").read_text())
    changed = raw | {"sample": raw["sample"] | {"grid": "uniform"}}
    (trained / "config.json").write_text(json.dumps(changed))
    try:
        second, _ = sampled(here, trained, "--config.sample.seed=7")
    finally:
        (trained / "config.json").write_text(json.dumps(raw))
    assert second["samples"] == first["samples"] + "-2"


@pytest.mark.parametrize(
    ("mode", "settings", "made"),
    [
        ("eval", ["eval.count=4", "eval.batch_size=4"], ["eval.json", "report.html"]),
        ("reconstruct", ["sample.count=2"], ["samples/reconstruction.png", "reconstruct.json"]),
        (
            "train", ["train.steps=22", "train.picture_count=2"],
            ["metrics.jsonl", "checkpoints/22",
             *(f"samples/training/step_00000022_{weights}.png" for weights in ("raw", "ema")),
             "report.html"],
        ),
    ],
)  # fmt: skip
def test_a_mode_ends_by_listing_its_files(trained, here, tmp_path, mode, settings, made):
    place = shutil.copytree(trained, tmp_path / "run", symlinks=True)
    keys = [f"--config.{setting}" for setting in settings]
    done = here(f"--workdir={place}", f"--mode={mode}", *keys)
    files = json.loads(done.stdout)["files"]
    assert files == [str(place / name) for name in made]
    assert all(Path(name).exists() and f"Wrote {name}" in done.stderr for name in files)


def test_eval_is_exact_on_a_padded_batch(trained, here):
    def evaluate(size):
        asked = [
            f"--workdir={trained}", "--mode=eval", "--config.eval.count=11",
            f"--config.eval.batch_size={size}",
        ]  # fmt: skip
        here(*asked)
        return json.loads((trained / "eval.json").read_text())

    expected = evaluate(11)
    assert expected["examples"] == 11
    protocol = expected["protocol"]
    assert protocol["split"] == "test" and protocol["weights"] == "ema"
    assert protocol["bound_steps"] == 4 and protocol["step"] == 20
    assert sum(expected["bits_per_dim_terms"].values()) == pytest.approx(expected["bits_per_dim"])
    assert sum(expected["bits_per_dim_curve"]["value"]) == pytest.approx(
        expected["bits_per_dim_terms"]["diffusion"]
    )
    assert expected["bits_per_dim_standard_error"] > 0
    report = evaluate(4)
    assert report["examples"] == 11
    assert report["bits_per_dim"] == pytest.approx(expected["bits_per_dim"], rel=1e-4)


@pytest.mark.slow
def test_describe_is_one_json_document(here):
    done = here("--config=configs/ddpm_cifar.py", "--mode=describe")
    report = json.loads(done.stdout)
    assert report["parameters"] == 35_746_307
    assert report["parameter_bytes"] == 4 * 35_746_307
    # Ho et al.'s network takes about 6 billion multiply-adds on a 32 x 32 image.
    assert report["flops_per_example"] == pytest.approx(2 * 6.0e9, rel=0.1)
    step = 128 * 3 * report["flops_per_example"]
    assert report["train_step_flops"] == pytest.approx(step, rel=0.1)
    assert report["config"]["family"]["name"] == "ddpm"


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("ddpm_fashion:smoke", [28, 28, 1], 10), ("toy_mixture:smoke", [2], 8)],
)
def test_describe_says_the_shape_that_the_data_has(here, name, shape, classes):
    report = json.loads(here(f"--config={name}", "--mode=describe").stdout)
    assert report["data"]["shape"] == shape and report["data"]["classes"] == classes
    assert "channels" not in report["config"]["data"] and "size" not in report["config"]["data"]


def test_bench_reports_training_and_sampling(here):
    done = here("--config=toy_mixture:smoke", "--mode=bench", "--config.bench.seconds=0.2")
    report = json.loads(done.stdout)
    for part in ("train", "sample"):
        assert report[part]["step_seconds"]["median"] > 0
        assert report[part]["compile_seconds"] > 0
        for key in ("examples_per_second", "flops_per_second", "peak_memory_bytes"):
            assert report[part][key] > 0


def test_doctor(genzoo, tmp_path):
    report = json.loads(genzoo("--mode=doctor", env={"GENZOO_CACHE": str(tmp_path)}).stdout)
    assert report["tensorflow_or_torch_in_process"] == []
    assert report["devices"] and report["packages"]["jax"] and report["cache"] == str(tmp_path)


def test_too_many_non_finite_steps_stop_the_run_and_write_no_state(here, tmp_path):
    done = here(
        "--config=toy_mixture:smoke", f"--workdir={tmp_path}/run",
        "--config.train.steps_per_call=1", "--config.optimizer.learning_rate=1000",
        "--config.optimizer.warmup=0", "--config.train.save_every=1", "--config.train.steps=200",
        "--config.optimizer.weight_decay=1000", check=2,
    )  # fmt: skip
    (first,) = re.findall(r"10 steps in a row \((\d+) to \d+\) had a non-finite", done.stderr)
    assert 0 < int(first) < 100
    assert "Traceback" not in done.stderr
    saved = Workdir(tmp_path / "run").checkpoints(keep=2).steps()
    assert saved and all(step <= int(first) for step in saved)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(final_state(tmp_path / "run")))


def refused(done, *words):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_a_wrong_flag_is_reported_before_anything_else(here):
    run = {"check": None}
    refused(here("--confg=x", **run), "unknown flag --confg: did you mean --config?")
    refused(here("--wordkir", "x", **run), "unknown flag --wordkir: did you mean --workdir?")
    hint = "unknown flag --train.steps: did you mean --config.train.steps?"
    refused(here(SMOKE, "--train.steps=3", **run), hint)
    refused(here("--confg.train.steps=3", **run), "did you mean --config.train.steps?")
    refused(here("ddpm_fashion", **run), "'ddpm_fashion' is not understood")


def test_an_unknown_family_lists_the_families_and_nothing_else(here, tmp_path):
    done = here(SMOKE, f"--workdir={tmp_path}", "--config.family.name=ddmp",
                "--config.network.heads=3", "--config.train.stesp=3", check=None)  # fmt: skip
    refused(done, "did you mean 'ddpm'? The families are: autoencoder, cascade, classifier,")
    assert done.stderr.count("genzoo: ") == 1


def test_points_are_not_called_images(here, tmp_path):
    done = here("--config=toy_mixture:smoke", f"--workdir={tmp_path}", "--config.train.steps=10",
                "--config.train.picture_count=0")  # fmt: skip
    assert "points/s" in done.stderr and "image" not in done.stderr


def test_bad_input_ends_in_a_sentence(here, tmp_path, trained):
    run = {"check": None}
    refused(here(SMOKE, **run), "needs --workdir=DIR")
    refused(here("--workdir", tmp_path / "new", **run), "--config is missing")
    refused(here("--workdir", tmp_path / "new", "--mode=sample", **run), "new holds no run")
    refused(here("--config=configs/no.py", "--workdir=x", **run), "no such file", "ddpm_cifar")
    refused(here(SMOKE, "--workdir=x", "--mode=dream", **run), "invalid choice: 'dream'")
    refused(here(SMOKE, "--workdir=x", "--stesp=3", **run), "unknown flag --stesp: set a key of")
    refused(here(SMOKE, "--workdir", tmp_path / "new", "--mode=sample", **run), "train first")
    file = tmp_path / "file"
    file.write_text("")
    refused(here(SMOKE, "--workdir", file / "below", **run), "cannot be written", "file/below")
    assert not (ROOT / "x").exists()
    changed = here(SMOKE, f"--workdir={trained}", "--config.network.width=32", **run)
    refused(changed, "belongs to another config", "network.width is 16 there and 32 here")
    reading = here(
        SMOKE, f"--workdir={trained}", "--mode=eval", "--config.family.steps=500", **run
    )
    refused(reading, "family.steps is 1000 there and 500 here")
    lacking = here(f"--workdir={trained}", "--mode=encode", **run)
    refused(lacking, "needs a family that can encode; ddpm can: sample, reconstruct, likelihood.")
    asked = "--config.sample.conditions.label=3"
    label = here(f"--workdir={trained}", "--mode=sample", asked, **run)
    refused(label, "sample.conditions.label = 3 is not a condition of this model: it has none.")
    folder = here(
        "--config=configs/ddpm_folder.py:smoke", "--workdir", tmp_path / "f",
        f"--config.data.name=folder:{tmp_path}/none", **run,
    )  # fmt: skip
    refused(folder, "There is no folder")


def test_no_network_and_no_npm_say_what_was_tried(here, tmp_path, monkeypatch):
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    done = here(
        "--config=configs/ddpm_cifar.py:smoke", "--workdir", tmp_path / "run", check=None
    )
    refused(done, "cifar-10-binary.tar.gz", "--config.data.dir=")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_no_tensorflow_and_no_torch_in_a_training_process():
    code = (
        "import sys; from genzoo.modes import cost, doctor, evaluate, sample, train; "
        "import grain; print({'tensorflow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


def test_noise_is_the_same_bits_on_any_number_of_devices(surroundings):
    code = """
import hashlib
import jax, numpy as np
from genzoo.core import streams
from genzoo.train.sharding import MeshSettings, placement

@jax.jit
def normal(index):
    keys = streams.per_example(streams.named(streams.root(0), "sample"), index)
    return streams.normal(streams.fold(keys, 0), (8, 8, 3))

def noise(devices, first, size):
    place = placement(MeshSettings(), devices=jax.devices()[:devices])
    rows = place.put_batch({"index": np.arange(first, first + size, dtype=np.int32)})
    assert len(rows["index"].devices()) == devices
    return np.asarray(normal(rows["index"]))

for devices, sizes in {1: (3, 8), 2: (4,), 4: (8,)}.items():
    for size in sizes:
        parts = [noise(devices, first, size) for first in range(0, 24, size)]
        print(hashlib.sha256(np.concatenate(parts)[:24].tobytes()).hexdigest())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env=surroundings(devices=4),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    hashes = done.stdout.split()
    assert len(hashes) == 4 and len(set(hashes)) == 1
