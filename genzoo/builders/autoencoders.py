"""Builders of PCA, autoencoders and VAEs, and what can be wrong with their configs."""

import math

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.config import unknown
from genzoo.core.contract import Family
from genzoo.core.errors import UserError
from genzoo.families import autoencoder as autoencoder_family
from genzoo.families import pca as pca_family
from genzoo.families import vae as vae_family
from genzoo.math import corruption, mixture, observation, variational

# --- PCA ------------------------------------------------------------------------------------------

_MOST_NUMBERS = 16_384  # of an example: 2 GiB of covariance


def pca(*, parts: Parts, components: int = 2) -> Family:
    """Principal components and probabilistic PCA: families/pca.py."""
    numbers = math.prod(parts.shape)
    if numbers > _MOST_NUMBERS:
        raise UserError(
            f"An example has {numbers} numbers, and PCA needs a matrix of their square, "
            f"{8 * numbers**2 / 2**30:.0f} GiB: make the images smaller (data.size), at most "
            f"{_MOST_NUMBERS} numbers."
        )
    return pca_family.PCA(components=components, shape=parts.shape)


def pca_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of PCA."""
    found = []
    if config.family.components < 1:
        found.append(f"family.components = {config.family.components} must be at least 1.")
    if config.data.flip:
        found.append("data.flip: PCA sees every image once, as it is: set it to False.")
    if config.train.averages:
        found.append("train.averages: PCA takes no steps to average over, set it to {}.")
    if config.train.steps != 1:
        found.append(
            f"train.steps = {config.train.steps}: PCA is computed in one pass, set it to 1."
        )
    return found


# --- autoencoder ----------------------------------------------------------------------------------

CORRUPTIONS = {
    "none": lambda amount: corruption.Nothing(),
    "gaussian": lambda amount: corruption.GaussianNoise(amount=amount),
    "masking": lambda amount: corruption.Masking(amount=amount),
    "salt_and_pepper": lambda amount: corruption.SaltAndPepper(amount=amount),
}


def autoencoder(
    *, parts: Parts, latent: int = 32, corruption: str = "none", amount: float = 0.0
) -> Family:
    """The plain autoencoder and the denoising one: families/autoencoder.py."""
    (pair,) = parts.network(
        shape=parts.shape, encoded=(latent,), latents=(latent,), decoded=(parts.shape[-1],)
    )
    return autoencoder_family.Autoencoder(
        pair=pair, shape=parts.shape, corruption=CORRUPTIONS[corruption](amount)
    )


def autoencoder_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of an autoencoder."""
    family = config.family
    found = unknown("family.corruption", family.corruption, CORRUPTIONS)
    if family.latent < 1:
        found.append(f"family.latent = {family.latent} must be at least 1.")
    most = float("inf") if family.corruption == "gaussian" else 1.0
    if not 0 <= family.amount <= most:
        found.append(f"family.amount = {family.amount} must be between 0 and {most}.")
    return found


# --- VAE ------------------------------------------------------------------------------------------

OBSERVATIONS = {
    "bernoulli": lambda own: observation.Bernoulli(levels=own["binarise"]),
    "gaussian": lambda own: observation.Gaussian(scale="fixed", std=own["std"]),
    "gaussian_shared": lambda own: observation.Gaussian(scale="shared", std=own["std"]),
    "gaussian_pixel": lambda own: observation.Gaussian(scale="pixel"),
    "logistic_mixture": lambda own: mixture.LogisticMixture(components=own["components"]),
}
WARMUPS = {
    "none": lambda steps: variational.constant(),
    "linear": variational.linear,
    "cyclical": variational.cyclical,
}
OBJECTIVES = {"elbo": vae_family.elbo, "iwae": vae_family.iwae}
_BINARISATIONS = ("stochastic", "threshold")


def vae(
    *,
    parts: Parts,
    latents: tuple[int, ...] = (50,),
    decoder: str = "bernoulli",
    binarise: str = "stochastic",
    std: float = 1.0,
    components: int = 10,
    objective: str = "elbo",
    samples: int = 1,
    beta: float = 1.0,
    warmup: str = "none",
    warmup_steps: int = 0,
    free_bits: float = 0.0,
) -> Family:
    """VAE, beta-VAE, IWAE, with one or two layers of latents: families/vae.py."""
    model = OBSERVATIONS[decoder]({"binarise": binarise, "std": std, "components": components})
    pairs = parts.network(
        shape=parts.shape,
        encoded=tuple(2 * width for width in latents),
        latents=tuple(latents),
        decoded=(model.outputs(parts.shape[-1]), *(2 * width for width in latents[:-1])),
    )
    return vae_family.VAE(
        pairs=pairs,
        latents=tuple(latents),
        shape=parts.shape,
        observation=model,
        objective=OBJECTIVES[objective],
        samples=samples,
        beta=beta,
        warmup=WARMUPS[warmup](warmup_steps),
        free_bits=free_bits,
        importance_samples=parts.eval.importance_samples,
        noise=parts.sample.noise,
    )


def vae_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of a VAE."""
    family = config.family
    found = [
        *unknown("family.decoder", family.decoder, OBSERVATIONS),
        *unknown("family.binarise", family.binarise, set(_BINARISATIONS)),
        *unknown("family.objective", family.objective, OBJECTIVES),
        *unknown("family.warmup", family.warmup, WARMUPS),
    ]
    if not 1 <= len(family.latents) <= 2 or min(family.latents, default=0) < 1:
        found.append(
            f"family.latents = {tuple(family.latents)} must be the size of one layer of latents or "
            "of two, such as (50,) or (100, 50)."
        )
    lowest = {"samples": 1, "components": 1, "beta": 0, "free_bits": 0, "warmup_steps": 0}
    for key, least in lowest.items():
        if family[key] < least:
            found.append(f"family.{key} = {family[key]} must be at least {least}.")
    if family.std <= 0:
        found.append(f"family.std = {family.std} must be above 0.")
    if family.warmup != "none" and family.warmup_steps < 1:
        found.append(f"family.warmup = {family.warmup!r} needs family.warmup_steps of at least 1.")
    if family.objective == "iwae" and (
        family.beta != 1 or family.free_bits or family.warmup != "none"
    ):
        found.append(
            "family.objective = 'iwae' is a bound without a KL of its own: set family.beta = 1, "
            "family.free_bits = 0 and family.warmup = 'none'."
        )
    return found
