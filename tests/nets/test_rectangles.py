"""Images need not be square: exchanging height and width in the data and in every kernel exchanges
them in the output of a network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from oracles import entry_of, label_of

from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.nets.autoencoder.dalle import DalleSettings
from genzoo.nets.unet.classifier import ClassifierUNetSettings
from genzoo.nets.unet.song_unet import SongUNetSettings
from genzoo.nets.unet.unet import UNetSettings
from genzoo.nets.unet.vdm_unet import VDMUNetSettings

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SHAPE = (8, 12, 3)
LEVELS = dict(width=8, multipliers=(1, 2), blocks=1, norm_groups=2)
TEXT = Entry(kind="tokens", size=8, length=4, way="attend", null=False)
LOW = Entry(kind="map", size=2, way="concat")

# name: (settings, entries); attention is at the level whose smaller side is 4, or 8
NETS = {
    "ddpm": (UNetSettings(**LEVELS, attention=(4,)), entry_of(3)),
    "adm": (UNetSettings(**LEVELS, attention=(8,), head_width=4, resample="block"), {}),
    "latent": (
        UNetSettings(**LEVELS, attention=(4,), transformer_depth=1, resample="conv_centred"),
        {"text": TEXT, "low": LOW},
    ),
    "ncsnpp": (
        SongUNetSettings(
            width=8, multipliers=(1, 1), blocks=1, attention=(4,), resample_filter=(1, 3, 3, 1),
            progressive_input="residual",
        ),
        entry_of(3, null=False),
    ),
    "vdm": (VDMUNetSettings(width=8, blocks=1, attention=(8,), fourier=(1,)), {}),
}  # fmt: skip


def drawn(seed, shapes):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3), shapes)


def exchanged(tree):
    """The tree with height and width of feature maps (arrays with four axes) exchanged."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(-3, -2) if leaf.ndim == 4 else leaf, tree)


def turned(params):
    """The tree with height and width of kernels [height, width, in, out] exchanged."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1) if leaf.ndim == 4 else leaf, params)


@pytest.mark.parametrize(
    "name",
    [n if n in ("latent", "ncsnpp") else pytest.param(n, marks=pytest.mark.slow) for n in NETS],
)
def test_height_and_width_may_be_exchanged(name):
    settings, entries = NETS[name]
    for shape in (SHAPE, (12, 8, 3)):
        assert section_problems(settings, "network", shape) == []
    net = settings.build(out_channels=2, entries=entries)
    rng = np.random.default_rng(0)
    x, time = jnp.asarray(rng.normal(size=(2, *SHAPE)), jnp.float32), jnp.array([3.0, 500.0])
    tokens = Tokens(jnp.asarray(rng.normal(size=(2, 4, 8)), jnp.float32), jnp.ones((2, 4), bool))
    there = jnp.array([True, False])
    conditions = {
        **label_of([0, 2]),
        "text": Given(tokens, jnp.ones(2, bool)),
        "low": Given(jnp.asarray(rng.normal(size=(2, 8, 12, 2)), jnp.float32), there),
    }
    conditions = {name: given for name, given in conditions.items() if name in entries}
    params = drawn(1, jax.eval_shape(net.init, jax.random.key(0), x, time, conditions))
    output = jit(net.apply)(params, x, time, conditions)
    assert output.shape == (2, 8, 12, 2)
    other = jit(net.apply)(turned(params), *exchanged((x, time, conditions)))
    scale = np.abs(output).max()
    assert scale > 0.1
    np.testing.assert_allclose(exchanged(other), output, atol=1e-5 * scale)


def test_a_classifier_s_logits_stay_the_same():
    net = ClassifierUNetSettings(**LEVELS, attention=(4,), head_width=8).build(num_classes=3)
    x, time = jnp.asarray(np.random.default_rng(0).normal(size=(2, *SHAPE)), jnp.float32), 0.0
    params = drawn(1, jax.eval_shape(net.init, jax.random.key(0), x, time, {}))
    logits = jit(net.apply)(params, x, time, {})
    other = turned(params)
    # The first position is that of the mean; the others belong to the 4 x 6 feature map.
    position = params["pool"]["position"]
    places = position[1:].reshape(4, 6, -1).swapaxes(0, 1).reshape(24, -1)
    other["pool"] = {**other["pool"], "position": jnp.concatenate([position[:1], places])}
    np.testing.assert_allclose(
        jit(net.apply)(other, exchanged(x), time, {}), logits, atol=1e-5 * np.abs(logits).max()
    )


def test_dalle_s_encoder_and_decoder():
    settings = DalleSettings(groups=2, blocks=1, width=8, initial=4)
    for shape in (SHAPE, (12, 8, 3)):
        assert section_problems(settings, "network", shape) == []
    nets, other = (
        settings.build(shape=shape, vocabulary=5, decoded=3) for shape in (SHAPE, (12, 8, 3))
    )
    assert nets.grid == (4, 6) and other.grid == (6, 4)
    rng = np.random.default_rng(0)
    for net, size in ((nets.encoder, SHAPE), (nets.decoder, (4, 6, 4))):
        x = jnp.asarray(rng.normal(size=(2, *size)), jnp.float32)
        params = drawn(1, jax.eval_shape(net.init, jax.random.key(0), x))
        output = jit(net.apply)(params, x)
        changed = exchanged(jit(net.apply)(turned(params), exchanged(x)))
        np.testing.assert_allclose(changed, output, atol=1e-5 * np.abs(output).max())
