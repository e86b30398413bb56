"""Grids: the times that a sampler visits, from the noisiest down to 0, the data.

A grid is a function (schedule, S, end) -> times [S + 1], decreasing. On a DDPM table the published
rules choose steps n from 1..T, and t = n / T. (The published DDIM code counts steps from 0, so here
n = index + 1.) In continuous time the rules space times evenly in t or in logsnr, or as EDM does.
They apply to tables too, where the times fall between the steps.

end: a time at which sampling stops instead of 0; None for 0. Continuous rules then space their
times down to it. Rules for tables keep the steps above it, which may be fewer than S.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from genzoo.core.types import ArrayLike, Scalar, Series
from genzoo.math.schedules import Schedule, TableSchedule
from genzoo.math.times import shift_time

End = Scalar | None
GridTimes = Float[ArrayLike, "{steps}+1"]
"""The times of a grid with a number of steps, [S + 1]."""
Grid = Callable[[Schedule, int, End], Series]

# --- the steps of a table: (T, S) -> int64 [S], strictly decreasing, within 1..T ---------------

Steps = Int[np.ndarray, "{steps}"]
"""The steps that a rule chooses, [S]."""
Rule = Callable[[int, int], Steps]


def leading(table_steps: int, steps: int) -> Steps:
    """1, 1 + c, 1 + 2c, ... with c = T // S: "uniform" of DDIM (Song et al. 2020), or "leading".

    It starts below T unless S = T.
    """
    return 1 + (table_steps // steps) * np.arange(steps)[::-1]


def quadratic(table_steps: int, steps: int) -> Steps:
    """1 + floor(u^2) with u even in [0, sqrt(0.8 T)]: "quad" of DDIM, used there for CIFAR-10.

    Where the published list repeats a step, at its low end, the later one moves up to the next.
    """
    rising = np.floor(np.linspace(0, np.sqrt(0.8 * table_steps), steps) ** 2).astype(int)
    places = np.arange(steps)
    return 1 + (np.maximum.accumulate(rising - places) + places)[::-1]


def trailing(table_steps: int, steps: int) -> Steps:
    """round(T - i T / S), which always starts at T (Lin et al. 2023, table 2)."""
    return np.round(table_steps - np.arange(steps) * table_steps / steps).astype(int)


def linspace(table_steps: int, steps: int) -> Steps:
    """From T to 1 including both ends, rounded: the respacing of Nichol & Dhariwal 2021.

    As in their code, the stride is accumulated and the step counted from 0 is rounded, which
    decides how a half is rounded.
    """
    stride = (table_steps - 1) / max(steps - 1, 1)
    counted = np.cumsum(np.append(0.0, np.full(steps - 1, stride)))
    return 1 + np.round(counted).astype(int)[::-1]


def leading_open(table_steps: int, steps: int) -> Steps:
    """1 + c, 1 + 2c, ... with c = T // (S + 1): `leading` with S + 1 points, less the lowest.

    The rule of the multistep schedulers of diffusers (DPM-Solver, DEIS, UniPC).
    """
    return 1 + (table_steps // (steps + 1)) * np.arange(1, steps + 1)[::-1]


def linspace_open(table_steps: int, steps: int) -> Steps:
    """From T to 1 in S + 1 points, rounded, less the lowest: the same schedulers' "linspace"."""
    return 1 + np.round(np.linspace(0, table_steps - 1, steps + 1)).astype(int)[:0:-1]


RULES: tuple[Rule, ...] = (leading, quadratic, trailing, linspace, leading_open, linspace_open)


def offset(rule: Rule, steps: int) -> Rule:
    """A rule with all steps raised by `steps`: `steps_offset` of diffusers, which counts from 0."""
    return lambda table_steps, count: rule(table_steps, count) + steps


def on_table(rule: Rule) -> Grid:
    """The grid that a rule makes on a table."""

    def grid(schedule: TableSchedule, steps: int, end: float | None = None) -> Series:
        times = rule(schedule.steps, steps) / schedule.steps
        if end is None:
            return np.append(times, 0.0)
        return np.append(times[times > end + 1e-3 / schedule.steps], end)

    return grid


def stop(schedule: Schedule, last_sigma: float) -> End:
    """The time at which sigma / alpha is `last_sigma`, at least the schedule's `nearest`.

    None for last_sigma = 0. On a table it is a Python float, even under tracing.
    """
    if not last_sigma:
        return None
    if isinstance(schedule, TableSchedule):
        finite = np.isfinite(schedule.log_alpha)
        knots, times = -schedule.log_alpha[finite], np.arange(schedule.steps + 1)[finite]
        time = np.interp(np.log1p(last_sigma**2) / 2, knots, times) / schedule.steps
        return max(float(time), schedule.nearest)
    time = schedule.time_of_logsnr(jnp.asarray(-2 * np.log(last_sigma)))
    return jnp.maximum(time, schedule.nearest)


def problem(rule: Rule, table_steps: int, steps: int) -> str | None:
    """A sentence that says why the rule cannot give this many steps; None if it can."""
    if not 1 <= steps <= table_steps:
        return f"a table of {table_steps} steps allows 1 to {table_steps} of them, not {steps}."
    visited = rule(table_steps, steps)
    start = visited[0]
    if start > table_steps:
        return f"the grid would start at step {start} of a table of {table_steps}."
    if len(np.unique(visited)) < steps:
        return f"the grid has fewer than {steps} different steps of a table of {table_steps}."
    if 2 * start < table_steps:
        return (
            f"{steps} step(s) on this grid would start from pure noise at step {start} of "
            f"{table_steps}, where x_t is far from pure noise; use more steps or the grid "
            "trailing."
        )
    return None


# --- continuous time ------------------------------------------------------------------------------


def _ended(times: Series) -> Float[ArrayLike, " S+1"]:
    return jnp.append(times, 0.0)


def _in_time(schedule: Schedule, steps: int, end: End, power: int = 1) -> GridTimes:
    # u^power with u even from 1 to the nearest time, then 0; or in the same number of moves to end.
    if end is None:
        return _ended(np.linspace(1, schedule.nearest ** (1 / power), steps) ** power)
    return jnp.linspace(1, end ** (1 / power), steps + 1) ** power


def even(schedule: Schedule, steps: int, end: End = None) -> GridTimes:
    """Evenly in t from 1 to 0: t = 1 - i / S; the last evaluation is at 1 / S."""
    if end is None:
        return np.linspace(1, 0, steps + 1)
    return _in_time(schedule, steps, end)


def even_to_nearest(schedule: Schedule, steps: int, end: End = None) -> GridTimes:
    """Evenly in t from 1 to the schedule's nearest time, then 0 (Song et al. 2021)."""
    return _in_time(schedule, steps, end)


def even_open(schedule: Schedule, steps: int, end: End = None) -> GridTimes:
    """Evenly in t from 1 to the schedule's nearest time in S + 1 points, the last replaced by 0."""
    if end is None:
        return _ended(np.linspace(1, schedule.nearest, steps + 1)[:-1])
    return _in_time(schedule, steps, end)


def squares(schedule: Schedule, steps: int, end: End = None) -> GridTimes:
    """t = u^2, u evenly from 1 to the root of the nearest time, then 0: denser near the data."""
    return _in_time(schedule, steps, end, power=2)


def _by_noise(
    schedule: Schedule, steps: int, end: End, inner: Callable, outer: Callable
) -> GridTimes:
    # sigma / alpha = outer(v), with v even from the farthest time to the nearest, then 0; or in the
    # same number of moves to the end.
    count, low = (steps, schedule.nearest) if end is None else (steps + 1, end)
    ends = jnp.asarray([schedule.farthest, low])
    high, least = inner(jnp.exp(-schedule.logsnr(ends) / 2))
    noise = outer(jnp.linspace(high, least, count))
    # Rounding must not move the ends out of the range.
    times = jnp.clip(schedule.time_of_logsnr(-2 * jnp.log(noise)), low, schedule.farthest)
    # On a grid of a single time, the first wins.
    times = times.at[-1].set(low).at[0].set(schedule.farthest)
    return _ended(times) if end is None else times


def logsnr(schedule: Schedule, steps: int, end: End = None) -> GridTimes:
    """Evenly in logsnr, and so in the logarithm of sigma / alpha ("exponential")."""
    return _by_noise(schedule, steps, end, jnp.log, jnp.exp)


def karras(rho: float = 7.0) -> Grid:
    """Evenly in (sigma / alpha)^(1 / rho) (Karras et al. 2022, eq. 5)."""

    def grid(schedule: Schedule, steps: int, end: End = None) -> GridTimes:
        return _by_noise(schedule, steps, end, lambda u: u ** (1 / rho), lambda v: v**rho)

    return grid


def shifted(grid: Grid, shift: float) -> Grid:
    """A grid with its times moved towards the noise: t -> shift t / (1 + (shift - 1) t).

    For large images (Esser et al. 2024, eq. 23). shift = 1 changes nothing.
    """

    def moved(schedule: Schedule, steps: int, end: End = None) -> Series:
        return shift_time(
            grid(schedule, steps, None if end is None else shift_time(end, 1 / shift)), shift
        )

    return grid if shift == 1 else moved
