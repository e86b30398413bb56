"""The settings of DDPM, which build the family."""

from dataclasses import dataclass, replace
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders import sampling
from genzoo.builders.alignment import AlignmentSettings
from genzoo.builders.denoising import PREDICTIONS, shared, time_problems
from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, AtLeast, Between, Limit, OneOf, ignored
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.core.size import Size
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
"""Weighting -> the keys of `family` that it uses and another weighting ignores."""
STEP_DISTRIBUTIONS = {"uniform": weighting.UniformSteps, "loss_aware": weighting.LossAwareSteps}
OBJECTIVES = {
    "simple": ddpm_family.simple,
    "vlb": ddpm_family.vlb,
    "hybrid": ddpm_family.hybrid,
}


@dataclass(frozen=True, kw_only=True)
class DiffusionScoring:
    """The keys of `eval` for a bound that is a sum over steps."""

    bound_steps: Annotated[
        int,
        AtLeast(0),
        Limit(10_000),
        "Number of steps used to estimate the bound, one drawn from each stratum; 0 for all.",
    ] = 0


@dataclass(frozen=True, kw_only=True)
class DDPMSettings(AlignmentSettings):
    """DDPM, improved DDPM and DDIM: families/ddpm.py."""

    steps: Annotated[int, AtLeast(2), Limit(10_000), "Steps T of the table."] = 1000
    schedule: Annotated[str, OneOf(SCHEDULES), "The noise schedule of the table."] = "linear"
    zero_terminal: Annotated[
        bool, "Whether the last step of the table is pure noise (Lin et al. 2023)."
    ] = False
    prediction: Annotated[str, OneOf(_PREDICTIONS), "What the network predicts."] = "eps"
    variance: Annotated[str, OneOf(VARIANCES), "Variance of the reverse steps."] = "fixed_large"
    weighting: Annotated[str, OneOf(WEIGHTINGS), "Weighting of the squared error."] = "uniform"
    min_snr_gamma: Annotated[
        float,
        Above(0),
        Between(1e-6, 1e6),
        "SNR above which min_snr keeps the weight of the x_0 error constant.",
    ] = 5.0
    p2_gamma: Annotated[
        float, AtLeast(0), Limit(100), "Exponent of p2: 0 weighs the eps error evenly."
    ] = 1.0
    p2_k: Annotated[float, Above(0), Between(1e-6, 1e6), "Added to the SNR by p2."] = 1.0
    step_distribution: Annotated[
        str, OneOf(STEP_DISTRIBUTIONS), "How the step n is drawn in training."
    ] = "uniform"
    objective: Annotated[
        str, OneOf(OBJECTIVES), "simple, the bound (vlb), or both (hybrid) for a learned variance."
    ] = "simple"

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = super().problems(config) + self._step_problems(config)
        problems += ignored(self, "family", "weighting", WEIGHTING_KEYS)
        weighted = {"simple": {"weighting"}, "hybrid": {"weighting"}}
        problems += ignored(self, "family", "objective", weighted)
        learned = VARIANCES[self.variance].learned
        if learned and self.objective == "simple":
            problems.append(
                f"family.variance = {self.variance!r} gets no gradient from family.objective = "
                "'simple': use 'hybrid' or 'vlb', or a fixed variance."
            )
        if learned and self.weighting == "vlb":
            problems.append(
                f"family.weighting = 'vlb' needs a fixed variance, not family.variance = "
                f"{self.variance!r}: use family.objective = 'vlb', which trains it, or a fixed "
                "variance."
            )
        if not learned and self.objective == "hybrid":
            problems.append(
                "family.objective = 'hybrid' trains a learned variance: set family.variance = "
                "'learned_range', or use family.objective = 'simple'."
            )
        if self.zero_terminal and self.prediction not in ("v", "x_0"):
            problems.append(
                f"family.prediction = {self.prediction!r} says nothing of the data at the last "
                "step, which is pure noise with family.zero_terminal = True: use 'v' or 'x_0'."
            )
        return problems

    def _step_problems(self, config: FrozenConfigDict) -> list[str]:
        """Numbers of steps, and times, that the table cannot provide."""
        sample, problems = config.sample, []
        rule = sampling.rule(sample)
        numbers = [("sample.steps", sample.steps or self.steps)]
        if not sample.steps:  # otherwise the benchmark takes at most sample.steps
            numbers.append(("bench.sample_steps", config.bench.sample_steps))
        numbers += [("eval.steps", steps) for steps in config.eval.steps]
        for key, steps in numbers:
            problem = rule and grids.problem(rule, self.steps, steps)
            if problem and sample.method != sampling.ADAPTIVE:
                problems.append(f"{key} = {steps} with sample.grid = {sample.grid!r}: {problem}")
        try:
            problems = problems or time_problems(config, self.table)
        except UserError as error:  # the table itself is invalid
            problems += error.problems
        if config.eval.bound_steps >= self.steps:
            problems.append(
                f"eval.bound_steps = {config.eval.bound_steps} must be between 0 (every step) and "
                f"{self.steps - 1}, the number of steps in the bound."
            )
        return problems

    @property
    def table(self) -> TableSchedule:
        """The noise schedule."""
        table = SCHEDULES[self.schedule](self.steps)
        return schedules.rescaled_to_zero_terminal(table) if self.zero_terminal else table

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, with its record of losses. network: that of its network."""
        network = super().size(network, parts)
        if self.step_distribution == "uniform":
            return network
        return replace(network, stats=self.steps * (1 + weighting.LossAwareSteps.history))

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        table, reverse = self.table, VARIANCES[self.variance]
        return ddpm_family.DDPM(
            schedule=table,
            variance=reverse,
            weighting=WEIGHTINGS[self.weighting](self),
            step_distribution=STEP_DISTRIBUTIONS[self.step_distribution](steps=self.steps),
            objective=OBJECTIVES[self.objective],
            bound_steps=parts.eval.bound_steps,
            alignment=self.alignment(parts),
            **shared(
                parts,
                prediction=_PREDICTIONS[self.prediction],
                level=ddpm_family.steps_before,
                variance=reverse,
                table=table,
            ),
        )
