"""The settings of EDM, which build the family."""

from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.alignment import AlignmentSettings
from genzoo.builders.denoising import (
    continuous_problems,
    flow,
    order_problems,
    shared,
    time_problems,
)
from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, Between
from genzoo.core.conditions import Entry
from genzoo.core.contract import Family
from genzoo.data.augment import Augmentation
from genzoo.families import edm as edm_family
from genzoo.math import continuous, precondition, times, weighting
from genzoo.math.schedules import Schedule

_AUGMENTED = Entry(kind="vector", size=Augmentation.vector_size, null=False)


@dataclass(frozen=True, kw_only=True)
class EDMSettings(AlignmentSettings):
    """EDM: families/edm.py."""

    sigma_min: Annotated[
        float, Above(0), Between(1e-8, 1e8), "Smallest noise level of the schedule."
    ] = 0.002
    sigma_max: Annotated[
        float, Above(0), Between(1e-8, 1e8), "Largest noise level of the schedule."
    ] = 80.0
    data_deviation: Annotated[
        float, Above(0), Between(1e-6, 1e6), "Standard deviation of the data."
    ] = 0.5
    noise_mean: Annotated[float, Between(-20, 20), "Mean of ln sigma in training."] = -1.2
    noise_deviation: Annotated[
        float, Above(0), Between(1e-6, 20), "Standard deviation of ln sigma in training."
    ] = 1.2
    augment: Annotated[
        float,
        Between(0, 1),
        "Probability of each augmentation, on which the network is conditioned; 0 for none.",
    ] = 0.0

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = order_problems(config, "sigma_min", "sigma_max")
        problems = problems or time_problems(config, self.schedule)
        problems += super().problems(config)
        return continuous_problems(config, of_order_one=True) + problems

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return continuous.LinearNoise(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        spatial = tuple(name for name, field in parts.fields.items() if field.spatial)
        augmentation = Augmentation(p=self.augment, fields=spatial)
        return edm_family.EDM(
            schedule=self.schedule,
            weighting=weighting.UNIFORM,
            times=times.LogNormalNoise(mean=self.noise_mean, deviation=self.noise_deviation),
            augmentation=augmentation if self.augment else None,
            ode=flow(parts),
            alignment=self.alignment(parts),
            **shared(
                parts,
                prediction=precondition.preconditioned(self.data_deviation),
                level=precondition.noise_level,
                input_scale=precondition.input_scale(self.data_deviation),
                entries={edm_family.AUGMENTATION: _AUGMENTED} if self.augment else {},
            ),
        )
