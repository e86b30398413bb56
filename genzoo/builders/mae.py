"""The settings of masked autoencoders, which build the family."""

from dataclasses import dataclass
from math import prod
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, Below, Between, OneOf
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.families import mae as mae_family
from genzoo.math.masking import visible


@dataclass(frozen=True, kw_only=True)
class MAESettings:
    """A masked autoencoder: families/mae.py."""

    ratio: Annotated[
        float, Above(0), Below(1), Between(0.01, 0.99), "Share of the patches that is hidden."
    ] = 0.75
    normalised: Annotated[
        bool, "Whether the target of each patch is normalised by its own mean and deviation."
    ] = True
    pool: Annotated[
        str, OneOf(("mean", "class")), "The representation: the mean of all patches' tokens, or "
        "the class token.",
    ] = "mean"  # fmt: skip

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        if self.normalised and config.network.patch == 1 and config.data.channels == 1:
            return [
                "family.normalised = True leaves nothing of a patch of one value: raise "
                "network.patch, or set it to False."
            ]
        return []

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError if no patch would be visible or hidden."""
        network = parts.network(shape=parts.shape)
        count = prod(side // network.patch for side in parts.shape[:-1])
        seen = visible(count, self.ratio)
        if not 0 < seen < count:
            raise UserError(
                f"family.ratio = {self.ratio} leaves {seen} of {count} patches visible: change it, "
                "or lower network.patch."
            )
        return mae_family.MAE(
            network=network,
            shape=parts.shape,
            ratio=self.ratio,
            normalised=self.normalised,
            mean=self.pool == "mean",
        )
