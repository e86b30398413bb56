"""Which steps n of a table a sampler visits, from the noisiest down.

Each grid is a function (T, S) -> int64 [S], strictly falling, within 1..T; the sampler ends at 0
after the last of them. The published code of DDIM counts steps from 0; here n = index + 1.
"""

from collections.abc import Callable

import numpy as np


def uniform(table_steps: int, steps: int) -> np.ndarray:
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


Grid = Callable[[int, int], np.ndarray]
GRIDS: tuple[Grid, ...] = (uniform, quadratic, trailing, linspace)


def problem(grid: Grid, table_steps: int, steps: int) -> str | None:
    """Why this grid cannot have that many steps, as a sentence, or None."""
    if not 1 <= steps <= table_steps:
        return f"a table of {table_steps} steps allows 1 to {table_steps} of them, not {steps}."
    start = grid(table_steps, steps)[0]
    if 2 * start < table_steps:
        return (
            f"{steps} step(s) on this grid would start from pure noise at step {start} of "
            f"{table_steps}, where there is little of it; take more steps or the grid trailing."
        )
    return None


def times(schedule_steps: int, visited: np.ndarray) -> np.ndarray:
    """The times t = n / T of the visited steps with 0 at the end: float64 [S + 1], falling."""
    return np.append(visited / schedule_steps, 0.0)
