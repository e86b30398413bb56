"""Text encoders: the published count, and what the output may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.nets.transformer.block import Attention, Norm, TransformerBlock
from genzoo.nets.transformer.text_transformer import TextTransformerSettings, WordTableSettings

KEY = jax.random.key(0)
SMALL = TextTransformerSettings(width=8, depth=2, heads=2, positions=6)


def count(net) -> int:
    ids = jnp.ones((1, 5), jnp.int32)
    shapes = jax.eval_shape(net.init, KEY, ids, ids > 0)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_count_of_minilm():
    settings = TextTransformerSettings()
    # sentence-transformers/all-MiniLM-L6-v2 without its pooler: 30,522 tokens, and padding
    assert count(settings.build(vocabulary=30_523)) == 22_565_376
    assert settings.size((1,), vocabulary=30_523).params == 22_565_376
    table = WordTableSettings()
    assert count(table.build(vocabulary=32_001)) == 32_000 * 256
    assert table.size((1,), vocabulary=32_001).params == 32_000 * 256


def test_a_token_sees_the_whole_text_and_no_padding():
    net = SMALL.build(vocabulary=9)
    ids = jnp.asarray([[3, 8, 5, 0, 0]])
    params = net.init(KEY, ids, ids > 0)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * np.random.default_rng(leaf.size).normal(size=leaf.shape), params
    )
    apply = jax.jit(net.apply)
    tokens = apply(params, ids, ids > 0)[0, :3]
    alone = apply(params, ids[:, :3], ids[:, :3] > 0)[0]
    np.testing.assert_allclose(tokens, alone, atol=1e-5)
    filled = jnp.asarray([[3, 8, 5, 7, 1]])  # the mask, and not the id, tells padding
    np.testing.assert_allclose(apply(params, filled, ids > 0)[0, :3], tokens, atol=1e-6)
    changed = apply(params, jnp.asarray([[3, 8, 6, 0, 0]]), ids > 0)[0, :3]
    assert np.abs(changed - tokens).max(-1).min() > 1e-3
    turned = apply(params, jnp.asarray([[8, 3, 5, 0, 0]]), ids > 0)[0, 2]
    assert np.abs(turned - tokens[2]).max() > 1e-3


def test_a_word_of_a_table_stands_alone():
    net = WordTableSettings(width=4).build(vocabulary=9)
    ids = jnp.asarray([[1, 8, 8, 0]])
    params = net.init(KEY, ids, ids > 0)
    rows = net.apply(params, ids, ids > 0)[0]
    np.testing.assert_array_equal(rows[:3], params["embed"]["embedding"][jnp.asarray([0, 7, 7])])


def test_norms_after_the_sums_suit_plain_blocks_only():
    assert SMALL.problems((1,)) == []
    (problem,) = TextTransformerSettings(width=8, heads=3).problems((1,))
    assert "network.heads is 3" in problem
    block = TransformerBlock(
        width=8, attention=Attention(heads=2), mlp=None, norm=Norm(post=True), modulated=True
    )
    with pytest.raises(ValueError, match="plain self-attention only"):
        block.bind({}).norm_0  # noqa: B018
