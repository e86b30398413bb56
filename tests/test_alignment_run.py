"""A run aligned with a masked autoencoder, as a user makes it."""

import shutil

import numpy as np
from runs import final_state, metrics

from genzoo.main import main


def test_a_run_aligned_with_a_masked_autoencoder(tmp_path, capsys):
    encoder, ours = tmp_path / "mae", tmp_path / "dit"
    assert main(["--config=configs/mae_fashion.py:smoke", f"--workdir={encoder}"]) == 0
    trained = final_state(encoder)
    aligned = [
        "--config=configs/dit_fashion.py:smoke", f"--workdir={ours}",
        "--config.family.align=encoder", "--config.family.align_block=1",
        "--config.family.align_width=32",
    ]  # fmt: skip
    assert main(aligned) == 2
    assert "frozen.encoder.workdir must be given" in capsys.readouterr().err
    other = tmp_path / "other"
    assert main([*aligned, f"--config.frozen.encoder.workdir={other}"]) == 2
    assert "train the encoder first" in capsys.readouterr().err and not ours.exists()
    aligned.append(f"--config.frozen.encoder.workdir={encoder}")
    assert main([*aligned, "--config.train.steps=10"]) == 0
    shutil.rmtree(encoder)  # the run has its own copy
    assert main([*aligned]) == 0  # goes on to 20 steps
    values = metrics(ours, "alignment", "loss")
    assert len(values) == 4 and all(-1 <= aligned <= 1 for aligned, _ in values)
    state = final_state(ours)
    np.testing.assert_array_equal(
        state.frozen["encoder"]["params"]["encoder"]["class_token"],
        trained.params["encoder"]["class_token"],
    )
    assert main([f"--workdir={ours}", "--mode=sample"]) == 0
