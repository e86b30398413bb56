"""`--mode=reconstruct` on a family whose reconstruction is known: every value halved."""

import json

import numpy as np
import pytest
from PIL import Image
from train.toy import Line

from genzoo import build, check, config
from genzoo.data.embedded import open_fashion_mini
from genzoo.experiment import Experiment
from genzoo.modes.reconstruct import reconstruct
from genzoo.workdir import Workdir


class Halved(Line):
    def reconstruct(self, variables, batch, keys):
        del variables, keys
        return batch["x"] / 2


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "family", lambda config: Halved())
    raw = config.load("configs/ddpm_fashion.py:smoke")
    settings = check.check(config.override(raw, {"sample.count": "5", "eval.batch_size": "3"}))
    place = Workdir(tmp_path)
    place.claim(settings, {}).close()
    checkpoints = place.checkpoints(keep=1)
    checkpoints.save(Experiment(settings).initial_state())
    checkpoints.close()
    return settings, tmp_path


def test_pairs_errors_and_psnr(run):
    settings, workdir = run
    report = reconstruct(settings, workdir)
    image = open_fashion_mini("test").arrays["x"][:5] / 127.5 - 1.0
    expected = np.square(image / 2).reshape(5, -1).mean(-1)
    stored = json.loads((workdir / "reconstruct.json").read_text())
    np.testing.assert_allclose(stored["mean_squared_errors"], expected, rtol=1e-5)
    assert report["count"] == 5
    assert report["psnr"] == pytest.approx(np.mean(10 * np.log10(4 / expected)), rel=1e-6)
    page = np.asarray(Image.open(workdir / "samples" / "reconstruction.png"))[22:]  # the caption
    scale = page.shape[1] // (5 * 57 + 1)
    small = page[::scale, ::scale]
    original, copy = small[1:29, 1:29].astype(float), small[1:29, 29:57].astype(float)
    np.testing.assert_allclose(copy, (original - 127.5) / 2 + 127.5, atol=0.51)
