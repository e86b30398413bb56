"""The autoencoder against PCA, which a linear one must recover, and against its definition."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genzoo.core import contract, streams
from genzoo.core.contract import Context, Variables
from genzoo.families.autoencoder import Autoencoder
from genzoo.math.corruption import GaussianNoise, Masking, Nothing

SHAPE, Q = (3, 2, 1), 2
RNG = np.random.default_rng(0)
AXES = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
EIGENVALUES = np.array([2.0, 1.0, 0.3, 0.2, 0.1, 0.05])
# Two points on each axis: the covariance has exactly these eigenvalues, and the mean is 0.
X = np.concatenate([side * np.sqrt(6 * EIGENVALUES) * AXES for side in (1, -1)], axis=1).T
BATCH = {"x": jnp.asarray(X.reshape(-1, *SHAPE), jnp.float32)}
KEYS = streams.per_example(jax.random.key(5), jnp.arange(12))


@dataclass(frozen=True)
class Linear:
    """x [B, ...] -> [B, *out] by one matrix; records how it was called."""

    out: tuple[int, ...]
    calls: list = field(default_factory=list)

    def init(self, key, x):
        shape = (x[0].size, int(np.prod(self.out)))
        return {"matrix": 0.3 * jax.random.normal(key, shape)}

    def apply(self, params, x, *, train=False, key=None):
        self.calls.append((train, key))
        return (x.reshape(len(x), -1) @ params["matrix"]).reshape(-1, *self.out)


@dataclass(frozen=True)
class Pair:
    encoder: Linear
    decoder: Linear
    grid: tuple[int, ...]


def make(corruption=None, grid=()):
    pair = Pair(Linear((*grid, Q)), Linear(SHAPE), grid)
    return Autoencoder(pair=pair, latent=Q, shape=SHAPE, corruption=corruption or Nothing())


def context(batch=BATCH, seed=0, train=True):
    return Context(
        batch=batch, key=jax.random.key(seed), step=jnp.int32(0), stats={}, train=train
    )


def matrices(variables):
    return (np.asarray(variables.params[name]["matrix"]) for name in ("encoder", "decoder"))


def trained(family, steps, rate):
    """Params after Adam on the mean of the loss."""
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))
    mean_loss = lambda params, ctx: family.loss(params, ctx)[0].mean()  # noqa: E731

    def step(carry, seed):
        params, state = carry
        ctx = Context(batch=BATCH, key=jax.random.key(seed), step=seed, stats={})
        updates, state = adam.update(jax.grad(mean_loss)(params, ctx), state)
        return (optax.apply_updates(params, updates), state), None

    params = family.init(jax.random.key(0), BATCH).params
    run = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps))[0][0])
    return run((params, adam.init(params)))


def test_its_capabilities():
    assert contract.capabilities(make()) == ("reconstruct", "encode", "decode")
    assert isinstance(make(), contract.Observes)


def test_a_linear_autoencoder_finds_the_plane_of_pca():
    family = make()
    params = trained(family, 1500, 0.03)
    decoder = np.asarray(params["decoder"]["matrix"], np.float64).T
    basis = np.linalg.qr(decoder)[0]
    cosines = np.linalg.svd(basis.T @ AXES[:, :Q])[1]
    assert np.arccos(np.clip(cosines.min(), -1, 1)) < 1e-3
    # It loses the variance of the other directions.
    values, _ = family.loss(params, context(train=False))
    assert float(values.mean()) == pytest.approx(EIGENVALUES[Q:].sum() / 6, rel=1e-4)


def test_a_denoising_linear_autoencoder_shrinks_by_the_wiener_factor():
    # Of x + noise of variance s^2 the best linear guess keeps lambda / (lambda + s^2) of each
    # direction. The noise is drawn: the expectation is reached to its statistical error.
    std = 0.6
    params = trained(make(GaussianNoise(amount=std)), 4000, 0.02)
    through = np.asarray(params["encoder"]["matrix"] @ params["decoder"]["matrix"], np.float64)
    gains = np.diag(AXES.T @ through @ AXES)
    expected = np.where(np.arange(6) < Q, EIGENVALUES / (EIGENVALUES + std**2), 0)
    np.testing.assert_allclose(gains, expected, atol=0.04)
    assert gains[1] < 0.85


def test_the_loss_is_its_definition(compiled):
    family = make(Masking(amount=0.5))
    variables = family.init(jax.random.key(0), BATCH)
    values, aux = compiled(family.losses["model"].loss)(variables.params, context(seed=3))
    keys = streams.per_example(streams.named(jax.random.key(3), "corruption"), jnp.arange(12))
    shown = np.asarray(family.observe(BATCH, keys)).reshape(12, 6)
    assert np.all((shown == -1).sum(1) == 3)
    encoder, decoder = matrices(variables)
    expected = np.mean((X - shown @ encoder @ decoder) ** 2, axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_array_equal(values, aux.metrics["loss"])
    # The corruption defines the task, so it is applied in evaluation as well.
    evaluated, _ = jax.jit(family.loss)(variables.params, context(seed=3, train=False))
    np.testing.assert_allclose(evaluated, values, rtol=1e-5)


def test_dropout_is_on_in_training_alone_with_a_key_for_each_network():
    family = make()
    params = family.init(jax.random.key(0), BATCH).params
    calls = [family.pair.encoder.calls, family.pair.decoder.calls]
    for noted in calls:
        noted.clear()
    family.loss(params, context(train=False))
    assert [noted.pop() for noted in calls] == [(False, None)] * 2
    family.loss(params, context())
    (train_a, key_a), (train_b, key_b) = (noted.pop() for noted in calls)
    assert train_a
    assert train_b
    own = {tuple(np.asarray(jax.random.key_data(k))) for k in (key_a, key_b, jax.random.key(0))}
    assert len(own) == 3


@pytest.mark.parametrize("grid", [(), (3,), (2, 2)])
def test_reconstruction_is_decode_of_encode(grid):
    family = make(grid=grid)
    variables = family.init(jax.random.key(0), BATCH)
    codes = jax.jit(family.encode)(variables, BATCH, KEYS)
    assert codes.shape == (12, Q * int(np.prod(grid)))
    encoder, decoder = matrices(variables)
    np.testing.assert_allclose(codes, X @ encoder, atol=1e-5)
    decoded = jax.jit(family.decode)(variables, codes)
    assert decoded.shape == (12, *SHAPE)
    np.testing.assert_allclose(decoded.reshape(12, 6), X @ encoder @ decoder, atol=1e-5)
    out = jax.jit(family.reconstruct)(variables, BATCH, KEYS)
    np.testing.assert_allclose(out, decoded, atol=1e-6)


def test_reconstruction_is_of_what_is_observed_and_codes_are_of_clean_data():
    family = make(Masking(amount=0.5))
    variables = Variables(params=family.init(jax.random.key(0), BATCH).params)
    shown = np.asarray(family.observe(BATCH, KEYS)).reshape(12, 6)
    encoder, decoder = matrices(variables)
    out = family.reconstruct(variables, BATCH, KEYS)
    np.testing.assert_allclose(out.reshape(12, 6), shown @ encoder @ decoder, atol=1e-5)
    np.testing.assert_allclose(family.encode(variables, BATCH, KEYS), X @ encoder, atol=1e-5)
    # It depends on the keys of the rows alone.
    alone = family.reconstruct(variables, {"x": BATCH["x"][4:5]}, KEYS[4:5])
    np.testing.assert_allclose(alone[0], out[4], atol=1e-6)
