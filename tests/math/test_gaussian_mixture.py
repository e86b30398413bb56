"""The exact mixture against scipy, quadrature, automatic differentiation and its own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, few
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from genzoo.core.errors import UserError
from genzoo.math import continuous, gaussian_mixture, schedules

VP, SUB_VP = continuous.VariancePreserving(), continuous.SubVariancePreserving()
PLANE = gaussian_mixture.GaussianMixture(
    weights=np.array([0.2, 0.5, 0.3]),
    means=np.array([[-1.0, 0.5], [0.8, 0.0], [0.1, -1.2]]),
    deviations=np.array([0.1, 0.3, 0.05]),
)
LINE = gaussian_mixture.GaussianMixture(
    weights=np.array([0.3, 0.7]),
    means=np.array([[-1.0], [0.5]]),
    deviations=np.array([0.3, 0.2]),
)
SCALES = [(1.0, 0.0), (0.9, 0.2), (0.3, 0.95), (0.0, 1.0), (1.0, 50.0)]
SCHEDULES = pytest.mark.parametrize(
    "schedule",
    few([continuous.Straight(), schedules.linear(100), VP, continuous.VarianceExploding()], 2),
    ids=lambda s: type(s).__name__,
)


def points(count, dimensions, spread=1.0):
    rng = np.random.default_rng(0)
    return jnp.asarray(spread * rng.normal(size=(count, dimensions)))


def test_density_is_scipys(compiled, float64):
    log_density = compiled(PLANE.log_density)
    for alpha, sigma in SCALES:
        x = points(20, 2, spread=1 + sigma)
        parts = [
            w * multivariate_normal(alpha * m, (alpha**2 * d**2 + sigma**2) * np.eye(2)).pdf(x)
            for w, m, d in zip(PLANE.weights, PLANE.means, PLANE.deviations, strict=True)
        ]
        expected = np.log(np.sum(parts, axis=0))
        np.testing.assert_allclose(log_density(x, alpha, sigma), expected, rtol=1e-11)


def test_score_is_the_gradient_of_the_density(compiled, float64):
    score = compiled(PLANE.score)
    gradient = jax.jit(jax.grad(lambda x, *scales: PLANE.log_density(x, *scales).sum()))
    for alpha, sigma in SCALES:
        x = points(20, 2, spread=1 + sigma)
        expected = gradient(x, alpha, sigma)
        np.testing.assert_allclose(score(x, alpha, sigma), expected, rtol=1e-11, atol=1e-12)


def test_the_posterior_mean_is_the_integral(compiled, float64):
    def data(x_0):
        parts = zip(LINE.weights, LINE.means[:, 0], LINE.deviations, strict=True)
        return sum(w * norm.pdf(x_0, m, d) for w, m, d in parts)

    def moment(power, x, alpha, sigma):
        def integrand(v):
            return v**power * data(v) * norm.pdf(x, alpha * v, sigma)

        return quad(integrand, -4, 4, epsabs=1e-13, points=[-1, 0.5])[0]

    mean = compiled(LINE.posterior_mean)
    x_t = np.array([-1.5, -0.2, 0.6])
    for scales in SCALES[1:4]:
        expected = [moment(1, x, *scales) / moment(0, x, *scales) for x in x_t]
        actual = mean(jnp.asarray(x_t[:, None]), *scales)[:, 0]
        np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_tweedie(compiled, float64):
    # x_t = alpha E[x_0] - sigma^2 score (Robbins 1956), at sigma = 0 too.
    posterior_mean, score = compiled(PLANE.posterior_mean), compiled(PLANE.score)
    for alpha, sigma in SCALES:
        x = points(20, 2, spread=1 + sigma)
        again = alpha * posterior_mean(x, alpha, sigma) - sigma**2 * score(x, alpha, sigma)
        np.testing.assert_allclose(again, x, rtol=1e-10, atol=1e-11)


@SCHEDULES
def test_the_predictor_is_consistent_for_one_time_and_for_many(compiled, float64, schedule):
    x, t = points(4, 2), jnp.asarray([0.02, 0.3, 0.504, 0.97])
    predict = compiled(PLANE.predict(schedule))
    pair = predict(x, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    again = alpha[:, None] * pair.x_0 + sigma[:, None] * pair.eps
    np.testing.assert_allclose(again, x, atol=1e-11)
    np.testing.assert_allclose(pair.x_0, PLANE.posterior_mean(x, alpha, sigma), rtol=1e-11)
    for i in range(4):
        single = predict(x, t[i])
        for one, batch in zip(single, pair, strict=True):
            np.testing.assert_allclose(one[i], batch[i], rtol=1e-11, atol=1e-13)


@SCHEDULES
def test_one_dimension_is_the_tests_own_mixture(compiled, float64, schedule):
    x, t = points(9, 1), jnp.asarray(0.37)
    expected = jax.jit(Mixture().predictor(schedule))(x, t)
    actual = compiled(LINE.predict(schedule))(x, t)
    np.testing.assert_allclose(actual.x_0, expected.x_0, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(actual.eps, expected.eps, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("schedule", few([SUB_VP, VP]), ids=["sub-vp", "vp"])
def test_the_density_obeys_the_fokker_planck_equation(float64, schedule):
    # dp/dt = -div(f x p) + g^2 / 2 laplace p, which ties the mixture to a schedule's SDE.
    def density(x, t):
        return jnp.exp(PLANE.log_density(x[None], schedule.alpha(t), schedule.sigma(t))[0])

    def both_sides(x, t):
        flux = jnp.trace(jax.jacfwd(lambda x: schedule.drift_rate(t) * x * density(x, t))(x))
        spread = jnp.trace(jax.hessian(density)(x, t))
        right = -flux + schedule.diffusion_square(t) / 2 * spread
        return jax.jacfwd(density, argnums=1)(x, t), right

    t = jnp.asarray([0.1, 0.2, 0.4, 0.6, 0.9])
    left, right = jax.jit(jax.vmap(both_sides))(points(5, 2), t)
    assert np.abs(left).max() > 0.1
    np.testing.assert_allclose(left, right, rtol=1e-8, atol=1e-10)


def test_samples_have_the_moments_and_the_components(compiled):
    x = np.asarray(compiled(lambda key: PLANE.sample(key, 20_000))(jax.random.key(0)))
    assert x.dtype == np.float32
    # Four standard errors of a mean are 4 x 0.75 / sqrt(20000) = 0.021.
    np.testing.assert_allclose(x.mean(axis=0), PLANE.mean, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), PLANE.covariance, atol=0.02)
    near = np.linalg.norm(x - PLANE.means[0], axis=-1) < 0.5
    assert near.mean() == pytest.approx(0.2, abs=0.012)
    assert x[near].std(axis=0) == pytest.approx(0.1, rel=0.06)


def test_moments_by_hand(float64):
    np.testing.assert_allclose(PLANE.mean, [0.23, -0.26], rtol=1e-12)
    # E[x x^T] - mean mean^T, with 0.2 0.01 + 0.5 0.09 + 0.3 0.0025 = 0.04775 within.
    second = np.array([[0.523, -0.136], [-0.136, 0.482]])
    expected = second - np.outer(PLANE.mean, PLANE.mean) + 0.04775 * np.eye(2)
    np.testing.assert_allclose(PLANE.covariance, expected, rtol=1e-12)


def test_float32_is_finite_where_densities_underflow(compiled):
    x = jnp.asarray([[200.0, -300.0], [0.8, 0.0]], jnp.float32)
    functions = [compiled(f) for f in (PLANE.log_density, PLANE.score, PLANE.posterior_mean)]
    for alpha, sigma in ((1.0, 1e-4), (1.0, 0.0), (0.0, 1.0)):
        values = [function(x, alpha, sigma) for function in functions]
        for value in values:
            assert value.dtype == np.float32
            assert np.all(np.isfinite(value))
    # At alpha = 0 all is forgotten; 360 deviations away the 65000 nats leave 4e-3 uncertain.
    np.testing.assert_allclose(values[2][1], PLANE.mean, rtol=1e-6)


def test_points_are_a_mixture_too(compiled, float64):
    # Deviations of 0: the denoiser is a softmax over the training points.
    data = gaussian_mixture.GaussianMixture(
        weights=np.full(3, 1 / 3), means=PLANE.means, deviations=np.zeros(3)
    )
    x = points(6, 2)
    distance = np.square(np.asarray(x)[:, None] - 0.8 * PLANE.means).sum(-1)
    gate = np.exp(-distance / (2 * 0.6**2))
    expected = gate @ PLANE.means / gate.sum(1, keepdims=True)
    np.testing.assert_allclose(compiled(data.posterior_mean)(x, 0.8, 0.6), expected, rtol=1e-10)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"weights \[K\], means \[K, D\]"):
        gaussian_mixture.GaussianMixture(
            weights=np.ones(2) / 2, means=np.zeros((3, 1)), deviations=np.ones(2)
        )
