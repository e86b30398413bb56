"""The settings of DDPM, and the family that they build."""

from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders import sampling
from genzoo.builders.denoising import PREDICTIONS, shared, time_problems
from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, AtLeast, OneOf, ignored
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.families import ddpm as ddpm_family
from genzoo.math import gaussian, prediction, schedules, weighting
from genzoo.math.schedules import TableSchedule
from genzoo.samplers import grids

SCHEDULES = {
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "cosine": schedules.cosine,
    "sigmoid": schedules.sigmoid,
}
_PREDICTIONS = {**PREDICTIONS, "mean": prediction.MEAN}
VARIANCES = {
    "fixed_small": gaussian.FIXED_SMALL,
    "fixed_large": gaussian.FIXED_LARGE,
    "learned": gaussian.LEARNED,
    "learned_range": gaussian.LEARNED_RANGE,
}
WEIGHTINGS = {
    "uniform": lambda settings: weighting.UNIFORM,
    "min_snr": lambda settings: weighting.min_snr(settings.min_snr_gamma),
    "p2": lambda settings: weighting.p2(settings.p2_gamma, settings.p2_k),
    "vlb": lambda settings: weighting.vlb(VARIANCES[settings.variance]),
}
WEIGHTING_KEYS = {
    **dict.fromkeys(WEIGHTINGS, frozenset()),
    "min_snr": frozenset(("min_snr_gamma",)),
    "p2": frozenset(("p2_gamma", "p2_k")),
}
"""Weighting -> the keys of `family` that it uses, of those that some other weighting ignores."""
STEP_DISTRIBUTIONS = {"uniform": weighting.UniformSteps, "loss_aware": weighting.LossAwareSteps}
OBJECTIVES = {
    "simple": ddpm_family.simple,
    "vlb": ddpm_family.vlb,
    "hybrid": ddpm_family.hybrid,
}


@dataclass(frozen=True, kw_only=True)
class DiffusionScoring:
    """The keys of `eval` of a bound by steps."""

    bound_steps: Annotated[
        int,
        AtLeast(0),
        "Steps of the bound per example, one drawn from each of so many strata; 0 for every step.",
    ] = 0


@dataclass(frozen=True, kw_only=True)
class DDPMSettings:
    """DDPM, improved DDPM and DDIM: families/ddpm.py."""

    steps: Annotated[int, AtLeast(2), "Steps T of the table."] = 1000
    schedule: Annotated[str, OneOf(SCHEDULES), "The noise schedule of the table."] = "linear"
    zero_terminal: Annotated[
        bool, "Whether nothing of the data is left at the end of the table (Lin et al. 2023)."
    ] = False
    prediction: Annotated[str, OneOf(_PREDICTIONS), "What the network predicts."] = "eps"
    variance: Annotated[str, OneOf(VARIANCES), "Of the reverse steps."] = "fixed_large"
    weighting: Annotated[str, OneOf(WEIGHTINGS), "Of the squared error."] = "uniform"
    min_snr_gamma: Annotated[
        float, Above(0), "SNR above which min_snr holds the weight of the x_0 error constant."
    ] = 5.0
    p2_gamma: Annotated[float, AtLeast(0), "Exponent of p2: 0 weighs the eps error evenly."] = 1.0
    p2_k: Annotated[float, Above(0), "Added to the SNR by p2."] = 1.0
    step_distribution: Annotated[
        str, OneOf(STEP_DISTRIBUTIONS), "How the step n is drawn in training."
    ] = "uniform"
    objective: Annotated[
        str, OneOf(OBJECTIVES), "simple, the bound (vlb), or both (hybrid) for a learned variance."
    ] = "simple"

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """What does not fit together."""
        found = self._step_problems(config)
        found += ignored(self, "family", "weighting", WEIGHTING_KEYS)
        weighted = {"simple": {"weighting"}, "hybrid": {"weighting"}}
        found += ignored(self, "family", "objective", weighted)
        learned = VARIANCES[self.variance].learned
        if learned and self.objective == "simple":
            found.append(
                f"family.variance = {self.variance!r} gets no gradient from family.objective = "
                "'simple': take 'hybrid' or 'vlb', or a fixed variance."
            )
        if learned and self.weighting == "vlb":
            found.append(
                f"family.weighting = 'vlb' needs a fixed variance, not family.variance = "
                f"{self.variance!r}: take family.objective = 'vlb', which teaches it, or a fixed "
                "one."
            )
        if not learned and self.objective == "hybrid":
            found.append(
                "family.objective = 'hybrid' teaches a learned variance: set family.variance = "
                "'learned_range', or take family.objective = 'simple'."
            )
        if self.zero_terminal and self.prediction not in ("v", "x_0"):
            found.append(
                f"family.zero_terminal = True leaves family.prediction = {self.prediction!r} "
                "nothing to tell the data by at the last step: take 'v' or 'x_0'."
            )
        return found

    def _step_problems(self, config: FrozenConfigDict) -> list[str]:
        """What asks for more steps than the table has, or for others."""
        sample, found = config.sample, []
        rule = sampling.rule(sample)
        asked = {"sample.steps": sample.steps or self.steps}
        if not sample.steps:  # else the bench takes no more than those
            asked["bench.sample_steps"] = config.bench.sample_steps
        for key, steps in asked.items():
            wrong = rule and grids.problem(rule, self.steps, steps)
            if wrong and sample.method != sampling.ADAPTIVE:
                found.append(f"{key} = {steps} with sample.grid = {sample.grid!r}: {wrong}")
        try:
            found = found or time_problems(config, self.table)
        except UserError as error:  # of the table
            found += error.problems
        if config.eval.bound_steps >= self.steps:
            found.append(
                f"eval.bound_steps = {config.eval.bound_steps} must be between 0 (every step) and "
                f"{self.steps - 1}, the steps of the bound."
            )
        return found

    @property
    def table(self) -> TableSchedule:
        """The noise schedule."""
        table = SCHEDULES[self.schedule](self.steps)
        return schedules.rescaled_to_zero_terminal(table) if self.zero_terminal else table

    def build(self, parts: Parts) -> Family:
        """The family."""
        table, reverse = self.table, VARIANCES[self.variance]
        return ddpm_family.DDPM(
            schedule=table,
            variance=reverse,
            weighting=WEIGHTINGS[self.weighting](self),
            step_distribution=STEP_DISTRIBUTIONS[self.step_distribution](steps=self.steps),
            objective=OBJECTIVES[self.objective],
            bound_steps=parts.eval.bound_steps,
            **shared(
                parts,
                prediction=_PREDICTIONS[self.prediction],
                level=ddpm_family.steps_before,
                variance=reverse,
                table=table,
            ),
        )
