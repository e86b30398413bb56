"""The settings of principal components, and the family that they build."""

import math
from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.families import pca as pca_family

_MOST_NUMBERS = 16_384  # of an example: 2 GiB of covariance


@dataclass(frozen=True, kw_only=True)
class PCASettings:
    """Principal components and probabilistic PCA: families/pca.py."""

    components: Annotated[int, AtLeast(1), "How many are kept."] = 2

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """What does not fit together."""
        found = []
        if config.data.flip:
            found.append("data.flip: PCA sees every image once, as it is: set it to False.")
        if config.train.averages:
            found.append("train.averages: PCA takes no steps to average over, set it to {}.")
        if config.train.steps != 1:
            found.append(
                f"train.steps = {config.train.steps}: PCA is computed in one pass, set it to 1."
            )
        return found

    def build(self, parts: Parts) -> Family:
        """The family; UserError where its matrix would take too much memory."""
        numbers = math.prod(parts.shape)
        if numbers > _MOST_NUMBERS:
            raise UserError(
                f"An example has {numbers} numbers, and PCA needs a matrix of their square, "
                f"{8 * numbers**2 / 2**30:.0f} GiB: make the images smaller (data.size), at most "
                f"{_MOST_NUMBERS} numbers."
            )
        return pca_family.PCA(components=self.components, shape=parts.shape)
