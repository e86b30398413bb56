"""Settings of representation alignment, which the families that are trained to denoise share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts, Stage
from genzoo.core.bounds import AtLeast, Limit, OneOf, without_effect
from genzoo.core.contract import EncodesPatches
from genzoo.core.errors import UserError
from genzoo.core.size import Size
from genzoo.families.alignment import ENCODER, Alignment, AverageTarget, EncoderTarget
from genzoo.math.alignment import minus_cosine, smooth_l1
from genzoo.nets.projector import deep_projector, deep_projector_params

_SHARED = ("align_weight", "align_block", "align_width")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "": (),
    "encoder": _SHARED,
    "average": (*_SHARED, "align_target"),
}
"""Value of `align` -> the other keys that it uses."""

ALIGNING = {
    ENCODER: Stage(
        capability=EncodesPatches,
        called="a model of the same data with features of patches, such as mae",
        only={"align": ("encoder",)},
    ),
}
"""The frozen model that alignment with an encoder needs."""


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings:
    """Keys of `family` for alignment: families/alignment.py."""

    align: Annotated[
        str,
        OneOf(_KEYS),
        "What inner features of the network are aligned with: encoder (REPA) for those of a model "
        "in frozen.encoder.workdir, average (SRA) for later ones of the averaged network at less "
        "noise; empty for nothing.",
    ] = ""
    align_weight: Annotated[
        float,
        AtLeast(0),
        Limit(1e6),
        "Weight of the alignment in the loss: 0.5 in REPA, 0.2 in SRA.",
    ] = 0.5
    align_block: Annotated[
        int,
        AtLeast(0),
        Limit(1_000),
        "Number of blocks before the aligned features; 0 for the middle of a U-Net.",
    ] = 0
    align_target: Annotated[
        int,
        AtLeast(0),
        Limit(1_000),
        "Number of blocks before the target features of the averaged network; above align_block.",
    ] = 0
    align_width: Annotated[
        int,
        AtLeast(1),
        Limit(65_536),
        "Width of the two hidden layers of the projector, which sampling does not use.",
    ] = 2048

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        unused = set(_KEYS["average"]) - set(_KEYS[self.align])
        users = [name for name, keys in _KEYS.items() if unused & set(keys)]
        remedy = f"set family.align to {' or '.join(map(repr, users))}"
        why = f"with family.align = {self.align!r}"
        problems = without_effect(self, "family", unused, why, remedy)
        if self.align != "average":
            return problems
        if self.align_block == 0:
            problems.append(
                "family.align = 'average' needs family.align_block and family.align_target, two "
                "blocks of a transformer such as network.name = 'dit': a U-Net is aligned with an "
                "encoder only."
            )
        elif self.align_target <= self.align_block:
            problems.append(
                f"family.align_target = {self.align_target} must be above family.align_block = "
                f"{self.align_block}: early features are aligned with later ones."
            )
        if len(config.train.averages) != 1:
            has = ", ".join(config.train.averages) or "none"
            problems.append(
                "family.align = 'average' needs exactly one average in train.averages, but it has "
                f"{has}: set it to one."
            )
        return problems

    def alignment(self, parts: Parts) -> Alignment | None:
        """The alignment; None without one. Raises UserError if the network has no such features."""
        if not self.align:
            return None
        if parts.inner is None:
            raise UserError(
                f"family.align = {self.align!r} needs features of patches, which this network does "
                "not have: use a transformer such as network.name = 'dit', or leave it empty."
            )
        inner = parts.inner(self.align_block, "family.align_block")
        if self.align == "encoder":
            encoder = parts.frozen[ENCODER]
            target, width = EncoderTarget(encoder=encoder), encoder.patch_width
            distance = minus_cosine
        else:
            later = parts.inner(self.align_target, "family.align_target")
            target, width = AverageTarget(inner=later), later.width
            distance = smooth_l1
        return Alignment(
            inner=inner,
            projector=deep_projector(self.align_width, width),
            target=target,
            distance=distance,
            weight=self.align_weight,
        )

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, with the projector. network: that of its network."""
        if not self.align or parts.inner is None:
            return network
        inner = parts.inner(self.align_block, "family.align_block")
        encoder = self.align == "encoder"
        out = parts.frozen[ENCODER].patch_width if encoder else inner.width
        more = deep_projector_params(inner.width, self.align_width, out)
        return replace(network, params=network.params + more)
