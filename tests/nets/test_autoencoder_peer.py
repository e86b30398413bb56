"""The same weights give the same output as in diffusers: AutoencoderKL and VQModel.

The fixture holds the outputs of diffusers in float64 (tests/peers/make_autoencoder_fixture.py).
Both sides draw the weights by the same rule.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn

from genzoo.core import tree
from genzoo.nets.autoencoder.latent import KLSettings, VQSettings

FIXTURE = Path(__file__).parent / "fixtures" / "autoencoders_diffusers.npz"
SMALL = dict(width=8, multipliers=(1, 2), blocks=1, norm_groups=4)
SHAPE = (8, 12, 3)


def close(output, expected):
    np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "attention"), [("plain", ()), ("attentive", (4,))])
def test_autoencoder_kl(name, attention):
    saved = np.load(FIXTURE)
    settings = KLSettings(attention=attention, **SMALL)
    pair = settings.build(shape=SHAPE, latent=3, critic=False).pair
    x, z, key = jnp.asarray(saved["x"]), jnp.asarray(saved["z"]), jax.random.key(0)
    shapes = {
        "encoder": jax.eval_shape(pair.encoder.init, key, x),
        "decoder": jax.eval_shape(pair.decoder.init, key, z),
    }
    assert tree.count(shapes) == saved[f"{name}_count"]
    params = drawn(shapes)
    close(jax.jit(pair.encoder.apply)(params["encoder"], x), saved[f"{name}_moments"])
    close(jax.jit(pair.decoder.apply)(params["decoder"], z), saved[f"{name}_decoded"])


def test_the_autoencoder_of_vqgan():
    saved = np.load(FIXTURE)
    settings = VQSettings(**{**SMALL, "attention": ()})
    net = settings.build(shape=SHAPE, latent=3, critic=False).autoencoder
    x, z = jnp.asarray(saved["x"]), jnp.asarray(saved["z"])
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    assert tree.count(shapes) + 5 * 3 == saved["vq_count"]
    # Their paths: the encoder ends with our head.
    theirs = {
        "encoder": {**shapes["encoder_0"], "quant": shapes["head_0"]["out"]},
        "decoder": shapes["decoder"],
    }
    params = drawn(theirs)
    head = {"out": params["encoder"].pop("quant")}
    ours = {"encoder_0": params["encoder"], "head_0": head, "decoder": params["decoder"]}
    (encoded,) = jax.jit(lambda x: net.encode(ours, x, lambda level, z: z))(x)
    close(encoded, saved["vq_encoded"])
    close(jax.jit(lambda z: net.decode(ours, [z]))(z), saved["vq_decoded"])
