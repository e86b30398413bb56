"""Which times a sampler visits, from the noisiest down, with 0, the data, at the end.

A grid is a function (schedule, S) -> times [S + 1], falling. On a DDPM table the published rules
choose steps n of 1..T, and t = n / T; the published code of DDIM counts steps from 0, here n =
index + 1. In continuous time the rules place times evenly in t, in logsnr, or as EDM does; they
hold for tables too, where they fall between the steps.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array
from genzoo.math.schedules import Schedule, TableSchedule

Grid = Callable[[Schedule, int], Array]

# --- the steps of a table: (T, S) -> int64 [S], strictly falling, within 1..T ------------------

Rule = Callable[[int, int], np.ndarray]


def leading(table_steps: int, steps: int) -> np.ndarray:
    """1, 1 + c, 1 + 2c, ... with c = T // S: "uniform" of Song et al. 2020 (DDIM), also known as
    "leading". It starts below T unless S = T."""
    return 1 + (table_steps // steps) * np.arange(steps)[::-1]


def quadratic(table_steps: int, steps: int) -> np.ndarray:
    """1 + floor(u^2), u evenly in [0, sqrt(0.8 T)]: "quad" of DDIM, used there for CIFAR-10. Where
    the published list has a step twice, at its low end, the later one moves up to the next."""
    rising = np.floor(np.linspace(0, np.sqrt(0.8 * table_steps), steps) ** 2).astype(int)
    places = np.arange(steps)
    return 1 + (np.maximum.accumulate(rising - places) + places)[::-1]


def trailing(table_steps: int, steps: int) -> np.ndarray:
    """round(T - i T / S): starts at T always (Lin et al. 2023, table 2)."""
    return np.round(table_steps - np.arange(steps) * table_steps / steps).astype(int)


def linspace(table_steps: int, steps: int) -> np.ndarray:
    """From T to 1 with both ends, rounded: the respacing of Nichol & Dhariwal 2021, whose code adds
    up the stride and rounds the step counted from 0 (which decides where a half goes)."""
    stride = (table_steps - 1) / max(steps - 1, 1)
    counted = np.cumsum(np.append(0.0, np.full(steps - 1, stride)))
    return 1 + np.round(counted).astype(int)[::-1]


RULES: tuple[Rule, ...] = (leading, quadratic, trailing, linspace)


def on_table(rule: Rule) -> Grid:
    """The grid that a rule makes on a table."""

    def grid(schedule: TableSchedule, steps: int) -> np.ndarray:
        return np.append(rule(schedule.steps, steps) / schedule.steps, 0.0)

    return grid


def problem(rule: Rule, table_steps: int, steps: int) -> str | None:
    """Why this rule cannot give that many steps, as a sentence, or None."""
    if not 1 <= steps <= table_steps:
        return f"a table of {table_steps} steps allows 1 to {table_steps} of them, not {steps}."
    start = rule(table_steps, steps)[0]
    if 2 * start < table_steps:
        return (
            f"{steps} step(s) on this grid would start from pure noise at step {start} of "
            f"{table_steps}, where there is little of it; take more steps or the grid trailing."
        )
    return None


# --- continuous time ------------------------------------------------------------------------------


def _ended(times: Array) -> Array:
    return jnp.append(times, 0.0)


def even(schedule: Schedule, steps: int) -> Array:
    """Evenly in t from 1 to 0: 1 - i / S; the last time asked is 1 / S."""
    del schedule
    return np.linspace(1, 0, steps + 1)


def even_to_nearest(schedule: Schedule, steps: int) -> Array:
    """Evenly in t from 1 to the schedule's nearest time, then 0 (Song et al. 2021)."""
    return _ended(np.linspace(1, schedule.nearest, steps))


def squares(schedule: Schedule, steps: int) -> Array:
    """t = u^2, u evenly from 1 to the root of the nearest time, then 0: denser near the data."""
    return _ended(np.linspace(1, np.sqrt(schedule.nearest), steps) ** 2)


def _noise_ends(schedule: Schedule) -> tuple[Array, Array]:
    # sigma / alpha at the two ends of what may be asked
    ends = jnp.asarray([schedule.farthest, schedule.nearest])
    high, low = jnp.exp(-schedule.logsnr(ends) / 2)
    return high, low


def _at_noise(schedule: Schedule, noise: Array) -> Array:
    # Rounding must not move the ends out of the range.
    times = schedule.time_of_logsnr(-2 * jnp.log(noise))
    times = jnp.clip(times, schedule.nearest, schedule.farthest)
    # Of a single time it is the first that counts.
    return _ended(times.at[-1].set(schedule.nearest).at[0].set(schedule.farthest))


def logsnr(schedule: Schedule, steps: int) -> Array:
    """Evenly in logsnr, which is evenly in the logarithm of sigma / alpha ("exponential")."""
    high, low = _noise_ends(schedule)
    return _at_noise(schedule, jnp.exp(jnp.linspace(jnp.log(high), jnp.log(low), steps)))


def karras(rho: float = 7.0) -> Grid:
    """(sigma / alpha)^(1 / rho) evenly (Karras et al. 2022, eq. 5)."""

    def grid(schedule: Schedule, steps: int) -> Array:
        high, low = _noise_ends(schedule)
        roots = jnp.linspace(high ** (1 / rho), low ** (1 / rho), steps)
        return _at_noise(schedule, roots**rho)

    return grid


def shifted(grid: Grid, shift: float) -> Grid:
    """The times of a grid moved towards the noise: t -> shift t / (1 + (shift - 1) t), for large
    images (Esser et al. 2024, eq. 23); 1 changes nothing."""

    def moved(schedule: Schedule, steps: int) -> Array:
        times = grid(schedule, steps)
        return shift * times / (1 + (shift - 1) * times)

    return grid if shift == 1 else moved
