"""The settings of PCA, which build the family."""

import math
from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders import one_pass
from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast, Limit
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.data.counts import Counts
from genzoo.families import pca as pca_family
from genzoo.math import counts

_SCORED = "a density of log(1 + counts), scaled to unit length: it has no bits/dim"
_MAX_DIMENSION = 16_384  # of an example: 2 GiB of covariance


@dataclass(frozen=True, kw_only=True)
class PCASettings:
    """Principal components and probabilistic PCA: families/pca.py."""

    components: Annotated[
        int, AtLeast(1), Limit(1_000_000), "Number of principal components kept."
    ] = 2

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = one_pass.problems(config, "PCA is computed")
        if config.data.flip:
            problems.append("data.flip: PCA uses every image once, unflipped; set it to False.")
        return problems

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, which has no network."""
        del network
        dimension = math.prod(parts.shape)
        return Size(params=dimension + dimension * self.components + self.components + 1)

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError for more components than an example has numbers, and
        if the covariance would take too much memory."""
        dimension = math.prod(parts.shape)
        words = isinstance(parts.fields["x"], Counts)
        if dimension > _MAX_DIMENSION:
            image_remedy = "make the images smaller (data.size)"
            remedy = "count fewer words (data.vocabulary)" if words else image_remedy
            raise UserError(
                f"An example has {dimension} numbers, so the covariance of PCA takes "
                f"{8 * dimension**2 / 2**30:.0f} GiB: {remedy}, at most {_MAX_DIMENSION} numbers."
            )
        of_words = dict(inputs=counts.log_scaled, scored=_SCORED) if words else {}
        return pca_family.PCA(components=self.components, shape=parts.shape, **of_words)
