"""The VDM network: the published count, and the output of a plain NumPy network for signals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from flax import linen as nn
from oracles import entry_of, label_of
from plain_layers import attention, block, conv, dense, norm, silu, sinusoids

from genzoo.core import tree
from genzoo.nets.unet.vdm_unet import VDMUNet, VDMUNetSettings, base2_fourier

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def shapes_of(side=32, classes=0, **settings):
    net = VDMUNetSettings(**settings).build(out_channels=3, entries=entry_of(classes))
    inputs = jnp.zeros((1, side, side, 3)), jnp.zeros(1), {}
    return jax.eval_shape(net.init, jax.random.key(0), *inputs)


def test_parameter_count_is_the_published_one():
    assert section_problems(VDMUNetSettings(), "network", (32, 32, 3)) == []
    # google-research/vdm on CIFAR-10, which has two more params, the ends of gamma.
    assert tree.count(shapes_of()) == 30_578_181 - 2


def test_labels_need_a_row_each_and_one_for_none():
    small = dict(width=8, blocks=1)
    counts = [tree.count(shapes_of(8, classes=k, **small)) for k in (0, 10)]
    assert counts[1] - counts[0] == 11 * 32


def plain_vdm(p, x, time, onehot, *, blocks, groups, exponents):
    """The network for a signal as in google-research/vdm, with a class table."""
    core = p["core"]
    embedded = np.concatenate([sinusoids(time, 8), np.zeros((len(x), 1))], -1)
    c = dense(embedded, core["condition"]["dense_0"])
    c = dense(silu(c), core["condition"]["dense_1"])
    c = c + onehot @ core["condition"]["label"]["embedding"]
    waves = [f(x[..., i] * 2.0**n * np.pi)
             for f in (np.sin, np.cos) for i in range(x.shape[-1]) for n in exponents]
    h = conv(np.concatenate([x, np.stack(waves, -1)], -1), core["entry"])
    skips = [h]
    for i in range(blocks):
        h = block(h, c, core[f"down_0_block_{i}"]["residual"], groups=groups)
        skips.append(h)
    h = block(h, c, core["middle_0"]["residual"], groups=groups)
    h = attention(h, core["middle_0"]["attention"], groups=groups)
    h = block(h, c, core["middle_1"]["residual"], groups=groups)
    for i in range(blocks + 1):
        h = np.concatenate([h, skips.pop()], -1)
        h = block(h, c, core[f"up_0_block_{i}"]["residual"], groups=groups)
    assert not skips
    return x + conv(silu(norm(h, core["out_norm"], groups)), core["out"])


def test_it_is_the_plain_network():
    settings = VDMUNetSettings(width=8, blocks=2, fourier=(1, 3))
    net = settings.build(out_channels=2, entries=entry_of(2))
    rng = np.random.default_rng(2)
    x, time = rng.normal(size=(2, 6, 2)), np.array([3.0, 710.0])
    inputs = [jnp.asarray(v, jnp.float32) for v in (x, time)] + [label_of([2, 0], absent=2)]
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    assert "bias" not in shapes["core"]["middle_0"]["residual"]["condition"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.3, shapes)
    onehot = np.eye(3)[[2, 0]]
    expected = plain_vdm(params, x, time, onehot, blocks=2, groups=2, exponents=(1, 3))
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    output = jit(net.apply)(single, *inputs)
    np.testing.assert_allclose(output, expected, atol=2e-5 * np.abs(expected).max())


def test_fourier_features_have_periods_of_two_grey_levels_and_one():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(2, 3, 5, 2))
    features = base2_fourier(jnp.asarray(x, jnp.float32), (7, 8))
    assert features.shape == (2, 3, 5, 8) and features.dtype == jnp.float32
    level = 2 / 256
    for n, period in ((7, 2 * level), (8, level)):
        for c in range(2):
            angle = 2 * np.pi * x[..., c] / period
            own = features[..., [2 * c + n - 7, 4 + 2 * c + n - 7]]
            np.testing.assert_allclose(
                own, np.stack([np.sin(angle), np.cos(angle)], -1), atol=2e-4
            )


@pytest.mark.parametrize("channels, outputs", [(2, 3), (3, 2)])
def test_the_input_is_added_on_the_channels_that_both_have(channels, outputs):
    class Core(nn.Module):
        def __call__(self, x, time, conditions, residuals, *, train):
            return jnp.full((*x.shape[:-1], outputs), 10.0)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, channels)), jnp.float32)
    output = VDMUNet(core=Core(), fourier=(1,)).apply({}, x, jnp.zeros(2), {}, train=False)
    shared = min(channels, outputs)
    np.testing.assert_allclose(output[..., :shared], 10 + x[..., :shared], rtol=1e-6)
    np.testing.assert_array_equal(output[..., shared:], 10)


def test_it_starts_as_the_identity():
    net = VDMUNetSettings(width=8, blocks=1).build(out_channels=3, entries={})
    inputs = jnp.zeros((1, 4, 3)), jnp.zeros(1), {}
    # Compile only the output that is used.
    last = jit(lambda key: net.init(key, *inputs)["core"]["out"])(jax.random.key(0))
    assert not any(leaf.any() for leaf in jax.tree.leaves(last))


@pytest.mark.parametrize(
    "shape, settings, words",
    [
        ((32, 32, 3), dict(blocks=0), ["network.blocks = 0 must be at least 1."]),
        ((32, 32, 3), dict(patch=0), ["network.patch = 0 must be at least 1."]),
        ((32, 32, 3), dict(patch=3), ["network.patch is 3", "divisible by 3", "30 or 33"]),
        ((32, 32, 3), dict(width=33), ["network.width = 33", "even"]),
        ((32, 32, 3), dict(fourier=(7, 30)), ["network.fourier[1] = 30 must be at most 16."]),
        ((32, 32, 3), dict(attention=(16,)), ["network.attention contains 16", "32"]),
        ((32, 32, 3), dict(remat="al"), ["network.remat = 'al'"]),
    ],
)
def test_each_mistake_is_one_sentence(shape, settings, words):
    problems = section_problems(VDMUNetSettings(**settings), "network", shape)
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))


def test_attention_is_named_by_the_side_behind_the_patch_entry():
    settings = VDMUNetSettings(patch=2, attention=(16,))
    assert section_problems(settings, "network", (32, 32, 3)) == []
