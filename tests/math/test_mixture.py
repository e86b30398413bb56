"""The discretised mixture of logistics against independent computations.

These are its formula in float64, sums over all colours, and a sampler in NumPy. Properties that it
shares with other observation models are tested in test_observation.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import logistic

from genzoo.core import streams
from genzoo.math.mixture import LogisticMixture, clipped_mean
from genzoo.math.observation import bounded

LEVELS = np.arange(256) / 127.5 - 1
COUNT = 20_000
MIXTURE = LogisticMixture(components=2)
LOG_PROB, SAMPLE = jax.jit(MIXTURE.log_prob), jax.jit(MIXTURE.sample)


def draws(output):
    """[COUNT, channels]."""
    keys = streams.per_example(jax.random.key(0), jnp.arange(COUNT))
    outputs = np.broadcast_to(output, (COUNT, 1, 1, len(output)))
    x = SAMPLE({}, jnp.asarray(outputs, jnp.float32), keys)
    return np.asarray(x, np.float64).reshape(COUNT, -1)


def naive_mixture(output, x, k):
    """log p(x) of PixelCNN++ for one place of three channels: cumulative functions in float64."""
    rows = np.asarray(output, np.float64).reshape(10, k)
    weights = rows[0] - logsumexp(rows[0])
    scales = np.exp(rows[4:7])
    to_green, red_to_blue, green_to_blue = np.tanh(rows[7:])
    means = rows[1:4] + [
        np.zeros(k), to_green * x[0], red_to_blue * x[0] + green_to_blue * x[1]
    ]  # fmt: skip
    log_p = weights
    for value, mean, scale in zip(x, means, scales, strict=True):
        p = logistic(mean, scale)
        if value > 0.999:
            log_p = log_p + p.logsf(value - 1 / 255)
            continue
        below = 0.0 if value < -0.999 else p.cdf(value - 1 / 255)
        log_p = log_p + np.log(p.cdf(value + 1 / 255) - below)
    return logsumexp(log_p)


def colours(k, seed=0):
    """A decoder's output [10 k] with log scales well inside their limits."""
    rows = np.random.default_rng(seed).normal(size=(10, k))
    rows[1:4] *= 0.5
    rows[4:7] = rows[4:7] * 0.3 - 2.5
    return rows.ravel()


def test_three_channels_are_the_naive_formula(float64):
    output = colours(3)
    pixels = np.random.default_rng(1).choice(LEVELS, size=(40, 3))
    pixels[:4] = [[-1, 1, -1], [1, -1, 1], [1, 1, 1], [-1, -1, -1]]
    run = jax.jit(lambda x: LogisticMixture(components=3).log_prob({}, jnp.asarray(output), x))
    # `bounded` moves a log scale of -2.5 by 0.011.
    rows = output.reshape(10, 3).copy()
    rows[4:7] = np.asarray(bounded(jnp.asarray(rows[4:7]), low=-7.0, high=7.0))
    expected = [naive_mixture(rows, x, 3) for x in pixels]
    np.testing.assert_allclose(run(jnp.asarray(pixels)), expected, rtol=1e-9)


def test_the_chain_of_colours_sums_to_one():
    # Over all green and blue what is left is red's own mixture, which sums to one itself.
    output = jnp.asarray(colours(2, seed=2), jnp.float32)
    of_red = output.reshape(10, 2)[np.array([0, 1, 4])].ravel()
    every = jnp.asarray(LEVELS, jnp.float32)
    green, blue = jnp.meshgrid(every, every)

    @jax.jit
    def marginal(red):
        x = jnp.stack([jnp.full_like(green, red), green, blue], -1)
        return jax.nn.logsumexp(MIXTURE.log_prob({}, output, x))

    reds = every[np.array([0, 1, 90, 128, 170, 254, 255])]
    actual = np.exp([marginal(red) for red in reds])
    expected = np.exp(LOG_PROB({}, of_red, reds[:, None]))
    np.testing.assert_allclose(actual, expected, atol=1e-6, rtol=2e-5)
    total = np.exp(LOG_PROB({}, of_red, every[:, None])).sum()
    assert total == pytest.approx(1, abs=1e-5)


def test_colours_are_drawn_from_their_joint_distribution():
    output = colours(2, seed=3)
    drawn = draws(output)
    # Moments, and the mean log-probability, against those of a sampler in NumPy.
    rng, rows = np.random.default_rng(4), output.reshape(10, 2)
    scales = np.exp(np.asarray(bounded(jnp.asarray(rows[4:7]), low=-7.0, high=7.0)))
    weights, slopes = np.exp(rows[0] - logsumexp(rows[0])), np.tanh(rows[7:])
    which = rng.choice(2, size=COUNT, p=weights)
    x = np.zeros((COUNT, 3))
    for c, before in enumerate([(), (0,), (1, 2)]):
        mean = rows[1 + c, which] + sum(slopes[s, which] * x[:, d] for d, s in enumerate(before))
        value = np.clip(mean + scales[c, which] * rng.logistic(size=COUNT), -1, 1)
        x[:, c] = np.round((value + 1) * 127.5) / 127.5 - 1
    features = lambda v: np.concatenate(  # noqa: E731
        [v, v**2, v[:, :1] * v[:, 1:], v[:, 1:2] * v[:, 2:]], axis=1
    )
    ours, theirs = features(drawn), features(x)
    error = np.sqrt((ours.var(0) + theirs.var(0)) / COUNT)
    assert np.abs((ours.mean(0) - theirs.mean(0)) / error).max() < 4.5
    log_p = lambda x: np.asarray(  # noqa: E731
        LOG_PROB({}, jnp.asarray(output, jnp.float32), jnp.asarray(x, jnp.float32))
    )
    ours, theirs = log_p(drawn), log_p(x)
    error = np.sqrt((ours.var() + theirs.var()) / COUNT)
    assert abs(ours.mean() - theirs.mean()) < 4.5 * error


def test_the_mean_of_colours_is_theirs_where_nothing_is_clipped(float64):
    output = colours(2, seed=5)
    rows = output.reshape(10, 2).copy()
    rows[1:4] = rows[1:4].clip(-0.3, 0.3)
    rows[4:7] = -4.0
    drawn = draws(rows.ravel())
    assert np.abs(drawn).max() < 1
    actual = np.asarray(jax.jit(MIXTURE.mean)({}, jnp.asarray(rows.ravel())))
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.abs((actual - drawn.mean(0)) / error).max() < 4.5
    weights, slopes = np.exp(rows[0] - logsumexp(rows[0])), np.tanh(rows[7:])
    red = rows[1]
    green = rows[2] + slopes[0] * red
    blue = rows[3] + slopes[1] * red + slopes[2] * green
    np.testing.assert_allclose(actual, np.stack([red, green, blue]) @ weights, atol=1e-6)


@pytest.mark.parametrize("mean", [-1.4, -1.0, -0.2, 0.5, 0.999, 3.0])
@pytest.mark.parametrize("scale", [0.001, 0.05, 1.0, 30.0])
def test_the_clipped_mean_is_the_integral(compiled, float64, mean, scale):
    u = (np.arange(200_000) + 0.5) / 200_000
    expected = np.clip(logistic.ppf(u, mean, scale), -1, 1).mean()
    actual = compiled(clipped_mean)(jnp.float64(mean), jnp.log(scale))
    assert float(actual) == pytest.approx(expected, abs=1e-7)


def test_far_bins_keep_their_logarithm_and_slope_in_float32():
    # 100 scales from the mean the mass is e^-100: nothing in float32, its logarithm is exact.
    output = jnp.asarray([0.0, 0.9, -4.0], jnp.float32)
    model, x = LogisticMixture(components=1), jnp.asarray([LEVELS[25]], jnp.float32)
    log_scale = float(bounded(jnp.float32(-4.0), low=-7.0, high=7.0))
    scale = np.exp(log_scale)
    b = (LEVELS[25] - 1 / 255 - 0.9) / scale
    # Far in the left tail sigmoid is exp.
    expected = b + np.log(np.expm1(2 / 255 / scale))
    value, slope = jax.jit(jax.value_and_grad(lambda o: model.log_prob({}, o, x)))(output)
    assert expected < -85
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert float(slope[1]) == pytest.approx(-1 / scale, rel=1e-5)


def test_a_wrong_number_of_outputs_is_said():
    with pytest.raises(ValueError, match="7 outputs"):
        LogisticMixture(components=2).mean({}, jnp.zeros(7))
