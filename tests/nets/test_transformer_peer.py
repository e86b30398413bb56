"""The same weights give the same output as in diffusers: DiT, and MM-DiT of SD3 and SD 3.5.

The fixture holds the outputs of diffusers in float64 (tests/peers/make_transformer_fixture.py).
Both sides draw the weights by the same rule.
"""

import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.nets.transformer import positions
from genzoo.nets.transformer.dit import DiTSettings
from genzoo.nets.transformer.mmdit import MMDiTSettings

FIXTURE = Path(__file__).parent / "fixtures" / "transformers_diffusers.npz"
TOLD = {
    "text": Entry(kind="tokens", size=6, length=5, way="attend", null=False),
    "pooled": Entry(kind="vector", size=5, null=False),
}
SMALL = dict(width=16, heads=2, patch=2)
JOINT = {"sd3": {}, "sd35": dict(qk_norm=True, dual=1)}


def draw(path, shape):
    """The array with this path, as in tests/peers/make_unet_fixture.py."""
    values = np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    if path.endswith("/scale"):
        return 1 + 0.2 * values
    return values / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.2 * values


def output_of(net, inputs):
    """(the output for drawn weights, their number)."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(draw(tree.path_string(path), leaf.shape), jnp.float32),
        shapes,
    )
    return jax.jit(net.apply)(params, *inputs), tree.count(shapes)


def test_dit_is_that_of_diffusers():
    saved = np.load(FIXTURE)
    net = DiTSettings(**SMALL, depth=2).build(out_channels=6, entries=entry_of(5))
    inputs = jnp.asarray(saved["x"]), jnp.asarray(saved["time"]), label_of(saved["label"])
    output, _ = output_of(net, inputs)
    np.testing.assert_allclose(output, saved["dit"], atol=1e-5 * np.abs(saved["dit"]).max())


def test_the_middle_of_a_table_is_that_of_diffusers():
    # A table of 7 x 7 for a network of 4 x 4 patches, of which an image takes 3 x 5.
    places = positions.coordinates((3, 5), (4, 4), table=7)
    np.testing.assert_allclose(
        positions.sincos(places, 16), np.load(FIXTURE)["cropped"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", JOINT)
def test_mmdit_is_that_of_diffusers(name):
    saved = np.load(FIXTURE)
    net = MMDiTSettings(**SMALL, depth=3, **JOINT[name]).build(out_channels=3, entries=TOLD)
    present = jnp.ones(2, bool)
    told = {
        "text": Given(Tokens(jnp.asarray(saved["tokens"]), jnp.ones((2, 5), bool)), present),
        "pooled": Given(jnp.asarray(saved["pooled"]), present),
    }
    output, count = output_of(net, (jnp.asarray(saved["x"]), jnp.asarray(saved["time"]), told))
    assert count == saved[f"{name}_count"]
    np.testing.assert_allclose(output, saved[name], atol=1e-5 * np.abs(saved[name]).max())
