"""The transformer over codes: its formula, the cache, causality, levels, counts, initialisation."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from jax import lax
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.nets.transformer.transformer import TransformerSettings

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# name: (vocabularies, lengths, classes, settings)
NETS = {
    "one": ((9,), (6,), 0, dict(width=8, depth=2, heads=2)),
    "classes": ((5, 7), (4, 5), 3, dict(width=12, depth=2, heads=4, expansion=2)),
    "three": ((6, 3, 4), (1, 3, 4), 0, dict(width=8, depth=1, heads=1)),
}


def transformer(*, vocabularies, lengths, entries, **settings):
    return TransformerSettings(**settings).build(
        vocabularies=vocabularies, lengths=lengths, entries=entries
    )


class Made:
    """A small network, three sequences of tokens, and params that are all nonzero."""

    def __init__(self, name, **changes):
        self.vocabularies, self.lengths, self.classes, settings = NETS[name]
        self.settings = settings | changes
        self.net = transformer(
            vocabularies=self.vocabularies,
            lengths=self.lengths,
            entries=entry_of(self.classes),
            **self.settings,
        )
        rng = np.random.default_rng(0)
        self.tokens = jnp.asarray(
            np.concatenate(
                [
                    rng.integers(vocabulary, size=(3, length))
                    for vocabulary, length in zip(self.vocabularies, self.lengths, strict=True)
                ],
                1,
            ),
            jnp.int32,
        )
        self.labels = np.array([0, self.classes, 1])  # the second is absent
        self.conditions = label_of(self.labels, self.classes) if self.classes else {}
        shapes = jax.eval_shape(self.net.init, jax.random.key(0), *self.inputs)
        self.params = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.5, leaf.dtype), shapes
        )
        self.apply = jit(self.net.apply)

    @property
    def inputs(self):
        return self.tokens, None, self.conditions

    @property
    def positions(self):
        """(position, level, offset) for every position."""
        starts = np.cumsum([0, *self.vocabularies])
        levels = np.repeat(np.arange(len(self.lengths)), self.lengths)
        return [(i, level, starts[level]) for i, level in enumerate(levels)]

    def logits(self):
        return np.asarray(self.apply(self.params, *self.inputs))


@pytest.fixture(scope="module")
def made():
    return {name: Made(name) for name in NETS}


def layer_norm(h, part):
    centred = h - h.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * part["scale"] + part["bias"]


def dense(h, part):
    return h @ part["kernel"] + part["bias"]


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def written_out(m, row):
    """Equations (1) to (4) for one sequence, in float64, position by position and head by head."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), m.params)
    tokens, heads = np.asarray(m.tokens[row]), m.settings["heads"]
    stream = []
    for i, _, _ in m.positions:
        before = m.positions[i - 1]
        h = p["start"] if i == 0 else p["embed"]["embedding"][before[2] + tokens[i - 1]]
        h = h + p["position"][i]
        stream.append(h + p["label"]["embedding"][m.labels[row]] if m.classes else h)
    for b in range(m.settings["depth"]):
        block = p[f"block_{b}"]
        fused = [dense(layer_norm(h, block["norm_0"]), block["query_key_value"]) for h in stream]
        parts = [np.reshape(f, (3, heads, -1)) for f in fused]
        new = []
        for i, h in enumerate(stream):
            out = []
            for head in range(heads):
                query = parts[i][0, head]
                scores = [query @ parts[j][1, head] / np.sqrt(query.size) for j in range(i + 1)]
                weights = np.exp(scores - np.max(scores))
                weights /= weights.sum()
                out.append(sum(w * parts[j][2, head] for j, w in enumerate(weights)))
            h = h + dense(np.concatenate(out), block["out"])
            inner = gelu(dense(layer_norm(h, block["norm_1"]), block["expand"]))
            new.append(h + dense(inner, block["contract"]))
        stream = new
    rows = []
    for i, level, offset in m.positions:
        own = slice(offset, offset + m.vocabularies[level])
        h = layer_norm(stream[i], p["norm"])
        rows.append(h @ p["kernel"][:, own] + p["bias"][own])
    return rows


@pytest.mark.parametrize("name", NETS)
def test_logits_are_the_formula_and_codes_of_other_levels_never_occur(made, name):
    m = made[name]
    logits = m.logits()
    assert logits.shape == (3, sum(m.lengths), max(m.vocabularies))
    assert logits.dtype == np.float32
    for row in range(3):
        for (i, level, _), expected in zip(m.positions, written_out(m, row), strict=True):
            np.testing.assert_allclose(
                logits[row, i, : m.vocabularies[level]], expected, atol=2e-4, rtol=1e-4
            )
    probabilities = np.asarray(jax.nn.softmax(logits))
    for i, level, _ in m.positions:
        np.testing.assert_array_equal(probabilities[:, i, m.vocabularies[level] :], 0)


@pytest.mark.parametrize("name", ["classes", "three"])
def test_one_position_at_a_time_is_the_whole_sequence(made, name):
    m = made[name]
    step = jit(m.net.step)
    cache, logits = m.net.new_cache(3), []
    for i in range(sum(m.lengths)):
        # At position 0 there is no previous code, so any value must give the same result.
        token = m.tokens[:, i - 1] if i else jnp.full(3, 10**6, jnp.int32)
        row, cache = step(m.params, cache, token, jnp.asarray(i), m.conditions)
        logits.append(row)
    np.testing.assert_allclose(np.stack(logits, 1), m.logits(), atol=1e-5)


def greedy(m, params, cache):
    """Greedy decoding: the most likely codes [B, N], and the final cache."""

    def one(carry, position):
        cache, token = carry
        logits, cache = m.net.step(params, cache, token, position, m.conditions)
        token = jnp.argmax(logits, -1).astype(jnp.int32)
        return (cache, token), token

    start = cache, jnp.zeros(3, jnp.int32)
    (cache, _), tokens = lax.scan(one, start, jnp.arange(sum(m.lengths)))
    return tokens.T, cache


def test_codes_drawn_in_a_scan_are_drawn_from_the_logits_of_the_whole(made):
    m = made["classes"]
    tokens, _ = jit(partial(greedy, m))(m.params, m.net.new_cache(3))
    logits = m.apply(m.params, tokens, None, m.conditions)
    np.testing.assert_array_equal(jnp.argmax(logits, -1), tokens)
    assert len(np.unique(tokens)) > 2


def test_a_scan_changes_the_cache_in_place(made):
    m = made["classes"]
    draw = jax.jit(partial(greedy, m), donate_argnums=1)
    program = draw.lower(m.params, m.net.new_cache(3)).compile().as_text()
    shape = ",".join(map(str, m.net.new_cache(3)["block_0"]["key"].shape))
    assert shape == "3,4,9,3" and f"f32[{shape}]" in program
    assert not re.findall(rf"f32\[{shape}\]\S* copy\(", program)


@pytest.mark.parametrize("name", NETS)
def test_a_token_changes_the_logits_behind_it_only(made, name):
    m = made[name]
    plain = m.logits()
    for j, level, _ in m.positions:
        token = (m.tokens[:, j] + 1) % m.vocabularies[level]
        changed = m.apply(m.params, m.tokens.at[:, j].set(token), None, m.conditions)
        moved = np.abs(changed - plain).max((0, 2))
        np.testing.assert_array_equal(moved[: j + 1], 0)
        assert (moved[j + 1 :] > 1e-4).all()


def test_codes_of_two_levels_have_rows_of_their_own(made):
    m = made["classes"]

    def loss(rows):
        params = m.params | {"embed": {"embedding": rows}}
        return (m.net.apply(params, *m.inputs)[..., 0] ** 2).sum()

    used = jit(jax.grad(loss))(m.params["embed"]["embedding"])
    assert used.shape[0] == 5 + 7
    expected = {int(token) for token in np.unique(m.tokens[:, :4])}
    # The last token is predicted, but nothing is predicted from it.
    expected |= {5 + int(token) for token in np.unique(m.tokens[:, 4:-1])}
    assert set(np.nonzero(np.abs(used).max(1))[0]) == expected


@pytest.mark.parametrize("name", NETS)
def test_parameter_count_by_hand(made, name):
    m = made[name]
    w, depth = m.settings["width"], m.settings["depth"]
    inner = m.settings.get("expansion", 4) * w
    codes, positions = sum(m.vocabularies), sum(m.lengths)
    norm = 2 * w
    attention = (w + 1) * 3 * w + (w + 1) * w
    mlp = (w + 1) * inner + (inner + 1) * w
    count = codes * w + w + positions * w + depth * (2 * norm + attention + mlp)
    count += norm + (w + 1) * codes
    count += (m.classes + 1) * w if m.classes else 0
    assert tree.count(m.params) == count


def test_the_formula_of_the_documentation_is_that_count():
    net = transformer(vocabularies=(512, 256), lengths=(64, 256), entries=entry_of(10))
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 320), int), None, {})
    W, V, N, depth, expansion = 256, 768, 320, 6, 4
    blocks = depth * ((4 + 2 * expansion) * W**2 + (9 + expansion) * W)
    assert tree.count(params) == 2 * V * W + V + N * W + 3 * W + blocks + 11 * W


def test_params_start_as_in_gpt_2():
    net = transformer(
        vocabularies=(64,), lengths=(30,), entries=entry_of(40), width=64, depth=2, heads=4
    )
    params = jit(net.init)(jax.random.key(0), jnp.zeros((1, 30), jnp.int32), None, {})
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = tree.path_string(path)
        if name.endswith("bias"):
            np.testing.assert_array_equal(leaf, 0, err_msg=name)
        elif name.endswith("scale"):
            np.testing.assert_array_equal(leaf, 1, err_msg=name)
        else:
            into_stream = re.search("(out|contract)/kernel", name)
            expected = 0.02 / np.sqrt(2 * 2) if into_stream else 0.02
            # Five standard errors of a standard deviation.
            assert abs(leaf.std() / expected - 1) < 5 / np.sqrt(2 * leaf.size), name


def test_labels_matter_everywhere_and_an_absent_one_is_the_null_class(made):
    m = made["classes"]
    outputs = [m.apply(m.params, m.tokens, None, label_of([k] * 3, absent=3)) for k in (0, 1, 3)]
    for one, two in ((0, 1), (1, 2), (0, 2)):
        assert (np.abs(outputs[one] - outputs[two]).max((0, 2)) > 1e-3).all()
    np.testing.assert_array_equal(m.apply(m.params, m.tokens, None, {}), outputs[2])
    zero = jnp.zeros(3, jnp.int32)
    step = jit(m.net.step)
    first, _ = step(m.params, m.net.new_cache(3), zero, jnp.asarray(0), {})
    np.testing.assert_allclose(first, outputs[2][:, 0], atol=1e-5)


def test_an_unconditional_network_ignores_the_label(made):
    m = made["one"]
    np.testing.assert_array_equal(m.apply(m.params, m.tokens, None, label_of([0] * 3)), m.logits())


@pytest.mark.slow
def test_losses_have_finite_gradients_and_every_parameter_has_a_say(made):
    m = made["classes"]

    def loss(params):
        log_p = jax.nn.log_softmax(m.net.apply(params, *m.inputs))
        entropy = -(jnp.exp(log_p) * log_p).sum(-1)
        return -jnp.take_along_axis(log_p, m.tokens[..., None], -1).sum() + entropy.sum()

    value, grads = jit(jax.value_and_grad(loss))(m.params)
    assert 0 < value < 1e4
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, tree.path_string(path)


def test_dropout_acts_in_training_only_and_needs_a_key(made):
    m, plain = Made("classes", dropout=0.3), made["classes"].logits()
    np.testing.assert_array_equal(m.logits(), plain)
    with pytest.raises(ValueError, match="needs a key"):
        m.net.apply(m.params, *m.inputs, train=True)
    train = jit(lambda key: m.net.apply(m.params, *m.inputs, train=True, key=key))
    one, two = train(jax.random.key(1)), train(jax.random.key(2))
    assert np.abs(one - two).max() > 1e-2 and np.abs(one - plain).max() > 1e-2
    np.testing.assert_array_equal(one, train(jax.random.key(1)))


def test_dropout_reaches_the_embedding_and_all_that_blocks_add():
    """If everything is dropped, the stream is 0 and the logits come from the last norm's bias."""
    m = Made("one", dropout=1 - 1e-7)
    logits = jit(m.net.apply, static_argnames="train")(
        m.params, *m.inputs, train=True, key=jax.random.key(0)
    )
    expected = m.params["norm"]["bias"] @ m.params["kernel"] + m.params["bias"]
    np.testing.assert_allclose(logits, np.broadcast_to(expected, logits.shape), atol=1e-5)


def test_bfloat16_comes_close_with_float32_params_and_logits(made):
    full, half = made["classes"], Made("classes", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    cache = half.net.new_cache(3)
    assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype("bfloat16")}
    one, two = full.logits(), half.logits()
    inputs = half.tokens[:, 0], jnp.asarray(0), half.conditions
    row, _ = jit(half.net.step)(half.params, cache, *inputs)
    assert two.dtype == row.dtype == np.float32
    real = one > -1e8
    np.testing.assert_array_equal(two > -1e8, real)
    scale = np.sqrt(np.mean(one[real] ** 2))
    assert 0 < np.sqrt(np.mean((one - two)[real] ** 2)) < 0.03 * scale
    own = real[:, 0]
    assert np.abs(row[own] - one[:, 0][own]).max() < 0.1 * scale


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(heads=3), ["network.heads is 3", "network.width, 256"]),
        (dict(heads=0), ["network.heads = 0 must be at least 1."]),
        (dict(width=0), ["network.width = 0 must be at least 1."]),
        (dict(depth=0), ["network.depth = 0 must be at least 1."]),
        (dict(expansion=0), ["network.expansion = 0 must be at least 1."]),
        (dict(dropout=1.0), ["network.dropout = 1.0 must be at least 0 and below 1."]),
        (dict(dtype="bf16"), ["network.dtype = 'bf16'", "?"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = section_problems(TransformerSettings(**settings), "network", (28, 28, 1))
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
