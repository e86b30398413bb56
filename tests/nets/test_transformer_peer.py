"""The same weights give the same output as in diffusers: DiT, and MM-DiT of SD3 and SD 3.5; and as
in transformers: BERT.

The fixture holds the outputs of these in float64 (tests/peers/make_transformer_fixture.py). Both
sides draw the weights by the same rule.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw, drawn
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.core.errors import UserError
from genzoo.nets.transformer import positions
from genzoo.nets.transformer.dit import DiTSettings
from genzoo.nets.transformer.mmdit import MMDiTSettings
from genzoo.nets.transformer.text_transformer import TextTransformerSettings, of_bert

FIXTURE = Path(__file__).parent / "fixtures" / "transformers_diffusers.npz"
TOLD = {
    "text": Entry(kind="tokens", size=6, length=5, way="attend", null=False),
    "pooled": Entry(kind="vector", size=5, null=False),
}
SMALL = dict(width=16, heads=2, patch=2)
JOINT = {"sd3": {}, "sd35": dict(qk_norm=True, dual=1)}


def bert_arrays(saved):
    """Name -> array of the BertModel in the fixture, float32."""
    shapes = [tuple(map(int, shape.split())) for shape in saved["bert_shapes"]]
    paths = [f"{n}/scale" if n.endswith("LayerNorm.weight") else n for n in saved["bert_names"]]
    arrays = [draw(path, shape) for path, shape in zip(paths, shapes, strict=True)]
    return {n: a.astype(np.float32) for n, a in zip(saved["bert_names"], arrays, strict=True)}


def output_of(net, inputs):
    """(the output for drawn weights, their number)."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    params = drawn(shapes)
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


def test_the_text_transformer_is_the_bert_of_transformers():
    saved = np.load(FIXTURE)
    net = TextTransformerSettings(width=12, depth=2, heads=3, expansion=2.0, positions=7).build(
        vocabulary=12
    )
    params = of_bert(bert_arrays(saved))
    # Padding is 0 in both, and here the row of id i is i - 1.
    theirs = jnp.asarray(saved["bert_ids"])
    ids, mask = jnp.where(theirs > 0, theirs + 1, 0), theirs > 0
    fresh = jax.eval_shape(net.init, jax.random.key(0), ids, mask)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)
    output, mask = jax.jit(net.apply)(params, ids, mask), np.asarray(mask)
    scale = np.abs(saved["bert"]).max()
    np.testing.assert_allclose(output[mask], saved["bert"][mask], atol=1e-5 * scale)


def test_an_array_that_bert_lacks_is_named():
    arrays = bert_arrays(np.load(FIXTURE))
    del arrays["encoder.layer.1.output.dense.bias"]
    with pytest.raises(UserError, match=r"no array encoder\.layer\.1\.output\.dense\.bias"):
        of_bert(arrays)
