"""DALL-E's encoder and decoder: published counts, the block by its formula, alignment."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from scipy.signal import correlate

from genzoo.core import tree
from genzoo.nets.autoencoder.dalle import Block, DalleSettings
from genzoo.nets.parts.layers import DTYPES

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = dict(vocabulary=7, decoded=2, width=8, initial=3, groups=2, blocks=1)


def dalle(*, shape, vocabulary, decoded, **settings):
    return DalleSettings(**settings).build(shape=shape, vocabulary=vocabulary, decoded=decoded)


def dalle_problems(shape, **settings):
    return section_problems(DalleSettings(**settings), "network", shape)


class Made:
    """Small networks, a batch of two for each, and params that are all nonzero."""

    def __init__(self, shape, **changes):
        settings = SMALL | changes
        self.nets = dalle(shape=shape, **settings)
        rng = np.random.default_rng(0)
        grid = self.nets.grid
        ends = (shape, (*grid, settings["vocabulary"]), (*grid, settings["initial"]))
        self.inputs = [jnp.asarray(rng.normal(size=(2, *end)), jnp.float32) for end in ends]
        self.parts = self.nets.encoder, self.nets.embed, self.nets.decoder
        self.params = []
        for net, value in zip(self.parts, self.inputs, strict=True):
            shapes = jax.eval_shape(net.init, jax.random.key(0), value)
            self.params.append(
                jax.tree.map(
                    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), shapes
                )
            )

    def outputs(self, params=None):
        def all_three(params, inputs):
            return [
                net.apply(p, x) for net, p, x in zip(self.parts, params, inputs, strict=True)
            ]

        return jit(all_three)(params or self.params, self.inputs)


def test_parameter_counts_are_the_published_ones():
    nets = dalle(shape=(256, 256, 3), vocabulary=8192, decoded=6)
    assert nets.grid == (32, 32)
    ends = (
        (nets.encoder, (256, 256, 3)),
        (nets.embed, (32, 32, 8192)),
        (nets.decoder, (32, 32, 128)),
    )
    encoder, embed, decoder = (
        tree.count(jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape))))
        for net, shape in ends
    )
    assert encoder == 53_786_240
    assert embed + decoder == 43_829_766
    assert encoder + embed + decoder == 97_616_006


@pytest.mark.parametrize(
    "shape, changes, grid",
    [
        pytest.param((28, 28, 1), dict(groups=3), (7, 7), marks=pytest.mark.slow),
        ((8, 12, 3), dict(groups=2, blocks=2), (4, 6)),
        pytest.param((6, 6, 3), dict(groups=1), (6, 6), marks=pytest.mark.slow),
        ((16, 2), dict(groups=3), (4,)),
    ],
)
def test_shapes(shape, changes, grid):
    assert dalle_problems(shape, **changes) == []
    m = Made(shape, **changes)
    assert m.nets.grid == grid
    logits, embedded, output = m.outputs()
    assert logits.shape == (2, *grid, 7)
    assert embedded.shape == (2, *grid, 3)
    assert output.shape == (2, *shape[:-1], 2)
    for array in (logits, embedded, output):
        assert array.dtype == jnp.float32 and np.abs(array).max() > 0.01


@pytest.mark.parametrize("features, windows", [(8, (3, 3, 3, 1)), (12, (1, 3, 3, 3))])
def test_a_block_is_its_formula(features, windows):
    """On one axis, against SciPy's correlations in float64; 8 features need no shortcut layer."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 8)).astype(np.float32)
    block = Block(features, windows, 0.25, DTYPES["float32"])
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)

    def conv(name, h):
        kernel, bias = params["params"][name]["kernel"].astype(np.float64), params["params"][name]
        out = np.zeros((6, kernel.shape[-1])) + bias["bias"]
        for i in range(kernel.shape[1]):
            for o in range(kernel.shape[2]):
                out[:, o] += correlate(h[:, i], kernel[:, i, o], mode="same")
        return out

    assert [params["params"][f"conv_{i}"]["kernel"].shape[0] for i in range(4)] == list(windows)
    h = x[0].astype(np.float64)
    for i in range(4):
        h = conv(f"conv_{i}", np.maximum(h, 0))
    short = x[0] if features == 8 else conv("shortcut", x[0].astype(np.float64))
    assert ("shortcut" in params["params"]) == (features != 8)
    expected = short + 0.25 * h
    found = jit(block.apply)(params, x)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "groups, blocks", [pytest.param(2, 1, marks=pytest.mark.slow), (3, 2)]
)
def test_blocks_add_little_at_the_start_as_one_over_their_number_squared(groups, blocks):
    """The entry is 0 and all biases are 0, except those of the last layers of the residual paths,
    which are 1. Every block then adds exactly its gain. The shortcuts are identities, so that they
    do not mix channels."""
    m = Made((8, 8, 1), groups=groups, blocks=blocks, width=4, vocabulary=1)
    params = jax.tree.map(jnp.zeros_like, m.params[0])
    for name, part in params.items():
        if name.startswith("group"):
            part["conv_3"]["bias"] = jnp.ones_like(part["conv_3"]["bias"])
            if "shortcut" in part:
                kernel = part["shortcut"]["kernel"]
                part["shortcut"]["kernel"] = jnp.ones_like(kernel) / kernel.shape[-2]
    last = params["out"]["kernel"]
    params["out"]["kernel"] = jnp.ones_like(last) / last.shape[-2]
    logits = jit(m.nets.encoder.apply)(params, m.inputs[0])
    # groups * blocks additions of 1 / (groups * blocks)^2.
    np.testing.assert_allclose(logits, 1 / (groups * blocks), rtol=1e-5)


def test_encoder_pools_by_the_greatest_of_two_by_two():
    """With blocks that add nothing, the output is the ReLU of the maximum of each window."""
    m = Made((4, 6, 1), groups=2, width=4, vocabulary=1)
    params = jax.tree.map(jnp.zeros_like, m.params[0])
    params["entry"]["kernel"] = params["entry"]["kernel"].at[3, 3].set(1.0)
    params["group_1_block_0"]["shortcut"]["kernel"] += 1 / 4
    params["out"]["kernel"] += 1 / 8
    x = m.inputs[0] - 0.9
    greatest = np.asarray(x).reshape(2, 2, 2, 3, 2, 1).max((2, 4))
    assert greatest.min() < -0.1 and greatest.max() > 0.1

    def total(x):
        logits = m.nets.encoder.apply(params, x)
        return logits.sum(), logits

    grad, logits = jit(jax.grad(total, has_aux=True))(x)
    np.testing.assert_allclose(logits, np.maximum(greatest, 0), atol=1e-5)
    np.testing.assert_allclose(grad, np.isin(x, greatest[greatest > 0]), atol=1e-5)


def test_decoder_copies_each_position_to_two_by_two():
    """With blocks that add nothing, the output is the ReLU of copies of the mean over channels."""
    m = Made((4, 6, 1), groups=2, width=4, decoded=1)
    params = jax.tree.map(jnp.zeros_like, m.params[2])
    for group in (0, 1):
        kernel = params[f"group_{group}_block_0"]["shortcut"]["kernel"]
        params[f"group_{group}_block_0"]["shortcut"]["kernel"] += 1 / kernel.shape[-2]
    params["out"]["kernel"] += 1 / 4
    mean = np.maximum(np.asarray(m.inputs[2]).mean(-1, keepdims=True), 0)
    assert (mean == 0).any() and (mean > 0.1).any()
    copies = np.kron(mean[..., 0], np.ones((1, 2, 2)))[..., None]
    output = jit(m.nets.decoder.apply)(params, m.inputs[2])
    np.testing.assert_allclose(output, copies, atol=1e-5)


def test_a_code_paints_about_its_own_patch_and_a_pixel_moves_the_codes_about_it():
    """Without negative values no ReLU is inactive, so the windows are exact."""
    m = Made((52, 60, 1), groups=3, width=4)
    encoder, _, decoder = jax.tree.map(jnp.abs, m.params)

    def moved(net, params, value, at):
        f = partial(jit(net.apply), params)
        change = np.abs(f(value) - f(value.at[(0, *at)].add(1e4))).max(-1)[0]
        return [(where.min(), where.max()) for where in np.nonzero(change)]

    # Each block widens the window by three positions, at scales 4, 2 and 1.
    reach = 3 * 4 + 3 * 2 + 3
    expected = [(4 * i - reach, 4 * i + 3 + reach) for i in (6, 7)]
    assert moved(m.nets.decoder, decoder, jnp.abs(m.inputs[2]), (6, 7)) == expected

    # The 7x7 entry and a block, pooling, a block, pooling, a block.
    expected = [
        (((u - 6) // 2 - 3) // 2 - 3, ((u + 6) // 2 + 3) // 2 + 3) for u in (25, 30)
    ]
    assert moved(m.nets.encoder, encoder, jnp.abs(m.inputs[0]), (25, 30)) == expected


def test_embedding_a_code_is_a_row_and_soft_codes_mix_rows():
    m = Made((4, 4, 1))
    rows = m.params[1]["conv"]["kernel"][0, 0] + m.params[1]["conv"]["bias"]
    weights = jnp.zeros((1, 2, 2, 7)).at[0, 0, 1, 3].set(1).at[0, 1, 0, 2].set(0.25)
    weights = weights.at[0, 1, 0, 6].set(0.75)
    embedded = m.nets.embed.apply(m.params[1], weights)[0]
    np.testing.assert_allclose(embedded[0, 1], rows[3], rtol=1e-5)
    np.testing.assert_allclose(embedded[1, 0], rows[2] / 4 + 3 * rows[6] / 4, rtol=1e-5)


def test_every_parameter_has_a_say():
    """Without negative values, so that no ReLU is inactive."""
    m = Made((8, 8, 1), groups=2, blocks=2)

    def loss(params):
        logits = m.nets.encoder.apply(params[0], jnp.abs(m.inputs[0]))
        return m.nets.decoder.apply(params[2], m.nets.embed.apply(params[1], logits)).sum()

    grads = jit(jax.grad(loss))(jax.tree.map(jnp.abs, m.params))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(grad).max() > 0, tree.path_string(path)


@pytest.mark.slow
def test_bfloat16_comes_close_with_the_same_float32_params():
    full, half = Made((8, 8, 3)), Made((8, 8, 3), dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    for one, two in zip(full.outputs()[::2], half.outputs()[::2], strict=True):
        assert two.dtype == jnp.float32
        assert 0 < np.sqrt(np.mean((one - two) ** 2) / np.mean(one**2)) < 0.03


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(groups=4), ["network.groups is 4", "8", "28 x 28", "24 or 32"]),
        (dict(groups=0), ["network.groups = 0 must be at least 1."]),
        (dict(width=3, groups=3), ["network.width = 3 must be at least 4."]),
        (dict(initial=0, groups=3), ["network.initial = 0 must be at least 1."]),
        (dict(blocks=0, groups=3), ["network.blocks = 0 must be at least 1."]),
        (dict(dtype="bfloat", groups=3), ["network.dtype = 'bfloat'", "'bfloat16'?"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = dalle_problems((28, 28, 1), **settings)
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
