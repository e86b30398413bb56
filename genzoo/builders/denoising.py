"""The parts and settings that denoising families share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from genzoo.builders import sampling
from genzoo.builders.conditions import conditions_and_entries
from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast, Between, Limit, OneOf, ZeroOr, ignored
from genzoo.core.conditions import Entry
from genzoo.families.denoiser import Denoiser, OfTime, thousandths, unscaled
from genzoo.math import exponential, gaussian, prediction
from genzoo.math.prediction import Kind
from genzoo.math.schedules import Schedule, TableSchedule
from genzoo.samplers import grids
from genzoo.samplers.ode_likelihood import TRACES, OdeLikelihood

PREDICTIONS = {
    "eps": prediction.EPS,
    "x_0": prediction.X_0,
    "v": prediction.V,
    "score": prediction.SCORE,
    "velocity": prediction.VELOCITY,
}
PredictionName = Annotated[str, OneOf(PREDICTIONS), "What the network predicts."]


def shared(
    parts: Parts,
    *,
    prediction: Kind,
    level: OfTime = thousandths,
    input_scale: OfTime = unscaled,
    entries: Mapping[str, Entry] | None = None,
    variance: gaussian.ReverseVariance = gaussian.FIXED_SMALL,
    table: TableSchedule | None = None,
) -> dict:
    """The fields that every denoising family has, by name.

    prediction, level, input_scale: for its `Denoiser`. entries: of conditions that the family adds
    itself. variance: of the reverse steps. table: its schedule, if that is a table.
    """
    conditions, ways = conditions_and_entries(parts.conditions, parts.fields, parts.frozen)
    channels = parts.shape[-1] * (1 + variance.learned)
    return {
        "denoiser": Denoiser(
            network=parts.network(out_channels=channels, entries={**ways, **(entries or {})}),
            prediction=prediction,
            noise_level=level,
            input_scale=input_scale,
            learns_variance=variance.learned,
        ),
        "conditions": conditions,
        "shape": parts.shape,
        "sampler": sampling.sampler(parts.sample, variance, table=table),
        "clipping": sampling.CLIPPINGS[parts.sample.clip],
        "guidance": sampling.guidance(parts.sample),
        "levels": parts.levels,
    }


# --- of continuous time ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FlowScoring:
    """The keys of `eval` for the likelihood under the probability flow ODE."""

    trace: Annotated[
        str,
        OneOf(TRACES),
        "Trace of the Jacobian: hutchinson (random probes) or exact (one product per dimension).",
    ] = "hutchinson"
    probes: Annotated[
        int, AtLeast(1), Limit(10_000), "Random probes averaged by hutchinson."
    ] = 1
    tolerance: Annotated[float, Between(1e-12, 1), "Tolerance of the adaptive solver."] = 1e-5
    end: Annotated[
        float,
        ZeroOr("at the data", Between(1e-5, 0.5)),
        "Time at which the flow ends and a decoder takes over, so that the likelihood becomes a "
        "bound; for networks that predict x_0, whose errors the flow would divide by the time.",
    ] = 0.0

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        del config
        return ignored(self, "eval", "trace", {"hutchinson": {"probes"}})


def flow(parts: Parts, end: float | None = None) -> OdeLikelihood:
    """The integrator of the likelihood. end: the last time, if it is not the schedule's."""
    score = parts.eval
    trace = TRACES[score.trace](score.probes)
    return OdeLikelihood(
        trace=trace,
        rtol=score.tolerance,
        atol=score.tolerance,
        end=score.end or end,
        decoded=bool(score.end),
    )


def continuous_problems(config: FrozenConfigDict, *, of_order_one: bool = False) -> list[str]:
    """Settings that do not suit a family in continuous time. of_order_one: whether the noise levels
    that the network sees are of order 1 rather than 1000."""
    problems = []
    unfit = ("fourier", "sinusoidal_slow") if of_order_one else ("fourier_noise_level",)
    embedding = config.network.get("time_embedding")
    if embedding in unfit:
        other = "fourier_noise_level" if of_order_one else "fourier"
        problems.append(
            f"network.time_embedding = {embedding!r} does not suit the noise levels of "
            f"{config.family.name}: use {other!r} or 'sinusoidal'."
        )
    if config.sample.steps < 1 and config.sample.method != sampling.ADAPTIVE:
        problems.append(
            f"sample.steps = {config.sample.steps} must be at least 1: a model in continuous time "
            "has no table whose steps could all be taken."
        )
    return problems


_MANY = 1000
"""Steps up to which all times of a grid differ, unless a key moves them or a table bounds them."""


def time_problems(config: FrozenConfigDict, schedule: Schedule) -> list[str]:
    """Problems with the times that sampling visits: no step to take, or repeated times, for which
    multistep methods would give NaN. schedule: that of the family, at the start of training if it
    is learned."""
    return repeated_times(config.sample, schedule)


def repeated_times(sample: object, schedule: Schedule) -> list[str]:
    """The same for the settings of a sampler: the section `sample`, or its dataclass."""
    table = isinstance(schedule, TableSchedule)
    steps = sample.steps or (schedule.steps if table else 0)
    moving = {"shift": 1.0} | ({"rho": 7.0} if sample.grid == "karras" else {})
    moved = {key: usual for key, usual in moving.items() if getattr(sample, key) != usual}
    between = table and sample.grid not in sampling.RULES  # times between the steps
    if not (sample.last_sigma or moved or between or steps > _MANY):
        return []  # the check below takes time, and all other configs pass it
    if sample.method == sampling.ADAPTIVE:
        return []

    @jax.jit  # as in the sampler, which computes in float32
    def visited():
        end = grids.stop(schedule, sample.last_sigma)
        times = jnp.asarray(sampling.grid(sample, table=table)(schedule, steps, end), jnp.float32)
        t, s = times[:-1], times[1:]
        gaps = exponential.gap(schedule, t, jnp.where(s > 0, s, t / 2))
        return times, gaps, jnp.exp(-schedule.logsnr(times[0]) / 2)

    times, gaps, start = map(np.asarray, visited())
    if sample.last_sigma and times[-1] >= times[0]:  # at most one time is left, or all are the end
        return [
            f"sample.last_sigma = {sample.last_sigma} leaves no step to take: sampling starts "
            f"where sigma / alpha is at most {start:.4g}."
        ]
    still = ~((times[:-1] - times[1:] > 4 * np.finfo(np.float32).eps * times[:-1]) & (gaps > 0))
    if not still.any():
        return []
    places = [f"sample.{key} = {getattr(sample, key)!r}" for key in ("grid", *moved)]
    remedies = ["fewer steps", *(f"a {key} nearer to {usual:g}" for key, usual in moved.items())]
    return [
        f"sample.steps = {sample.steps} with {' and '.join(places)} would visit times twice: "
        f"{still.sum()} of the steps have no length in float32. Take {' or '.join(remedies)}."
    ]


def order_problems(config: FrozenConfigDict, low: str, high: str) -> list[str]:
    """A sentence if the key `low` of the family is not below the key `high`."""
    if config.family[low] < config.family[high]:
        return []
    return [
        f"family.{low} = {config.family[low]} must be below family.{high} = {config.family[high]}."
    ]
