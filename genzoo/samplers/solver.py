"""The recipe for a sampler, made before the schedule is known: a learned one is part of params."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Count, Examples, Keys, Scalar, Series
from genzoo.math.schedules import Schedule
from genzoo.samplers.grids import Grid, stop
from genzoo.samplers.loop import Sampler, Step

MakeSampler = Callable[[Schedule], Sampler]


@dataclass(frozen=True, kw_only=True, eq=False)
class Solver:
    """A sampling method on a grid with a number of steps.

    last_sigma: the sigma / alpha at which sampling stops, at least that of the schedule's nearest
    time; 0 samples down to the data. unroll: as in `loop.Sampler`.
    """

    method: Callable[[Schedule], Step]
    grid: Grid
    steps: int
    unroll: int = 1
    last_sigma: float = 0.0

    def sampler(self, schedule: Schedule) -> Sampler:
        """The sampler for this schedule."""
        times = self.grid(schedule, self.steps, stop(schedule, self.last_sigma))
        return Sampler(step=self.method(schedule), times=times, unroll=self.unroll)


def at_times(method: Callable[[Schedule], Step], times: Series, steps: Count) -> MakeSampler:
    """The sampler of a method at the first steps + 1 of some times. Both may be arguments of the
    compiled program, so that it serves grids of several lengths."""
    return lambda schedule: Sampler(step=method(schedule), times=times, steps=steps)


def start(schedule: Schedule, t: Scalar, keys: Keys, shape: tuple[int, ...]) -> Examples:
    """Initial noise [B, *shape] at time t, with the scale of standard normal data at that time."""
    scale = jnp.hypot(schedule.alpha(t), schedule.sigma(t))
    return scale * streams.normal(keys, shape)
