"""The settings of VQ-VAE and VQ-VAE-2, which build the family."""

from dataclasses import dataclass, replace
from math import prod
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
from genzoo.families import quantisers
from genzoo.families import vqvae as vqvae_family
from genzoo.nets.autoencoder.hierarchy import Hierarchy

_MOST_CODES = 1_000_000

QUANTISERS = {
    "ema": lambda own: quantisers.Averaged(
        commitment=own.commitment,
        decay=own.decay,
        epsilon=own.epsilon,
        kmeans=own.kmeans,
        revive_below=own.revive_below,
    ),
    "gradient": lambda own: quantisers.Learned(commitment=own.commitment),
    "fsq": lambda own: quantisers.FiniteScalar(steps=own.steps),
    "lfq": lambda own: quantisers.LookupFree(
        width=own.width,
        commitment=own.commitment,
        entropy=own.entropy,
        temperature=own.temperature,
    ),
}
_USES = {
    "ema": {"codes", "latent", "commitment", "decay", "epsilon", "kmeans", "revive_below"},
    "gradient": {"codes", "latent", "commitment"},
    "fsq": {"steps"},
    "lfq": {"codes", "commitment", "entropy", "temperature"},
}


@dataclass(frozen=True, kw_only=True)
class QuantiserSettings:
    """How the vectors of every level become codes: families/quantisers.py."""

    codes: Annotated[
        tuple[int, ...],
        Entries(0, 16),
        Each(AtLeast(2)),
        Each(Limit(_MOST_CODES)),
        "Number of codes of each level, finest first: as many entries as network.levels.",
    ] = (512,)
    latent: Annotated[int, AtLeast(1), Limit(65_536), "Dimension of a code of a codebook."] = 64
    codebook: Annotated[
        str,
        OneOf(QUANTISERS),
        "ema (moving averages), gradient (learned by the optimizer), or none: fsq (every channel "
        "is rounded to a few steps) or lfq (to its sign).",
    ] = "ema"
    steps: Annotated[
        tuple[int, ...],
        Entries(1, 16),
        Each(AtLeast(3)),
        Each(Limit(256)),
        "Steps of each channel of fsq, at least 3; there are as many codes as their product.",
    ] = (8, 5, 5, 5)
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
    entropy: Annotated[
        float, AtLeast(0), Limit(1e6), "Weight of the entropy loss of lfq, in nats."
    ] = 0.1
    temperature: Annotated[
        float, Above(0), Between(1e-4, 1e4), "Temperature of the soft choice in lfq's entropy."
    ] = 1.0

    def codes_problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings of the codes that conflict."""
        levels = config.network.get("levels", 1)
        problems = ignored(self, "family", "codebook", _USES)
        if self.codebook == "fsq":
            if prod(self.steps) > _MOST_CODES:
                problems.append(
                    f"family.steps = {self.steps} makes {prod(self.steps):,} codes: at most "
                    f"{_MOST_CODES:,} are possible. Give fewer steps."
                )
        elif len(self.codes) != levels:
            grids = f"network.levels = {levels}" if "levels" in config.network else "one grid"
            problems.append(
                f"family.codes = {self.codes} names {len(self.codes)} codebooks for {grids}: give "
                "one size per level, finest first."
            )
        if self.codebook == "lfq" and any(size & (size - 1) for size in self.codes):
            problems.append(
                f"family.codes = {self.codes}: lfq makes a bit of every channel, so that the "
                "number of codes must be a power of two."
            )
        if self.codebook == "lfq" and len(set(self.codes)) > 1:
            problems.append(
                f"family.codes = {self.codes}: all levels of lfq have as many channels, and "
                "therefore codes. Give the same number for each."
            )
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

    @property
    def width(self) -> int:
        """The channels of a vector that is quantised."""
        if self.codebook == "fsq":
            return len(self.steps)
        return self.codes[0].bit_length() - 1 if self.codebook == "lfq" else self.latent

    def with_codes(self, network: Size) -> Size:
        """The size of a network with the codebooks."""
        if self.codebook in ("fsq", "lfq"):
            return network
        codes = sum(self.codes) * self.latent
        if self.codebook == "gradient":
            return replace(network, params=network.params + codes)
        return replace(network, stats=2 * codes + sum(self.codes) + len(self.codes))

    def quantised(
        self, network: Hierarchy, shape: tuple[int, ...], data_variance: float = 1.0
    ) -> vqvae_family.VQVAE:
        """The network with the quantiser, for images of `shape` (*size, C)."""
        fixed = (prod(self.steps),) * network.levels
        return vqvae_family.VQVAE(
            network=network,
            sizes=fixed if self.codebook == "fsq" else self.codes,
            quantiser=QUANTISERS[self.codebook](self),
            shape=shape,
            data_variance=data_variance,
        )


@dataclass(frozen=True, kw_only=True)
class VQVAESettings(QuantiserSettings):
    """VQ-VAE with one grid of codes, VQ-VAE-2 with two or three: families/vqvae.py."""

    data_variance: Annotated[
        float,
        Above(0),
        Between(1e-9, 1e9),
        "Variance of the data, by which the squared error is divided.",
    ] = 1.0

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        return self.codes_problems(config)

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family, with its codebooks. network: that of its network."""
        del parts
        return self.with_codes(network)

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        network = parts.network(shape=parts.shape, latent=self.width, decoded=parts.shape[-1])
        return self.quantised(network, parts.shape, self.data_variance)
