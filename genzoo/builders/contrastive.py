"""The settings of contrastive encoders, which build the family."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, AtLeast, AtMost, Between, Limit, OneOf, ignored
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.data.views import Views
from genzoo.families import contrastive as family
from genzoo.math import contrastive
from genzoo.nets.projector import projector, projector_params

OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "nt_xent": ("classifier", "vit"),
    "info_nce": ("clip",),
    "sigmoid": ("clip",),
}
"""Objective -> the networks that it trains."""
_OF_VIEWS = {
    *("temperature", "hidden", "embedding", "area", "mirror", "jitter", "strength", "grey"),
    "blur",
}


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """SimCLR on images (nt_xent), CLIP (info_nce) and SigLIP (sigmoid) on images and their texts:
    families/contrastive.py."""

    objective: Annotated[
        str,
        OneOf(OBJECTIVES),
        "nt_xent (SimCLR: two views of an image), info_nce (CLIP) or sigmoid (SigLIP) of images "
        "and texts.",
    ]
    temperature: Annotated[
        float, Above(0), Between(0.01, 10), "Of nt_xent: 0.1 for ImageNet, 0.5 for CIFAR-10."
    ] = 0.5
    hidden: Annotated[int, AtLeast(1), Limit(65_536), "Width of the projector's hidden layer."] = (
        512
    )
    embedding: Annotated[
        int, AtLeast(2), Limit(65_536), "Width of the space in which nt_xent compares views."
    ] = 128
    area: Annotated[
        float, Above(0), Between(0.01, 1), "Least share of the area that a view shows; 1 for all."
    ] = 0.08
    mirror: Annotated[float, AtLeast(0), AtMost(1), "Probability that a view is mirrored."] = 0.5
    jitter: Annotated[
        float, AtLeast(0), AtMost(1), "Probability that the colours of a view change."
    ] = 0.8
    strength: Annotated[
        float,
        AtLeast(0),
        AtMost(2),
        "Strength of that change: 1 for ImageNet, 0.5 for CIFAR-10.",
    ] = 0.5
    grey: Annotated[float, AtLeast(0), AtMost(1), "Probability that a view loses its colour."] = 0.2
    blur: Annotated[float, AtLeast(0), AtMost(1), "Probability that a view is blurred."] = 0.0

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields besides x that it learns from."""
        return () if self.objective == "nt_xent" else (family.TEXT,)

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = ignored(self, "family", "objective", {"nt_xent": _OF_VIEWS})
        if config.network.name not in (fit := OBJECTIVES[self.objective]):
            problems.append(
                f"family.objective = {self.objective!r} trains the network "
                f"{' or '.join(map(repr, fit))}, not {config.network.name!r}: change one of them."
            )
        if config.train.batch_size < 2:
            problems.append(
                "train.batch_size = 1 leaves nothing to compare an example with: raise it."
            )
        return problems

    @property
    def _views(self) -> Views:
        return Views(
            area=self.area,
            flip=self.mirror,
            jitter=self.jitter,
            strength=self.strength,
            grey=self.grey,
            blur=self.blur,
        )

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError if the data has no texts to learn from."""
        if self.objective == "nt_xent":
            return family.SimCLR(
                encoder=parts.network(num_classes=0),
                projector=projector(self.hidden, self.embedding),
                views=self._views,
                objective=family.nt_xent(self.temperature),
            )
        if family.TEXT not in parts.fields:
            raise UserError(
                f"family.objective = {self.objective!r} learns from images and their texts, but "
                "the data has no texts: use other data, such as shapes, or family.objective = "
                "'nt_xent'."
            )
        text = parts.fields[family.TEXT]
        start = {"log_scale": contrastive.START_SCALE}
        objective = family.info_nce
        if self.objective == "sigmoid":
            objective = family.pairwise_sigmoid
            start = {
                "log_scale": contrastive.SIGMOID_START_SCALE,
                "bias": contrastive.SIGMOID_START_BIAS,
            }
        return family.TwoTowers(
            towers=parts.network(vocabulary=text.vocabulary, length=text.shape[0]),
            mask=text.mask,
            text_length=text.shape[0],
            objective=objective,
            start=start,
        )

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, given that of its network."""
        if self.objective != "nt_xent":
            return replace(network, params=network.params + 1 + (self.objective == "sigmoid"))
        width = parts.network(num_classes=0).width
        own = projector_params(width, self.hidden, self.embedding)
        return replace(network, params=network.params + own)
