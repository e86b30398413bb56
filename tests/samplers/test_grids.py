"""Grids against the published code's rules, written out as loops."""

import numpy as np
import pytest

from genzoo.math import schedules
from genzoo.samplers import grids

GRIDS = pytest.mark.parametrize("grid", grids.RULES, ids=lambda grid: grid.__name__)
SIZES = [1, 2, 3, 5, 7, 10, 20, 25, 50, 100, 250]


def indices(grid, steps, table_steps=1000):
    """Rising and counted from 0, as the published code does."""
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
    np.testing.assert_array_equal(grid(1000, 1000), np.arange(1000, 0, -1))


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
    for index in published:  # a step that the list has twice moves up to the next
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
