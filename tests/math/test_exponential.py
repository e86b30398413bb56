"""Phi functions and exact flows against Kummer's function, quadrature and known predictions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import continuous_schedules, every_schedule, few
from scipy.integrate import quad
from scipy.special import factorial, hyp1f1

from genzoo.math import continuous, exponential, gaussian
from genzoo.math.exponential import phi
from genzoo.math.prediction import Pair

SCHEDULES = pytest.mark.parametrize(
    "schedule",
    few([*continuous_schedules(), *every_schedule()], (0, 4, 7)),
    ids=lambda s: type(s).__name__,
)
FORMS = {
    "data": exponential.DATA,
    "noise": exponential.NOISE,
    "half": exponential.reverse_sde(0.5),
    "sde": exponential.reverse_sde(1.0),
}
ETAS = {"data": 0.0, "noise": 0.0, "half": 0.5, "sde": 1.0}
EVERY_FORM = pytest.mark.parametrize("name", FORMS)
# Around 0, around where the series hands over, and far out.
Z = np.array([0, 1e-12, 1e-6, 1e-3, 0.1, 0.7, 1.3, 1.99, 1.9999999, 2, 2.01, 5, 20, 60])
Z = np.concatenate([Z, -Z[1:]])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_phi_is_kummers_function(compiled, float64, order):
    # phi_k(z) = 1F1(1; k + 1; z) / k!
    value = compiled(lambda z: phi(order, z))(jnp.asarray(Z))
    np.testing.assert_allclose(value, hyp1f1(1, order + 1, Z) / factorial(order), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_phi_is_its_integral(float64, order):
    for z in (-3.0, -0.3, 0.0, 0.4, 2.5):
        value, _ = quad(lambda u, z=z: np.exp((1 - u) * z) * u ** (order - 1), 0, 1, epsabs=1e-13)
        np.testing.assert_allclose(phi(order, z), value / factorial(order - 1), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_phi_keeps_its_digits_in_float32(compiled, order):
    z = Z.astype(np.float32)
    value = compiled(lambda z: phi(order, z))(jnp.asarray(z))
    assert value.dtype == jnp.float32
    expected = hyp1f1(1, order + 1, z.astype(float)) / factorial(order)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_phi_differentiates_to_the_difference_of_two(float64):
    # phi_k' = phi_k - k phi_{k+1}, from the integral.
    z = jnp.asarray(Z)
    for order in (1, 2, 3):
        slope = jax.vmap(jax.grad(lambda z, order=order: phi(order, z)))(z)
        expected = phi(order, z) - order * phi(order + 1, z)
        np.testing.assert_allclose(slope, expected, rtol=1e-10)


@pytest.mark.parametrize("nodes", [[1.0], [-0.7], [1.0, -1.3], [-0.5, -2.1], [1.0, -1.2, -2.0]])
def test_weights_integrate_polynomials_of_their_degree(compiled, float64, nodes):
    places = [jnp.asarray(r) for r in nodes]
    run = compiled(lambda z: exponential.weights(z, places))
    degrees = range(1, len(nodes) + 1)
    for z, degree in itertools.product((-2.7, -0.01, 0.3, 1.6), degrees):
        rho = run(jnp.asarray(z))
        p = np.polynomial.Polynomial(np.random.default_rng(degree).normal(size=degree + 1))
        exact, _ = quad(lambda u, p=p, z=z: np.exp((1 - u) * z) * (p(u) - p(0)), 0, 1, epsabs=1e-13)
        actual = sum(w * (p(r) - p(0)) / r for w, r in zip(rho, nodes, strict=True))
        np.testing.assert_allclose(actual, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@SCHEDULES
def test_gap_is_half_the_change_of_logsnr(compiled, float64, schedule):
    for t, s in ((0.9, 0.89), (0.5, 0.1), (0.3, 0.7), (0.21, 0.2099)):
        h = compiled(lambda t, s: exponential.gap(schedule, t, s))(jnp.asarray(t), jnp.asarray(s))
        expected = (schedule.logsnr(jnp.asarray(s)) - schedule.logsnr(jnp.asarray(t))) / 2
        np.testing.assert_allclose(h, expected, rtol=1e-9)


def test_gap_of_neighbours_keeps_its_digits_in_float32():
    schedule, t, s = continuous.VariancePreserving(), np.float32(0.5), np.float32(0.4999)
    actual = exponential.gap(schedule, jnp.asarray(t), jnp.asarray(s))
    integral = [0.1 * float(u) + 19.9 * float(u) ** 2 / 2 for u in (t, s)]
    exact = np.diff([-np.log(np.expm1(b)) / 2 for b in integral])[0]
    np.testing.assert_allclose(actual, exact, rtol=1e-6)


def exact_move(schedule, name, t, s, x, f):
    """Equations (1), (2), (3) of the module without noise, by quadrature; f of u / h in [0, 1]."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (float(schedule.alpha(v)), float(schedule.sigma(v))) for v in (t, s)
    )
    h = np.log(alpha_s / sigma_s) - np.log(alpha_t / sigma_t)
    if name == "noise":
        integral, _ = quad(lambda u: np.exp(h - u) * f(u / h), 0, h, epsabs=1e-13)
        return alpha_s / alpha_t * x - sigma_s * integral
    eta = ETAS[name]
    integral, _ = quad(lambda u: np.exp((1 + eta) * (u - h)) * f(u / h), 0, h, epsabs=1e-13)
    return sigma_s / sigma_t * np.exp(-eta * h) * x + (1 + eta) * alpha_s * integral


@SCHEDULES
@EVERY_FORM
def test_line_and_bend_are_the_exact_flow(float64, schedule, name):
    # A prediction that is quadratic in lambda: equation (4) ends after three terms.
    form, eta = FORMS[name], ETAS[name]
    t, s, x = jnp.asarray(0.8), jnp.asarray(0.35), jnp.array([[0.7]])
    first, second = 0.9, -1.7  # h f' and h^2 f''
    start = jnp.array([[0.4]])
    move, pair = form.move(schedule, t, s), form.complete(start, x, schedule, t)
    kept = np.exp(-eta * float(exponential.gap(schedule, t, s)))
    line = gaussian.q_sample(schedule, pair.x_0, s, kept * pair.eps)
    actual = line + move.reach * (phi(2, move.z) * first + phi(3, move.z) * second)
    exact = exact_move(schedule, name, t, s, 0.7, lambda u: 0.4 + first * u + second * u**2 / 2)
    np.testing.assert_allclose(actual, [[exact]], rtol=1e-9)


@SCHEDULES
@EVERY_FORM
def test_a_completed_pair_makes_up_x(compiled, float64, schedule, name):
    value, x = np.random.default_rng(0).normal(size=(2, 3, 2))
    t, form = jnp.asarray(0.6), FORMS[name]
    pair = compiled(lambda f, x: form.complete(f, x, schedule, t))(value, x)
    np.testing.assert_allclose(gaussian.q_sample(schedule, pair.x_0, t, pair.eps), x, rtol=1e-9)
    np.testing.assert_array_equal(form.predicted(pair), value)


@EVERY_FORM
@pytest.mark.parametrize("schedule", [continuous.Straight(), continuous.Cosine()])
def test_from_pure_noise_nothing_bends(schedule, name):
    # lambda = -inf at t = 1: all numbers stay finite and the bend has no weight.
    move = FORMS[name].move(schedule, jnp.ones(()), jnp.asarray(0.7))
    assert move.reach == 0
    assert np.all(np.isfinite([move.h, move.z]))


def test_the_noiseless_sde_is_the_data_form():
    zero = exponential.reverse_sde(0.0)
    assert zero.rate == exponential.DATA.rate == -1
    assert exponential.DATA.predicted(Pair(1.0, 2.0)) == 1
    assert exponential.NOISE.predicted(Pair(1.0, 2.0)) == 2
