"""The settings of flow matching, which build the family."""

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
    shared,
    time_problems,
)
from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, Below, Between, OneOf, ignored, without_effect
from genzoo.core.contract import Family
from genzoo.families import flow_matching as flow_family
from genzoo.math import continuous, times
from genzoo.math import weighting as weightings
from genzoo.math.prediction import Kind, bounded
from genzoo.math.schedules import Schedule

PATHS: Mapping[str, Callable[..., Schedule]] = {
    "straight": continuous.Straight,
    "cosine": continuous.Cosine,
    "vp": continuous.VariancePreserving,
}


def _bounded_velocity(least: float, predicted: str) -> weightings.Weighting:
    # A predicted x_0 is used as it is, and the weight of its error is bounded. All other kinds have
    # a finite velocity, eps and score because they are bounded themselves.
    return weightings.bounded_velocity(least) if predicted == "x_0" else weightings.VELOCITY


WEIGHTINGS: Mapping[str, Callable[[float, str], weightings.Weighting]] = {
    "velocity": lambda least, predicted: weightings.VELOCITY,
    "bounded_velocity": _bounded_velocity,
    "uniform": lambda least, predicted: weightings.UNIFORM,
}
"""Name -> (least_time, name of the prediction) -> weighting."""
TIMES: Mapping[str, Callable[["FlowMatchingSettings"], times.TimeDistribution]] = {
    "uniform": lambda own: times.UniformTimes(),
    "logit_normal": lambda own: times.LogitNormalTimes(
        mean=own.times_mean, deviation=own.times_deviation
    ),
    "mode": lambda own: times.ModeTimes(scale=own.times_scale),
    "cosine_map": lambda own: times.CosineMapTimes(),
}


@dataclass(frozen=True, kw_only=True)
class FlowMatchingSettings(AlignmentSettings):
    """Flow matching: families/flow_matching.py."""

    path: Annotated[str, OneOf(PATHS), "The path from data to noise."] = "straight"
    prediction: PredictionName = "velocity"
    weighting: Annotated[str, OneOf(WEIGHTINGS), "Weighting of the squared error."] = "velocity"
    least_time: Annotated[
        float,
        Above(0),
        Below(1),
        Between(1e-6, 1),
        "The least that bounded_velocity divides by: of t for x_0, of 1 - t for eps and score.",
    ] = 0.05
    times_drawn: Annotated[str, OneOf(TIMES), "Distribution of t in training."] = "uniform"
    times_mean: Annotated[float, Between(-20, 20), "Mean of logit(t) for logit_normal."] = 0.0
    times_deviation: Annotated[
        float, Above(0), Between(1e-6, 20), "Standard deviation of logit(t) for logit_normal."
    ] = 1.0
    times_scale: Annotated[
        float,
        Between(-0.99, 1.75),
        "Scale of mode: the middle of the path is favoured above 0, its ends below.",
    ] = 1.29
    noise_scale: Annotated[
        float,
        Above(0),
        Between(1e-3, 1e3),
        "Standard deviation of the noise at t = 1 on the straight path; in JiT the side of the "
        "images divided by 256.",
    ] = 1.0
    shift: Annotated[
        float,
        Above(0),
        Between(1e-6, 1e6),
        "Shifts the times towards noise if above 1, for large images; 1 is off.",
    ] = 1.0
    paired: Annotated[
        bool, "Whether noise and data are paired by optimal transport within a batch."
    ] = False

    @property
    def schedule(self) -> Schedule:
        """The path."""
        if self.path == "straight":
            return PATHS[self.path](scale=self.noise_scale)
        return PATHS[self.path]()

    @property
    def loses_data(self) -> bool:
        """Whether the prediction says nothing of the data at t = 1."""
        return self.prediction in ("eps", "score") and self.schedule.farthest < 1

    @property
    def kind(self) -> Kind:
        """What the network predicts, bounded where it loses the data."""
        kind = PREDICTIONS[self.prediction]
        return bounded(kind, last=1 - self.least_time) if self.loses_data else kind

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = super().problems(config) + continuous_problems(config)
        problems += time_problems(config, self.schedule)
        own = {"logit_normal": {"times_mean", "times_deviation"}, "mode": {"times_scale"}}
        problems += ignored(self, "family", "times_drawn", own)
        problems += ignored(self, "family", "path", {"straight": {"noise_scale"}})
        bounding = {"bounded_velocity": {"least_time"}}
        problems += ignored(self, "family", "weighting", bounding)
        if self.weighting in bounding and not (self.loses_data or self.prediction == "x_0"):
            why = f"with family.prediction = {self.prediction!r} and family.path = {self.path!r}"
            remedy = "predict 'x_0'"
            problems += without_effect(self, "family", ("least_time",), why, remedy)
        if self.loses_data and self.weighting not in bounding:
            problems.append(
                f"family.prediction = {self.prediction!r} says nothing of the data at t = 1, which "
                f"is pure noise with family.path = {self.path!r}: use 'velocity', 'v' or 'x_0', or "
                "family.weighting = 'bounded_velocity', which limits what its errors are divided "
                "by."
            )
        if self.paired and config.conditions:
            problems.append(
                "family.paired = True pairs noise with data whatever the condition, so that noise "
                f"and condition ({', '.join(sorted(config.conditions))}) would be correlated in "
                "training, but independent in sampling: set family.paired = False, or leave out "
                "the conditions."
            )
        if self.paired and config.train.accumulate > 1:
            problems.append(
                f"train.accumulate = {config.train.accumulate}: noise and data would be paired "
                "within each part of a batch. Set it to 1, or family.paired = False."
            )
        return problems

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        drawn = TIMES[self.times_drawn](self)
        return flow_family.FlowMatching(
            schedule=self.schedule,
            weighting=WEIGHTINGS[self.weighting](self.least_time, self.prediction),
            times=drawn if self.shift == 1 else times.Shifted(inner=drawn, shift=self.shift),
            paired=self.paired,
            ode=flow(parts),
            alignment=self.alignment(parts),
            **shared(parts, prediction=self.kind),
        )
