"""The network for points: its formula in plain NumPy, and the benefit of Fourier features."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checked import section_problems
from oracles import entry_of, label_of
from plain_layers import dense, silu, sinusoids

from genzoo.nets.point_mlp import PointMLPSettings, gaussian_fourier

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def layer_norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def test_it_is_the_formula():
    settings = PointMLPSettings(width=8, depth=2, fourier=5, fourier_scale=0.2)
    net = settings.build(out_channels=2, entries=entry_of(2))
    rng = np.random.default_rng(0)
    x, time, label = rng.normal(size=(3, 4)), np.array([0.3, 12.0, 700.0]), np.array([0, 1, 2])
    inputs = [jnp.asarray(v, jnp.float32) for v in (x, time)] + [label_of(label, absent=2)]
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    p = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.4, shapes)

    c = dense(sinusoids(time, 8), p["condition"]["dense_0"])
    c = dense(silu(c), p["condition"]["dense_1"]) + p["condition"]["label"]["embedding"][label]
    # The directions are arbitrary here; a test below checks that the features are waves.
    waves = np.asarray(gaussian_fourier(inputs[0], 5, 0.2), np.float64)
    h = dense(np.concatenate([x, waves], -1), p["entry"])
    for i in range(2):
        scale, shift = np.split(dense(silu(c), p[f"condition_{i}"]), 2, -1)
        inner = dense(layer_norm(h, p[f"norm_{i}"]), p[f"dense_{i}_0"])
        h = h + dense(silu((1 + scale) * inner + shift), p[f"dense_{i}_1"])
    expected = dense(silu(layer_norm(h, p["out_norm"])), p["out"])

    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), p)
    output = jit(net.apply)(single, *inputs)
    np.testing.assert_allclose(output, expected, atol=2e-5 * np.abs(expected).max())


def test_it_starts_at_zero():
    net = PointMLPSettings(width=8).build(out_channels=2, entries={})
    # Compile only the output that is used.
    last = jit(lambda key: net.init(key, jnp.ones((3, 2)), jnp.zeros(3), {})["out"])
    assert not any(leaf.any() for leaf in jax.tree.leaves(last(jax.random.key(0))))


def test_fourier_features_are_waves_whose_frequencies_have_the_scale():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)) * 0.1, jnp.float32)
    sines, cosines = np.split(gaussian_fourier(x, 500, 1.5), 2, -1)
    np.testing.assert_allclose(sines**2 + cosines**2, 1, atol=1e-5)
    # At 0 the gradient of a sine is 2 pi times its direction, with mean square 2 scale^2.
    slopes = jit(jax.jacfwd(lambda x: gaussian_fourier(x[None], 500, 1.5)[0]))(jnp.zeros(2))
    assert not np.abs(slopes[500:]).max()
    mean_square = (slopes[:500] ** 2).sum(1).mean() / (2 * np.pi) ** 2
    # Four standard errors: that of a mean of 500 exponential variables is 1 / sqrt(500).
    assert abs(mean_square / (2 * 1.5**2) - 1) < 4 / np.sqrt(500)


def test_fourier_features_make_sharp_edges_quick_to_learn():
    def loss_after(fourier):
        settings = PointMLPSettings(width=32, depth=1, fourier=fourier, fourier_scale=1.0)
        net = settings.build(out_channels=1, entries={})
        optimizer = optax.adam(3e-3)

        def loss(params, key):
            x = jax.random.uniform(key, (256, 2), minval=-2, maxval=2)
            board = 2 * (jnp.floor(2 * x).sum(-1) % 2) - 1  # 64 squares, of side 1/2
            return ((net.apply(params, x, jnp.zeros(256), {})[:, 0] - board) ** 2).mean()

        def step(carry, i):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params, jax.random.key(i))
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        params = jit(net.init)(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1), {})
        start = params, optimizer.init(params)
        run = jit(partial(jax.lax.scan, step))
        return run(start, jnp.arange(300))[1][-50:].mean()

    # The best constant has a loss of 1.
    assert loss_after(32) < loss_after(0) / 3 < 1 / 3


@pytest.mark.parametrize(
    "shape, settings, words",
    [
        ((2,), dict(width=0), ["network.width = 0 must be at least 2."]),
        ((2,), dict(width=33), ["network.width = 33", "even"]),
        ((2,), dict(depth=-1), ["network.depth = -1"]),
        ((2,), dict(fourier=-1), ["network.fourier = -1"]),
        ((2,), dict(fourier_scale=0.0), ["network.fourier_scale = 0.0 must be above 0."]),
        ((2,), dict(time_embedding="furier"), ["network.time_embedding", "'fourier'?"]),
        ((2,), dict(dropout=1.0), ["network.dropout = 1.0 must be at least 0 and below 1."]),
        ((2,), dict(dtype="float16"), ["network.dtype = 'float16'"]),
        ((32, 32, 3), dict(), ["32 x 32 x 3", "use a U-Net"]),
    ],
)
def test_each_mistake_is_one_sentence(shape, settings, words):
    problems = section_problems(PointMLPSettings(**settings), "network", shape)
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
