"""EDM's preconditioning against the figures of its table 1, and as a prediction kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import continuous_schedules

from genzoo.math import continuous, gaussian, precondition, prediction

SIGMA_DATA = 0.5
KIND = precondition.preconditioned(SIGMA_DATA)
EDM = continuous.LinearNoise()
SCHEDULES = pytest.mark.parametrize(
    "schedule", continuous_schedules(), ids=lambda s: type(s).__name__
)
# Table 1 of Karras et al. 2022 by hand: sigma, c_skip, c_out, c_in, c_noise, lambda.
FIGURES = [
    (0.5, 0.5, 0.3535533906, 1.4142135624, -0.1732867951, 8.0),
    (1.0, 0.2, 0.4472135955, 0.894427191, 0.0, 5.0),
    (80.0, 3.9061e-5, 0.4999902347, 0.0124997559, 1.0955066587, 4.00015625),
    (0.002, 0.25 / 0.250004, 0.002 * 0.5 / 0.250004**0.5, 0.250004**-0.5, -1.5536520246, 250004.0),
]


def denoised(output, x_t, schedule, t):
    return KIND.to_pair(output, x_t, schedule, t).x_0


@pytest.mark.parametrize(("sigma", "skip", "out", "scale", "label", "weight"), FIGURES)
def test_table_1(compiled, float64, sigma, skip, out, scale, label, weight):
    t = jnp.asarray(sigma / 80)
    run = compiled(lambda output, x: denoised(output, x, EDM, t))
    # The denoiser is linear in x and F: its coefficients are read off.
    one, none = jnp.ones((1, 1)), jnp.zeros((1, 1))
    assert run(none, one).item() == pytest.approx(skip, rel=2e-6 if sigma == 80 else 1e-9)
    assert run(one, none).item() == pytest.approx(out, rel=1e-9)
    actual = compiled(lambda t: precondition.input_scale(SIGMA_DATA)(EDM, t))(t)
    assert actual == pytest.approx(scale, rel=2e-8)
    noise_label = compiled(lambda t: precondition.noise_level(EDM, t))(t)
    assert noise_label == pytest.approx(label, abs=1e-10)
    # lambda: the weight 1 on the error of F is this one on that of the denoiser.
    assert weight * run(one, none).item() ** 2 == pytest.approx(1, rel=1e-9)


@SCHEDULES
def test_the_denoiser_is_the_papers_at_every_schedule(compiled, float64, schedule):
    output, x_t = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)))
    t = jnp.asarray([0.02, 0.3, 0.504, 0.97])
    alpha, sigma = (np.asarray(f(t))[:, None] for f in (schedule.alpha, schedule.sigma))
    noise = sigma / alpha
    whole = noise**2 + SIGMA_DATA**2
    expected = SIGMA_DATA**2 / whole * x_t / alpha + noise * SIGMA_DATA / np.sqrt(whole) * output
    pair = compiled(lambda *a: KIND.to_pair(*a, schedule, t))(output, x_t)
    np.testing.assert_allclose(pair.x_0, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(alpha * pair.x_0 + sigma * pair.eps, x_t, atol=1e-12)
    back = compiled(lambda pair: KIND.from_pair(pair, schedule, t))(pair)
    np.testing.assert_allclose(back, output, rtol=1e-9, atol=1e-10)
    scale = np.asarray(precondition.input_scale(SIGMA_DATA)(schedule, t))[:, None]
    np.testing.assert_allclose(scale * x_t, x_t / alpha / np.sqrt(whole), rtol=1e-11)
    label = precondition.noise_level(schedule, t)
    np.testing.assert_allclose(label, np.log(noise[:, 0]) / 4, rtol=1e-10, atol=1e-12)


@SCHEDULES
def test_data_of_its_deviation_give_the_network_unit_inputs_and_targets(float64, schedule):
    # Karras et al. 2022, appendix B.6: the requirements that the coefficients were derived from.
    rng = np.random.default_rng(1)
    x_0 = jnp.asarray(SIGMA_DATA * rng.normal(size=(5, 40_000)))
    eps = jnp.asarray(rng.normal(size=(5, 40_000)))
    t = jnp.asarray([0.01, 0.1, 0.4, 0.7, 0.99])
    x_t = gaussian.q_sample(schedule, x_0, t, eps)
    inputs = precondition.input_scale(SIGMA_DATA)(schedule, t)[:, None] * x_t
    target = jax.jit(lambda pair: KIND.from_pair(pair, schedule, t))(prediction.Pair(x_0, eps))
    for values in (inputs, target):
        # The standard error of a deviation is 1 / sqrt(2 * 40000) = 0.0035.
        np.testing.assert_allclose(values.std(axis=1), 1, atol=0.015)
    # The optimal F is uncorrelated with its input when the data are Gaussian.
    np.testing.assert_allclose((inputs * target).mean(axis=1), 0, atol=0.02)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_are_finite_and_round_trip_in_float32(compiled, t):
    # alpha(1) = 0 and sigma(0) = 0: most kinds are lost there.
    schedule, t = continuous.Straight(), jnp.asarray([t])
    x_0, eps = jnp.asarray([[0.3, -0.8]]), jnp.asarray([[1.5, 0.25]])

    def there_and_back(x_0, eps):
        x_t = gaussian.q_sample(schedule, x_0, t, eps)
        return KIND.to_pair(
            KIND.from_pair(prediction.Pair(x_0, eps), schedule, t), x_t, schedule, t
        )

    pair = compiled(there_and_back)(x_0, eps)
    np.testing.assert_allclose(pair.x_0, x_0, atol=1e-7)
    np.testing.assert_allclose(pair.eps, eps, atol=2e-7)


def test_float32_keeps_small_noise(compiled):
    # At sigma = 0.002 the naive eps = (x_t - D) / sigma would lose 1e-7 / 0.002.
    t = jnp.asarray([0.002 / 80], jnp.float32)
    x_0, eps = jnp.asarray([[0.9, -0.7]]), jnp.asarray([[1.5, 0.25]])
    x_t = gaussian.q_sample(EDM, x_0, t, eps)
    output = KIND.from_pair(prediction.Pair(x_0, eps), EDM, t)
    pair = compiled(lambda *a: KIND.to_pair(*a, EDM, t))(output, x_t)
    np.testing.assert_allclose(pair.eps, eps, atol=3e-7)
    np.testing.assert_allclose(pair.x_0, x_0, atol=3e-7)
