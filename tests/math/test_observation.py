"""Observation models: a list of properties for all, and each against an independent formula.

Each is a distribution, samples from itself, has the stated mean, and has finite gradients.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import laplace, norm

from genzoo.core import streams
from genzoo.math.logit_laplace import LogitLaplace
from genzoo.math.mixture import LogisticMixture
from genzoo.math.observation import Bernoulli, Gaussian, bounded

LEVELS = np.arange(256) / 127.5 - 1
COUNT = 20_000

FIXED = Gaussian(std=0.4)
SHARED = Gaussian(scale="shared", std=0.3)
PIXEL = Gaussian(scale="pixel")
MIXTURE = LogisticMixture(components=2)
LAPLACE = LogitLaplace(epsilon=0.1)

# (model, the decoder's output for one value of one channel)
CASES = [
    (Bernoulli(), [0.7]),
    (Bernoulli(), [-6.0]),
    (FIXED, [0.3]),
    (SHARED, [0.3]),
    (PIXEL, [-0.2, -3.0]),
    (MIXTURE, [0.3, -0.4, -0.2, 0.6, -2.0, -3.5]),
    (MIXTURE, [0.0, 0.5, 1.02, -1.3, -3.0, 0.5]),  # much of it beyond the ends
    (MIXTURE, [0.0, 0.0, 0.1, 0.1041, -20.0, -20.0]),  # scales at their lower limit, e^-7
    (LAPLACE, [0.4, -0.5]),
    (LAPLACE, [-1.5, 0.3]),
]
EVERY = pytest.mark.parametrize(("model", "output"), CASES)
# One for each kind and number of channels; outputs are all one value there.
KINDS = pytest.mark.parametrize(
    ("model", "channels"),
    [(Bernoulli(), 1), (FIXED, 1), (SHARED, 3), (PIXEL, 3), (MIXTURE, 1), (MIXTURE, 3),
     (MIXTURE, 2), (LAPLACE, 3)],
)  # fmt: skip


def support(model):
    """(points x, weights) whose weighted sums are sums over levels or integrals over x."""
    if isinstance(model, Bernoulli):
        return np.array([-1.0, 1.0]), np.ones(2)
    if isinstance(model, LogisticMixture):
        return LEVELS, np.ones(256)
    # Simpson's rule.
    knots = np.linspace(-8, 8, 40_001)
    weights = np.full(len(knots), 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    return knots, weights * (knots[1] - knots[0]) / 3


def laplace_knots(model, mu):
    """The same for the logit-Laplace: (x, weights), with logit(phi(x)) over mu +- 28.

    Its kink at mu lies between two pieces of the rule; closer to 0 and 1, phi would be rounded.
    """
    logit = mu + np.linspace(-28, 28, 40_001)
    weights = np.full(len(logit), 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    y = expit(logit)
    squeeze = 1 - 2 * model.epsilon
    jacobian = 2 / squeeze * y * expit(-logit)
    return (2 * y - 1) / squeeze, weights * (logit[1] - logit[0]) / 3 * jacobian


def points_of(model, output):
    if isinstance(model, LogitLaplace):
        return laplace_knots(model, output[0])
    return support(model)


@functools.cache
def jitted(model):
    """(log_prob, sample, mean) of a model, compiled once for all tests."""
    functions = (model.log_prob, model.sample, model.mean)
    return tuple(jax.jit(functools.partial(function)) for function in functions)


def masses(model, output, log_prob=None):
    """(points, their masses) under the model, in the precision that is on."""
    x, weights = points_of(model, output)
    log_prob = log_prob or jitted(model)[0]
    log_probs = log_prob(model.init(), jnp.asarray(output), jnp.asarray(x)[:, None])
    return x, weights * np.exp(np.asarray(log_probs, np.float64)).reshape(-1)


def draw(model, outputs, keys):
    """One picture of 4 x 2 places per key, every place with the same output."""
    outputs = np.broadcast_to(outputs[:, None, None], (len(outputs), 4, 2, outputs.shape[-1]))
    return jitted(model)[1](model.init(), jnp.asarray(outputs, jnp.float32), keys)


def keys_of(seed):
    return streams.per_example(jax.random.key(seed), jnp.arange(COUNT // 8))


def draws(model, output):
    """[COUNT, channels] of one place."""
    outputs = np.broadcast_to(output, (COUNT // 8, len(output)))
    return np.asarray(draw(model, outputs, keys_of(0)), np.float64).reshape(COUNT, -1)


# --- the list of properties -------------------------------------------------------------------


@EVERY
def test_it_sums_or_integrates_to_one(compiled, float64, model, output):
    assert masses(model, output, compiled(model.log_prob))[1].sum() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(("model", "output"), [case for case in CASES if not case[0].density])
def test_probabilities_sum_to_one_in_float32(model, output):
    assert masses(model, output)[1].sum() == pytest.approx(1, abs=1e-5)


@EVERY
def test_samples_have_the_distribution(model, output):
    with jax.enable_x64(True):
        x, mass = masses(model, output)
    cumulative = np.cumsum(mass)
    if model.density:
        cumulative -= mass / 2
    drawn = np.sort(draws(model, output)[:, 0])
    # Kolmogorov-Smirnov, at points a little above the levels; 2.2 / sqrt(n) is passed by chance
    # once in 8,000 times, less often for discrete data.
    empirical = np.searchsorted(drawn, x + 1e-4 * (not model.density)) / COUNT
    assert np.abs(empirical - cumulative).max() < 2.2 / np.sqrt(COUNT)
    if not model.density:
        assert np.abs(drawn[:, None] - x).min(1).max() < 1e-6
        assert np.abs(drawn).max() <= 1
    if isinstance(model, LogitLaplace):
        assert np.abs(drawn).max() <= 1 / (1 - 2 * model.epsilon) + 1e-6


@EVERY
def test_the_mean_is_the_expectation(float64, model, output):
    x, mass = masses(model, output)
    actual = float(jitted(model)[2](model.init(), jnp.asarray(output))[0])
    if isinstance(model, LogitLaplace):
        # Its mean is the median, where that is of [-1, 1].
        middle = np.interp(0.5, np.cumsum(mass) - mass / 2, x)
        assert actual == pytest.approx(np.clip(middle, -1, 1), abs=1e-6)
    elif isinstance(model, LogisticMixture):
        # Of 256 levels: Euler-Maclaurin for wide logistics, half a level for the sharpest.
        tolerance = 1 / 255 if min(output[-2:]) < -5 else 2e-5
        assert actual == pytest.approx((x * mass).sum(), abs=tolerance)
    else:
        assert actual == pytest.approx((x * mass).sum(), abs=1e-8)


@KINDS
def test_gradients_are_finite_at_extreme_outputs(model, channels):
    own, count = model.init(), model.outputs(channels)
    x = jnp.asarray(np.stack([LEVELS] * channels, -1), jnp.float32)
    signs = [np.ones(count), (-1.0) ** np.arange(count)]
    outputs = [size * sign for size in (0, 20, -20, 1e4, -1e4) for sign in signs]
    outputs = jnp.asarray(np.stack(outputs), jnp.float32)

    @jax.jit
    @jax.vmap
    def everything(output):
        slope = jax.value_and_grad(lambda o: model.log_prob(own, o, x).sum())
        return slope(output), model.mean(own, output)

    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(everything(outputs)))


@KINDS
def test_shapes_and_leading_axes(model, channels):
    own, rng = model.init(), np.random.default_rng(0)
    output = jnp.asarray(rng.normal(size=(3, 2, 4, 5, model.outputs(channels))), jnp.float32)
    x = jnp.asarray(rng.choice([-1.0, 1.0], size=(2, 4, 5, channels)), jnp.float32)
    together = jitted(model)[0](own, output, x)
    assert together.shape[:4] == (3, 2, 4, 5)
    alone = jitted(model)[0](own, jnp.stack([output[1]] * 3), x)
    np.testing.assert_array_equal(alone, jnp.stack([together[1]] * 3))
    mean = jax.eval_shape(model.mean, own, output)
    assert mean.shape == (3, 2, 4, 5, channels)
    drawn = jax.eval_shape(model.sample, own, output[0], keys_of(0)[:2])
    assert drawn.shape == (2, 4, 5, channels)


@pytest.mark.parametrize(
    ("model", "output"), [*CASES[2:6], *CASES[-2:], (MIXTURE, 0.1 * np.arange(20) - 1)]
)
def test_a_sample_is_its_own_and_so_is_each_place(model, output):
    keys, others = keys_of(0), keys_of(1)
    outputs = np.broadcast_to(output, (len(keys), len(output)))
    here = np.arange(len(keys)) == 2
    actual = np.asarray(draw(model, outputs, keys))
    mixed = np.where(here[:, None], outputs, outputs - 1)
    among_others = np.asarray(draw(model, mixed, jnp.where(here, keys, others)))
    np.testing.assert_array_equal(actual[2], among_others[2])
    # Not the same noise at all places, nor in all examples.
    assert np.all(np.ptp(actual[:4], axis=(1, 2)) > 0)
    assert np.all(np.ptp(actual[:50], axis=0) > 0)


# --- Bernoulli --------------------------------------------------------------------------------


def test_binarisation_has_the_right_mean(compiled):
    x = jnp.broadcast_to(jnp.asarray(LEVELS, jnp.float32)[:, None], (256, 4000))
    uniform = jax.random.uniform(jax.random.key(0), x.shape)
    out = np.asarray(compiled(Bernoulli().observe)(x, uniform))
    assert set(np.unique(out)) == {-1.0, 1.0}
    np.testing.assert_array_equal(out[[0, 255]], x[jnp.array([0, 255])])
    error = out.mean(1) - LEVELS
    deviation = np.sqrt((1 - LEVELS**2) / 4000) + 1e-6
    assert np.abs(error / deviation).max() < 4.5
    assert np.sum((error / deviation) ** 2) < 254 + 5 * np.sqrt(2 * 254)


def test_a_threshold_takes_no_noise(compiled):
    model = Bernoulli(levels="threshold")
    out = compiled(model.observe)(jnp.asarray(LEVELS), jnp.full(256, 0.99))
    np.testing.assert_array_equal(out, np.where(np.arange(256) > 127, 1, -1))


def test_grey_has_the_expected_log_probability(float64):
    (out,) = Bernoulli().log_prob({}, jnp.asarray([0.7]), jnp.asarray([-0.2]))
    assert float(out) == pytest.approx(0.4 * np.log(expit(0.7)) + 0.6 * np.log(expit(-0.7)))


@pytest.mark.parametrize("model", [FIXED, SHARED, PIXEL, MIXTURE, LAPLACE])
def test_other_models_take_the_data_as_they_are(model):
    x = jnp.asarray(LEVELS)
    np.testing.assert_array_equal(model.observe(x, jnp.full(256, 0.3)), x)


# --- Gaussian ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "output", "mean", "std"),
    [(FIXED, [0.3], 0.3, 0.4), (SHARED, [0.3], 0.3, 0.3), (PIXEL, [-0.2, -3.0], -0.2, None)],
)
def test_gaussian_is_scipys(compiled, float64, model, output, mean, std):
    x = np.linspace(-2, 2, 9)[:, None]
    own, output = model.init(), jnp.asarray(output)
    if std is None:
        std = np.exp(0.5 * float(bounded(output[1], low=-11.5, high=2.3)))
    actual = compiled(lambda x: model.log_prob(own, output, x))(x)
    # The shared scale is a float32 param.
    np.testing.assert_allclose(actual, norm.logpdf(x, mean, std), rtol=1e-6)


def test_the_shared_scale_has_its_best_value_at_the_rms_error(compiled, float64):
    rng = np.random.default_rng(0)
    x, output = rng.normal(size=(2, 7, 5, 3))
    best = np.log(np.mean((x - output) ** 2))
    slope = compiled(
        jax.grad(lambda v: SHARED.log_prob({"log_variance": v}, output, x).mean())
    )
    # The bound bends the log variance by less than 1e-8 here, 20 from its limits.
    assert float(slope(jnp.float64(best))) == pytest.approx(0, abs=1e-8)
    assert slope(jnp.float64(best - 0.1)) > 0.04
    assert slope(jnp.float64(best + 0.1)) < -0.04
    # Up to a constant it is then half the logarithm of the mean squared error.
    value = SHARED.log_prob({"log_variance": best}, output, x).mean()
    assert float(value) == pytest.approx(-0.5 * (np.log(2 * np.pi) + best + 1))


def test_the_shared_scale_is_a_param_of_fixed_type():
    start = SHARED.init()["log_variance"]
    assert start.dtype == jnp.float32
    assert not start.weak_type
    assert float(start) == pytest.approx(2 * np.log(0.3), rel=1e-6)


def test_a_bound_bends_and_is_the_value_inside(compiled, float64):
    value = jnp.asarray([-1e4, -14.0, -2.0, 0.0, 3.0, 14.0, 1e4])
    out = np.asarray(compiled(lambda v: bounded(v, low=-14.0, high=14.0))(value))
    assert np.all(np.diff(out) >= 0)
    assert np.all(np.abs(out) <= 14 + 1e-11)
    np.testing.assert_allclose(out[2:5], value[2:5], atol=2e-5)
    np.testing.assert_allclose(out[[1, 5]], [-14 + np.log(2), 14 - np.log(2)], atol=1e-11)


# --- the logit-Laplace ------------------------------------------------------------------------


def test_logit_laplace_is_scipys_with_two_changes_of_variable(compiled, float64):
    x = np.linspace(-1, 1, 11)[:, None]
    y = 0.8 * (x + 1) / 2 + 0.1
    log_b = float(bounded(jnp.float64(-0.5), low=-7.0, high=7.0))
    of_logit = laplace.logpdf(np.log(y / (1 - y)), 0.4, np.exp(log_b))
    expected = of_logit - np.log(y * (1 - y)) + np.log(0.4)
    actual = compiled(lambda x: LAPLACE.log_prob({}, jnp.asarray([0.4, -0.5]), x))(x)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_logit_laplace_mean_inverts_phi(compiled):
    x = np.linspace(-1, 1, 9)
    y = 0.8 * (x + 1) / 2 + 0.1
    output = jnp.asarray(np.stack([np.log(y / (1 - y)), 0 * y], -1), jnp.float32)
    mean = compiled(lambda o: LAPLACE.mean({}, o))
    np.testing.assert_allclose(mean(output)[:, 0], x, atol=1e-6)
    np.testing.assert_array_equal(mean(jnp.asarray([[-9.0, 0.0], [9.0, 0.0]])), [[-1], [1]])
