"""Mistakes in configs of autoencoders, codes and priors: each gets a message with a remedy."""

import pytest
from test_config import checked, problems

from genzoo import build
from genzoo.core.errors import UserError
from genzoo.modes import cost

VAE, TWO = "configs/vae_fashion.py", "configs/vae_mnist.py:two_layers"
AE, DAE, PCA = "configs/ae_fashion.py", "configs/dae_fashion.py", "configs/pca_fashion.py"
VQ, VQ2 = "configs/vqvae_cifar.py", "configs/vqvae2_cifar.py"
DVAE, PRIOR = "configs/dvae_cifar.py", "configs/prior_vqvae_fashion.py"

FSQ = {"family__codebook": "fsq", "family__revive_below": "0"}
LFQ = {"family__codebook": "lfq", "family__revive_below": "0"}
MISTAKES = [
    # PCA
    (PCA, {"family__components": "0"}, "family.components = 0 must be at least 1."),
    (PCA, {"train__steps": "5"}, "PCA is computed in one pass; set it to 1."),
    (PCA, {"data__flip": "true"}, "PCA uses every image once, unflipped; set it to False."),
    (PCA, {"train__averages__ema__decay": "0.9"}, "PCA is computed without steps to average over"),
    (PCA, {"network__width": "5"}, "network.width is not a known key: there are none."),
    # autoencoders
    (AE, {"family__latent": "0"}, "family.latent = 0 must be at least 1."),
    (AE, {"family__beta": "2"}, "family.beta is not a known key"),
    (AE, {"network__name": "unet"}, "network.name = 'unet' is unknown"),
    (DAE, {"family__corruption": "maskin"}, "did you mean 'masking'?"),
    (DAE, {"family__amount": "1.5"}, "family.amount = 1.5 must be between 0 and 1: it"),
    (AE, {"family__amount": "0.5"}, "family.amount = 0.5 has no effect with family.corruption = "),
    (DAE, {"family__amount": "-0.5", "family__corruption": "gaussian"}, "family.amount = -0.5"),
    # VAEs
    (TWO, {"optimizer__stage_ends": "(10,5)", "optimizer__stage_factors": "(1.0,0.5,0.1)"},
     "optimizer.stage_ends = (10, 5) must be increasing and above 0"),
    (TWO, {"optimizer__stage_ends": "(10,)", "optimizer__stage_factors": "(1.0,-0.5)"},
     "optimizer.stage_factors[1] = -0.5 must be at least 0."),
    (TWO, {"optimizer__stage_ends": "(10,)"}, "stage_factors has 8 entries for 1 stage_ends"),
    (VAE, {"family__latents": "()"}, "family.latents = () must be a tuple with 1 to 2 entries."),
    (VAE, {"family__latents": "(3,0)"}, "family.latents[1] = 0 must be at least 1."),
    (VAE, {"family__latents": "(3,2,1)"}, "family.latents = (3, 2, 1) must be a tuple"),
    (VAE, {"family__latents": "7"}, "whole numbers: one alone is followed by a comma, (7,)."),
    (VAE, {"family__decoder": "gausian"}, "did you mean 'gaussian'?"),
    (VAE, {"family__binarise": "hard"}, "family.binarise = 'hard' is unknown"),
    (VAE, {"family__objective": "elob"}, "did you mean 'elbo'?"),
    (VAE, {"family__warmup": "cyclic"}, "did you mean 'cyclical'?"),
    (VAE, {"family__components": "3"}, "family.components = 3 has no effect with family.decoder"),
    (VAE, {"family__binarise": "threshold"}, "that uses it ('bernoulli')."),
    (VAE, {"family__warmup_steps": "5"}, "family.warmup_steps = 5 has no effect with"),
    (VAE, {"family__warmup": "linear"}, "needs family.warmup_steps of at least 1."),
    (VAE, {"family__samples": "0"}, "family.samples = 0 must be at least 1."),
    (VAE, {"family__components": "0"}, "family.components = 0 must be at least 1."),
    (VAE, {"family__beta": "-1"}, "family.beta = -1.0 must be at least 0."),
    (VAE, {"family__free_bits": "-1"}, "family.free_bits = -1.0 must be at least 0."),
    (VAE, {"family__std": "0"}, "family.std = 0.0 must be above 0."),
    (VAE, {"family__objective": "iwae", "family__beta": "2"}, "has no separate KL term"),
    (VAE, {"family__objective": "iwae", "family__free_bits": "1"}, "family.free_bits = 0"),
    (VAE, {"family__free_bits": "1", "train__accumulate": "2"}, "mean KL of each part of a batch"),
    (VAE, {"network__downsamples": "3"}, "28 x 28 is not"),
    (VAE, {"network__activation": "gelo"}, "did you mean 'gelu'?"),
    (VAE, {"eval__importance_samples": "0"}, "eval.importance_samples = 0 must be at least 1."),
    (VAE, {"sample__steps": "5"}, "sample.steps is not a known key"),
    (TWO, {"network__top_widths": "(0,)"}, "network.top_widths[0] = 0 must be at least 1."),
    (TWO, {"network__widths": "(100,-3)"}, "network.widths[1] = -3 must be at least 1."),
    # VQ-VAEs
    (VQ, {"family__codes": "(512,512)"}, "names 2 codebooks for network.levels = 1"),
    (VQ2, {"family__codes": "(512,)"}, "give one size per level, finest first."),
    (VQ2, {"family__codes": "()"}, "family.codes = () names 0 codebooks"),
    (VQ, {"family__codes": "(1,)"}, "family.codes[0] = 1 must be at least 2."),
    (VQ, {"family__codebook": "emma"}, "did you mean 'ema'?"),
    (VQ, {"family__codebook": "gradient"}, "family.revive_below = 0.05 has no effect with"),
    (VQ, {"family__latent": "0"}, "family.latent = 0 must be at least 1."),
    (VQ, {"family__kmeans": "-1"}, "family.kmeans = -1 must be at least 0."),
    (VQ, {"family__decay": "1"}, "family.decay = 1.0 must be at least 0 and below 1."),
    (VQ, {"family__decay": "-0.1"}, "family.decay = -0.1 must be at least 0 and below 1."),
    (VQ, {"family__epsilon": "0"}, "family.epsilon = 0.0 must be above 0."),
    (VQ, {"family__revive_below": "1"}, "revive_below = 1.0 must be at least 0 and below 1."),
    (VQ, {"family__revive_below": "-1"}, "family.revive_below = -1.0 must be at least 0 and"),
    (VQ, {"family__commitment": "-1"}, "family.commitment = -1.0 must be at least 0."),
    (VQ, {"family__data_variance": "0"}, "family.data_variance = 0.0 must be above 0."),
    (VQ, {"network__levels": "0", "family__codes": "()"}, "network.levels = 0 must be at least 1."),
    (VQ2, {"data__name": "mnist", "network__downsamples": "2"}, "28 x 28 is not"),
    (VQ, {"network__dtype": "float16"}, "network.dtype = 'float16'"),
    (VQ, {"train__accumulate": "4"}, "every part of the batch would update"),
    (VQ, {"train__averages__ema__decay": "0.9"}, "would pair an averaged encoder with codes"),
    (VQ, {"sample__temperature": "1"}, "sample.temperature is not a known key"),
    (VQ, {"family__codebook": "fsq"}, "family.revive_below = 0.05 has no effect with"),
    (VQ, {"family__steps": "(3,3)"}, "choose a codebook that uses it ('fsq')"),
    (VQ, {**FSQ, "family__steps": "(1,4)"}, "family.steps[0] = 1 must be at least 3."),
    (VQ, {**FSQ, "family__steps": "(200,200,200)"}, "makes 8,000,000 codes: at most 1,000,000"),
    (VQ, {**FSQ, "family__entropy": "1"}, "choose a codebook that uses it ('lfq')"),
    (VQ, {**LFQ, "family__codes": "(48,)"}, "must be a power of two"),
    (VQ2, {**LFQ, "family__codes": "(8,16)"}, "Give the same number for each."),
    (VQ, {**LFQ, "family__latent": "8"}, "family.latent = 8 has no effect"),
    (VQ, {**LFQ, "family__temperature": "0"}, "family.temperature = 0.0 must be above 0."),
    # dVAEs
    (DVAE, {"family__codes": "1"}, "family.codes = 1 must be at least 2."),
    (DVAE, {"family__codes": "(8,)"}, "family.codes = (8,) must be a whole number."),
    (DVAE, {"family__decoder": "logit_laplce"}, "did you mean 'logit_laplace'?"),
    (DVAE, {"family__kl_weight": "-1"}, "family.kl_weight = -1.0 must be at least 0."),
    (DVAE, {"family__kl_steps": "-1"}, "family.kl_steps = -1 must be at least 0."),
    (DVAE, {"family__temperature_steps": "-1"}, "family.temperature_steps = -1 must be at least"),
    (DVAE, {"family__temperature_start": "0"}, "family.temperature_start = 0.0 must be above 0."),
    (DVAE, {"family__temperature_end": "0"}, "family.temperature_end = 0.0 must be above 0."),
    (DVAE, {"network__groups": "7"}, "32 x 32 is not"),
    (DVAE, {"network__width": "2"}, "network.width = 2 must be at least 4."),
    # the prior over codes
    (PRIOR, {"sample__temperature": "-1"}, "temperature = -1.0 must be 0 (greedy) or between 0.01"),
    (PRIOR, {"sample__temperature": "1e9"}, "must be 0 (greedy) or between 0.01 and 100."),
    (PRIOR, {"frozen": "5"}, "frozen must be a section (a dict), not 5."),
    (PRIOR, {"sample__top_k": "-1"}, "sample.top_k = -1 must be at least 0"),
    (PRIOR, {"sample__top_p": "0"}, "sample.top_p = 0.0 must be above 0 and at most 1"),
    (PRIOR, {"sample__top_p": "1.1"}, "sample.top_p = 1.1 must be above 0 and at most 1"),
    (PRIOR, {"network__heads": "3"}, "network.heads is 3, which does not divide"),
    (PRIOR, {"network__dropout": "1"}, "network.dropout = 1.0 must be at least 0 and below 1."),
    (PRIOR, {"network__depth": "0"}, "network.depth = 0 must be at least 1."),
    (PRIOR, {"network__vocabularies": "(3,)"}, "network.vocabularies is not a known key"),
    (PRIOR, {"frozen__tokenizer__weigths": "ema"}, "did you mean 'weights'?"),
    (PRIOR, {"frozen__teacher__workdir": "x"}, "frozen.teacher is not used by this family"),
    (VQ, {"frozen__tokenizer__workdir": "x"}, "frozen.tokenizer is not used by this family"),
]


@pytest.mark.parametrize(("path", "overrides", "words"), MISTAKES)
def test_each_mistake_has_its_sentence(path, overrides, words):
    assert words in "\n".join(problems(path, **overrides))


def test_values_at_the_bounds_are_accepted():
    assert checked(VQ, family__codes="(2,)", family__kmeans="0", family__decay="0")
    assert checked(VQ, family__codebook="gradient", family__revive_below="0")
    assert checked(VQ, **FSQ, family__steps="(3,)")
    assert checked(VQ2, **FSQ, family__codes="(512,)")
    assert checked(VQ, **LFQ, family__codes="(2,)", family__entropy="0")
    assert checked(DVAE, family__kl_steps="0", family__codes="2", family__kl_weight="0")
    assert checked(PRIOR, sample__temperature="0", sample__top_p="1", network__dropout="0")
    assert checked(DAE, family__amount="1") and checked(DAE, family__amount="0")
    assert checked(DAE, family__corruption="gaussian", family__amount="3")


def test_pca_of_large_images_is_refused_before_memory_is_allocated(tmp_path):
    large = checked(PCA, data__name=f"folder:{tmp_path}", data__size="256")
    with pytest.raises(UserError, match=r"196608 numbers, .* 288 GiB: make the images smaller"):
        build.family(large)


def test_a_fit_in_closed_form_is_described_and_timed():
    report = cost.describe(checked(f"{PCA}:smoke"))
    assert report["parameters"] == 784 * 5 + 5 and "train_step_flops" not in report
    report = cost.bench(checked(f"{PCA}:smoke", bench__seconds="0"))
    assert report["fit"]["seconds"] > 0 and "train" not in report
    assert report["sample"]["step_seconds"]["median"] > 0
