"""ViT, the networks of MAE and the towers of CLIP: published counts, and what they must not see."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.math.masking import by_order
from genzoo.nets.transformer.clip import CLIPSettings
from genzoo.nets.transformer.mae import MAESettings
from genzoo.nets.transformer.vision import ViTSettings

IMAGE = (224, 224, 3)
KEY = jax.random.key(0)


def count(made) -> int:
    shapes = jax.eval_shape(made)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_published_counts():
    x = jnp.zeros((1, *IMAGE))
    vit = ViTSettings()
    net = vit.build(num_classes=1000)
    # timm vit_base_patch16_224; Dosovitskiy et al. 2021 give 86M
    assert count(lambda: net.init(KEY, x, jnp.zeros(1), {})) == 86_567_656
    assert vit.size(IMAGE, num_classes=1000).params == 86_567_656

    mae = MAESettings()
    net = mae.build(shape=IMAGE)
    seen = by_order(jnp.zeros((1, 196)), 49)
    # facebookresearch/mae mae_vit_base_patch16 without its frozen tables of positions
    assert count(lambda: net.init(KEY, x, seen.keep, seen.restore)) == 111_655_680
    encoder = jax.eval_shape(lambda: net.init(KEY, x, seen.keep, seen.restore))["encoder"]
    assert sum(leaf.size for leaf in jax.tree.leaves(encoder)) == 85_647_360
    assert mae.size(IMAGE, shape=IMAGE).params == 111_655_680

    clip = CLIPSettings()
    towers = clip.build(vocabulary=49_408, length=77)
    ids = jnp.ones((1, 77), jnp.int32)
    # openai/CLIP ViT-B/32: 151,277,313 with the temperature
    assert count(lambda: towers.image.init(KEY, x)) == 87_849_216
    assert count(lambda: towers.text.init(KEY, ids, ids > 0)) == 63_428_096
    assert clip.size(IMAGE, vocabulary=49_408, length=77).params == 151_277_312


SMALL = dict(width=8, depth=2, heads=2, patch=2)


def drawn(shapes):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape)), shapes)


def test_the_encoder_of_mae_does_not_see_hidden_patches():
    shape = (4, 6, 3)
    net = MAESettings(**SMALL, decoder_width=8, decoder_depth=1, decoder_heads=2).build(shape=shape)
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    seen = by_order(jnp.asarray([[0.3, 0.9, 0.1, 0.8, 0.7, 0.6]]), 2)  # the patches 2 and 0
    params = drawn(jax.eval_shape(lambda: net.init(KEY, x, seen.keep, seen.restore)))
    apply = jax.jit(lambda x: net.apply(params, x, seen.keep, seen.restore))
    before = apply(x)
    hidden = x.copy()
    hidden[:, :2, 2:4], hidden[:, 2:] = 7, -7  # the patches 1, 3, 4 and 5
    np.testing.assert_array_equal(apply(hidden), before)
    visible = x.copy()
    visible[:, 1, 5, 0] += 0.5  # in patch 2
    # Each prediction depends on the visible patches and on its place.
    assert np.abs(apply(visible) - before).max((0, 2)).min() > 1e-4
    tokens = np.asarray(before[0, [1, 3, 4, 5]])
    assert min(np.abs(a - b).max() for a, b in pairwise(tokens)) > 1e-4


def test_the_order_of_visible_patches_does_not_matter():
    shape = (4, 6, 3)
    net = MAESettings(**SMALL, decoder_width=8, decoder_depth=1, decoder_heads=2).build(shape=shape)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    noise = np.float32([0.3, 0.9, 0.1, 0.8, 0.7, 0.6])
    other = np.float32([0.1, 0.7, 0.3, 0.9, 0.6, 0.8])  # the same two visible patches
    seen = by_order(jnp.asarray([noise, noise]), 2)
    params = drawn(jax.eval_shape(lambda: net.init(KEY, x, seen.keep, seen.restore)))
    again = by_order(jnp.asarray([other, other]), 2)
    assert not np.array_equal(seen.keep, again.keep)
    outputs = [net.apply(params, x, s.keep, s.restore) for s in (seen, again)]
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_a_text_is_its_words_and_not_its_padding():
    net = (
        CLIPSettings(**SMALL, text_width=8, text_depth=2, text_heads=2, embedding=6)
        .build(vocabulary=9, length=5)
        .text
    )
    ids = jnp.asarray([[4, 2, 7, 0, 0]])
    mask = ids > 0
    params = drawn(jax.eval_shape(lambda: net.init(KEY, ids, mask)))
    before = net.apply(params, ids, mask)
    np.testing.assert_array_equal(net.apply(params, ids.at[0, 3:].set(5), mask), before)
    for place in range(3):
        assert np.abs(net.apply(params, ids.at[0, place].set(8), mask) - before).max() > 1e-4
    turned = net.apply(params, ids[:, jnp.asarray([1, 0, 2, 3, 4])], mask)
    assert np.abs(turned - before).max() > 1e-4
    assert np.isfinite(net.apply(params, jnp.zeros_like(ids), jnp.zeros_like(mask))).all()


def test_pooling_and_the_features_before_the_logits():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    for pool in ("class", "mean"):
        settings = ViTSettings(**SMALL, pool=pool)
        whole, part = (settings.build(num_classes=n) for n in (3, 0))
        params = drawn(jax.eval_shape(lambda net=whole: net.init(KEY, x, jnp.zeros(2), {})))
        logits, inner = whole.features(params, x, jnp.zeros(2), {}, names=("pool",))
        encoder = {"encoder": params["encoder"]}
        features = part.apply(encoder, x, jnp.zeros(2), {})
        np.testing.assert_allclose(features, inner["pool"], rtol=1e-6)
        assert features.shape == (2, part.width) == (2, 8)
        expected = features @ params["out"]["kernel"] + params["out"]["bias"]
        np.testing.assert_allclose(logits, expected, rtol=1e-4)
