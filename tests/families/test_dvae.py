"""The discrete VAE against hand computations on tabular networks, and its published size."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams, tree
from genzoo.core.contract import CAPABILITIES, CodeGrid, Context, Variables
from genzoo.families.dvae import DVAE
from genzoo.math.logit_laplace import LogitLaplace
from genzoo.math.observation import Gaussian
from genzoo.math.variational import annealed
from genzoo.nets.autoencoder.dalle import DalleSettings
from genzoo.nets.interface import Network

SHAPE, K, E = (2, 2, 1), 3, 2
ENCODER = np.array([3.0, -1.0, 0.5], np.float32)  # logits_k = x encoder_k + shift_k
SHIFT = np.array([0.0, 0.4, 0.2], np.float32)
EMBED = np.array([[0.9, 0.1], [-0.8, 0.3], [0.2, -0.4]], np.float32)
DECODER = np.array([[1.1], [0.5]], np.float32)


def plain(function, params) -> Network:
    def apply(params, x, train=False, key=None):
        del train, key
        return function(params, x)

    return Network(init=lambda key, x: params, apply=apply, features=None)


@dataclass(frozen=True)
class Tables:
    encoder = plain(lambda p, x: x * p["w"] + SHIFT, {"w": jnp.asarray(ENCODER)})
    embed = plain(lambda p, y: y @ p["w"], {"w": jnp.asarray(EMBED)})
    decoder = plain(lambda p, h: h @ p["w"], {"w": jnp.asarray(DECODER)})
    grid = (2, 2)


def family(**settings) -> DVAE:
    chosen = dict(
        networks=Tables(),
        vocabulary=K,
        shape=SHAPE,
        observation=Gaussian(std=0.5),
        kl_weight=annealed(0.0, 6.6, 100),
        temperature=annealed(1.0, 0.0625, 200),
    )
    return DVAE(**{**chosen, **settings})


X = np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)).astype(np.float32)
VARIABLES = family().init(jax.random.key(0), {"x": X})
KEY = jax.random.key(3)


def context(step, train, key=KEY):
    return Context(batch={"x": X}, key=key, step=jnp.int32(step), stats={}, train=train)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


LOGITS = (X * ENCODER + SHIFT).astype(np.float64)


def terms(weights):
    """(-log p(x | y), KL) in nats, [B]."""
    mean = weights @ EMBED @ DECODER
    nats = 0.5 * np.square((X - mean) / 0.5) + np.log(0.5) + 0.5 * np.log(2 * np.pi)
    p = softmax(LOGITS)
    kl = (p * np.log(p * K)).sum(-1)
    return nats.sum((1, 2, 3)), kl.sum((1, 2))


def half_cosine(start, end, share):
    return end + (start - end) * (1 + np.cos(np.pi * min(share, 1))) / 2


@pytest.mark.parametrize("step", [0, 40, 100, 150, 1000])
def test_the_training_loss_by_hand(step, compiled):
    loss, aux = compiled(lambda p, s: family().loss(p, replace(context(0, True), step=s)))(
        VARIABLES.params, jnp.int32(step)
    )
    temperature = half_cosine(1.0, 0.0625, step / 200)
    weight = half_cosine(0.0, 6.6, step / 100)
    gumbel = np.asarray(jax.random.gumbel(streams.named(KEY, "gumbel"), LOGITS.shape), np.float64)
    nats, kl = terms(softmax((LOGITS + gumbel) / temperature))
    np.testing.assert_allclose(loss, (nats + weight * kl) / 4, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["reconstruction"], nats, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["kl_weight"], weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aux.metrics["temperature"], temperature, rtol=1e-5)
    index = LOGITS.argmax(-1).reshape(4, -1)
    usage = [np.bincount(i, minlength=K) / 4 for i in index]
    np.testing.assert_allclose(aux.metrics["usage"], usage)


def test_a_score_is_of_hard_codes_without_noise(compiled):
    def loss(params, key):
        return family().loss(params, replace(context(40, False), key=key))[0]

    nats, kl = terms(np.eye(K)[LOGITS.argmax(-1)])
    expected = (nats + half_cosine(0.0, 6.6, 0.4) * kl) / 4
    for seed in (0, 1):
        actual = compiled(loss)(VARIABLES.params, jax.random.key(seed))
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_every_network_is_trained_through_the_relaxation():
    model = family(kl_weight=lambda step: 0.0)
    loss = jax.jit(jax.value_and_grad(lambda p: model.loss(p, context(20, True))[0].mean()))
    gradient = loss(VARIABLES.params)[1]
    for part in ("encoder", "embed", "decoder"):
        assert np.abs(gradient[part]["w"]).min() > 1e-4
    # Against finite differences of the loss itself: no gradient is stopped.
    for k in range(K):
        def at(shift, k=k):
            moved = {"w": VARIABLES.params["encoder"]["w"].at[k].add(shift)}
            return float(loss({**VARIABLES.params, "encoder": moved})[0])

        slope = (at(1e-2) - at(-1e-2)) / 2e-2
        np.testing.assert_allclose(gradient["encoder"]["w"][k], slope, rtol=2e-2, atol=2e-4)


def test_codes_embeddings_and_images_agree():
    model, batch = family(), {"x": X}
    (codes,) = model.codes(VARIABLES, batch)
    assert model.code_grids == (CodeGrid(shape=(2, 2), size=K),) and codes.dtype == jnp.int32
    np.testing.assert_array_equal(codes, LOGITS.argmax(-1))
    keys = jax.random.split(jax.random.key(0), 4)
    latent = model.encode(VARIABLES, batch, keys)
    np.testing.assert_allclose(latent, EMBED[np.asarray(codes)].reshape(4, -1), rtol=1e-6)
    copies = model.reconstruct(VARIABLES, batch, keys)
    np.testing.assert_allclose(copies, EMBED[np.asarray(codes)] @ DECODER, rtol=1e-5)
    np.testing.assert_allclose(model.decode(VARIABLES, latent), copies, rtol=1e-6)
    np.testing.assert_allclose(model.decode_codes(VARIABLES, (codes,)), copies, rtol=1e-6)
    can = {name for name, protocol in CAPABILITIES.items() if isinstance(model, protocol)}
    assert can == {"reconstruct", "encode", "decode", "tokenize"}


def test_the_report_is_of_averaged_usage():
    model = family()
    report = model.report({"loss": np.float32(1.5), "usage": np.array([0.5, 0.25, 0.25])})
    assert report.values["perplexity"] == pytest.approx(2**1.5) and report.warnings == {}
    assert report.values["codes_in_use"] == 3 and report.values["loss"] == 1.5
    (warning,) = model.report({"usage": np.array([1.0, 0, 0])}).warnings.values()
    assert "1 of 3 codes" in warning and "family.kl_weight" in warning
    # The perplexity of two codes is at most two, so using both is not a collapse.
    assert not replace(model, vocabulary=2).report({"usage": np.array([0.4, 0.6])}).warnings
    assert model.report({"loss": np.float32(1)}).values == {"loss": 1.0}


def test_published_size():
    shape = (256, 256, 3)
    networks = DalleSettings(groups=4).build(shape=shape, vocabulary=8192, decoded=6)
    model = family(networks=networks, vocabulary=8192, shape=shape, observation=LogitLaplace())
    example = {"x": jax.ShapeDtypeStruct((1, *shape), jnp.float32)}
    variables = jax.eval_shape(model.init, jax.random.key(0), example)
    assert isinstance(variables, Variables) and tree.count(variables.params) == 97_616_006
    assert model.code_grids == (CodeGrid(shape=(32, 32), size=8192),)
    images = jax.eval_shape(
        lambda v: model.decode_codes(v, (jnp.zeros((2, 32, 32), jnp.int32),)), variables
    )
    assert images.shape == (2, *shape)
