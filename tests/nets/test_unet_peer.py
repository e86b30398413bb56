"""The same weights give the same output as in diffusers: UNet2DModel, UNet2DConditionModel and the
FIR layers.

The fixture holds the outputs of diffusers in float64 (tests/peers/make_unet_fixture.py). Both sides
draw the weights by the same rule.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.nets.parts.resample import fir_double, fir_halve
from genzoo.nets.unet.trunk import InputStep
from genzoo.nets.unet.unet import UNetSettings

FIXTURE = Path(__file__).parent / "fixtures" / "unet_diffusers.npz"
COMMON = dict(width=8, multipliers=(1, 2), attention=(4,), norm_groups=4)
NETS = {
    "ddpm": (3, 0, dict(blocks=2, **COMMON)),
    "adm": (6, 5, dict(
        blocks=1, head_width=4, scale_shift=True,
        resample="block", time_embedding="sinusoidal_adm", norm_epsilon=1e-5, **COMMON,
    )),
}  # fmt: skip
CROSS = dict(
    width=8, multipliers=(1, 2), blocks=1, attention=(8, 4), heads=2, transformer_depth=2,
    context_width=6, resample="conv_centred", time_embedding="sinusoidal_adm", norm_epsilon=1e-5,
    norm_groups=4,
)  # fmt: skip
FIR = (1, 3, 3, 1)


@pytest.mark.parametrize("name", NETS)
def test_same_weights_same_output_as_diffusers(name):
    saved = np.load(FIXTURE)
    channels, classes, settings = NETS[name]
    net = UNetSettings(**settings).build(
        out_channels=channels, entries=entry_of(classes, null=False)
    )
    inputs = (jnp.asarray(saved["x"]), jnp.asarray(saved["time"]), label_of(saved["label"]))
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    assert tree.count(shapes) == saved[f"{name}_count"]
    output = jax.jit(net.apply)(drawn(shapes), *inputs)
    np.testing.assert_allclose(output, saved[name], atol=1e-5 * np.abs(saved[name]).max())


def test_cross_attention_is_that_of_stable_diffusion():
    saved = np.load(FIXTURE)
    text = Entry(kind="tokens", size=6, length=5, way="attend", null=False)
    net = UNetSettings(**CROSS).build(out_channels=2, entries={"text": text})

    def inputs(mask):
        tokens = Tokens(jnp.asarray(saved["tokens"]), jnp.asarray(mask))
        given = {"text": Given(tokens, jnp.ones(2, bool))}
        return jnp.asarray(saved["wide"]), jnp.asarray(saved["time"]), given

    every = np.ones((2, 5), bool)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs(every))
    assert tree.count(shapes) == saved["cross_count"]
    params, apply = drawn(shapes), jax.jit(net.apply)
    for mask, name in ((every, "cross"), (saved["token_mask"], "cross_masked")):
        expected = saved[name]
        output = apply(params, *inputs(mask))
        np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())


def test_fir_layers_are_those_of_diffusers():
    saved = np.load(FIXTURE)
    x = jnp.asarray(saved["wide"][:1, :4, :6])
    np.testing.assert_allclose(fir_halve(x, FIR), saved["fir_halved"], atol=1e-6)
    np.testing.assert_allclose(fir_double(x, FIR), saved["fir_doubled"], atol=1e-6)
    step = InputStep(5, FIR, jnp.dtype("float32"))
    params = drawn(jax.eval_shape(step.init, jax.random.key(0), x)["params"])
    np.testing.assert_allclose(step.apply({"params": params}, x), saved["fir_step"], atol=2e-6)
