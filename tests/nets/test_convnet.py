"""The convolutional pair: published counts, transposed convolution by its definition, alignment."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from jax import lax

from genzoo.core import tree
from genzoo.nets.autoencoder.convnet import ConvSettings, ConvUp

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = dict(encoded=6, latent=3, decoded=2, width=8, block_width=4, blocks=1)


def conv_pair(*, shape, encoded, latent, decoded, **settings):
    (pair,) = ConvSettings(**settings).build(
        shape=shape, encoded=(encoded,), latents=(latent,), decoded=(decoded,)
    )
    return pair


def conv_problems(shape, **settings):
    return section_problems(ConvSettings(**settings), "network", shape)


class Made:
    """A small pair, inputs, and params that are all nonzero."""

    def __init__(self, shape, **changes):
        settings = SMALL | changes
        self.pair = conv_pair(shape=shape, **settings)
        rng = np.random.default_rng(0)
        self.x = jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32)
        z_shape = (2, *self.pair.grid, settings["latent"])
        self.z = jnp.asarray(rng.normal(size=z_shape), jnp.float32)
        self.params = []
        for net, value in self.sides:
            shapes = jax.eval_shape(net.init, jax.random.key(0), value)
            self.params.append(
                jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.2), shapes)
            )

    @property
    def sides(self):
        return (self.pair.encoder, self.x), (self.pair.decoder, self.z)

    def outputs(self, params=None):
        def both(params):
            return [net.apply(p, x) for p, (net, x) in zip(params, self.sides, strict=True)]

        return jit(both)(params or self.params)


def counts(shape, **settings):
    pair = conv_pair(shape=shape, **settings)
    inputs = jnp.zeros((1, *shape)), jnp.zeros((1, *pair.grid, settings["latent"]))
    return [
        tree.count(jax.eval_shape(net.init, jax.random.key(0), value))
        for net, value in zip((pair.encoder, pair.decoder), inputs, strict=True)
    ]


def test_the_vq_vae_of_the_sonnet_example_has_its_published_count():
    both = counts((32, 32, 3), encoded=64, latent=64, decoded=3)
    assert sum(both) == 662_723
    assert sum(both) + 512 * 64 == 695_491


def conv(window, inputs, outputs):
    return (window**2 * inputs + 1) * outputs


def test_three_downsamples_and_a_flat_latent_count_by_hand():
    w, b = 10, 3
    blocks = 2 * (conv(3, w, b) + conv(1, b, w))
    trunk = conv(4, 3, 5) + conv(4, 5, w) + conv(4, w, w) + conv(3, w, w) + blocks
    ups = conv(4, w, w) + conv(4, w, 5) + conv(4, 5, 2)
    settings = dict(
        encoded=7, latent=4, decoded=2, width=w, block_width=b, blocks=2, downsamples=3
    )
    assert counts((16, 24, 3), **settings) == [
        trunk + conv(1, w, 7),
        conv(3, 4, w) + blocks + ups,
    ]
    flat = 2 * 3 * w
    assert counts((16, 24, 3), flat=True, **settings) == [
        trunk + (flat + 1) * 7,
        (4 + 1) * flat + blocks + ups,
    ]


@pytest.mark.parametrize(
    "shape, changes, grid",
    [
        ((8, 12, 3), {}, (2, 3)),
        ((8, 8, 1), dict(downsamples=1), (4, 4)),
        ((8, 16, 1), dict(downsamples=3, activation="silu"), (1, 2)),
        ((8, 12, 3), dict(flat=True), ()),
        ((16, 2), {}, (4,)),
        ((4, 4, 8, 1), dict(blocks=0), (1, 1, 2)),
    ],
)
def test_shapes(shape, changes, grid):
    assert conv_problems(shape, **changes) == []
    m = Made(shape, **changes)
    encoded, decoded = m.outputs()
    assert m.pair.grid == grid
    assert encoded.shape == (2, *grid, 6) and decoded.shape == (2, *shape[:-1], 2)
    assert encoded.dtype == decoded.dtype == jnp.float32
    assert np.abs(encoded).max() > 0.01 and np.abs(decoded).max() > 0.01


def published_kernel(folded, axes, features):
    """The kernel [4, .., C, features] of a folded one, by the formula in ConvUp's docstring."""
    inputs = folded.shape[axes]
    folded = folded.reshape(*(2,) * axes, inputs, *(2,) * axes, features)
    kernel = np.empty((*(4,) * axes, inputs, features))
    for b in itertools.product((0, 1), repeat=axes):
        for r in itertools.product((0, 1), repeat=axes):
            at = tuple(2 * (1 - b_) + r_ for b_, r_ in zip(b, r, strict=True))
            kernel[at] = folded[(*b, slice(None), *r)]
    return kernel


@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2)])
def test_transposed_convolution_is_its_definition(size):
    axes, rng = len(size), np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    params = {
        "conv": {"kernel": rng.normal(size=(*(2,) * axes, 3, 2**axes * 5)).astype(np.float32)},
        "bias": rng.normal(size=5).astype(np.float32),
    }
    kernel = published_kernel(params["conv"]["kernel"], axes, 5)
    # y[2i - 1 + k] += kernel[k] x[i], stored from index -1 on, so that no index is negative.
    y = np.zeros((2, *(2 * side + 2 for side in size), 5))
    for i in np.ndindex(*size):
        for k in np.ndindex(*(4,) * axes):
            at = tuple(2 * i_ + k_ for i_, k_ in zip(i, k, strict=True))
            y[(slice(None), *at)] += x[(slice(None), *i)] @ kernel[k]
    expected = y[(slice(None), *(slice(1, -1),) * axes)] + params["bias"]
    found = jit(ConvUp(5).apply)({"params": params}, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_transposed_convolution_and_its_gradient_are_those_of_jax():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 3)), jnp.float32)
    variables = jit(ConvUp(5).init)(jax.random.key(0), x)
    kernel = published_kernel(np.asarray(variables["params"]["conv"]["kernel"]), 2, 5)
    kernel = jnp.asarray(kernel[::-1, ::-1], jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 6, 8, 5)), jnp.float32)
    transposed = lambda x: lax.conv_transpose(x, kernel, (2, 2), "SAME")  # noqa: E731
    mine = jit(jax.value_and_grad(lambda x: (weights * ConvUp(5).apply(variables, x)).sum()))
    jaxs = jit(jax.value_and_grad(lambda x: (weights * transposed(x)).sum()))
    for found, expected in zip(jax.tree.leaves(mine(x)), jax.tree.leaves(jaxs(x)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def conv_1d(x, part, stride=1):
    """[L, C] -> [L / stride, features], with the same padding on both sides."""
    kernel, pad = part["conv"]["kernel"], (len(part["conv"]["kernel"]) - 1) // 2
    x = np.pad(x, ((pad, pad), (0, 0)))
    starts = range(0, len(x) - len(kernel) + 1, stride)
    rows = [np.einsum("ki,kio->o", x[i : i + len(kernel)], kernel) for i in starts]
    return np.stack(rows) + part["conv"]["bias"]


def conv_up_1d(x, part):
    kernel = published_kernel(part["conv"]["kernel"], 1, len(part["bias"]))
    y = np.zeros((2 * len(x) + 2, len(part["bias"])))
    for i, row in enumerate(x):
        y[2 * i : 2 * i + 4] += row @ kernel
    return y[1:-1] + part["bias"]


@pytest.mark.parametrize("flat", [False, True])
def test_both_networks_are_the_published_sequence_of_layers(flat):
    """On signals, layer by layer in float64, with three scales so that every kind occurs."""
    m = Made((16, 2), downsamples=3, blocks=2, flat=flat)
    encoder, decoder = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), m.params)
    relu = partial(np.maximum, 0)

    def residuals(h, part):
        for i in range(2):
            inner = conv_1d(relu(h), part[f"block_{i}_conv_0"])
            h = h + conv_1d(relu(inner), part[f"block_{i}_conv_1"])
        return relu(h)

    def encode(h):
        trunk = encoder["trunk"]
        for i in range(3):
            h = relu(conv_1d(h, trunk[f"down_{i}"], stride=2))
        h = residuals(conv_1d(h, trunk["entry"]), trunk["residuals"])
        out = encoder["out"]
        return h.reshape(-1) @ out["kernel"] + out["bias"] if flat else conv_1d(h, out)

    def decode(z):
        entry = decoder["entry"]
        h = (z @ entry["kernel"] + entry["bias"]).reshape(2, 8) if flat else conv_1d(z, entry)
        h = residuals(h, decoder["residuals"])
        for i in range(2):
            h = relu(conv_up_1d(h, decoder[f"up_{i}"]))
        return conv_up_1d(h, decoder["out"])

    expected = [
        [f(row) for row in np.asarray(value, np.float64)]
        for f, value in ((encode, m.x), (decode, m.z))
    ]
    for one, two in zip(m.outputs(), expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5 * np.abs(two).max())


def footprint(f, x, at):
    """The first and last index on each axis of the outputs that depend on x[0][at]."""
    moved = np.abs(f(x) - f(x.at[(0, *at)].add(10.0))).max(-1)[0]
    return [(int(where.min()), int(where.max())) for where in np.nonzero(moved)]


def test_decoder_and_encoder_see_windows_centred_on_their_patch():
    """A 3x3 and two strided 4x4 convolutions: patch 4i .. 4i + 3 sees 4i - 7 .. 4i + 10."""
    m = Made((40, 48, 1), blocks=0, activation="gelu")
    decode = partial(jit(m.pair.decoder.apply), m.params[1])
    i, j = 4, 6
    window = [(4 * i - 7, 4 * i + 10), (4 * j - 7, 4 * j + 10)]
    assert footprint(decode, m.z, (i, j)) == window

    seen = jit(jax.grad(lambda x: m.pair.encoder.apply(m.params[0], x)[0, i, j].sum()))(m.x)
    rows, columns, _ = np.nonzero(seen[0])
    assert [(rows.min(), rows.max()), (columns.min(), columns.max())] == window


def test_every_parameter_has_a_say():
    m = Made((8, 8, 1), activation="gelu", latent=6)

    def loss(params):
        z = m.pair.encoder.apply(params[0], m.x)
        return (m.pair.decoder.apply(params[1], z) ** 2).sum()

    for path, grad in jax.tree_util.tree_leaves_with_path(jit(jax.grad(loss))(m.params)):
        assert np.abs(grad).max() > 0, tree.path_string(path)


def test_bfloat16_keeps_params_and_outputs_float32_and_comes_close():
    full, half = Made((8, 8, 3)), Made((8, 8, 3), dtype="bfloat16")
    for net, value in half.sides:
        params = jax.eval_shape(net.init, jax.random.key(0), value)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    for one, two in zip(full.outputs(), half.outputs(full.params), strict=True):
        assert two.dtype == jnp.float32
        assert 0 < np.sqrt(np.mean((one - two) ** 2) / np.mean(one**2)) < 0.03


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(width=1), ["network.width = 1 must be at least 2."]),
        (dict(block_width=0), ["network.block_width = 0 must be at least 1."]),
        (dict(blocks=-1), ["network.blocks = -1 must be at least 0."]),
        (dict(downsamples=0), ["network.downsamples = 0 must be at least 1."]),
        (dict(downsamples=3), ["network.downsamples is 3", "8", "28 x 28", "24 or 32"]),
        (dict(activation="elu"), ["network.activation = 'elu'", "?"]),
        (dict(dtype="float16"), ["network.dtype = 'float16'", "float"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = conv_problems((28, 28, 1), **settings)
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))


def test_vectors_have_no_positions_and_problems_come_at_once():
    assert len(conv_problems((10,))) == 1
    assert len(conv_problems((30, 30, 1), width=0, activation="", dtype="", blocks=-1)) == 5
