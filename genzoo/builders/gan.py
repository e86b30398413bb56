"""The settings of generative adversarial networks, which build the family."""

from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.conditions import conditions_and_entries
from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast, Limit, OneOf, without_effect
from genzoo.core.contract import Family
from genzoo.families import gan as family

OBJECTIVES = {
    "relativistic": family.RELATIVISTIC,
    "non_saturating": family.NON_SATURATING,
}


@dataclass(frozen=True, kw_only=True)
class GANSettings:
    """A generative adversarial network: families/gan.py."""

    objective: Annotated[
        str,
        OneOf(OBJECTIVES),
        "relativistic (R3GAN), which pairs every example with a generated one, or non_saturating.",
    ] = "relativistic"
    latent: Annotated[int, AtLeast(1), Limit(65_536), "Width of the generator's noise."] = 64
    penalty: Annotated[
        float, AtLeast(0), Limit(1e6), "Factor of the penalty on the critic's gradient, at first."
    ] = 0.05
    penalty_last: Annotated[
        float, AtLeast(0), Limit(1e6), "The factor after family.penalty_steps."
    ] = 0.005
    penalty_steps: Annotated[
        int,
        AtLeast(0),
        Limit(10**9),
        "Steps over which the factor changes along half a cosine; 0 to leave it as it is.",
    ] = 0
    penalise: Annotated[
        str, OneOf(("both", "data")), "Where the critic's gradient is penalised: at data (R1), or "
        "at generated examples as well (R1 and R2).",
    ] = "both"  # fmt: skip

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        del config
        if self.penalty_steps:
            return []
        why, remedy = "with family.penalty_steps = 0", "set family.penalty_steps"
        return without_effect(self, "family", ("penalty_last",), why, remedy)

    def build(self, parts: Parts) -> Family:
        """Builds the family. Raises UserError if a condition cannot enter its networks."""
        conditions, entries = conditions_and_entries(parts.conditions, parts.fields, parts.frozen)
        return family.GAN(
            networks=parts.network(shape=parts.shape, entries=entries, latent=self.latent),
            latent=self.latent,
            objective=OBJECTIVES[self.objective],
            penalty=family.Penalty(
                first=self.penalty,
                last=self.penalty_last,
                steps=self.penalty_steps,
                generated=self.penalise == "both",
            ),
            conditions=conditions,
        )
