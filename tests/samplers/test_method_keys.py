"""The declared keys of each method and grid, compared with the keys that do change the sampler."""

from dataclasses import replace

import numpy as np
import pytest

from genzoo import config
from genzoo.builders import sampling
from genzoo.builders.sampling import (
    ADAPTIVE,
    GRID_KEYS,
    GRIDS,
    METHOD_KEYS,
    METHODS,
    DiffusionSampling,
)
from genzoo.check import check
from genzoo.core.errors import UserError
from genzoo.math import continuous, gaussian, schedules

CHANGED = {
    "steps": [7], "grid": ["logsnr"], "shift": [2.0], "unroll": [2], "eta": [0.5], "rho": [3.0],
    "churn": [4.0], "churn_low": [0.1], "churn_high": [5.0], "churn_noise": [1.1],
    "corrector_snr": [0.3], "tolerance": [1e-3], "corrector": ["annealed"],
    "final_order": ["always", "never"], "last_sigma": [0.2], "steps_offset": [1],
}  # fmt: skip
"""Other values of every key that some method or grid ignores."""
TABLE, VP = schedules.linear(100), continuous.VariancePreserving()


def sampler_of(settings, table):
    """The sampler of the settings, in a form that can be compared."""
    make = sampling.sampler(settings, gaussian.FIXED_SMALL, table=table)
    made = make(table or VP)
    if settings.method == ADAPTIVE:
        return made
    return made.step, np.asarray(made.times).tolist(), made.unroll


def used(settings, table):
    """The keys that change the sampler when they change."""
    before = sampler_of(settings, table)
    return {
        key
        for key, values in CHANGED.items()
        if any(sampler_of(replace(settings, **{key: v}), table) != before for v in values)
    }


@pytest.mark.parametrize("table", [None, TABLE], ids=["continuous", "table"])
def test_a_method_uses_the_keys_it_declares(table):
    for method in (*METHODS, ADAPTIVE):
        settings = DiffusionSampling(method=method, grid="trailing", steps=10)
        assert used(settings, table) == METHOD_KEYS[method], method


@pytest.mark.parametrize("table", [None, TABLE], ids=["continuous", "table"])
def test_a_grid_uses_the_keys_it_declares(table):
    of_tables = {"steps_offset"} if table is None else set()
    for grid in GRIDS - {"logsnr", "exponential"}:
        settings = DiffusionSampling(method="euler", grid=grid, steps=10)
        keys = METHOD_KEYS["euler"] | GRID_KEYS[grid]
        assert used(settings, table) == keys - of_tables, grid


def test_every_declared_key_is_a_setting():
    declared = frozenset().union(*METHOD_KEYS.values(), *GRID_KEYS.values())
    assert declared == CHANGED.keys() <= DiffusionSampling.__dataclass_fields__.keys()


def test_settings_of_the_grid_that_have_no_effect_or_leave_nothing_are_refused():
    def problems(name, **sample):
        raw = config.load(f"configs/{name}.py:smoke")
        raw["sample"] |= sample
        try:
            check(raw, devices=1)
        except UserError as error:
            return error.problems
        return []

    table = dict(method="ddim", steps=10)
    assert problems("ddpm_fashion", **table, grid="uniform", steps_offset=1) == []
    assert problems("ddpm_fashion", **table, grid="linspace_open", last_sigma=0.1) == []
    (problem,) = problems("ddpm_fashion", **table, grid="trailing", steps_offset=1)
    assert "sample.steps_offset = 1 has no effect with sample.grid = 'trailing'" in problem
    (problem,) = problems("ddpm_fashion", **table, grid="trailing", last_sigma=1e5)
    assert problem.startswith("sample.last_sigma = 100000.0 leaves no step to take")
    (problem,) = problems("fm_fashion", grid="uniform", steps_offset=1)
    assert "sample.steps_offset = 1 has no effect in continuous time" in problem
    (problem,) = problems("fm_fashion", method="heun", final_order="always")
    assert "sample.final_order = 'always' has no effect with sample.method = 'heun'" in problem
