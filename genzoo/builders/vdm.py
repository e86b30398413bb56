"""The settings of variational diffusion, which build the family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.alignment import AlignmentSettings
from genzoo.builders.denoising import (
    PREDICTIONS,
    PredictionName,
    continuous_problems,
    order_problems,
    shared,
    time_problems,
)
from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast, Between, Limit, OneOf
from genzoo.core.contract import Family
from genzoo.core.size import Size
from genzoo.families import vdm
from genzoo.math import continuous, monotone

SCHEDULES: Mapping[str, Callable[[float, float], vdm.LearnedGamma]] = {
    "fixed": lambda low, high: vdm.LearnedGamma(
        start=lambda key: {}, gamma=lambda params, t: continuous.linear_gamma(low, high)(t)
    ),
    "linear": lambda low, high: vdm.LearnedGamma(
        start=partial(monotone.init_linear, gamma_min=low, gamma_max=high), gamma=monotone.linear
    ),
    "monotone": lambda low, high: vdm.LearnedGamma(
        start=partial(monotone.init_monotone, gamma_min=low, gamma_max=high),
        gamma=monotone.monotone,
    ),
}
_GAMMA_PARAMS = {"fixed": 0, "linear": 2, "monotone": 4 + 3 * 1024}


@dataclass(frozen=True, kw_only=True)
class TimeScoring:
    """The keys of `eval` for a bound in continuous time."""

    draws: Annotated[
        int,
        AtLeast(1),
        Limit(10_000),
        "Times per example over which the diffusion loss is averaged.",
    ] = 16


@dataclass(frozen=True, kw_only=True)
class VDMSettings(AlignmentSettings):
    """Variational diffusion: families/vdm.py."""

    schedule: Annotated[
        str, OneOf(SCHEDULES), "fixed, linear (learned endpoints) or monotone (a learned network)."
    ] = "linear"
    gamma_min: Annotated[
        float, Between(-60, 60), "-logsnr at t = 0, at the start of training."
    ] = -13.3
    gamma_max: Annotated[
        float, Between(-60, 60), "-logsnr at t = 1, at the start of training."
    ] = 5.0
    prediction: PredictionName = "eps"
    steps: Annotated[
        int, AtLeast(0), Limit(1_000_000), "Steps of the discrete bound; 0 for continuous time."
    ] = 0

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = order_problems(config, "gamma_min", "gamma_max")
        first = SCHEDULES["fixed"](self.gamma_min, self.gamma_max).at({})
        problems = problems or time_problems(config, first)
        return super().problems(config) + continuous_problems(config) + problems

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, with its schedule. network: that of its network."""
        network = super().size(network, parts)
        return replace(network, params=network.params + _GAMMA_PARAMS[self.schedule])

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        return vdm.VDM(
            schedule=SCHEDULES[self.schedule](self.gamma_min, self.gamma_max),
            steps=self.steps,
            draws=parts.eval.draws,
            alignment=self.alignment(parts),
            **shared(
                parts,
                prediction=PREDICTIONS[self.prediction],
                level=vdm.rescaled_gamma(self.gamma_min, self.gamma_max),
            ),
        )
