"""GroupNorm, attention, embeddings, resizing and folding against direct formulas."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.nets.parts.attention import attend
from genzoo.nets.parts.embeddings import fourier, sinusoidal, sinusoidal_adm
from genzoo.nets.parts.layers import Conv, GroupNorm, double, fold, groups_of, halve, unfold


def direct_group_norm(x, groups, epsilon):
    """The textbook formula in float64, one group at a time."""
    out = np.empty(x.shape)
    size = x.shape[-1] // groups
    for row in range(x.shape[0]):
        for group in range(groups):
            part = x[row, ..., group * size : (group + 1) * size].astype(np.float64)
            normed = (part - part.mean()) / np.sqrt(part.var() + epsilon)
            out[row, ..., group * size : (group + 1) * size] = normed
    return out


@pytest.mark.parametrize("shape", [(2, 6, 5, 64), (3, 7, 24), (1, 2, 3, 4, 8)])
@pytest.mark.parametrize("ratio", [0, 10])
def test_group_norm_is_the_direct_formula(shape, ratio):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) + ratio).astype(np.float32) * 3
    gain, bias = rng.normal(size=(2, shape[-1])).astype(np.float32)
    norm = GroupNorm(groups=8, epsilon=1e-5)
    out = norm.apply({"params": {"scale": gain, "bias": bias}}, x)
    expected = direct_group_norm(x, 8, 1e-5) * gain + bias
    # Computing the variance in one pass in float32 loses about ratio^2 ulps.
    assert np.abs(out - expected).max() < (2e-4 if ratio else 5e-6)


def test_adaptive_group_norm_scales_and_shifts():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 4, 4, 16)).astype(np.float32)
    scale, shift = rng.normal(size=(2, 2, 16)).astype(np.float32)
    norm = GroupNorm(groups=4, epsilon=1e-6)
    params = {"scale": rng.normal(size=16), "bias": rng.normal(size=16)}
    plain = direct_group_norm(x, 4, 1e-6) * params["scale"] + params["bias"]
    out = norm.apply({"params": params}, x, scale, shift)
    expected = plain * (1 + scale[:, None, None]) + shift[:, None, None]
    np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_group_norm_of_a_constant_is_finite_with_finite_gradient(value):
    norm = GroupNorm(groups=2)
    variables = norm.init(jax.random.key(0), jnp.zeros((1, 3, 4)))
    x = jnp.full((1, 3, 4), value)
    grad = jax.grad(lambda x: norm.apply(variables, x).sum())(x)
    assert np.isfinite(norm.apply(variables, x)).all()
    assert np.isfinite(grad).all()


def test_group_norm_statistics_are_float32_for_bfloat16_inputs():
    x = (np.random.default_rng(2).normal(size=(1, 32, 32, 32)) + 4).astype(jnp.bfloat16)
    norm = GroupNorm(groups=4, dtype=jnp.dtype("bfloat16"))
    variables = norm.init(jax.random.key(0), x)
    out = norm.apply(variables, x)
    assert out.dtype == jnp.bfloat16
    expected = direct_group_norm(np.asarray(x, np.float64), 4, 1e-6)
    # Only the rounding of the output: 8 bits of the largest value.
    assert np.abs(np.asarray(out, np.float64) - expected).max() < np.abs(expected).max() / 256


@pytest.mark.parametrize("channels, groups", [(128, 32), (96, 32), (48, 24), (40, 20), (7, 7)])
def test_groups_are_the_greatest_divisor(channels, groups):
    assert groups_of(channels, 32) == groups


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("mask", [None, np.array([[1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]], bool)])
def test_attention_is_the_naive_softmax(heads, mask):
    rng = np.random.default_rng(3)
    q = rng.normal(size=(2, 5, heads, 4))
    k, v = rng.normal(size=(2, 2, 6, heads, 4))
    expected = np.zeros((2, 5, heads, 4))
    for row in range(2):
        there = range(6) if mask is None else np.flatnonzero(mask[row])
        for head in range(heads):
            for n in range(5):
                logits = np.array([q[row, n, head] @ k[row, m, head] / 2 for m in there])
                weights = np.exp(logits) / np.exp(logits).sum()
                for m, weight in zip(there, weights, strict=True):
                    expected[row, n, head] += weight * v[row, m, head]
    out = attend(*(jnp.asarray(a, jnp.float32) for a in (q, k, v)), mask)
    np.testing.assert_allclose(out, expected, atol=2e-6)


def test_attention_does_not_overflow():
    q = jnp.full((1, 2, 1, 4), 1e4)
    v = jnp.ones((1, 2, 1, 4))
    np.testing.assert_allclose(attend(q, q, v), v)


def test_sinusoids_have_the_published_layouts():
    time, width = 37.0, 8
    ddpm = [10_000 ** (-i / 3) for i in range(4)]
    adm = [10_000 ** (-i / 4) for i in range(4)]
    np.testing.assert_allclose(
        sinusoidal(jnp.array([time]), width)[0],
        [np.sin(time * f) for f in ddpm] + [np.cos(time * f) for f in ddpm],
        atol=5e-6,
    )
    np.testing.assert_allclose(
        sinusoidal_adm(jnp.array([time]), width)[0],
        [np.cos(time * f) for f in adm] + [np.sin(time * f) for f in adm],
        atol=5e-6,
    )


def test_fourier_features_are_constant_bounded_and_tell_times_apart():
    times = jnp.array([0.0, 0.5, 1.0, 500.0, 999.0])
    features = fourier(times, 64)
    np.testing.assert_array_equal(features, fourier(times, 64))
    np.testing.assert_allclose(features[0], [0.0] * 32 + [1.0] * 32)
    np.testing.assert_allclose((features**2).sum(-1), 32, rtol=1e-5)
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1)
    assert distances[~np.eye(5, dtype=bool)].min() > 0.1


@pytest.mark.parametrize("size", [(4, 6), (6,), (2, 4, 6)])
def test_fold_takes_whole_patches_and_unfold_undoes_it(size):
    x = np.random.default_rng(4).normal(size=(2, *size, 3))
    folded = fold(x, 2)
    assert folded.shape == (2, *(side // 2 for side in size), 3 * 2 ** len(size))
    np.testing.assert_array_equal(unfold(folded, 2), x)
    first = x[(0, *(slice(0, 2) for _ in size))]
    np.testing.assert_array_equal(folded[(0, *(0 for _ in size))], first.reshape(-1))
    assert fold(x, 1) is x
    assert unfold(x, 1) is x


def test_halve_is_the_mean_and_undoes_double():
    x = np.random.default_rng(5).normal(size=(2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(halve(x)[0, 1, 2], x[0, 2:4, 4:6].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(halve(double(x)), x, rtol=1e-6)
    np.testing.assert_array_equal(double(x)[:, 5, 8], x[:, 2, 4])


def test_strided_conv_pads_behind_the_last_position():
    x = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
    kernel = jnp.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    params = {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}
    out = Conv(1, stride=2).apply({"params": params}, x)
    np.testing.assert_allclose(out[0, :, 0], [1 + 20 + 300, 3 + 40])


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        *[((2, 5, 3), window) for window in (1, 2, 3, 4)],
        ((2, 4, 6, 3), 3),  # each axis uses the same recursion
        pytest.param((2, 5, 3), 5, marks=pytest.mark.slow),
        pytest.param((2, 4, 6, 3), 2, marks=pytest.mark.slow),
        pytest.param((1, 2, 3, 4, 2), 3, marks=pytest.mark.slow),
    ],
)
def test_convolution_of_a_doubled_map_without_doubling_it(shape, window):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), shape, jnp.float64)
        plain, short = (
            Conv(4, window=window, doubled=doubled, dtype=jnp.dtype("float64"))
            for doubled in (False, True)
        )
        shapes, others = (
            jax.eval_shape(conv.init, jax.random.key(1), value)
            for conv, value in ((plain, double(x)), (short, x))
        )
        chex.assert_trees_all_equal_shapes(shapes, others)
        rng = np.random.default_rng(1)
        variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)

        def weighed(conv, enter):
            def value(variables, x):
                out = conv.apply(variables, enter(x))
                return (out * jnp.cos(jnp.arange(out.size).reshape(out.shape))).sum(), out

            return jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))(variables, x)

        expected, found = weighed(plain, double), weighed(short, lambda x: x)
        chex.assert_trees_all_close(found, expected, atol=1e-12)


def test_convolution_of_a_doubled_map_takes_no_stride():
    with pytest.raises(ValueError, match="SAME padding and stride 1"):
        Conv(1, stride=2, doubled=True).init(jax.random.key(0), jnp.ones((1, 4, 1)))


def test_convolution_of_a_doubled_map_sums_its_taps_in_float32():
    conv = Conv(1, doubled=True, dtype=jnp.dtype("bfloat16"))
    kernel = jnp.array([0.0, -1.0, 1 + 2**-12])[:, None, None]  # the last is 1 in bfloat16
    variables = {"params": {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    out = conv.apply(variables, jnp.ones((1, 1, 1)))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[0, :, 0], [2**-12, -1.0])
