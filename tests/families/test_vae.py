"""The VAE family against exact answers: a linear model with known terms, and tiny networks."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.core.contract import Context, Variables, weighted
from genzoo.families import vae
from genzoo.math import counts, observation, variational
from genzoo.nets.autoencoder.pair import ACTIVATIONS, Pair, mlp_pair
from genzoo.nets.interface import Network

EIGENVALUES = np.array([5.0, 3.0, 1.0, 0.5, 0.2])
SIGMA2 = 0.5666666667  # mean of the three smallest
LOG_LIKELIHOOD, KL = -7.5967417102, 1.9220091382
PLAIN = dict(
    objective=vae.elbo, samples=1, beta=1.0, warmup=variational.constant(), free_bits=0.0,
    importance_samples=1, noise=False,
)  # fmt: skip


def linear(function) -> Network:
    """A network without params."""

    def apply(params, x, train=False, key=None):
        del params, train, key
        return function(x)

    return Network(init=lambda key, x: {}, apply=apply, features=None)


def principal(wrong: float = 0.0) -> vae.VAE:
    """Probabilistic PCA as a VAE: decoder W z, its exact posterior (moved by `wrong`)."""
    gain = np.sqrt(EIGENVALUES[:2] - SIGMA2)
    weight = np.zeros((2, 5))
    weight[[0, 1], [0, 1]] = gain
    shrink = gain / EIGENVALUES[:2]
    log_variance = np.log(SIGMA2 / EIGENVALUES[:2])

    def encode(x):
        x = x.reshape(len(x), -1)
        mean = x[:, :2] * shrink + wrong
        return jnp.concatenate([mean, jnp.broadcast_to(log_variance, mean.shape)], -1)

    pair = Pair(
        encoder=linear(encode),
        decoder=linear(lambda z: (z @ weight).reshape(len(z), 1, 5, 1)),
        grid=(),
    )
    return vae.VAE(
        pairs=(pair,),
        latents=(2,),
        shape=(1, 5, 1),
        observation=observation.Gaussian(scale="fixed", std=float(np.sqrt(SIGMA2))),
        **PLAIN,
    )


def data(count: int) -> jnp.ndarray:
    """Examples whose mean is 0 and whose covariance is exactly diag(EIGENVALUES)."""
    raw = np.random.default_rng(0).normal(size=(count, 5))
    raw -= raw.mean(0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / count).T)
    return jnp.asarray((white * np.sqrt(EIGENVALUES)).reshape(count, 1, 5, 1), jnp.float32)


def context(x, key=0, **more):
    return Context(batch={"x": x}, key=jax.random.key(key), step=jnp.int32(0), stats={}, **more)


def keys_of(count, seed=0):
    return streams.per_example(jax.random.key(seed), jnp.arange(count))


NONE = Variables(params={"observation": {}, "encoder_0": {}, "decoder_0": {}})


def test_the_linear_vae_attains_the_likelihood_of_ppca(compiled):
    family, x = principal(), data(4000)
    losses, aux = compiled(family.loss)(NONE.params, context(x))
    assert float(aux.metrics["kl"].mean()) == pytest.approx(KL, abs=2e-4)
    # One posterior sample per example: a spread of about 1.2 nats over 4,000 examples.
    assert float(-losses.mean()) == pytest.approx(LOG_LIKELIHOOD, abs=0.08)


def test_with_the_exact_posterior_every_bound_is_the_log_likelihood_of_each_example():
    x = data(50)
    covariance = np.diag([5, 3, SIGMA2, SIGMA2, SIGMA2])
    flat = np.asarray(x).reshape(50, 5)
    exact = 0.5 * (
        np.sum(flat**2 / np.diag(covariance), -1)
        + np.log(np.linalg.det(covariance))
        + 5 * np.log(2 * np.pi)
    )
    for count in (2, 3, 64):
        family = replace(principal(), importance_samples=count)
        likelihood = family.likelihood(NONE, {"x": x}, keys_of(50))
        np.testing.assert_allclose(likelihood.total, exact, rtol=2e-5)
        np.testing.assert_allclose(sum(likelihood.terms.values()), likelihood.total, rtol=1e-5)
        assert likelihood.density


def test_the_importance_weighted_bound_grows_with_its_samples_and_stays_below():
    x = data(500)
    bounds = [
        float(-replace(principal(0.7), importance_samples=k)
              .likelihood(NONE, {"x": x}, keys_of(500)).total.mean())
        for k in (1, 2, 8, 64, 512)
    ]  # fmt: skip
    assert bounds == sorted(bounds) and bounds[-1] < LOG_LIKELIHOOD + 5e-3
    # The ELBO is too low by KL(q || posterior) = 0.5 sum wrong^2 / variance.
    lack = 0.5 * np.sum(0.7**2 / (SIGMA2 / EIGENVALUES[:2]))
    assert bounds[0] == pytest.approx(LOG_LIKELIHOOD - lack, abs=0.15)


def test_the_objective_with_samples_is_the_bound_and_its_elbo():
    family, x = principal(0.5), data(2000)
    elbo = replace(family, samples=5).loss(NONE.params, context(x))[0].mean()
    one = family.loss(NONE.params, context(x, key=1))[0].mean()
    five = replace(family, samples=5, objective=vae.iwae).loss(NONE.params, context(x))[0].mean()
    assert float(elbo) == pytest.approx(float(one), abs=0.15)
    assert float(five) < float(elbo) - 0.3
    assert float(five) > -LOG_LIKELIHOOD - 0.05


def test_likelihood_of_an_example_depends_neither_on_its_batch_nor_on_the_chunks(monkeypatch):
    family, x = replace(principal(0.5), importance_samples=11), data(64)
    together = family.likelihood(NONE, {"x": x}, keys_of(64))
    # Three samples at a time, the last chunk not full; one at a time in the batch of one.
    monkeypatch.setattr(vae, "_MAX_OUTPUTS", 3 * 64 * 5)
    cut = family.likelihood(NONE, {"x": x}, keys_of(64))
    monkeypatch.setattr(vae, "_MAX_OUTPUTS", 5)
    alone = family.likelihood(NONE, {"x": x[3:4]}, keys_of(64)[3:4])
    for name in ("reconstruction", "kl", "importance"):
        np.testing.assert_allclose(together.terms[name], cut.terms[name], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(together.terms[name][3:4], alone.terms[name], rtol=1e-4)
    np.testing.assert_allclose(together.total, cut.total, rtol=1e-5)


def test_noise_of_the_first_layer_makes_no_unit_of_the_second_active():
    # The first posterior does not depend on x; the second does on z_0, so E_q[u] is constant in x.
    family = tiny((3, 2))
    variables = family.init(jax.random.key(0), {"x": IMAGES})
    params = {**variables.params}
    params["encoder_0"] = jax.tree.map(jnp.zeros_like, params["encoder_0"])
    x = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (20_000, 4, 4, 1)), jnp.float32)
    metrics = family.loss(params, context(x))[1].metrics
    means = {k: np.asarray(v).mean(0) for k, v in metrics.items()}
    assert family.report(means).values["active_units_1"] == 0
    naive = family._see(params, x, [jax.random.normal(jax.random.key(0), (1, 20_000, 3)),
                                    jnp.zeros((1, 20_000, 2))])  # fmt: skip
    assert (np.asarray(naive.means[1][0]).var(0) > 0.03).all()


def tiny(latents=(3,), grid=(), **more) -> vae.VAE:
    shape, model = (4, 4, 1), observation.Bernoulli()
    if grid:
        # Two by two places with latents of each: averages and copies of blocks.
        def encode(x):
            blocks = x.reshape(len(x), 2, 2, 2, 2).mean((2, 4))[..., None]
            return jnp.concatenate([blocks] * latents[0] + [0.1 * blocks] * latents[0], -1)

        def decode(z):
            return z.sum(-1).repeat(2, 1).repeat(2, 2)[..., None]

        first = Pair(encoder=linear(encode), decoder=linear(decode), grid=(2, 2))
    else:
        first = mlp_pair(shape=shape, encoded=2 * latents[0], latent=latents[0], decoded=1,
                         widths=(8,), activation=ACTIVATIONS["tanh"])  # fmt: skip
    units = latents[0] * (4 if grid else 1)
    upper = [
        mlp_pair(shape=(units,), encoded=2 * width, latent=width, decoded=2 * units, widths=(6,),
                 activation=ACTIVATIONS["tanh"])
        for width in latents[1:]
    ]  # fmt: skip
    return vae.VAE(
        pairs=(first, *upper), latents=latents, shape=shape, observation=model, **{**PLAIN, **more}
    )


IMAGES = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (6, 4, 4, 1)), jnp.float32)


def test_a_family_of_two_layers_on_a_grid_is_consistent():
    # test_every_family.py tests one and two layers without a grid.
    family = tiny((3, 2), (2, 2), importance_samples=4)
    variables = family.init(jax.random.key(0), {"x": IMAGES})
    keys, batch = keys_of(6), {"x": IMAGES}
    assert family.units == (12, 2)

    @jax.jit
    def everything(variables):
        def loss(params):
            values, aux = family.loss(params, context(IMAGES))
            return values.mean(), (values, aux.metrics)

        gradient, (losses, metrics) = jax.grad(loss, has_aux=True)(variables.params)
        encoded = family.encode(variables, batch, keys)
        copies = family.reconstruct(variables, batch, keys), family.decode(variables, encoded)
        likelihood = family.likelihood(variables, batch, keys)
        sample = family.sample(variables, keys, {})
        return gradient, losses, metrics, encoded, copies, likelihood, sample

    gradient, losses, metrics, encoded, copies, likelihood, sample = everything(variables)
    chex.assert_shape(losses, (6,))
    chex.assert_shape(metrics["kl_per_unit"], (6, sum(family.units)))
    np.testing.assert_allclose(losses, metrics["reconstruction"] + metrics["kl"], rtol=1e-5)
    chex.assert_shape(sample, (6, 4, 4, 1))
    chex.assert_shape(encoded, (6, 12))
    np.testing.assert_allclose(*copies, rtol=1e-6)
    np.testing.assert_allclose(sum(likelihood.terms.values()), likelihood.total, rtol=1e-5)
    chex.assert_tree_all_finite(gradient)


def test_two_layers_are_weighted_by_their_densities():
    # log w of one sample, term by term, by hand.
    family = tiny((3, 2))
    variables = family.init(jax.random.key(0), {"x": IMAGES})
    noise = [jax.random.normal(jax.random.key(i), (1, 6, d)) for i, d in enumerate((3, 2))]
    x = jnp.sign(IMAGES)
    seen = family._see(variables.params, x, noise)

    def net(layer, kind, value):
        part = getattr(family.pairs[layer], kind)
        return part.apply(variables.params[f"{kind}_{layer}"], value)

    def log_normal(z, mean, log_variance):
        return (-0.5 * (np.log(2 * np.pi) + log_variance
                        + (z - mean) ** 2 / np.exp(log_variance))).sum(-1)  # fmt: skip

    q0 = variational.diagonal(net(0, "encoder", (x + 1) / 2))
    z0 = q0.mean + np.exp(0.5 * q0.log_variance) * noise[0][0]
    q1 = variational.diagonal(net(1, "encoder", z0))
    z1 = q1.mean + np.exp(0.5 * q1.log_variance) * noise[1][0]
    p0 = variational.diagonal(net(1, "decoder", z1))
    logit = net(0, "decoder", z0)
    log_px = jnp.log(jax.nn.sigmoid(logit * x)).reshape(6, -1).sum(-1)
    expected = (
        log_px + log_normal(z0, *p0) + log_normal(z1, 0.0, np.zeros(2))
        - log_normal(z0, *q0) - log_normal(z1, *q1)
    )  # fmt: skip
    np.testing.assert_allclose(seen.log_weights[0], expected, rtol=1e-4)


def test_beta_warmup_and_free_bits_weigh_the_kl_alone():
    family = tiny()
    variables = family.init(jax.random.key(0), {"x": IMAGES})
    plain, aux = family.loss(variables.params, context(IMAGES))
    kl, reconstruction = aux.metrics["kl"], aux.metrics["reconstruction"]
    beta = replace(family, beta=4.0).loss(variables.params, context(IMAGES))[0]
    np.testing.assert_allclose(beta, reconstruction + 4 * kl, rtol=1e-5)
    warm = replace(family, warmup=variational.linear(10))
    at = replace(context(IMAGES), step=jnp.int32(3))
    np.testing.assert_allclose(
        warm.loss(variables.params, at)[0], reconstruction + 0.3 * kl, rtol=1e-5
    )
    floor = replace(family, free_bits=100.0).loss(variables.params, context(IMAGES))[0]
    np.testing.assert_allclose(floor, reconstruction + 300, rtol=1e-5)
    np.testing.assert_allclose(plain, reconstruction + kl, rtol=1e-5)


def measured(variance, kl=5.0):
    variance = np.asarray(variance, np.float64)
    return {
        "loss": np.float32(1), "kl": np.float32(kl), "unit_mean": np.ones_like(variance),
        "unit_square": 1 + variance, "kl_per_unit": np.full_like(variance, kl / len(variance)),
    }  # fmt: skip


def test_collapse_is_said_with_cause_and_remedies():
    family = tiny((40,))
    fine = family.report(measured([0.5] * 19 + [1e-4] * 21))
    assert fine.values["active_units"] == 19 and not fine.warnings
    assert len(fine.values["kl_per_unit"]) == 40
    dead = family.report(measured([0.5] + [1e-4] * 39, kl=0.02))
    assert dead.values["active_units"] == 1
    (warning,) = dead.warnings.values()
    for word in ("1 of 40", "0.02 nats", "family.beta", "family.warmup", "family.free_bits"):
        assert word in warning
    two = tiny((3, 2)).report(measured([1, 1, 0, 1, 0]))
    assert two.values["active_units"] == 2 and two.values["active_units_1"] == 1
    top = tiny((3, 2)).report(measured([1, 1, 1, 0, 0]))
    assert list(top.warnings) == ["collapse_1"] and "of layer 1" in top.warnings["collapse_1"]
    # A few active units of very many are not a collapse if they carry much information.
    assert not tiny((400,)).report(measured([1] * 10 + [0] * 390, kl=100.0)).warnings


def test_binarisation_is_new_in_every_step_and_the_same_for_one_key():
    family = tiny()
    keys = keys_of(6)
    one = family.observe({"x": IMAGES}, keys)
    assert set(np.unique(one)) <= {-1.0, 1.0}
    np.testing.assert_array_equal(one, family.observe({"x": IMAGES}, keys))
    assert (one != family.observe({"x": IMAGES}, keys_of(6, seed=1))).any()
    grey = replace(family, observation=observation.Gaussian())
    np.testing.assert_array_equal(grey.observe({"x": IMAGES}, keys), IMAGES)


def test_samples_are_means_or_draws_and_independent_of_the_batch():
    family = tiny((3, 2))
    variables = family.init(jax.random.key(0), {"x": IMAGES})
    keys = keys_of(6)
    means = family.sample(variables, keys, {})
    np.testing.assert_allclose(means[4:5], family.sample(variables, keys[4:5], {}), rtol=1e-5)
    draws = replace(family, noise=True).sample(variables, keys, {})
    assert set(np.unique(draws)) <= {-1.0, 1.0} and len(np.unique(means)) > 2


# --- documents ------------------------------------------------------------------------------------


def of_words(**more) -> vae.VAE:
    """Three words and one latent z: logits z (1, 0, -1), and a posterior that depends on x."""
    encoder = linear(lambda x: jnp.stack([0.4 * (x[:, 0] - x[:, 2]), -0.5 * x[:, 1]], -1))
    decoder = linear(lambda z: z * jnp.array([1.0, 0.0, -1.0]))
    return vae.VAE(
        pairs=(Pair(encoder=encoder, decoder=decoder, grid=()),), latents=(1,), shape=(3,),
        observation=counts.Multinomial(), **{**PLAIN, **more},
    )  # fmt: skip


X = np.array([[2, 1, 0], [0, 1, 3], [1, 0, 0]], np.float64)


def terms_by_quadrature():
    """E_q log p(x | z), KL and log p(x) of the three documents, on a fine grid of z."""
    z = np.linspace(-12, 12, 20_001)
    step = z[1] - z[0]
    logits = z[:, None] * np.array([1.0, 0.0, -1.0])
    log_p = X @ (logits - np.log(np.exp(logits).sum(-1, keepdims=True))).T  # [3, Z]
    seen = np.log1p(X)
    mean, log_variance = 0.4 * (seen[:, 0] - seen[:, 2]), -0.5 * seen[:, 1]
    log_q = -0.5 * ((z - mean[:, None]) ** 2 / np.exp(log_variance)[:, None]
                    + log_variance[:, None] + np.log(2 * np.pi))  # fmt: skip
    log_prior = -0.5 * (z**2 + np.log(2 * np.pi))
    q = np.exp(log_q) * step
    return (
        (q * log_p).sum(-1), (q * (log_q - log_prior)).sum(-1),
        np.log((np.exp(log_p + log_prior) * step).sum(-1)),
    )  # fmt: skip


def test_the_bound_of_documents_is_that_by_quadrature():
    fit, kl, evidence = terms_by_quadrature()
    count = 16_000
    batch = {"x": jnp.asarray(np.repeat(X, count, 0), jnp.float32)}
    likelihood = of_words().likelihood(NONE, batch, keys_of(3 * count))
    values = np.asarray(likelihood.terms["reconstruction"]).reshape(3, count)
    error = 5 * values.std(1) / count**0.5
    assert (np.abs(values.mean(1) + fit) < error).all() and error.max() < 0.1
    np.testing.assert_allclose(likelihood.terms["kl"].reshape(3, count)[:, 0], kl, rtol=1e-5)
    many = of_words(importance_samples=20_000)
    total = many.likelihood(NONE, {"x": batch["x"][::count]}, keys_of(3)).total
    np.testing.assert_allclose(total, -evidence, atol=0.02)
    assert likelihood.density and "perplexity" in likelihood.of


def test_the_perplexities_of_documents():
    family = of_words()
    batch = jnp.asarray(np.concatenate([X, np.zeros((1, 3))]), jnp.float32)
    losses, aux = family.loss(NONE.params, context(batch))
    losses = np.asarray(losses, np.float64)
    measured = {}
    for name, metric in aux.metrics.items():
        total, weight = weighted(metric)
        measured[name] = np.asarray(total) / float(weight)
    values = family.report(measured).values
    words = X.sum(1)
    assert values["words"] == pytest.approx(2.0)
    assert values["perplexity"] == pytest.approx(np.exp(losses.sum() / words.sum()), rel=1e-5)
    each = np.exp((losses[:3] / words).mean())
    assert values["perplexity_by_document"] == pytest.approx(each, rel=1e-5)
    assert "nats_per_word" not in values
