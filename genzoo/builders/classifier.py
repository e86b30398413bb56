"""The settings of a classifier, which build the family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.ddpm import SCHEDULES
from genzoo.builders.flow_matching import PATHS
from genzoo.builders.rows import Parts
from genzoo.core.bounds import OneOf, without_effect
from genzoo.core.contract import Family
from genzoo.families import classifier as classifier_family
from genzoo.math import times
from genzoo.math.schedules import Schedule

# All have bounded noise. To guide a sampler with another schedule, the classifier is evaluated at
# the time of its own schedule with the same noise level.
PROCESSES: Mapping[str, Callable[[], Schedule]] = {
    **PATHS,
    **{f"ddpm_{name}": partial(table, 1000) for name, table in SCHEDULES.items()},
}
_TIMELESS = "vit"


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings:
    """A classifier: families/classifier.py."""

    noisy: Annotated[bool, "Whether it is trained at all noise levels of the process."] = False
    process: Annotated[str, OneOf(PROCESSES), "The noise process of a noisy classifier."] = "vp"

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        if self.noisy and config.network.name == _TIMELESS:
            return [
                f"family.noisy = True has no effect with network.name = {_TIMELESS!r}, which is "
                "not told the noise level: use 'classifier'."
            ]
        if self.noisy:
            return []
        why = "with family.noisy = False"
        return without_effect(self, "family", ("process",), why, "set family.noisy = True")

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        return classifier_family.Classifier(
            network=parts.network(num_classes=parts.classes),
            noisy=self.noisy,
            schedule=PROCESSES[self.process](),
            times=times.UniformTimes(),
        )
