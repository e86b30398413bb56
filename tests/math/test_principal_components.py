"""The fit against NumPy's SVD, the Gaussian model against scipy and Bayes' rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from genzoo.math import pca

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(6, 6)) * np.array([3, 2, 1, 0.5, 0.3, 0.2])
DATA = RNG.normal(size=(200, 6)) @ MIXING.T + np.arange(6)


def moments(x, sizes):
    """The moments of x [N, D], taken in in batches of these sizes."""
    total = pca.Moments.none(x.shape[1])
    for batch in np.split(x, np.cumsum(sizes)):
        total = total.with_batch(batch)
    return total


def fitted(x, q):
    fit = pca.principal_components(moments(x, [100]), q)
    model = pca.Probabilistic(
        *map(jnp.asarray, fit[:3]), noise_variance=jnp.asarray(fit.noise_variance)
    )
    return fit, model


# --- moments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[], [1] * 199, [7, 93, 0, 64]])
def test_moments_by_batches_are_numpys(sizes):
    actual = moments(DATA, sizes)
    assert actual.count == 200
    np.testing.assert_allclose(actual.mean, DATA.mean(0), rtol=1e-12)
    np.testing.assert_allclose(actual.covariance, np.cov(DATA.T, bias=True), rtol=1e-11)


def test_moments_merge():
    parts = [moments(x, [5]) for x in np.split(DATA, [20, 150])]
    none = pca.Moments.none(6)
    for actual in (
        parts[0].merged(parts[1]).merged(parts[2]),
        none.merged(parts[2]).merged(none).merged(parts[0].merged(parts[1])),
    ):
        assert actual.count == 200
        np.testing.assert_allclose(actual.mean, DATA.mean(0), rtol=1e-12)
        np.testing.assert_allclose(actual.covariance, np.cov(DATA.T, bias=True), rtol=1e-11)
    assert none.merged(none).count == 0


def test_moments_far_from_zero_lose_nothing():
    # The mean of squares less the square of the mean would leave no digit: 1e8^2 eps is 2.
    actual = moments(DATA + 1e8, [3, 40, 41])
    # A mean of 1e8 is rounded by 1.5e-8, and so are the data.
    np.testing.assert_allclose(actual.covariance, np.cov(DATA.T, bias=True), atol=1e-6)


def test_moments_take_float32_and_keep_float64():
    x = DATA.astype(np.float32)
    actual = moments(x, [90])
    assert actual.scatter.dtype == np.float64
    np.testing.assert_allclose(actual.covariance, np.cov(x.T, bias=True, dtype=float), rtol=1e-11)


# --- components -------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 3, 6])
def test_components_are_those_of_the_svd(q):
    actual = pca.principal_components(moments(DATA, [64, 64]), q)
    _, singular, right = np.linalg.svd(DATA - DATA.mean(0), full_matrices=False)
    expected = right[:q].T
    expected *= np.sign(expected[np.abs(expected).argmax(0), np.arange(q)])
    np.testing.assert_allclose(actual.components, expected, atol=1e-10)
    np.testing.assert_allclose(actual.variances, singular[:q] ** 2 / 200, rtol=1e-10)
    assert actual.total_variance == pytest.approx(DATA.var(0).sum(), rel=1e-12)
    assert actual.rank == 6


def test_constant_values_and_copies_do_not_count_as_directions():
    x = np.concatenate([DATA, np.full((200, 3), -1.0), DATA[:, :2]], axis=1).astype(np.float32)
    actual = pca.principal_components(moments(x, [50]), 2)
    assert actual.rank == 6
    np.testing.assert_allclose(actual.components[6:9], 0, atol=1e-12)
    few = pca.principal_components(moments(x[:4], []), 2)
    assert few.rank == 3
    assert pca.principal_components(moments(x[:1], []), 2).rank == 0
    assert pca.principal_components(pca.Moments.none(5), 2).rank == 0


# --- probabilistic PCA ------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 2, 5])
def test_the_likelihood_is_scipys(compiled, float64, q):
    actual, model = fitted(DATA, q)
    values = np.linalg.eigvalsh(np.cov(DATA.T, bias=True))[::-1]
    assert actual.noise_variance == pytest.approx(values[q:].mean(), rel=1e-10)
    loadings = np.asarray(model.mean_given(jnp.eye(q)) - model.mean).T
    covariance = loadings @ loadings.T + actual.noise_variance * np.eye(6)
    # The model has the data's variance along the kept directions, and their mean elsewhere.
    np.testing.assert_allclose(
        np.linalg.eigvalsh(covariance)[::-1], [*values[:q], *[values[q:].mean()] * (6 - q)]
    )
    expected = -multivariate_normal(DATA.mean(0), covariance).logpdf(DATA)
    fit, volume = compiled(model.negative_log_likelihood)(jnp.asarray(DATA))
    np.testing.assert_allclose(fit + volume, expected, rtol=1e-10)
    assert float(volume) == pytest.approx(np.linalg.slogdet(2 * np.pi * covariance)[1] / 2)
    # At the maximum the Mahalanobis distances average to the number of dimensions.
    assert float(fit.mean()) == pytest.approx(6 / 2, rel=1e-10)


def test_the_likelihood_of_data_with_known_eigenvalues(float64):
    # Eigenvalues (5, 3, 1, .5, .2), q = 2: -1/2 (5 ln 2 pi + ln 15 + 3 ln .5666.. + 5).
    x = np.sqrt(5 * np.array([5, 3, 1, 0.5, 0.2])) * np.concatenate([np.eye(5), -np.eye(5)])
    actual, model = fitted(x, 2)
    assert actual.noise_variance == pytest.approx(0.5666666667, abs=1e-10)
    mean = -sum(map(np.mean, model.negative_log_likelihood(jnp.asarray(x))))
    assert mean == pytest.approx(-7.5967417102, abs=1e-9)


def test_no_small_change_is_more_likely(float64):
    _, model = fitted(DATA, 2)

    @jax.jit
    @jax.grad
    def slope(changed):
        changed = model._replace(**changed)
        return sum(v.mean() for v in changed.negative_log_likelihood(jnp.asarray(DATA)))

    free = ("mean", "variances", "noise_variance")
    for value in slope({name: getattr(model, name) for name in free}).values():
        np.testing.assert_allclose(value, 0, atol=1e-9)


def test_the_posterior_is_bayes_rule(compiled, float64):
    actual, model = fitted(DATA, 3)
    w = np.asarray(model.mean_given(jnp.eye(3)) - model.mean).T
    inverse = np.linalg.inv(w.T @ w + actual.noise_variance * np.eye(3))
    mean, variances = compiled(model.posterior)(jnp.asarray(DATA))
    np.testing.assert_allclose(mean, (DATA - DATA.mean(0)) @ w @ inverse, atol=1e-10)
    np.testing.assert_allclose(np.diag(variances), actual.noise_variance * inverse, atol=1e-10)


def test_the_projection_is_the_nearest_point(compiled, float64):
    _, model = fitted(DATA, 2)
    x = jnp.asarray(DATA)
    projected = compiled(lambda x: model.from_coefficients(model.coefficients(x)))(x)
    rest = DATA - np.asarray(projected)
    np.testing.assert_allclose(rest @ model.components, 0, atol=1e-10)
    again = model.from_coefficients(model.coefficients(projected))
    np.testing.assert_allclose(again, projected, atol=1e-10)


def test_samples_have_the_models_covariance(compiled, float64):
    _, model = fitted(DATA, 2)
    # Sigma points of (z, noise): their mean and covariance are those of the standard normal.
    points = np.sqrt(8) * np.concatenate([np.eye(8), -np.eye(8)])
    x = compiled(model.sample)(jnp.asarray(points[:, :2]), jnp.asarray(points[:, 2:]))
    w = np.asarray(model.mean_given(jnp.eye(2)) - model.mean).T
    np.testing.assert_allclose(np.mean(x, 0), model.mean, atol=1e-12)
    np.testing.assert_allclose(
        np.cov(np.asarray(x).T, bias=True), w @ w.T + float(model.noise_variance) * np.eye(6)
    )


def test_a_cifar_sized_likelihood_needs_no_matrix_of_its_size():
    # D = 3072, q = 8, in float32, against the q x q form of Woodbury in float64.
    rng, d, q = np.random.default_rng(1), 3072, 8
    u = np.linalg.qr(rng.normal(size=(d, q)))[0]
    variances, noise = np.geomspace(300, 2, q), 0.01
    x = (rng.normal(size=(5, q)) * np.sqrt(variances)) @ u.T + 0.1 * rng.normal(size=(5, d))
    w = u * np.sqrt(variances - noise)
    m = w.T @ w + noise * np.eye(q)
    inside = np.einsum("bi,ij,bj->b", x @ w, np.linalg.inv(m), x @ w)
    log_det = np.linalg.slogdet(m)[1] + (d - q) * np.log(noise)
    expected = ((x**2).sum(1) - inside) / noise / 2 + (log_det + d * np.log(2 * np.pi)) / 2
    model = pca.Probabilistic(
        *(jnp.asarray(v, jnp.float32) for v in (np.zeros(d), u, variances, noise))
    )
    x = jnp.asarray(x, jnp.float32)
    fit, volume = jax.jit(model.negative_log_likelihood)(x)
    np.testing.assert_allclose(fit + volume, expected, rtol=1e-5)
    sizes = [v.aval.size for e in jax.make_jaxpr(model.negative_log_likelihood)(x).jaxpr.eqns
             for v in e.outvars]  # fmt: skip
    assert max(sizes) <= d * q
