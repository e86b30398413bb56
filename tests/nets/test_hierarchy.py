"""The networks of VQ-VAE-2: published count, dependencies, two levels written out, alignment."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems

from genzoo.core import tree
from genzoo.nets.autoencoder.convnet import ConvUp
from genzoo.nets.autoencoder.hierarchy import HierarchySettings

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = dict(latent=3, decoded=2, levels=2, width=6, block_width=4, blocks=1)


def hierarchy(*, shape, latent, decoded, **settings):
    return HierarchySettings(**settings).build(shape=shape, latent=latent, decoded=decoded)


def hierarchy_problems(shape, **settings):
    return section_problems(HierarchySettings(**settings), "network", shape)


class Made:
    """A small hierarchy of two examples, and params that are all nonzero."""

    def __init__(self, shape, scale=0.3, **changes):
        self.net = hierarchy(shape=shape, **SMALL | changes)
        rng = np.random.default_rng(0)
        self.x = jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32)
        self.qs = [
            jnp.asarray(rng.normal(size=(2, *grid, self.net.latent)), jnp.float32)
            for grid in self.net.grids
        ]
        shapes = jax.eval_shape(self.net.init, jax.random.key(0), self.x)
        self.params = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * scale, leaf.dtype), shapes
        )


def keep(level, z):
    return z


def conv(window, inputs, outputs):
    return (window**2 * inputs + 1) * outputs


def test_two_levels_have_the_published_count():
    net = hierarchy(shape=(256, 256, 3), latent=64, decoded=3, levels=2)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
    assert tree.count(params) == 1_388_867
    assert net.grids == ((64, 64), (32, 32))


def test_one_level_is_the_pair_of_the_first_paper():
    net = hierarchy(shape=(32, 32, 3), latent=64, decoded=3)
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert tree.count(params) == 662_723 and net.grids == ((8, 8),)
    deeper = hierarchy(shape=(32, 32, 3), latent=4, decoded=3, levels=2, downsamples=1)
    assert deeper.grids == ((16, 16), (8, 8))


def test_three_levels_count_by_hand():
    w, b, d = 10, 3, 4
    net = hierarchy(
        shape=(32, 16, 3), latent=d, decoded=2, levels=3, width=w, block_width=b, blocks=1
    )
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 16, 3)))
    block = conv(3, w, b) + conv(1, b, w)
    above = conv(4, w, 5) + conv(3, 5, w) + block
    up = conv(4, d, d)
    assert {name: tree.count(part) for name, part in params.items()} == {
        "encoder_0": conv(4, 3, 5) + conv(4, 5, w) + conv(3, w, w) + block,
        "encoder_1": above,
        "encoder_2": above,
        "head_0": conv(1, w + d, d),
        "head_1": conv(1, w + d, d),
        "head_2": conv(1, w, d),
        "context_1": conv(3, d, w) + block + conv(4, w, d),
        "context_0": conv(3, 2 * d, w) + block + conv(4, w, d),
        "upsample_1": up,
        "upsample_2": 2 * up,
        "decoder": conv(3, 3 * d, w) + block + conv(4, w, 5) + conv(4, 5, 2),
    }
    assert net.grids == ((8, 4), (4, 2), (2, 1))
    assert net.levels == 3


@pytest.mark.parametrize(
    "shape, levels",
    [
        ((16, 24, 3), 2),
        pytest.param((16, 16, 1), 3, marks=pytest.mark.slow),
        pytest.param((64, 2), 4, marks=pytest.mark.slow),
    ],
)
def test_shapes(shape, levels):
    assert hierarchy_problems(shape, levels=levels) == []
    m = Made(shape, levels=levels)
    qs = jit(lambda p, x: m.net.encode(p, x, keep))(m.params, m.x)
    assert [q.shape for q in qs] == [(2, *grid, 3) for grid in m.net.grids]
    output = jit(m.net.decode)(m.params, qs)
    assert output.shape == (2, *shape[:-1], 2)
    assert {a.dtype for a in (*qs, output)} == {jnp.dtype("float32")}
    assert all(np.abs(a).max() > 1e-3 for a in (*qs, output))


def test_two_levels_are_the_reading_written_out():
    """The data flow of the cited implementation, part by part, with its order of concatenation."""
    m = Made((16, 16, 3))
    net, params = m.net, m.params
    quantise = lambda level, z: jnp.round(4 * z) / 4 + level  # noqa: E731

    def written_out(params, x):
        bottom = net.encoders[0].apply(params["encoder_0"], x)
        top = net.encoders[1].apply(params["encoder_1"], bottom)
        quant_t = quantise(1, net.heads[1].apply(params["head_1"], top))
        decoded_t = net.contexts[0].apply(params["context_0"], quant_t)
        both = jnp.concatenate([decoded_t, bottom], -1)
        quant_b = quantise(0, net.heads[0].apply(params["head_0"], both))
        upsampled = net.upsamples[0].apply(params["upsample_1"], quant_t)
        quants = jnp.concatenate([upsampled, quant_b], -1)
        return [quant_b, quant_t], net.decoder.apply(params["decoder"], quants)

    def methods(params, x):
        qs = net.encode(params, x, quantise)
        return qs, net.decode(params, qs)

    found, expected = jit(methods)(params, m.x), jit(written_out)(params, m.x)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_levels_are_quantised_from_the_top_and_see_those_above_only():
    m = Made((32, 1), levels=3)
    calls = []

    @jit
    def encode(scales, shifts):
        def quantise(level, z):
            calls.append(level)
            return scales[level] * z + shifts[level]

        return m.net.encode(m.params, m.x, quantise)

    def moved(scales, at):
        before, after = (encode(scales, shift * np.eye(3)[at]) for shift in (0, 1))
        return [bool(np.abs(a - b).max() > 1e-3) for a, b in zip(before, after, strict=True)]

    assert moved(np.ones(3), 0) == [True, False, False]
    assert moved(np.ones(3), 1) == [True, True, False]
    assert moved(np.ones(3), 2) == [True, True, True]
    # With q_1 held fixed the bottom still depends on the top, through c_0.
    assert moved(np.array([1.0, 0.0, 1.0]), 2) == [True, False, True]
    assert calls == [2, 1, 0]


def test_codes_of_level_two_rise_by_two_transposed_convolutions_with_relu_between():
    m = Made((32, 1), levels=3)
    params, up = m.params["upsample_2"], ConvUp(m.net.latent)
    first, second = ({"params": params[f"up_{i}"]} for i in (0, 1))
    expected = up.apply(second, jnp.maximum(up.apply(first, m.qs[2]), 0))
    np.testing.assert_allclose(m.net.upsamples[1].apply(params, m.qs[2]), expected, atol=1e-5)


def test_every_parameter_and_every_level_has_a_say():
    m = Made((32, 2), levels=3, scale=0.4)

    def loss(params, shifts):
        qs = m.net.encode(params, m.x, lambda level, z: jnp.sin(z) + shifts[level])
        return (m.net.decode(params, qs) ** 2).sum()

    grads = jit(jax.grad(loss, argnums=(0, 1)))(m.params, [jnp.zeros(3)] * 3)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(grad).max() > 0, tree.path_string(path)


def test_a_code_of_each_level_paints_about_its_own_patch():
    """On signals, where position i of level l covers the 4 2^l pixels from 4 2^l i on."""
    m = Made((256, 1), levels=3, blocks=0)
    decode = partial(jit(m.net.decode), m.params)
    plain = decode(m.qs)
    for level, q in enumerate(m.qs):
        moved = list(m.qs)
        unit, i = 4 * 2**level, q.shape[1] // 2
        moved[level] = q.at[0, i].add(100.0)
        (where,) = np.nonzero(np.abs(decode(moved) - plain).max(-1)[0])
        assert where.min() + where.max() == 2 * unit * i + unit - 1, level
        assert unit <= where.max() - where.min() + 1 < 7 * unit


@pytest.mark.slow
def test_bfloat16_comes_close_with_the_same_float32_params():
    full, half = (Made((16, 16, 3), dtype=dtype) for dtype in ("float32", "bfloat16"))

    def output(net, params, x):
        qs = net.encode(params, x, keep)
        return [*qs, net.decode(params, qs)]

    one, two = (jit(partial(output, m.net))(full.params, m.x) for m in (full, half))
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    for a, b in zip(one, two, strict=True):
        assert b.dtype == jnp.float32
        assert 0 < np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2)) < 0.03


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(levels=0), ["network.levels = 0 must be at least 1."]),
        (dict(downsamples=0), ["network.downsamples = 0 must be at least 1."]),
        (dict(levels=4), ["network.levels is 4", "32", "48 x 48", "32 or 64"]),
        (dict(width=1), ["network.width = 1 must be at least 2."]),
        (dict(block_width=0), ["network.block_width = 0 must be at least 1."]),
        (dict(blocks=-1), ["network.blocks = -1 must be at least 0."]),
        (dict(dtype="float23"), ["network.dtype = 'float23'", "'float32'?"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = hierarchy_problems((48, 48, 3), **settings)
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
