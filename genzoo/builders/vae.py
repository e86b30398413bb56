"""The settings of variational autoencoders, which build the family."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.core.bounds import Above, AtLeast, Between, Each, Entries, Limit, OneOf, ignored
from genzoo.core.contract import Family
from genzoo.core.size import Size
from genzoo.families import vae as vae_family
from genzoo.math import counts, mixture, observation, variational

OBSERVATIONS = {
    "bernoulli": lambda own: observation.Bernoulli(levels=own.binarise),
    "gaussian": lambda own: observation.Gaussian(scale="fixed", std=own.std),
    "gaussian_shared": lambda own: observation.Gaussian(scale="shared", std=own.std),
    "gaussian_pixel": lambda own: observation.Gaussian(scale="pixel"),
    "logistic_mixture": lambda own: mixture.LogisticMixture(components=own.components),
    "multinomial": lambda own: counts.Multinomial(),
}
_DECODER_KEYS = {
    "bernoulli": {"binarise"},
    "gaussian": {"std"},
    "gaussian_shared": {"std"},
    "logistic_mixture": {"components"},
}
WARMUPS = {
    "none": lambda steps: variational.constant(),
    "linear": variational.linear,
    "cyclical": variational.cyclical,
}
OBJECTIVES = {"elbo": vae_family.elbo, "iwae": vae_family.iwae}
_BINARISATIONS = ("stochastic", "threshold")


@dataclass(frozen=True, kw_only=True)
class DecoderSampling:
    """The keys of `sample` for a VAE."""

    noise: Annotated[
        bool, "Whether to draw pixels from the decoder's distribution rather than show its mean."
    ] = False


@dataclass(frozen=True, kw_only=True)
class ImportanceScoring:
    """The keys of `eval` for a VAE."""

    importance_samples: Annotated[
        int, AtLeast(1), Limit(1_000_000), "K of the importance-weighted bound; 1 is the ELBO."
    ] = 1


@dataclass(frozen=True, kw_only=True)
class VAESettings:
    """VAE, beta-VAE, IWAE, with one or two layers of latents: families/vae.py."""

    latents: Annotated[
        tuple[int, ...],
        Entries(1, 2),
        Each(AtLeast(1)),
        Each(Limit(1_000_000)),
        "Dimensions of one layer of latents, or of two, such as (100, 50).",
    ] = (50,)
    decoder: Annotated[str, OneOf(OBSERVATIONS), "The distribution of the data given z."] = (
        "bernoulli"
    )
    binarise: Annotated[
        str, OneOf(_BINARISATIONS), "How images are binarised for bernoulli."
    ] = "stochastic"
    std: Annotated[
        float,
        Above(0),
        Between(1e-6, 1e6),
        "Standard deviation of gaussian; initial one of gaussian_shared.",
    ] = 1.0
    components: Annotated[
        int, AtLeast(1), Limit(1_000), "Components of logistic_mixture."
    ] = 10
    objective: Annotated[str, OneOf(OBJECTIVES), "The bound that is maximised."] = "elbo"
    samples: Annotated[
        int, AtLeast(1), Limit(10_000), "Samples of z per example in training."
    ] = 1
    beta: Annotated[
        float, AtLeast(0), Limit(1e6), "Weight of the KL term (Higgins et al. 2017)."
    ] = 1.0
    warmup: Annotated[str, OneOf(WARMUPS), "How the weight of the KL term rises."] = "none"
    warmup_steps: Annotated[
        int, AtLeast(0), Limit(2**31 - 1), "Steps of the warm-up, or of each of its cycles."
    ] = 0
    free_bits: Annotated[
        float,
        AtLeast(0),
        Limit(1e6),
        "Nats of KL per unit, in the mean of a batch, that are not penalised.",
    ] = 0.0

    def problems(self, config: FrozenConfigDict) -> list[str]:
        """Settings that conflict."""
        problems = ignored(self, "family", "decoder", _DECODER_KEYS)
        warming = {name: {"warmup_steps"} for name in WARMUPS if name != "none"}
        problems += ignored(self, "family", "warmup", warming)
        if self.warmup != "none" and self.warmup_steps < 1:
            problems.append(
                f"family.warmup = {self.warmup!r} needs family.warmup_steps of at least 1."
            )
        if self.objective == "iwae" and (
            self.beta != 1 or self.free_bits or self.warmup != "none"
        ):
            problems.append(
                "family.objective = 'iwae' has no separate KL term: set family.beta = 1, "
                "family.free_bits = 0 and family.warmup = 'none'."
            )
        if self.free_bits and config.train.accumulate > 1:
            problems.append(
                f"train.accumulate = {config.train.accumulate}: family.free_bits would bound the "
                "mean KL of each part of a batch. Set it to 1, or family.free_bits = 0."
            )
        return problems

    def size(self, network: Size, parts: Parts) -> Size:
        """The size of the family. network: that of its networks for one sample of z."""
        drawn = 4 * self.samples * math.prod(parts.shape)  # decoded at once in training
        return replace(network, params=network.params + 1, layer=max(network.layer, drawn))

    def build(self, parts: Parts) -> Family:
        """Builds the family."""
        model, latents = OBSERVATIONS[self.decoder](self), self.latents
        pairs = parts.network(
            shape=parts.shape,
            encoded=tuple(2 * width for width in latents),
            latents=latents,
            decoded=(model.outputs(parts.shape[-1]), *(2 * width for width in latents[:-1])),
        )
        return vae_family.VAE(
            pairs=pairs,
            latents=latents,
            shape=parts.shape,
            observation=model,
            objective=OBJECTIVES[self.objective],
            samples=self.samples,
            beta=self.beta,
            warmup=WARMUPS[self.warmup](self.warmup_steps),
            free_bits=self.free_bits,
            importance_samples=parts.eval.importance_samples,
            noise=parts.sample.noise,
        )
