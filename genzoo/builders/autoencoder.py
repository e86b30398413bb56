"""The settings of plain and denoising autoencoders, which build the family."""

from dataclasses import dataclass
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.core.bounds import AtLeast, Limit, OneOf, ignored
from genzoo.core.contract import Family
from genzoo.data.counts import Counts
from genzoo.families import autoencoder as autoencoder_family
from genzoo.math import corruption

CORRUPTIONS = {
    "none": lambda amount: corruption.Nothing(),
    "gaussian": lambda amount: corruption.GaussianNoise(amount=amount),
    "masking": lambda amount: corruption.Masking(amount=amount),
    "salt_and_pepper": lambda amount: corruption.SaltAndPepper(amount=amount),
}


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """The plain autoencoder and the denoising one: families/autoencoder.py."""

    latent: Annotated[
        int, AtLeast(1), Limit(1_000_000), "Dimension of the code, at each place of its grid."
    ] = 32
    corruption: Annotated[
        str, OneOf(CORRUPTIONS), "How the encoder's input is corrupted."
    ] = "none"
    amount: Annotated[
        float,
        AtLeast(0),
        Limit(1_000),
        "Standard deviation (gaussian), or the fraction of corrupted values.",
    ] = 0.0

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        del config
        amounts = {name: {"amount"} for name in CORRUPTIONS if name != "none"}
        problems = ignored(self, "family", "corruption", amounts)
        if self.corruption not in ("none", "gaussian") and self.amount > 1:
            problems.append(
                f"family.amount = {self.amount} must be between 0 and 1: it is the fraction of "
                f"values that family.corruption = {self.corruption!r} corrupts."
            )
        return problems

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        (pair,) = parts.network(
            shape=parts.shape,
            encoded=(self.latent,),
            latents=(self.latent,),
            decoded=(parts.shape[-1],),
        )
        return autoencoder_family.Autoencoder(
            pair=pair,
            latent=self.latent,
            shape=parts.shape,
            corruption=CORRUPTIONS[self.corruption](self.amount),
            comparison=(
                autoencoder_family.WORDS
                if isinstance(parts.fields["x"], Counts)
                else autoencoder_family.VALUES
            ),
        )
