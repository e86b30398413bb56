"""The settings of the discrete VAE of DALL-E, which build the family."""

from dataclasses import dataclass
from typing import Annotated

from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, AtLeast, Between, Limit, OneOf
from genzoo.core.contract import Family
from genzoo.families import dvae as dvae_family
from genzoo.math import logit_laplace, observation, variational

DECODERS = {
    "logit_laplace": logit_laplace.LogitLaplace,
    "gaussian": observation.Gaussian,
}


@dataclass(frozen=True, kw_only=True)
class DVAESettings:
    """The discrete VAE of DALL-E: families/dvae.py."""

    codes: Annotated[int, AtLeast(2), Limit(1_000_000), "Number of codes."] = 8192
    decoder: Annotated[
        str, OneOf(DECODERS), "The distribution of the data given the codes."
    ] = "logit_laplace"
    kl_weight: Annotated[float, AtLeast(0), Limit(1e6), "Final weight of the KL term."] = 6.6
    kl_steps: Annotated[
        int, AtLeast(0), Limit(2**31 - 1), "Steps over which it rises from 0."
    ] = 5000
    temperature_start: Annotated[
        float, Above(0), Between(1e-4, 1e4), "Initial temperature of the relaxation."
    ] = 1.0
    temperature_end: Annotated[
        float, Above(0), Between(1e-4, 1e4), "Final temperature of the relaxation."
    ] = 0.0625
    temperature_steps: Annotated[
        int,
        AtLeast(0),
        Limit(2**31 - 1),
        "Steps over which the temperature falls to its final value.",
    ] = 150_000

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        model = DECODERS[self.decoder]()
        return dvae_family.DVAE(
            networks=parts.network(
                shape=parts.shape,
                vocabulary=self.codes,
                decoded=model.outputs(parts.shape[-1]),
            ),
            vocabulary=self.codes,
            shape=parts.shape,
            observation=model,
            kl_weight=variational.annealed(0.0, self.kl_weight, self.kl_steps),
            temperature=variational.annealed(
                self.temperature_start, self.temperature_end, self.temperature_steps
            ),
        )
