"""The control branch of U-Nets: its size, its copy, the places of its residuals, its first steps.

The counts are those of lllyasviel/ControlNet with the config of Stable Diffusion 1.5.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import entry_of, few, label_of
from test_unet_counts import SD

from genzoo.core import tree
from genzoo.core.conditions import Entry
from genzoo.nets.unet.control import HintNetwork
from genzoo.nets.unet.song_unet import SongUNetSettings
from genzoo.nets.unet.unet import UNetSettings
from genzoo.nets.unet.vdm_unet import VDMUNetSettings

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SHAPE, WIDTHS = (8, 12, 3), (4, 5)
TEXT = Entry(kind="tokens", size=768, length=77, way="attend", null=False)
SMALL = dict(width=8, blocks=1, heads=2, norm_groups=2)
NETS = {
    "unet": UNetSettings(**SMALL, multipliers=(1, 2), attention=(4,), patch=2),
    "ncsnpp": SongUNetSettings(
        **SMALL, multipliers=(1, 2), attention=(4,), resample_filter=(1, 3, 3, 1),
        progressive_input="residual",
    ),
    "vdm": VDMUNetSettings(width=8, blocks=2, fourier=(1,), dropout=0.0),
}  # fmt: skip
SKIPS = {"unet": 4, "ncsnpp": 4, "vdm": 3}


def made(name):
    """(network, branch, params without zeros, those of the branch as a copy, inputs, hint)."""
    rng = np.random.default_rng(0)
    net = NETS[name].build(out_channels=2, entries=entry_of(3))
    branch = net.branch(WIDTHS)
    inputs = (
        jnp.float32(rng.normal(size=(2, *SHAPE))), jnp.float32([3.0, 400.0]),
        label_of(jnp.arange(2)),
    )  # fmt: skip
    hint = jnp.float32(rng.uniform(size=(2, 16, 24, 1)))

    def drawn(init, *inputs):
        shapes = jax.eval_shape(init, jax.random.key(0), *inputs)
        return jax.tree.map(lambda s: jnp.float32(rng.normal(size=s.shape) * 0.3), shapes)

    params = drawn(net.init, *inputs)
    own = tree.replaced(drawn(branch.init, *inputs, hint), params)
    return net, branch, params, own, inputs, hint


def new_paths(own, params):
    return tree.by_path(own).keys() - tree.by_path(params).keys()


def is_zero_convolution(path):
    return path.removeprefix("core/").startswith("zero_")


def test_the_counts_of_stable_diffusion():
    net = UNetSettings(**SD, heads=8, context_width=768).build(
        out_channels=4, entries={"text": TEXT}
    )
    branch = net.branch((16, 32, 96, 256))
    inputs = jnp.zeros((1, 64, 64, 4)), jnp.zeros(1), {}, jnp.zeros((1, 512, 512, 3))
    params = jax.eval_shape(branch.init, jax.random.key(0), *inputs)
    assert tree.count(params) == 361_279_120
    assert tree.count(params["hint"]) == 1_086_480
    zeros = {k: v for k, v in params.items() if k.startswith("zero_")}
    assert len(zeros) == 13 and tree.count(zeros) == 11_479_680
    whole = jax.eval_shape(net.init, jax.random.key(0), *inputs[:3])
    assert tree.count(whole) == 859_520_964


@pytest.mark.parametrize("name", NETS)
def test_the_branch_copies_all_but_the_decoder(name):
    net, _, params, own, *_ = made(name)
    theirs = {k: v.shape for k, v in tree.by_path(params).items()}
    ours = {k: v.shape for k, v in tree.by_path(own).items()}
    assert all(ours[k] == shape for k, shape in theirs.items() if k in ours)
    left = {k.removeprefix("core/").split("/")[0] for k in theirs.keys() - ours.keys()}
    assert {name for name in left if not name.startswith("up_")} == {"out", "out_norm"}
    new = {k.removeprefix("core/").split("/")[0] for k in new_paths(own, params)}
    assert new == {"hint", *(f"zero_{i}" for i in range(SKIPS[name] + 1))}
    assert net.branch_size(SHAPE, 1, WIDTHS).params == tree.count(own)
    decoder = [leaf for path, leaf in tree.by_path(params).items() if path not in ours]
    assert net.decoder_params(SHAPE) == sum(leaf.size for leaf in decoder)


@pytest.mark.parametrize("name", few(NETS))
def test_residuals_that_undo_the_encoder_leave_nothing_of_the_input(name):
    """With -1 for the zero convolutions of a copy, every skip connection and the middle are 0."""
    net, branch, params, own, inputs, hint = made(name)

    def undone(path, leaf):
        path = tree.path_string(path)
        if is_zero_convolution(path) and path.endswith("kernel"):
            return -jnp.eye(*leaf.shape[-2:])[None, None]
        starts_at_zero = is_zero_convolution(path) or "hint/out/" in path
        return jnp.zeros_like(leaf) if starts_at_zero else leaf

    negative = jax.tree_util.tree_map_with_path(undone, own)

    @jit
    def outputs(x):
        residuals = branch.apply(negative, x, *inputs[1:], hint)
        plain = net.apply(params, x, *inputs[1:])
        return net.apply(params, x, *inputs[1:], residuals), plain

    x = inputs[0]
    (one, plain), (other, _) = outputs(x), outputs(x + 1)
    if name == "vdm":  # the input itself is added to the output
        one, other = one - x[..., :2], other - x[..., :2] - 1
    np.testing.assert_allclose(one, other, atol=2e-4 * np.abs(plain).max())
    assert np.abs(one - plain).max() > 0.1 * np.abs(plain).max()


def test_the_published_hint_network():
    """Eight 3 x 3 convolutions padded with one zero, the third, fifth and seventh with stride 2."""
    rng = np.random.default_rng(1)
    module = HintNetwork((2, 3, 4, 5), 6, jnp.dtype("float32"))
    hint = jnp.float32(rng.uniform(size=(2, 32, 16, 3)))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), hint, (4, 2))["params"])
    params = jax.tree.map(lambda s: jnp.float32(rng.normal(size=s.shape)), shapes)
    names = [*(f"conv_{i}" for i in range(7)), "out"]
    assert params.keys() == set(names)
    h = hint
    for i, name in enumerate(names):
        own = params[name]["conv"]
        stride = 2 if i in (2, 4, 6) else 1
        h = jax.lax.conv_general_dilated(
            h, own["kernel"], (stride, stride), [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ) + own["bias"]  # fmt: skip
        h = h if name == "out" else jax.nn.silu(h)
    assert h.shape == (2, 4, 2, 6)
    made = module.apply({"params": params}, hint, (4, 2))
    np.testing.assert_allclose(made, h, rtol=1e-4, atol=1e-4 * np.abs(h).max())
    # Hints of other sizes are resized first, to the sides or to more of them by powers of two.
    for size in ((4, 2), (3, 1), (60, 30)):
        other = module.apply({"params": params}, jnp.zeros((2, *size, 3)), (4, 2))
        assert other.shape == (2, 4, 2, 6)


def test_the_hint_is_added_after_the_first_convolution_only():
    net, branch, params, own, inputs, hint = made("unet")
    for i in range(SKIPS["unet"] + 1):
        width = own[f"zero_{i}"]["conv"]["bias"].size
        own[f"zero_{i}"]["conv"] = {"kernel": jnp.eye(width)[None, None], "bias": jnp.zeros(width)}

    @jit
    def outputs(own, hint):
        residuals = branch.apply(own, *inputs, hint)
        _, seen = net.features(params, *inputs, names=("entry", "down_0_block_0"))
        module = HintNetwork(WIDTHS, 8, jnp.dtype("float32"))
        return residuals, seen, module.apply({"params": own["hint"]}, hint, (4, 6))

    residuals, seen, hinted = outputs(own, hint)
    np.testing.assert_allclose(residuals[0], seen["entry"] + hinted, rtol=1e-4, atol=1e-4)
    blank = {**own, "hint": jax.tree.map(jnp.zeros_like, own["hint"])}
    unhinted = outputs(blank, hint)[0]
    np.testing.assert_allclose(unhinted[1], seen["down_0_block_0"], rtol=1e-4, atol=1e-4)
    assert np.abs(residuals[1] - unhinted[1]).max() > 0.1


@pytest.mark.parametrize("name", few(NETS))
def test_a_fresh_branch_changes_nothing_and_its_parts_start_one_after_the_other(name):
    """Gradients that are not zero: first those of the zero convolutions alone, then also those of
    the copy and of the hint network's last layer, from the third step on those of all layers."""
    net, branch, params, _, inputs, hint = made(name)
    own = tree.replaced(jit(branch.init)(jax.random.key(0), *inputs, hint), params)
    target = jnp.float32(np.random.default_rng(3).normal(size=(2, *SHAPE[:-1], 2)))

    def loss(own):
        residuals = branch.apply(own, *inputs, hint)
        output = net.apply(params, *inputs, residuals)
        return jnp.square(output - target).mean(), (output, residuals)

    @jit
    def step(own):
        (_, (output, residuals)), gradient = jax.value_and_grad(loss, has_aux=True)(own)
        own = jax.tree.map(lambda p, g: p - 0.01 * g, own, gradient)
        return own, gradient, (output, net.apply(params, *inputs)), residuals

    def moved(gradient):
        return {k for k, leaf in tree.by_path(gradient).items() if np.any(leaf)}

    own, gradient, (with_branch, without), residuals = step(own)
    assert not any(map(np.any, residuals))
    np.testing.assert_allclose(with_branch, without, rtol=1e-4, atol=1e-5)
    zeros = {k for k in tree.by_path(own) if is_zero_convolution(k)}
    assert moved(gradient) == zeros and len(zeros) == 2 * (SKIPS[name] + 1)
    own, gradient, (with_branch, without), residuals = step(own)
    assert all(map(np.any, residuals)) and np.abs(with_branch - without).max() > 1e-4
    hints = {k for k in tree.by_path(own) if k.removeprefix("core/").startswith("hint/")}
    last = {k for k in hints if k.removeprefix("core/").startswith("hint/out/")}
    every = tree.by_path(own).keys()
    assert every - moved(gradient) == hints - last
    _, gradient, *_ = step(own)
    assert moved(gradient) == every
