"""The settings of VQ-VAE and VQ-VAE-2, which build the family."""

from dataclasses import dataclass, replace
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.core.bounds import (
    NOT_ONE,
    Above,
    AtLeast,
    Below,
    Between,
    Each,
    Entries,
    Limit,
    OneOf,
    ignored,
)
from genzoo.core.contract import Family
from genzoo.core.size import Size
from genzoo.families import vqvae as vqvae_family

CODEBOOKS = {
    "ema": lambda own: vqvae_family.Averaged(
        decay=own.decay,
        epsilon=own.epsilon,
        kmeans=own.kmeans,
        revive_below=own.revive_below,
    ),
    "gradient": lambda own: vqvae_family.Learned(),
}
_CODEBOOK_KEYS = {"ema": {"decay", "epsilon", "kmeans", "revive_below"}}


@dataclass(frozen=True, kw_only=True)
class CodebookSettings:
    """How the codes of a level are stored and updated."""

    latent: Annotated[int, AtLeast(1), Limit(65_536), "Dimension of a code."] = 64
    codebook: Annotated[
        str, OneOf(CODEBOOKS), "ema (moving averages) or gradient (learned by the optimizer)."
    ] = "ema"
    decay: Annotated[
        float, AtLeast(0), Below(1), NOT_ONE, "Decay of the moving averages of ema."
    ] = 0.99
    epsilon: Annotated[
        float, Above(0), Between(1e-12, 1e3), "Laplace smoothing of the counts of ema."
    ] = 1e-5
    kmeans: Annotated[
        int,
        AtLeast(0),
        Limit(10_000),
        "Iterations of k-means on the first batch, from which ema starts.",
    ] = 10
    revive_below: Annotated[
        float,
        AtLeast(0),
        Below(1),
        "Codes of ema used less than this fraction of uniform use are replaced; 0 for never.",
    ] = 0.0
    commitment: Annotated[
        float, AtLeast(0), Limit(1e6), "Weight of the commitment loss."
    ] = 0.25

    def codebook_problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings of the codebook that conflict."""
        problems = ignored(self, "family", "codebook", _CODEBOOK_KEYS)
        if self.codebook == "ema" and config.train.accumulate > 1:
            problems.append(
                f"train.accumulate = {config.train.accumulate}: every part of the batch would "
                "update the averaged codes. Set it to 1, or family.codebook = 'gradient'."
            )
        if self.codebook == "ema" and config.train.averages:
            problems.append(
                "train.averages would pair an averaged encoder with codes that follow the raw "
                "encoder: set it to {}, or family.codebook = 'gradient'."
            )
        return problems

    def with_codes(self, network: Size, sizes: tuple[int, ...]) -> Size:
        """The size of a network with codebooks of these sizes."""
        codes = sum(sizes) * self.latent
        if self.codebook == "gradient":
            return replace(network, params=network.params + codes)
        return replace(network, stats=2 * codes + sum(sizes) + len(sizes))

    def codes_by(self) -> vqvae_family.Codebook:
        """How the codes are stored and updated."""
        return CODEBOOKS[self.codebook](self)


@dataclass(frozen=True, kw_only=True)
class VQVAESettings(CodebookSettings):
    """VQ-VAE with one grid of codes, VQ-VAE-2 with two or three: families/vqvae.py."""

    codes: Annotated[
        tuple[int, ...],
        Entries(0, 16),
        Each(AtLeast(2)),
        Each(Limit(1_000_000)),
        "Number of codes of each level, finest first: as many entries as network.levels.",
    ] = (512,)
    data_variance: Annotated[
        float,
        Above(0),
        Between(1e-9, 1e9),
        "Variance of the data, by which the squared error is divided.",
    ] = 1.0

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = self.codebook_problems(config)
        if len(self.codes) != config.network.levels:
            problems.append(
                f"family.codes = {self.codes} names {len(self.codes)} codebooks for network.levels "
                f"= {config.network.levels}: give one size per level, finest first."
            )
        return problems

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, with its codebooks. network: that of its network."""
        del parts
        return self.with_codes(network, self.codes)

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        return vqvae_family.VQVAE(
            network=parts.network(
                shape=parts.shape, latent=self.latent, decoded=parts.shape[-1]
            ),
            sizes=self.codes,
            codebook=self.codes_by(),
            shape=parts.shape,
            commitment=self.commitment,
            data_variance=self.data_variance,
        )
