"""What all denoising families are given alike, and what the settings of several have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders import sampling
from genzoo.builders.conditions import told
from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast, Between, OneOf, ignored
from genzoo.core.conditions import Entry
from genzoo.families.denoising import Denoiser, OfTime, thousandths, unscaled
from genzoo.math import gaussian, prediction
from genzoo.math.prediction import Kind
from genzoo.math.schedules import TableSchedule
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
    """What every denoising family is given alike. prediction, level, input_scale: of its
    `Denoiser`. entries: of conditions that are the family's own. table: where its schedule is
    one."""
    conditions, ways = told(parts.conditions, parts.fields)
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
    """The keys of `eval` of the likelihood by the probability flow."""

    trace: Annotated[
        str,
        OneOf(TRACES),
        "Of the Jacobian: hutchinson (random probes) or exact (a product for each dimension).",
    ] = "hutchinson"
    probes: Annotated[int, AtLeast(1), "Random probes that hutchinson averages."] = 1
    tolerance: Annotated[float, Between(1e-12, 1), "Of the adaptive solver."] = 1e-5

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """What does not fit together."""
        del config
        return ignored(self, "eval", "trace", {"hutchinson": {"probes"}})


def flow(parts: Parts, end: float | None = None) -> OdeLikelihood:
    """How the likelihood is integrated. end: the last time, where that is not the schedule's."""
    score = parts.eval
    trace = TRACES[score.trace](score.probes)
    return OdeLikelihood(trace=trace, rtol=score.tolerance, atol=score.tolerance, end=end)


def continuous_problems(config: FrozenConfigDict, *, of_order_one: bool = False) -> list[str]:
    """What does not suit a family of continuous time. of_order_one: whether the network is told
    noise levels of order 1, and not of order 1000."""
    found = []
    unfit = "fourier" if of_order_one else "fourier_noise_level"
    if config.network.get("time_embedding") == unfit:
        other = "fourier_noise_level" if of_order_one else "fourier"
        found.append(
            f"network.time_embedding = {unfit!r} does not suit what {config.family.name} tells the "
            f"network: take {other!r} or 'sinusoidal'."
        )
    if config.sample.steps < 1 and config.sample.method != sampling.ADAPTIVE:
        found.append(
            f"sample.steps = {config.sample.steps}: continuous time has no table to take all steps "
            "of, so it must be at least 1."
        )
    return found


def order_problems(config: FrozenConfigDict, low: str, high: str) -> list[str]:
    """A sentence if one key of the family is not below another."""
    if config.family[low] < config.family[high]:
        return []
    return [
        f"family.{low} = {config.family[low]} must be below family.{high} = {config.family[high]}."
    ]
