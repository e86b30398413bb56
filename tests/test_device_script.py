"""The scripts for a machine with a card: all of device.sh in tiny sizes on this CPU."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "tests" / "peers"
SCRIPTS = ("device.sh", "device_wheels.sh")


def device(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(PEERS / "device.sh"), *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=900, env={**os.environ, "PYTHON": sys.executable, **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What a dry run of all parts leaves."""
    out = tmp_path_factory.mktemp("device")
    done = device("--dry", OUT=str(out))
    found = json.loads((out / "device.json").read_text())
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    assert (out / "fm_fashion.png").stat().st_size > 0
    assert {file.name for file in out.iterdir()} == {"device.json", "fm_fashion.png"}
    return found


def test_every_part_is_done(report):
    parts = (
        "versions", "precision", "suite", "ddpm_cifar", "edm_cifar", "adm64", "training", "resume",
    )  # fmt: skip
    assert {name: report[name]["status"] for name in report} == dict.fromkeys(parts, "done")


def test_speed_is_told_of_genzoo_and_of_torch_or_why_not(report):
    installed = all(importlib.util.find_spec(name) for name in ("torch", "diffusers"))
    for case, measures in {
        "ddpm_cifar": ("train_4", "ddim_2"), "edm_cifar": ("train_4",), "adm64": ("train_2",),
    }.items():  # fmt: skip
        for measure in measures:
            found = dict(report[case][measure])
            own = found.pop("genzoo")
            size = int(measure.split("_")[1])
            assert own["images_per_second"] == pytest.approx(size / own["seconds"], rel=1e-2)
            assert own["tflops"] >= 0 and own["compile_seconds"] > 0 and own["rounds"] == 1
            assert "share_of_peak" not in own  # of a CPU no peak is known
            assert found.keys() == ({"torch"} if case != "edm_cifar" else set())
            for peer in found.values():
                if installed:
                    assert peer["parameters"] == own["parameters"] and peer["over_genzoo"] > 0
                else:
                    assert peer["status"].startswith("not installed: ")


def test_the_suite_ran_and_precision_is_within_its_bounds(report):
    outcomes = report["suite"]["outcomes"]
    assert outcomes["passed"] > 10 and not outcomes["failed"] and not outcomes["failures"]
    assert 0 < report["precision"]["training step"]["bfloat16"]["error"] < 0.1
    products = report["precision"]["float32 products by default"]
    assert {found["format"] for found in products.values()} == {"float32"}


def test_a_run_was_killed_and_went_on_bit_for_bit(report):
    assert report["resume"]["killed before its end"] and report["resume"]["same bits"]
    assert report["training"]["train"]["exit code"] == 0
    assert report["training"]["reading"]["images_per_second"] > 0


def test_an_unknown_part_is_refused_and_nothing_asked_shows_the_usage(tmp_path):
    unknown = device("sweet", OUT=str(tmp_path))
    assert unknown.returncode == 2 and "sweet is no part; parts are: versions" in unknown.stderr
    nothing = device(OUT=str(tmp_path), DEVICE_DRY="")
    assert nothing.returncode == 2 and "device.sh first" in nothing.stdout
    assert not any(tmp_path.iterdir())


def test_a_part_that_fails_or_is_cut_off_leaves_what_it_had(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.setenv("OUT", str(tmp_path))
    sys.modules.pop("device_report", None)
    from device_report import Report, read

    report = Report("speed")
    report.start()
    report.put("train", "genzoo", value={"seconds": 1.0})
    report.put("train", "torch", value={"status": "not installed"})
    Report("suite").start()
    report.end("cut off after 9 s", 9)
    assert read() == {
        "speed": {
            "status": "cut off after 9 s",
            "seconds": 9,
            "train": {"genzoo": {"seconds": 1.0}, "torch": {"status": "not installed"}},
        },
        "suite": {"status": "running"},
    }
    report.start()
    assert read()["speed"] == {"status": "running"}
    sys.modules.pop("device_report")


def test_kernels_are_told_apart_by_their_names(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    from device_profile import summary

    names = {
        "sm90_xmma_fprop_implicit_gemm_bf16": "convolution", "nvjet_hsh_128x256": "product",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop": "attention",
        "nchwToNhwcKernel": "layout", "input_reduce_fusion_3": "reduction",
        "loop_fusion_12": "elementwise", "triton_poi_fused_add_5": "elementwise",
        "something else": "other",
    }  # fmt: skip
    found = summary(dict.fromkeys(names, 0.002), calls=2, span=0.032)
    assert found["ms_a_call"] == 8.0 and found["busy"] == 0.5
    assert found["by_kind"] == {
        kind: 2.0 if kind == "elementwise" else 1.0 for kind in names.values()
    }


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_linted(script):
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if tool is None:
        pytest.skip("shellcheck is not installed: pip install -e '.[test]'")
    done = subprocess.run([tool, str(PEERS / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_wheels_are_fetched_by_name_and_version_for_the_other_machine(tmp_path):
    record = tmp_path / "record"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{record}\n')
    python.chmod(0o755)
    done = subprocess.run(
        [str(PEERS / "device_wheels.sh")], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHON": str(python), "WHEELS": str(tmp_path / "wheels")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = record.read_text().split()
    assert words[:3] == ["-m", "pip", "download"]
    assert {"--only-binary=:all:", "--no-deps", "3.12"} <= set(words)
    assert "--platform=manylinux_2_28_x86_64" in words
    fetched = {word.split("==")[0] for word in words if "==" in word}
    assert {"ml_collections", "grain", "jaxtyping", "beartype", "diffusers"} <= fetched
