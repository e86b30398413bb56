"""The settings of score SDEs, which build the family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.alignment import AlignmentSettings
from genzoo.builders.denoising import (
    PREDICTIONS,
    PredictionName,
    continuous_problems,
    flow,
    order_problems,
    shared,
    time_problems,
)
from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, Between, OneOf, ignored
from genzoo.core.contract import Family
from genzoo.families import score_sde as sde_family
from genzoo.families.denoiser import OfTime, thousandths
from genzoo.math import continuous, times, weighting
from genzoo.math.schedules import Schedule

PROCESSES: Mapping[str, Callable[..., Schedule]] = {
    "vp": continuous.VariancePreserving,
    "sub_vp": continuous.SubVariancePreserving,
    "ve": continuous.VarianceExploding,
}
NOISE_INPUTS: Mapping[str, OfTime] = {
    "time": thousandths,
    "log_noise": sde_family.log_noise,
}
# Each weighting with the distribution of times that goes with it.
OBJECTIVES: Mapping[str, tuple[weighting.Weighting, times.TimeDistribution]] = {
    "simple": (weighting.SCORE_MATCHING, times.UniformTimes()),
    "likelihood": (weighting.LIKELIHOOD, times.UniformTimes()),
    "likelihood_importance": (weighting.SCORE_MATCHING, times.LikelihoodWeighted()),
}


@dataclass(frozen=True, kw_only=True)
class ScoreSDESettings(AlignmentSettings):
    """Score SDEs: families/score_sde.py."""

    process: Annotated[
        str, OneOf(PROCESSES), "vp (variance preserving), sub_vp, ve (variance exploding)."
    ] = "vp"
    sigma_min: Annotated[
        float, Above(0), Between(1e-8, 1e8), "Of ve; the published 0.01 is for data in [0, 1]."
    ] = 0.02
    sigma_max: Annotated[
        float, Above(0), Between(1e-8, 1e8), "Of ve; the published 50 is for data in [0, 1]."
    ] = 100.0
    prediction: PredictionName = "eps"
    objective: Annotated[
        str,
        OneOf(OBJECTIVES),
        "Weighting and times: simple, likelihood, or likelihood with importance sampling.",
    ] = "simple"
    noise_input: Annotated[
        str, OneOf(NOISE_INPUTS), "How the network is given the noise level: time or log_noise."
    ] = "time"
    dequantise: Annotated[
        bool, "Whether the training data is dequantised uniformly, as in evaluation."
    ] = False

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = super().problems(config) + continuous_problems(config)
        problems += ignored(self, "family", "process", {"ve": {"sigma_min", "sigma_max"}})
        order = order_problems(config, "sigma_min", "sigma_max")
        return problems + (order or time_problems(config, self.schedule))

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        ve = self.process == "ve"
        ends = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max} if ve else {}
        return PROCESSES[self.process](**ends)

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        chosen, drawn = OBJECTIVES[self.objective]
        return sde_family.ScoreSDE(
            schedule=self.schedule,
            weighting=chosen,
            times=drawn,
            dequantises=self.dequantise and parts.levels,
            ode=flow(parts, end=sde_family.LIKELIHOOD_END),
            alignment=self.alignment(parts),
            **shared(
                parts, prediction=PREDICTIONS[self.prediction], level=NOISE_INPUTS[self.noise_input]
            ),
        )
