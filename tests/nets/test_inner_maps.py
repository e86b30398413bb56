"""Inner maps of denoising networks: the tokens after a number of blocks, the middle of U-Nets."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import entry_of, label_of
from test_patch_transformers import changed, jit, stacked

from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.core.errors import UserError
from genzoo.nets.transformer.dit import DiTSettings
from genzoo.nets.transformer.jit import JiTSettings
from genzoo.nets.transformer.mmdit import MMDiTSettings
from genzoo.nets.unet.song_unet import SongUNetSettings
from genzoo.nets.unet.unet import UNetSettings
from genzoo.nets.unet.vdm_unet import VDMUNetSettings

SHAPE = (8, 12, 3)
SMALL = dict(width=8, depth=4, heads=2, patch=2, dropout=0.2)
TRANSFORMERS = {
    "dit": DiTSettings(**SMALL),
    "jit": JiTSettings(**SMALL, bottleneck=3, class_tokens=2, class_start=2),
    "mmdit": MMDiTSettings(**SMALL, dual=2),
}
RUNS = {"dit": [(0, 4)], "jit": [(0, 2), (2, 4)], "mmdit": [(0, 2)]}  # of more than one block
TEXT = {"text": Entry(kind="tokens", size=5, length=3, way="attend", null=False)}


def made(name, settings):
    """(network, params without zeros, inputs)."""
    rng = np.random.default_rng(0)
    entries = {**entry_of(3), **(TEXT if name == "mmdit" else {})}
    told = label_of(jnp.arange(2))
    if name == "mmdit":
        tokens = Tokens(jnp.float32(rng.normal(size=(2, 3, 5))), jnp.ones((2, 3), bool))
        told = {**told, "text": Given(tokens, jnp.ones(2, bool))}
    inputs = jnp.float32(rng.normal(size=(2, *SHAPE))), jnp.float32([3.0, 400.0]), told
    net = settings.build(out_channels=2, entries=entries)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    drawn = jax.tree.map(lambda s: jnp.float32(rng.normal(size=s.shape) * 0.3), shapes)
    return net, drawn, inputs


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_tokens_after_every_block_with_and_without_a_scan(name):
    settings = TRANSFORMERS[name]
    net, params, inputs = made(name, settings)
    blocks = [settings.inner(i, "key") for i in range(1, 5)]
    assert [inner.path for inner in blocks] == [f"block_{i}" for i in range(4)]

    def maps(net, inners, params):
        paths = {inner.path for inner in inners}
        output, features = net.features(params, *inputs, names=paths)
        return output, [inner.of(features, SHAPE[:-1]) for inner in inners]

    output, found = jit(lambda params: maps(net, blocks, params))(params)
    np.testing.assert_array_equal(output, jit(net.apply)(params, *inputs))
    assert {one.shape for one in found} == {(2, 4, 6, 8)}
    assert all(np.abs(a - b).max() > 0.1 for a, b in pairwise(found))
    scanned = changed(settings, scan=True, remat="full")
    own = [scanned.inner(i, "key") for i in range(1, 5)]
    again, _, _ = made(name, scanned)
    # `stacked` takes all blocks for parts of a run.
    single = {inner.path: params[inner.path] for inner in own if inner.layer is None}
    _, ours = jit(lambda params: maps(again, own, params))(
        {**stacked(params, RUNS[name]), **single}
    )
    for one, other in zip(found, ours, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=r"key = 5 must be between 1 and network.depth = 4"):
        settings.inner(5, "key")


def test_a_pass_in_training_gives_both_output_and_features_with_dropout():
    net, params, inputs = made("dit", TRANSFORMERS["dit"])
    key = jax.random.key(1)

    def both(params):
        return net.features(params, *inputs, names=("block_1",), train=True, key=key)

    output, features = jit(both)(params)
    expected = jit(lambda params: net.apply(params, *inputs, train=True, key=key))(params)
    np.testing.assert_array_equal(output, expected)
    still = jit(lambda params: net.features(params, *inputs, names=("block_1",))[1])(params)
    assert np.abs(features["block_1"] - still["block_1"]).max() > 0.01
    with pytest.raises(ValueError, match="needs a key"):
        net.features(params, *inputs, names=("block_1",), train=True)


_LEVELS = dict(width=8, multipliers=(1, 2), blocks=1, attention=(), heads=2)
UNETS = {
    "unet": (UNetSettings(**_LEVELS, norm_groups=2), (4, 6), 16),
    "song_unet": (SongUNetSettings(**_LEVELS), (4, 6), 16),
    "vdm_unet": (VDMUNetSettings(width=8, blocks=1, patch=2), (4, 6), 8),
}


@pytest.mark.parametrize("name", UNETS)
def test_the_middle_of_a_unet_is_a_map(name):
    settings, grid, width = UNETS[name]
    inner = settings.inner(0, "key")
    net = settings.build(out_channels=3, entries={})
    inputs = jnp.zeros((2, *SHAPE)), jnp.zeros(2), {}
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    found = jax.eval_shape(
        lambda params: inner.of(net.features(params, *inputs, names=(inner.path,))[1], SHAPE[:-1]),
        params,
    )
    assert found.shape == (2, *grid, width) and inner.width == width
    with pytest.raises(UserError, match="is for transformers"):
        settings.inner(1, "key")
