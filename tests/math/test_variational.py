"""Variational terms against closed forms and Monte Carlo, and the linear VAE.

Every quantity of the linear VAE is known: it is probabilistic PCA (Tipping & Bishop 1999; Lucas et
al. 2019).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import multivariate_normal, norm

from genzoo.math import variational
from genzoo.math.observation import Gaussian
from genzoo.math.variational import Diagonal

# --- the linear VAE ---------------------------------------------------------------------------
# Data whose covariance has these eigenvalues, exactly: two points on each axis. The model keeps
# q = 2 directions; sigma^2 is the mean of the other three eigenvalues.
EIGENVALUES = np.array([5.0, 3.0, 1.0, 0.5, 0.2])
Q = 2
NOISE = 1.7 / 3
AXES = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
DATA = np.concatenate([side * np.sqrt(5 * EIGENVALUES) * AXES for side in (1, -1)], axis=1).T
LOG_LIKELIHOOD = -7.5967417102
KL = 1.9220091382
RECONSTRUCTION = -5.6747325720

W = AXES[:, :Q] * np.sqrt(EIGENVALUES[:Q] - NOISE)
SHRINK = np.sqrt(EIGENVALUES[:Q] - NOISE) / EIGENVALUES[:Q]
POSTERIOR = Diagonal(DATA @ AXES[:, :Q] * SHRINK, np.log(NOISE / EIGENVALUES[:Q] + 0 * DATA[:, :Q]))


def sigma_points(q):
    """Points [2 q, q] whose average of any function of degree up to 3 is its mean under N(0, I)."""
    return np.sqrt(q) * np.concatenate([np.eye(q), -np.eye(q)])


def log_p_x_given_z(z, decoder, x, noise=NOISE):
    """log p(x | z) [..., B] in nats, summed over the values of x."""
    return Gaussian(std=np.sqrt(noise)).log_prob({}, z @ decoder.T, x).sum(-1)


def test_the_data_have_these_eigenvalues():
    covariance = DATA.T @ DATA / len(DATA)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[::-1], EIGENVALUES, rtol=1e-12)
    model = multivariate_normal(np.zeros(5), W @ W.T + NOISE * np.eye(5))
    assert model.logpdf(DATA).mean() == pytest.approx(LOG_LIKELIHOOD, abs=1e-9)


def test_the_bound_of_the_exact_posterior_is_the_log_likelihood(compiled, float64):
    def terms(x, q):
        kl = variational.standard_kl(q).sum(-1)
        z = variational.reparameterise(q, sigma_points(Q)[:, None])
        return log_p_x_given_z(z, W, x).mean(0), kl

    reconstruction, kl = compiled(terms)(DATA, Diagonal(*map(jnp.asarray, POSTERIOR)))
    assert float(kl.mean()) == pytest.approx(KL, abs=1e-9)
    assert float(reconstruction.mean()) == pytest.approx(RECONSTRUCTION, abs=1e-9)
    model = multivariate_normal(np.zeros(5), W @ W.T + NOISE * np.eye(5))
    np.testing.assert_allclose(reconstruction - kl, model.logpdf(DATA), rtol=1e-11)
    assert float((reconstruction - kl).mean()) == pytest.approx(LOG_LIKELIHOOD, abs=1e-9)


def log_weights(q, x, noise):
    """Log weights [K, B] for noise [K, B, D]."""
    z = variational.reparameterise(q, noise)
    prior = Diagonal(jnp.zeros(()), jnp.zeros(()))
    return log_p_x_given_z(z, W, x) - variational.log_ratio(z, q, prior).sum(-1)


def test_every_weight_of_the_exact_posterior_is_the_likelihood(compiled, float64):
    noise = np.random.default_rng(1).normal(size=(7, *DATA[:, :Q].shape))
    actual = compiled(log_weights)(Diagonal(*map(jnp.asarray, POSTERIOR)), DATA, noise)
    model = multivariate_normal(np.zeros(5), W @ W.T + NOISE * np.eye(5))
    expected = np.broadcast_to(model.logpdf(DATA), actual.shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-11)


def test_the_importance_weighted_bound_climbs_to_the_likelihood():
    # A posterior that is shifted and too wide, on one example.
    x = DATA[:1]
    wrong = Diagonal(POSTERIOR.mean[:1] + np.array([0.3, -0.4]), POSTERIOR.log_variance[:1] + 0.8)
    log_p = multivariate_normal(np.zeros(5), W @ W.T + NOISE * np.eye(5)).logpdf(x[0])
    means, errors = [], []
    for k in (1, 2, 8, 64, 512):
        count = 400_000 // k
        noise = np.random.default_rng(k).normal(size=(k, count, Q))
        bound = jax.jit(lambda n: variational.log_mean_exp(log_weights(wrong, x, n)))(
            jnp.asarray(noise, jnp.float32)
        )
        bound = np.asarray(bound, np.float64)
        means.append(bound.mean())
        errors.append(bound.std() / np.sqrt(count))
    # log p - E log p(x | z) + KL of the wrong posterior is its KL from the right one.
    right = Diagonal(POSTERIOR.mean[:1], POSTERIOR.log_variance[:1])
    gap = 0.5 * (
        right.log_variance - wrong.log_variance - 1
        + np.exp(wrong.log_variance - right.log_variance)
        + (wrong.mean - right.mean) ** 2 / np.exp(right.log_variance)
    ).sum()  # fmt: skip
    assert gap > 0.8
    assert abs(means[0] - (log_p - gap)) < 4.5 * errors[0]
    steps, error_of_step = np.diff(means), np.hypot(errors[:-1], errors[1:])
    assert np.all(steps > 3 * error_of_step)
    assert np.all(np.array(means) < log_p + 3 * np.array(errors))
    assert means[-1] == pytest.approx(log_p, abs=0.005)


@pytest.mark.parametrize(("beta", "kept"), [(1.0, 3), (2.0, 2), (4.0, 2)])
def test_a_beta_vae_keeps_the_directions_above_beta_sigma_squared(float64, beta, kept):
    # Five latents, exact expectations over data and noise, gradient descent by Adam.
    rng = np.random.default_rng(2)
    start = {
        "encoder": jnp.asarray(0.3 * rng.normal(size=(5, 5))),
        "log_variance": jnp.zeros(5),
        "decoder": jnp.asarray(0.3 * rng.normal(size=(5, 5))),
    }
    points = sigma_points(5)[:, None]

    def posterior(params):
        mean = DATA @ params["encoder"]
        return Diagonal(mean, jnp.broadcast_to(params["log_variance"], mean.shape))

    def loss(params):
        q = posterior(params)
        z = variational.reparameterise(q, points)
        fit = log_p_x_given_z(z, params["decoder"], DATA).mean()
        return beta * variational.standard_kl(q).sum(-1).mean() - fit

    steps = 3000
    adam = optax.adam(optax.cosine_decay_schedule(0.03, steps))

    def step(carry, _):
        params, state = carry
        updates, state = adam.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda c: jax.lax.scan(step, c, None, steps)[0])
    params, _ = run((start, adam.init(start)))
    active = np.var(posterior(params).mean, axis=0) > variational.ACTIVE
    assert active.sum() == kept
    assert kept == (beta * NOISE < EIGENVALUES).sum()
    # W W^T has the eigenvectors of the data, and lambda - beta sigma^2 where that is positive.
    actual = params["decoder"] @ params["decoder"].T
    expected = AXES * np.maximum(EIGENVALUES - beta * NOISE, 0) @ AXES.T
    np.testing.assert_allclose(actual, expected, atol=0.01)
    # The variance of an active posterior is beta sigma^2 / lambda; an idle one is the prior's.
    variances = np.sort(np.exp(params["log_variance"]))
    best = np.sort(np.minimum(beta * NOISE / EIGENVALUES, 1))
    np.testing.assert_allclose(variances, best, atol=0.01)


# --- the terms --------------------------------------------------------------------------------

Q_CASES = Diagonal(np.array([[0.0, 1.3, -2.0, 0.4]]), np.array([[0.0, -2.0, 0.7, 3.0]]))


def test_kl_is_monte_carlo():
    noise = np.random.default_rng(3).normal(size=(200_000, 4))

    @jax.jit
    def ratio_of(noise):
        z = variational.reparameterise(Q_CASES, noise)
        return variational.log_ratio(z, Q_CASES, Diagonal(jnp.zeros(4), jnp.zeros(4)))

    ratio = ratio_of(jnp.asarray(noise, jnp.float32))
    kl = np.asarray(variational.standard_kl(Q_CASES))[0]
    ratio = np.asarray(ratio, np.float64)
    error = ratio.std(0) / np.sqrt(len(noise))
    assert np.all(np.abs(ratio.mean(0) - kl) < 4 * error + 1e-6)


def test_kl_is_the_formula_of_kingma(compiled, float64):
    mean, log_variance = Q_CASES
    expected = -0.5 * (1 + log_variance - mean**2 - np.exp(log_variance))
    np.testing.assert_allclose(compiled(variational.standard_kl)(Q_CASES), expected, atol=1e-14)


def test_log_ratio_is_scipys(compiled, float64):
    z = np.array([[0.3, -1.0, 0.5, 2.0]])
    p = Diagonal(np.array([0.2, 0.1, -1.0, 0.0]), np.array([0.3, 0.0, -1.0, 1.0]))
    expected = norm.logpdf(z, Q_CASES.mean, np.exp(Q_CASES.log_variance / 2)) - norm.logpdf(
        z, p.mean, np.exp(p.log_variance / 2)
    )
    np.testing.assert_allclose(compiled(variational.log_ratio)(z, Q_CASES, p), expected, rtol=1e-12)


def test_the_reparameterised_gradient(compiled, float64):
    # E[z^2] = mean^2 + variance, of degree 2: exact over the sigma points.
    def second_moment(q):
        return (variational.reparameterise(q, sigma_points(4)[:, None]) ** 2).mean(0).sum()

    slope = compiled(jax.grad(second_moment))(Diagonal(*map(jnp.asarray, Q_CASES)))
    np.testing.assert_allclose(slope.mean, 2 * Q_CASES.mean, atol=1e-13)
    np.testing.assert_allclose(slope.log_variance, np.exp(Q_CASES.log_variance), rtol=1e-13)


def test_a_networks_output_is_a_gaussian_with_a_bounded_variance(compiled):
    out = jnp.asarray([[1.0, -2.0, 3.0, 0.5, -1e6, 1e6]])
    q = compiled(variational.diagonal)(out)
    np.testing.assert_array_equal(q.mean, [[1, -2, 3]])
    np.testing.assert_allclose(q.log_variance, [[0.5, -14, 14]], atol=1e-5)
    assert np.all(np.isfinite(variational.standard_kl(q)))


# --- bounds -----------------------------------------------------------------------------------


def test_log_mean_exp_is_the_naive_one(compiled, float64):
    x = np.random.default_rng(4).normal(size=(9, 3))
    run = compiled(variational.log_mean_exp)
    np.testing.assert_allclose(run(x), np.log(np.mean(np.exp(x), 0)), rtol=1e-13)
    # Where exp leaves the range of floats.
    np.testing.assert_allclose(run(x - 2000), np.log(np.mean(np.exp(x), 0)) - 2000, rtol=1e-13)
    along = compiled(lambda x: variational.log_mean_exp(x, axis=1))(x)
    np.testing.assert_allclose(along, np.log(np.mean(np.exp(x), 1)), rtol=1e-12)


@pytest.mark.parametrize("offset", [0.0, -3000.0])
def test_streamed_is_unstreamed_with_its_gradient(compiled, float64, offset):
    rng = np.random.default_rng(5)
    noise, values = rng.normal(size=(4, 6, 3)), rng.normal(size=(4, 3, 2))
    scale = jnp.asarray([0.5, 2.0, 30.0])

    def streamed(scale):
        def chunk(index):
            return offset + scale * jnp.asarray(noise)[index], {"z": jnp.asarray(values)[index]}

        return variational.streamed_log_mean_exp(chunk, 4)

    def whole(scale):
        return variational.log_mean_exp(offset + scale * noise.reshape(24, 3))

    actual, mean = compiled(streamed)(scale)
    np.testing.assert_allclose(actual, whole(scale), rtol=1e-12)
    np.testing.assert_allclose(mean["z"], values.mean(0), rtol=1e-12)
    slope = jax.jit(jax.grad(lambda s: streamed(s)[0].sum()))(scale)
    expected = jax.jit(jax.grad(lambda s: whole(s).sum()))(scale)
    # An exponent of 3000 is rounded by 5e-13.
    np.testing.assert_allclose(slope, expected, rtol=1e-11)


# --- what is done to the KL -------------------------------------------------------------------


def test_free_bits_have_no_gradient_below_the_floor(compiled, float64):
    kl = jnp.asarray([[0.1, 0.9, 0.0], [0.2, 0.3, 1.2]])  # means 0.15, 0.6, 0.6
    total = compiled(jax.value_and_grad(lambda kl: variational.free_bits(kl, 0.5).mean(0).sum()))
    value, slope = total(kl)
    assert float(value) == pytest.approx(0.5 + 0.6 + 0.6, abs=1e-14)
    np.testing.assert_array_equal(slope[:, 0], 0)
    np.testing.assert_allclose(slope[:, 1:], 0.5, rtol=1e-14)


@pytest.mark.parametrize("filling", [0.0, 9.0, jnp.nan])
def test_free_bits_leave_the_padding_out_of_the_mean(compiled, float64, filling):
    kl = jnp.asarray([[0.1, 0.9, 0.0], [0.2, 0.3, 1.2]])
    padded = jnp.concatenate([kl, jnp.full((3, 3), filling)])
    mask = jnp.asarray([1.0, 1.0, 0.0, 0.0, 0.0])
    found = compiled(lambda kl, mask: variational.free_bits(kl, 0.5, mask))(padded, mask)
    np.testing.assert_array_equal(found[:2], variational.free_bits(kl, 0.5))


def test_no_free_bits_are_the_kl(compiled):
    kl = jnp.asarray([[0.1, 0.9], [0.2, 0.3]])
    np.testing.assert_array_equal(compiled(lambda kl: variational.free_bits(kl, 0.0))(kl), kl)


@pytest.mark.parametrize(
    ("warmup", "at"),
    [
        (variational.constant(), {0: 1, 7: 1}),
        (variational.linear(10), {0: 0, 1: 0.1, 5: 0.5, 10: 1, 11: 1, 1000: 1}),
        (variational.cyclical(10), {0: 0, 1: 0.2, 4: 0.8, 5: 1, 9: 1, 10: 0, 12: 0.4, 37: 1}),
        (variational.cyclical(100, share=0.25), {0: 0, 10: 0.4, 25: 1, 99: 1, 105: 0.2}),
    ],
)
def test_warmups_by_hand(compiled, warmup, at):
    run = compiled(warmup)
    for step, expected in at.items():
        assert float(run(jnp.int32(step))) == pytest.approx(expected, abs=1e-6)
