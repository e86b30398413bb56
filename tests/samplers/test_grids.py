"""Grids against the rules of the published code, written as loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.math import continuous, schedules
from genzoo.samplers import grids

GRIDS = pytest.mark.parametrize("grid", grids.RULES, ids=lambda grid: grid.__name__)
SIZES = [1, 2, 3, 5, 7, 10, 20, 25, 50, 100, 250]


def indices(grid, steps, table_steps=1000):
    """Steps in increasing order, counted from 0 as in the published code."""
    return list(grid(table_steps, steps)[::-1] - 1)


@GRIDS
@pytest.mark.parametrize("table_steps", [250, 1000, 4000])
def test_grids_fall_strictly_within_the_table(grid, table_steps):
    for steps in SIZES:
        if grids.problem(grid, table_steps, steps) is None:
            visited = grid(table_steps, steps)
            assert visited.shape == (steps,)
            assert visited.dtype == np.int64
            assert np.all(np.diff(visited) < 0)
            assert 1 <= visited[-1] <= visited[0] <= table_steps


@GRIDS
def test_usual_sizes_are_allowed(grid):
    for steps in (10, 20, 25, 50, 100, 250):
        assert grids.problem(grid, 1000, steps) is None


@pytest.mark.parametrize("grid", grids.RULES)
def test_as_many_steps_as_the_table_are_all_of_them(grid):
    if grid in (grids.leading_open, grids.linspace_open):
        # One point more than steps, and the lowest is left out.
        np.testing.assert_array_equal(grid(1000, 999), np.arange(1000, 1, -1))
        assert "fewer than 1000 different steps" in grids.problem(grid, 1000, 1000)
    else:
        np.testing.assert_array_equal(grid(1000, 1000), np.arange(1000, 0, -1))


@pytest.mark.parametrize("steps", SIZES)
def test_open_grids_are_those_of_diffusers_multistep_schedulers(steps):
    # set_timesteps of DPMSolverMultistepScheduler, by its timestep_spacing.
    linspace = np.linspace(0, 999, steps + 1).round()[::-1][:-1]
    np.testing.assert_array_equal(indices(grids.linspace_open, steps), linspace[::-1])
    leading = (np.arange(0, steps + 1) * (1000 // (steps + 1))).round()[::-1][:-1]
    np.testing.assert_array_equal(indices(grids.leading_open, steps), leading[::-1])


def test_an_offset_counts_from_one_and_stays_in_the_table():
    # diffusers: range(0, T, T // S) + steps_offset.
    moved = grids.offset(grids.leading, 1)
    assert indices(moved, 25) == [i + 1 for i in range(0, 961, 40)]
    assert grids.problem(moved, 1000, 25) is None
    assert "start at step 1001 of a table of 1000" in grids.problem(moved, 1000, 1000)


@pytest.mark.parametrize("steps", SIZES)
def test_uniform_is_ddims_range(steps):
    # Song et al.'s code: range(0, T, T // S).
    assert indices(grids.leading, steps) == list(range(0, 1000, 1000 // steps))[:steps]


def test_uniform_25_is_the_published_list():
    assert indices(grids.leading, 25) == list(range(0, 961, 40))


@pytest.mark.parametrize("steps", SIZES)
def test_quadratic_is_ddims_list(steps):
    # Song et al.'s code: [int(s) for s in np.linspace(0, sqrt(0.8 T), S) ** 2].
    published = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2]
    expected = []
    for index in published:  # a repeated step moves up to the next
        expected.append(max(index, expected[-1] + 1 if expected else 0))
    assert indices(grids.quadratic, steps) == expected
    if steps <= 20:
        assert expected == published


def respaced(table_steps, steps):
    """One section of space_timesteps of Nichol & Dhariwal's code."""
    stride = 1 if steps <= 1 else (table_steps - 1) / (steps - 1)
    current, taken = 0.0, []
    for _ in range(steps):
        taken.append(round(current))
        current += stride
    return taken


@pytest.mark.parametrize("table_steps", [100, 1000, 4000])
def test_linspace_is_the_respacing_of_improved_diffusion(table_steps):
    for steps in range(1, 100):
        assert indices(grids.linspace, steps, table_steps) == respaced(table_steps, steps)


def test_linspace_25_and_250_are_the_published_lists():
    assert indices(grids.linspace, 25)[:6] == [0, 42, 83, 125, 166, 208]
    assert indices(grids.linspace, 25)[-2:] == [957, 999]
    assert indices(grids.linspace, 250)[:6] == [0, 4, 8, 12, 16, 20]
    assert indices(grids.linspace, 250)[-1] == 999


@pytest.mark.parametrize("steps", SIZES)
def test_trailing_is_lins_table(steps):
    # Lin et al. 2023, table 2: round(flip(arange(T, 0, -T / S))) counted from 1.
    expected = np.round(np.arange(1000, 0, -1000 / steps))[:steps]
    np.testing.assert_array_equal(grids.trailing(1000, steps), expected)


def test_trailing_5_is_the_published_row():
    assert list(grids.trailing(1000, 5)) == [1000, 800, 600, 400, 200]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_problem_names_the_range(steps):
    for grid in grids.RULES:
        sentence = grids.problem(grid, 1000, steps)
        assert "a table of 1000 steps allows 1 to 1000" in sentence
        assert sentence.endswith(f"not {steps}.")


@pytest.mark.parametrize("grid", [grids.leading, grids.quadratic, grids.linspace])
def test_a_grid_that_would_start_in_the_clear_is_refused(grid):
    assert "start from pure noise at step 1 of 1000" in grids.problem(grid, 1000, 1)
    assert grids.problem(grids.trailing, 1000, 1) is None


def test_times_end_at_zero():
    times = grids.on_table(lambda *_: np.array([1000, 500, 1]))(schedules.linear(1000), 3)
    assert times.dtype == np.float64
    np.testing.assert_array_equal(times, [1.0, 0.5, 0.001, 0.0])


EVERY = {
    "trailing": grids.on_table(grids.trailing), "uniform": grids.on_table(grids.leading),
    "linspace_open": grids.on_table(grids.linspace_open), "even": grids.even,
    "even_to_nearest": grids.even_to_nearest, "even_open": grids.even_open,
    "squares": grids.squares, "logsnr": grids.logsnr, "karras": grids.karras(),
    "shifted": grids.shifted(grids.even, 3.0),
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_a_grid_stops_at_the_last_sigma(float64, name):
    table, vp = schedules.linear(1000), continuous.VariancePreserving()
    for schedule in (table,) if name in list(EVERY)[:3] else (table, vp):
        end = grids.stop(schedule, 0.2)
        times = np.asarray(EVERY[name](schedule, 10, end))
        last = jnp.asarray(times[-1])
        assert float(schedule.sigma(last) / schedule.alpha(last)) == pytest.approx(0.2, rel=1e-9)
        assert np.all(np.diff(times) < 0)
        # Continuous rules reach the end in as many steps; rules for tables drop some.
        assert len(times) == 11 or (schedule is table and name in list(EVERY)[:3])


def test_the_last_sigma_of_a_table_is_at_least_that_of_its_first_step():
    table = schedules.linear(1000)
    assert grids.stop(table, 0.0) is None
    assert grids.stop(table, 1e-6) == 0.001
    # "sigma_min" of diffusers: the steps above it, then down to it, where nothing is evaluated.
    uniform = grids.on_table(grids.leading)(table, 10, grids.stop(table, 1e-6))
    np.testing.assert_allclose(uniform, (1 + np.arange(900, -1, -100)) / 1000)
    moved = grids.on_table(grids.offset(grids.leading, 1))(table, 10, grids.stop(table, 1e-6))
    np.testing.assert_allclose(moved, np.append((2 + np.arange(900, -1, -100)) / 1000, 0.001))
