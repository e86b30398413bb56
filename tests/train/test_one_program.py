"""A run is one program: traced once, without implicit transfers to or from the devices."""

from collections import Counter

import jax
import numpy as np
import pytest

from genzoo import check, config
from genzoo.modes import train as mode
from genzoo.train.step import Updater

CONFIG = "configs/toy_mixture.py:smoke"


@pytest.mark.parametrize("stride", [1, 4])
def test_the_step_is_traced_once_and_nothing_is_moved_unasked(tmp_path, monkeypatch, stride):
    traced, update, loop = Counter(), Updater.update, mode.train_loop

    def counted(self, state, batch):
        traced["update"] += 1
        return update(self, state, batch)

    def guarded(*arguments, **settings):
        with jax.transfer_guard("disallow"):
            return loop(*arguments, **settings)

    monkeypatch.setattr(Updater, "update", counted)
    monkeypatch.setattr(mode, "train_loop", guarded)
    changes = {
        "train.steps": "24", "train.steps_per_call": str(stride), "train.log_every": "8",
        "train.save_every": "12", "train.picture_count": "0",
    }  # fmt: skip
    checked = check.check(config.override(config.load(CONFIG), changes))
    assert mode.train(checked, tmp_path)["step"] == 24
    assert traced == {"update": 1}


def test_the_guard_has_teeth():
    double = jax.jit(lambda x: 2 * x).lower(jax.ShapeDtypeStruct((2,), "float32")).compile()
    with jax.transfer_guard("disallow"), pytest.raises(RuntimeError, match="isallowed"):
        double(np.ones(2, np.float32))
