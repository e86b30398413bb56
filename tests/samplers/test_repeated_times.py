"""Grids that visit a time twice, of which multistep methods make NaN, are refused in a config."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few

from genzoo import config
from genzoo.builders import denoising, flow_matching, sampling, score_sde, vdm
from genzoo.builders.sampling import GRIDS, METHODS, ContinuousSampling, DiffusionSampling
from genzoo.check import check
from genzoo.core import streams
from genzoo.core.errors import UserError
from genzoo.math import continuous, exponential, gaussian
from genzoo.samplers.loop import Sampler
from genzoo.samplers.predictor import Prediction

CONTINUOUS = {
    **{name: path() for name, path in flow_matching.PATHS.items()},
    **{name: process() for name, process in score_sde.PROCESSES.items()},
    "edm": continuous.LinearNoise(),
    "vdm": vdm.SCHEDULES["fixed"](-13.3, 5.0).at({}),
}
MULTISTEP = [*sampling._MULTISTEP, "lms", "pndm", "f_pndm"]
FLOW, TABLE = "fm_fashion", "ddpm_fashion"
STEPS = 100


@cache
def problems(name, **sample):
    """What is said of a config with these keys of `sample`."""
    raw = config.load(f"configs/{name}.py:smoke")
    raw["sample"] = dict(method="ddim", steps=STEPS, count=1, batch_size=1) | sample
    try:
        check(raw, devices=1)
    except UserError as error:
        return error.problems
    return ()


def times_of(schedule, **sample):
    settings = ContinuousSampling(**sample)
    return np.asarray(sampling.grid(settings, table=False)(schedule, settings.steps), np.float32)


@pytest.mark.parametrize(
    "name", few(CONTINUOUS, [*map(list(CONTINUOUS).index, ("straight", "vp"))])
)
def test_what_is_not_looked_at_has_no_time_twice(name):
    schedule = CONTINUOUS[name]
    for grid in GRIDS:
        for steps in (1, denoising._MANY):
            t, s = (times := times_of(schedule, grid=grid, steps=steps))[:-1], times[1:]
            assert np.all(s < t * (1 - 4 * np.finfo(np.float32).eps)), (grid, steps)
            assert np.all(exponential.gap(schedule, t[:-1], s[:-1]) > 0), (grid, steps)


@pytest.mark.parametrize(
    "grid", few(["karras", "trailing", *sorted(GRIDS - {"karras", "trailing"})], 2)
)
def test_a_time_that_comes_twice_is_refused_with_the_keys_that_move_it(grid):
    for name in (FLOW, TABLE):
        (said,) = problems(name, grid=grid, shift=1e6)
        start = f"sample.steps = {STEPS} with sample.grid = {grid!r} and sample.shift = 1000000.0 "
        assert said.startswith(start + "would visit times twice: ")
        assert said.endswith("Take fewer steps or a shift nearer to 1.")
        for shift in (1.32, 3.0, 12.0):
            assert problems(name, grid=grid, shift=shift) == ()


def test_other_ways_to_a_time_that_comes_twice():
    (said,) = problems(FLOW, grid="karras", rho=1e-3)
    assert "and sample.rho = 0.001 would" in said and "a rho nearer to 7." in said
    # On a table that is finer than float32 tells times apart, between its steps.
    (said,) = problems(TABLE, grid="karras", steps=100_000)
    assert said.startswith("sample.steps = 100000 with sample.grid = 'karras' would visit times")
    assert said.endswith("Take fewer steps.")
    assert problems(FLOW, method="rk45", steps=18, grid="uniform") == ()


@pytest.mark.parametrize("method", MULTISTEP)
def test_multistep_methods_are_finite_wherever_the_check_is_content(method):
    schedule = continuous.Straight()
    step = METHODS[method](schedule, DiffusionSampling(), gaussian.FIXED_SMALL)
    keys = streams.per_example(streams.root(0), jnp.arange(2))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)

    def predict(x, t):
        x_0 = jnp.tanh(x) * (1 - t)
        return Prediction(x_0, (x - schedule.alpha(t) * x_0) / schedule.sigma(t))

    @jax.jit
    def finite(times):
        return jnp.isfinite(Sampler(step=step, times=times)(predict, x, keys).x).all()

    for grid in sorted(GRIDS):
        moved = [{"shift": shift} for shift in (1.0, 1.32, 30.0, 1e3, 1e5)]
        moved += [{"rho": 1.0}, {"rho": 1e3}] if grid == "karras" else []
        for keys_moved in moved:
            if not problems(FLOW, grid=grid, **keys_moved):
                times = times_of(schedule, grid=grid, steps=STEPS, **keys_moved)
                assert finite(times), (grid, keys_moved)
    twice = np.repeat(np.linspace(1, 0, STEPS // 2 + 1, dtype=np.float32)[:-1], 2)
    # What the check is for; with even weights no slope is divided by the time since the last.
    assert finite(np.append(twice, 0)) == (method in ("pndm", "f_pndm"))


@pytest.mark.parametrize(
    ("name", "grid", "start"),
    [
        ("edm_fashion", "karras", "80"),
        ("sde_vp_cifar", "trailing", "152.2"),
        ("vdm_cifar", "trailing", "12.18"),
        (FLOW, "karras", "999"),
        (TABLE, "trailing", "2.029e+04"),
    ],
)
def test_a_last_sigma_above_the_noise_at_the_start_is_refused(name, grid, start):
    assert problems(name, grid=grid, last_sigma=1e5) == (
        "sample.last_sigma = 100000.0 leaves no step to take: sampling starts where sigma / alpha "
        f"is at most {start}.",
    )
    assert problems(name, grid=grid, last_sigma=10.0) == ()
