"""Learned schedules against the paper's network in NumPy, finite differences and quadrature."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from genzoo.math import monotone
from genzoo.math.continuous import OfLogsnr

SCHEDULES = pytest.mark.parametrize(
    "init, gamma",
    [(monotone.init_linear, monotone.linear), (monotone.init_monotone, monotone.monotone)],
    ids=["linear", "monotone"],
)
GRID = np.linspace(0, 1, 1001)


def wild(init, seed, spread):
    """Random params far from their initial values."""
    rng = np.random.default_rng(seed)
    start = init(jax.random.key(seed))
    return jax.tree.map(lambda p: (p + spread * rng.normal(size=p.shape)).astype(np.float32), start)


def bent(init, seed, **ends):
    """Float64 params of a schedule that is far from straight, if the schedule allows it."""
    params = jax.tree.map(np.float64, init(jax.random.key(seed), **ends))
    if init is monotone.init_monotone:
        rng = np.random.default_rng(seed)
        params["l1"] = {"kernel": np.float64(2.0), "bias": np.float64(-0.7)}
        params["l2"] = {"kernel": rng.uniform(0, 8, 1024), "bias": rng.uniform(-1, 4, 1024)}
        params["l3"] = {"kernel": rng.uniform(-3, 12, 1024)}
    return params


def slope(gamma, params, t):
    return jax.jvp(lambda t: gamma(params, t), (t,), (jnp.ones_like(t),))[1]


@SCHEDULES
def test_it_starts_at_the_ends_and_almost_straight(compiled, init, gamma):
    t = jnp.asarray(GRID, jnp.float32)
    both = compiled(lambda p, t: (gamma(p, t), slope(gamma, p, t)))
    for (low, high), seed in itertools.product(((-13.3, 5.0), (-5.0, -4.5)), range(3)):
        params = init(jax.random.key(seed), gamma_min=low, gamma_max=high)
        seen, steep = both(params, t)
        np.testing.assert_allclose(seen[jnp.array([0, -1])], [low, high], rtol=1e-6)
        bend = 0.002 if gamma is monotone.monotone else 1e-6
        np.testing.assert_allclose(seen, low + (high - low) * GRID, atol=bend * (high - low))
        np.testing.assert_allclose(steep, high - low, rtol=max(5 * bend, 1e-5))


def test_the_network_is_that_of_the_paper(compiled, float64):
    params = bent(monotone.init_monotone, 3)

    def q(t):
        w = jax.tree.map(lambda p: np.logaddexp(np.asarray(p), 0), params)
        first = w["l1"]["kernel"] * t + params["l1"]["bias"]
        hidden = expit(w["l2"]["kernel"] * first[:, None] + np.asarray(params["l2"]["bias"]))
        return first + hidden @ w["l3"]["kernel"] / 1024

    share = (q(GRID) - q(0 * GRID)) / (q(0 * GRID + 1) - q(0 * GRID))
    expected = params["start"] + np.logaddexp(params["range"], 0) * share
    seen = compiled(monotone.monotone)(params, jnp.asarray(GRID))
    # gamma crosses 0, where only an absolute error says something.
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-11)
    # Not a straight line: else all this would show little.
    assert np.abs(share - GRID).max() > 0.1
    sizes = [p.size for p in jax.tree.leaves(monotone.init_monotone(jax.random.key(0)))]
    assert sorted(sizes) == [1, 1, 1, 1, 1024, 1024, 1024]


@SCHEDULES
def test_it_rises_strictly_whatever_the_params(init, gamma):
    t = jnp.asarray(GRID, jnp.float32)
    both = jax.jit(lambda p, t: (gamma(p, t), slope(gamma, p, t)))
    for seed, spread in enumerate([1.0, 1.0, 3.0, 3.0, 10.0, 10.0]):
        params = wild(init, seed, spread)
        params["range"] = np.float32(18.3)
        seen, steep = both(params, t)
        assert (np.diff(seen) > 0).all() and (np.asarray(steep) > 0).all()
        ends = params["start"] + np.array([0, 18.3])
        np.testing.assert_allclose(seen[jnp.array([0, -1])], ends, atol=5e-6)


@SCHEDULES
def test_forward_derivatives_are_finite_differences(float64, init, gamma):
    params, t, h = bent(init, 1), jnp.asarray(GRID[1:-1]), 1e-5
    seen = jax.jit(lambda p, t: slope(gamma, p, t))(params, t)
    value = jax.jit(gamma)
    expected = (value(params, t + h) - value(params, t - h)) / (2 * h)
    np.testing.assert_allclose(seen, expected, rtol=1e-7)


@SCHEDULES
def test_gradients_through_the_slope_are_finite_differences(float64, init, gamma):
    # As in the loss: backwards in the params through a forward derivative in t.
    params, t, h = bent(init, 2), jnp.asarray([0.0, 0.3, 1.0]), 1e-5

    def loss(params):
        return jnp.sum(jnp.sin(gamma(params, t)) * slope(gamma, params, t))

    gradient = jax.jit(jax.grad(loss))(params)
    rng = np.random.default_rng(0)
    way = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    moved = jax.jit(lambda size: loss(jax.tree.map(lambda p, d: p + size * d, params, way)))
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradient, way)))
    assert float(along) == pytest.approx(float(moved(h) - moved(-h)) / (2 * h), rel=1e-6)


@SCHEDULES
def test_extreme_params_give_finite_numbers(init, gamma):
    t = jnp.asarray([0.0, 1e-6, 0.5, 1.0])

    def loss(params):
        return jnp.sum(gamma(params, t)) + jnp.sum(slope(gamma, params, t))

    run = jax.jit(jax.value_and_grad(loss))
    for raw in (-20.0, 30.0):
        params = jax.tree.map(lambda p, raw=raw: jnp.full_like(p, raw), init(jax.random.key(0)))
        value, gradient = run(params)
        assert all(np.isfinite(v).all() for v in (value, *jax.tree.leaves(gradient)))


def test_what_depends_on_gamma_alone_depends_on_its_ends_alone(float64):
    # The diffusion loss of continuous time is such an integral (section 5.1 of the paper).
    ends = {"gamma_min": -6.0, "gamma_max": 3.0}
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t = jnp.asarray((nodes + 1) / 2)

    def h(gamma):
        return gamma**2 / (1 + jnp.exp(gamma)) + jnp.sin(2 * gamma)

    expected = quad(lambda g: float(h(np.float64(g))), -6, 3, epsabs=1e-12)[0]
    straight = bent(monotone.init_linear, 4, **ends)
    curved = bent(monotone.init_monotone, 4, **ends)
    for params, gamma in ((straight, monotone.linear), (curved, monotone.monotone)):
        integrand = jax.jit(lambda p, t, f=gamma: h(f(p, t)) * slope(f, p, t))(params, t)
        # The ends themselves are float32 numbers.
        assert float((weights / 2 * integrand).sum()) == pytest.approx(expected, abs=2e-5)
    middle = jnp.asarray(0.5)
    apart = monotone.linear(straight, middle) - monotone.monotone(curved, middle)
    assert abs(apart) > 0.5


@SCHEDULES
def test_any_shape_of_times_and_the_schedule_made_of_it(compiled, init, gamma):
    params, t = init(jax.random.key(0)), jnp.asarray([[0.1, 0.7, 0.9], [0.5, 0.2, 1.0]])
    seen = compiled(gamma)(params, t)
    assert seen.shape == (2, 3) and seen.dtype == jnp.float32
    np.testing.assert_allclose(compiled(gamma)(params, t[1, 0]), seen[1, 0], rtol=1e-6)
    schedule = OfLogsnr(gamma=lambda t: gamma(params, t))
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, rtol=1e-6)
    np.testing.assert_allclose(schedule.time_of_logsnr(-seen[0]), t[0], atol=1e-5)
