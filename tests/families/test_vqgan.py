"""VQGAN on a quantiser with two params: the loss by hand, the codes as those of its VQ-VAE."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families.toy_critic import (
    AFTER,
    CRITIC,
    CRITIC_PARAMS,
    DECODER_PARAMS,
    SHAPE,
    WEIGHT,
    A,
    B,
    C,
    context,
    decode,
    images,
    net,
)

from genzoo import build, check, config
from genzoo.core.contract import Tokenizes, Variables, capabilities
from genzoo.experiment import Experiment
from genzoo.families.adversarial_training import Comparison
from genzoo.families.quantisers import Averaged, Learned
from genzoo.families.vqgan import VQGAN
from genzoo.families.vqvae import VQVAE
from genzoo.nets.autoencoder.hierarchy import Hierarchy

CODES = np.array([[0.5], [-0.5], [0.1], [9.0]], np.float32)
COMMITMENT = 0.25
AVERAGED = Averaged(
    commitment=COMMITMENT, decay=0.9, epsilon=1e-5, kmeans=0, revive_below=0.1
)
LEARNED = Learned(commitment=COMMITMENT)
NETWORK = Hierarchy(
    encoders=(net(lambda params, x: params["a"] * x),), heads=(net(lambda params, h: h),),
    contexts=(), upsamples=(), decoder=net(decode), grids=(SHAPE[:2],), latent=1,
)  # fmt: skip
BOTH = pytest.mark.parametrize("codebook", [AVERAGED, LEARNED], ids=["ema", "gradient"])


def family(codebook=AVERAGED, adversary=CRITIC) -> VQGAN:
    autoencoder = VQVAE(
        network=NETWORK, sizes=(len(CODES),), quantiser=codebook, shape=SHAPE, data_variance=1.0
    )
    comparison = Comparison(perceptual=None, weight=1.0)
    return VQGAN(autoencoder=autoencoder, comparison=comparison, adversary=adversary)


def variables(codebook) -> Variables:
    parts = {"encoder_0": {"a": jnp.float32(A)}, "head_0": {}, "decoder": DECODER_PARAMS}
    params = {"network": parts, "critic": CRITIC_PARAMS}
    if (codebook is LEARNED):
        return Variables(params={**params, "codes_0": {"codes": jnp.asarray(CODES)}})
    book = {"codes": CODES, "counts": np.ones(4, np.float32), "sums": CODES, "started": True}
    return Variables(params=params, stats={"codes_0": jax.tree.map(jnp.asarray, book)})


def by_hand(x):
    """(the error, the squared distance of z from its codes, -D(y)) of each example in float64, and
    the adaptive weight."""
    x = x.astype(np.float64)
    z = A * x
    q = CODES[np.abs(z - CODES[:, 0]).argmin(-1)]
    y = B * q
    of_error = (np.sign(y - x) * q).mean()
    of_score = (-2 * C * y * q).mean()
    axes = (1, 2, 3)
    return (
        np.abs(x - y).mean(axes), np.square(z - q).mean(axes), -C * np.square(y).mean(axes),
        np.abs(of_error) / (np.abs(of_score) + 1e-4),
    )  # fmt: skip


@BOTH
def test_the_loss_by_hand(codebook):
    x, own = images(), variables(codebook)
    error, squares, adversarial, weight = by_hand(x)
    codes = (COMMITMENT + (codebook is LEARNED)) * squares
    for step, active in ((AFTER - 1, False), (AFTER, True)):
        at = context(x, step, stats=own.stats)
        losses, aux = jax.jit(family(codebook).loss)(own.params, at)
        expected = error + codes + active * WEIGHT * weight * adversarial
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(aux.metrics["commitment"], squares, rtol=1e-5)
        found = aux.metrics["adversarial_weight"]
        np.testing.assert_allclose(found, active * WEIGHT * weight, rtol=1e-5)
        alone, _ = family(codebook, adversary=None).loss(own.params, at)
        np.testing.assert_allclose(alone, error + codes, rtol=1e-5)


@BOTH
def test_codes_and_their_updates_are_those_of_vqvae(codebook):
    x, own, model = images(), variables(codebook), family(codebook)
    batch, keys = {"x": jnp.asarray(x)}, jax.random.split(jax.random.key(1), len(x))
    at = context(x, stats=own.stats)
    _, aux = model.loss(own.params, at)
    _, plain = model.autoencoder.loss(own.params, at)
    chex.assert_trees_all_equal(aux.stats, plain.stats)
    chex.assert_trees_all_equal(model.codes(own, batch), model.autoencoder.codes(own, batch))
    assert model.code_grids == model.autoencoder.code_grids
    decoded = model.decode_codes(own, model.codes(own, batch))
    np.testing.assert_array_equal(decoded, model.reconstruct(own, batch, keys))
    latent = model.encode(own, batch, keys)
    np.testing.assert_allclose(latent, A * x.reshape(len(x), -1), rtol=1e-6)
    np.testing.assert_array_equal(model.decode(own, latent), decoded)


@BOTH
def test_the_critics_turn_moves_the_critic_alone(codebook):
    x, own, model = images(), variables(codebook), family(codebook)
    players = model.losses
    assert list(players) == ["autoencoder", "critic"]
    paths = ("network/encoder_0/a", "network/decoder/out/conv/kernel", "codes_0/codes", "critic/c")
    assert [players["autoencoder"].owns(path) for path in paths] == [True, True, True, False]
    assert [players["critic"].owns(path) for path in paths] == [False, False, False, True]
    at = context(x, stats=own.stats)
    critic = players["critic"].loss
    losses, aux = critic(own.params, at)
    chex.assert_trees_all_equal(aux.stats, own.stats)
    y = B * CODES[np.abs(A * x - CODES[:, 0]).argmin(-1)]
    hinge = (np.maximum(0, 1 - C * x**2) + np.maximum(0, 1 + C * y**2)) / 2
    np.testing.assert_allclose(losses, hinge.mean((1, 2, 3)), rtol=1e-5)
    slopes = jax.grad(lambda params: critic(params, at)[0].mean())(own.params)
    assert slopes.pop("critic")["c"] != 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slopes))


def test_the_report_names_perplexity_with_and_without_a_critic():
    shares = np.array([0.5, 0.5, 0, 0], np.float32)
    for suffix in ("", "_autoencoder"):
        values = family().report({f"usage_0{suffix}": shares}).values
        assert values["codes_in_use"] == 2
        assert values["perplexity"] == pytest.approx(2)


def test_a_prior_trains_on_its_codes():
    tokenizer = check.check(config.load("configs/vqgan_cifar.py:smoke"))
    raw = config.load("configs/prior_vqvae_cifar.py:smoke")
    frozen = dict(workdir="none", weights="raw", config=build.settled(tokenizer).to_dict())
    raw["frozen"] = dict(tokenizer=frozen)
    experiment = Experiment(build.settled(check.check(raw)))
    (grid,) = experiment.family.tokenizer.code_grids
    assert (grid.shape, grid.size) == ((14, 14), 16)
    state, batch = experiment.abstract_state, experiment.stored(4)
    _, measured = jax.eval_shape(experiment.updater(1).update, state, batch)
    assert "nats_per_code_0" in measured


def test_capabilities():
    assert isinstance(family(), Tokenizes)
    assert set(capabilities(family())) >= {"reconstruct", "encode", "decode"}
    assert "sample" not in capabilities(family())
