"""Which keys of `sample` a method and a grid use is declared; here the declaration is held against
what a changed key changes."""

from dataclasses import replace

import numpy as np
import pytest

from genzoo.builders import sampling
from genzoo.builders.sampling import (
    ADAPTIVE,
    GRID_KEYS,
    GRIDS,
    METHOD_KEYS,
    METHODS,
    DiffusionSampling,
)
from genzoo.math import continuous, gaussian, schedules

CHANGED = {
    "steps": 7, "grid": "logsnr", "shift": 2.0, "unroll": 2, "eta": 0.5, "rho": 3.0, "churn": 4.0,
    "churn_low": 0.1, "churn_high": 5.0, "churn_noise": 1.1, "corrector_snr": 0.3,
    "tolerance": 1e-3,
}  # fmt: skip
"""Another value of every key that some method or grid ignores."""
TABLE, VP = schedules.linear(100), continuous.VariancePreserving()


def sampler_of(settings, table):
    """The sampler that the settings describe, as something to be compared."""
    make = sampling.sampler(settings, gaussian.FIXED_SMALL, table=table)
    made = make(table or VP)
    if settings.method == ADAPTIVE:
        return made
    return made.step, np.asarray(made.times).tolist(), made.unroll


def used(settings, table):
    """The keys whose change changes the sampler."""
    before = sampler_of(settings, table)
    return {
        key
        for key, value in CHANGED.items()
        if sampler_of(replace(settings, **{key: value}), table) != before
    }


@pytest.mark.parametrize("table", [None, TABLE], ids=["continuous", "table"])
def test_a_method_uses_the_keys_it_declares(table):
    for method in (*METHODS, ADAPTIVE):
        settings = DiffusionSampling(method=method, grid="trailing", steps=10)
        assert used(settings, table) == METHOD_KEYS[method], method


@pytest.mark.parametrize("table", [None, TABLE], ids=["continuous", "table"])
def test_a_grid_uses_the_keys_it_declares(table):
    for grid in GRIDS - {CHANGED["grid"], "exponential"}:
        settings = DiffusionSampling(method="euler", grid=grid, steps=10)
        assert used(settings, table) == METHOD_KEYS["euler"] | GRID_KEYS[grid], grid


def test_every_declared_key_is_a_setting():
    declared = frozenset().union(*METHOD_KEYS.values(), *GRID_KEYS.values())
    assert declared == CHANGED.keys() <= DiffusionSampling.__dataclass_fields__.keys()
