"""Builders of the families of discrete codes and of the prior over them, and what can be wrong with
their configs."""

from ml_collections import FrozenConfigDict

from genzoo.builders.rows import Parts
from genzoo.builders.sampling import told
from genzoo.config import unknown
from genzoo.core.contract import Family
from genzoo.families import dvae as dvae_family
from genzoo.families import token_prior as prior_family
from genzoo.families import vqvae as vqvae_family
from genzoo.math import logit_laplace, observation, variational
from genzoo.math.tokens import Truncation

TRAIN_A_PRIOR = (
    "Train a token_prior on its codes (see configs/prior_vqvae_fashion.py) and sample from that."
)

# --- VQ-VAE ---------------------------------------------------------------------------------------

CODEBOOKS = {
    "ema": lambda decay, epsilon, kmeans, revive_below: vqvae_family.Averaged(
        decay=decay, epsilon=epsilon, kmeans=kmeans, revive_below=revive_below
    ),
    "gradient": lambda decay, epsilon, kmeans, revive_below: vqvae_family.Learned(),
}


def vqvae(
    *,
    parts: Parts,
    codes: tuple[int, ...] = (512,),
    latent: int = 64,
    codebook: str = "ema",
    decay: float = 0.99,
    epsilon: float = 1e-5,
    kmeans: int = 10,
    revive_below: float = 0.0,
    commitment: float = 0.25,
    data_variance: float = 1.0,
) -> Family:
    """VQ-VAE with one grid of codes, VQ-VAE-2 with two or three: families/vqvae.py.

    codes: how many by level, the finest first; as many entries as network.levels.
    """
    return vqvae_family.VQVAE(
        network=parts.network(shape=parts.shape, latent=latent, decoded=parts.shape[-1]),
        sizes=tuple(codes),
        codebook=CODEBOOKS[codebook](decay, epsilon, kmeans, revive_below),
        shape=parts.shape,
        commitment=commitment,
        data_variance=data_variance,
    )


def vqvae_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of a VQ-VAE."""
    family = config.family
    found = unknown("family.codebook", family.codebook, CODEBOOKS)
    if len(family.codes) != config.network.levels:
        found.append(
            f"family.codes = {tuple(family.codes)} names {len(family.codes)} codebooks for "
            f"network.levels = {config.network.levels}: give one size per level, the finest first."
        )
    if min(family.codes, default=2) < 2:
        found.append(f"family.codes = {tuple(family.codes)} must be at least 2 on every level.")
    least = {"latent": 1, "kmeans": 0, "revive_below": 0, "commitment": 0, "decay": 0}
    for key, value in least.items():
        if family[key] < value:
            found.append(f"family.{key} = {family[key]} must be at least {value}.")
    for key in ("decay", "revive_below"):
        if family[key] >= 1:
            found.append(f"family.{key} = {family[key]} must be below 1.")
    for key in ("epsilon", "data_variance"):
        if family[key] <= 0:
            found.append(f"family.{key} = {family[key]} must be above 0.")
    if family.codebook == "ema" and config.train.accumulate > 1:
        found.append(
            f"train.accumulate = {config.train.accumulate}: every part would move the averaged "
            "codes once. Set it to 1, or family.codebook = 'gradient'."
        )
    if family.codebook == "ema" and config.train.averages:
        found.append(
            "train.averages would pair an averaged encoder with codes that follow the other one: "
            "set it to {}, or family.codebook = 'gradient'."
        )
    if family.codebook == "gradient" and family.revive_below:
        found.append(
            "family.revive_below moves codes by hand, which the optimizer would not know of: use "
            "family.codebook = 'ema', or set it to 0."
        )
    return found


# --- dVAE -----------------------------------------------------------------------------------------

DECODERS = {
    "logit_laplace": logit_laplace.LogitLaplace,
    "gaussian": observation.Gaussian,
}


def dvae(
    *,
    parts: Parts,
    codes: int = 8192,
    decoder: str = "logit_laplace",
    kl_weight: float = 6.6,
    kl_steps: int = 5000,
    temperature_start: float = 1.0,
    temperature_end: float = 0.0625,
    temperature_steps: int = 150_000,
) -> Family:
    """The discrete VAE of DALL-E: families/dvae.py."""
    model = DECODERS[decoder]()
    return dvae_family.DVAE(
        networks=parts.network(
            shape=parts.shape, vocabulary=codes, decoded=model.outputs(parts.shape[-1])
        ),
        vocabulary=codes,
        shape=parts.shape,
        observation=model,
        kl_weight=variational.annealed(0.0, kl_weight, kl_steps),
        temperature=variational.annealed(temperature_start, temperature_end, temperature_steps),
    )


def dvae_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of a dVAE."""
    family = config.family
    found = unknown("family.decoder", family.decoder, DECODERS)
    if family.codes < 2:
        found.append(f"family.codes = {family.codes} must be at least 2.")
    for key in ("kl_weight", "kl_steps", "temperature_steps"):
        if family[key] < 0:
            found.append(f"family.{key} = {family[key]} must be at least 0.")
    for key in ("temperature_start", "temperature_end"):
        if family[key] <= 0:
            found.append(f"family.{key} = {family[key]} must be above 0.")
    return found


# --- token prior ----------------------------------------------------------------------------------


def token_prior(*, parts: Parts, conditional: bool = False) -> Family:
    """A transformer over the codes of a frozen tokenizer: families/token_prior.py."""
    tokenizer = parts.frozen[prior_family.TOKENIZER]
    conditions, entries = told(parts, conditional, 0.0)
    sample = parts.sample
    return prior_family.TokenPrior(
        network=parts.network(
            vocabularies=tuple(grid.size for grid in tokenizer.code_grids),
            lengths=prior_family.lengths_of(tokenizer),
            entries=entries,
        ),
        tokenizer=tokenizer,
        truncate=Truncation(temperature=sample.temperature, top_k=sample.top_k, top_p=sample.top_p),
        conditions=conditions,
    )


def token_prior_problems(config: FrozenConfigDict) -> list[str]:
    """What is wrong with a config of a prior; its tokenizer is looked at in first_stage.py."""
    sample, found = config.sample, []
    if sample.temperature and not 0.01 <= sample.temperature <= 100:
        found.append(
            f"sample.temperature = {sample.temperature} must be 0 (greedy) or between 0.01 and 100."
        )
    if sample.top_k < 0:
        found.append(f"sample.top_k = {sample.top_k} must be at least 0 (all codes).")
    if not 0 < sample.top_p <= 1:
        found.append(f"sample.top_p = {sample.top_p} must be above 0 and at most 1 (all codes).")
    return found
