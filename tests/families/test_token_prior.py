"""The prior over codes, on a tokenizer whose codes are the pixels themselves."""

from dataclasses import dataclass, replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.core.conditions import Condition, Entry, Given, field
from genzoo.core.contract import CAPABILITIES, CodeGrid, Context, Variables, conditions_of
from genzoo.families.token_prior import TOKENIZER, TokenPrior, lengths_of
from genzoo.math.tokens import Truncation
from genzoo.nets.transformer.transformer import TransformerSettings
from genzoo.train.averages import Average
from genzoo.train.optimizer import Optimizer, constant, for_players
from genzoo.train.state import initial
from genzoo.train.step import Updater


@dataclass(frozen=True)
class Pixels:
    """Images [2, 2, 2]: channel 0 is the bottom grid of 4 codes, the first pixel of channel 1 the
    top grid of one of 3 codes. Both are levels of gain * x + shift: `gain` is a param, `shift` a
    stat. One level: the bottom alone."""

    levels: int = 2

    @property
    def code_grids(self):
        both = CodeGrid(shape=(1, 1), size=3), CodeGrid(shape=(2, 2), size=4)
        return both[2 - self.levels :]

    def init(self, key, example):
        del key, example
        return Variables(params={"gain": jnp.float32(7)}, stats={"shift": jnp.float32(7)})

    def codes(self, variables, batch):
        x = variables.params["gain"] * batch["x"] + variables.stats["shift"]
        code = jnp.round(x).astype(jnp.int32)
        return (code[:, :1, :1, 1], code[..., 0])[2 - self.levels :]

    def decode_codes(self, variables, codes):
        image = jnp.zeros((len(codes[-1]), 2, 2, 2)).at[..., 0].set(codes[-1])
        if self.levels == 2:
            image = image.at[:, :1, :1, 1].set(codes[0])
        return (image - variables.stats["shift"]) / variables.params["gain"]


TRAINED = {"params": {"gain": jnp.float32(2)}, "stats": {"shift": jnp.float32(1.5)}}
"""Not what `init` gives: who used that would see other codes."""


ENTRY = Entry(kind="class", size=2)
LABEL = {"label": Condition(read=field("label"))}


def given(labels) -> dict:
    return {"label": Given(labels, jnp.ones(labels.shape, bool))}


def family(levels=2, classes=0, truncate=None, dropout=0.0) -> TokenPrior:
    tokenizer = Pixels(levels)
    return TokenPrior(
        network=TransformerSettings(width=8, depth=1, heads=2, dropout=dropout).build(
            vocabularies=tuple(grid.size for grid in tokenizer.code_grids),
            lengths=lengths_of(tokenizer), entries={"label": ENTRY} if classes else {},
        ),
        tokenizer=tokenizer,
        truncate=truncate or Truncation(),
        conditions=LABEL if classes else {},
    )  # fmt: skip


def trained(model: TokenPrior) -> Variables:
    """Params with non-uniform predictions, and the tokenizer's variables as a run places them."""
    example = {"x": jnp.zeros((1, 2, 2, 2)), "label": jnp.zeros(1, jnp.int32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    leaves, tree = jax.tree.flatten(shapes.params)
    random = np.random.default_rng(0)
    values = [jnp.asarray(random.normal(0, 0.6, s.shape), jnp.float32) for s in leaves]
    return Variables(params=jax.tree.unflatten(tree, values), frozen={TOKENIZER: TRAINED})


def batch_of(model: TokenPrior, count=3, seed=0) -> tuple[dict, np.ndarray]:
    """(a batch, its codes [B, N] as one sequence)."""
    random = np.random.default_rng(seed)
    top, bottom = random.integers(0, 3, (count, 1)), random.integers(0, 4, (count, 4))
    return image_of(top, bottom), np.concatenate([top, bottom][2 - model.tokenizer.levels :], 1)


def image_of(top, bottom) -> dict:
    image = np.zeros((len(top), 2, 2, 2), np.float32)
    image[..., 0] = (bottom.reshape(-1, 2, 2) - 1.5) / 2
    image[:, 0, 0, 1] = (top[:, 0] - 1.5) / 2
    return {"x": jnp.asarray(image), "label": jnp.arange(len(top), dtype=jnp.int32) % 2}


def context(variables, batch, train=False, seed=0):
    return Context(
        batch=batch, key=jax.random.key(seed), step=jnp.int32(0), stats={},
        frozen=variables.frozen, train=train,
    )  # fmt: skip


def keys_of(batch):
    """A key for each example."""
    return jax.random.split(jax.random.key(0), len(batch["x"]))


def distribution(model, variables, prefix, position, conditions) -> np.ndarray:
    """p(code at `position` | prefix) [B, K] from `apply`, other codes from `position` on."""
    sequence = np.full((len(prefix), sum(lengths_of(model.tokenizer))), 2, np.int32)
    sequence[:, :position] = prefix[:, :position]
    apply = jax.jit(model.network.apply)
    sizes = np.repeat([g.size for g in model.tokenizer.code_grids], lengths_of(model.tokenizer))
    logits = np.asarray(apply(variables.params, sequence, None, conditions), np.float64)
    logits = logits[:, position, : sizes[position]]
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("levels", "classes"), [pytest.param(1, 0, marks=pytest.mark.slow), (2, 2)]
)
def test_the_loss_is_the_sum_over_positions(levels, classes):
    model = family(levels, classes)
    variables = trained(model)
    batch, codes = batch_of(model)
    conditions = given(batch["label"]) if classes else {}
    nats = np.stack([
        -np.log(distribution(model, variables, codes, i, conditions)[np.arange(3), codes[:, i]])
        for i in range(codes.shape[1])
    ], 1)  # fmt: skip
    assert nats.std() > 0.1
    loss, aux = jax.jit(lambda v, b: model.loss(v.params, context(v, b)))(variables, batch)
    np.testing.assert_allclose(loss, nats.sum(1), rtol=1e-4)
    cuts = np.cumsum(lengths_of(model.tokenizer))[:-1]
    parts = np.split(nats, cuts, 1)
    for level, part in enumerate(parts):
        np.testing.assert_allclose(
            aux.metrics[f"nats_per_code_{level}"], part.mean(1), rtol=1e-4
        )
    likelihood = model.likelihood(variables, batch, keys_of(batch))
    assert likelihood.of.startswith("the codes of the tokenizer") and not likelihood.density
    np.testing.assert_allclose(likelihood.total, nats.sum(1), rtol=1e-4)
    assert list(likelihood.terms) == [f"level_{level}" for level in range(levels)]
    for term, part in zip(likelihood.terms.values(), parts, strict=True):
        np.testing.assert_allclose(term, part.sum(1), rtol=1e-4)
    np.testing.assert_allclose(sum(likelihood.terms.values()), likelihood.total, rtol=1e-6)


def test_it_is_a_distribution_over_all_pairs_of_levels():
    # exp(-loss) over every top and bottom sums to 1: the codes of each level have a softmax of
    # their own, and no code is predicted from itself.
    model = family(2)
    variables = trained(model)
    every = np.stack(np.meshgrid(*[range(3)], *[range(4)] * 4, indexing="ij"), -1).reshape(-1, 5)
    batch = image_of(every[:, :1], every[:, 1:])
    assert len(every) == 768
    loss = jax.jit(lambda v, b: model.loss(v.params, context(v, b))[0])(variables, batch)
    np.testing.assert_allclose(np.exp(-np.asarray(loss, np.float64)).sum(), 1, rtol=1e-4)


def test_the_bottom_sees_the_top_and_not_the_other_way_round():
    model = family(2)
    variables = trained(model)
    top, bottom = np.array([[0], [1], [2]]), np.array([[3, 1, 0, 2]] * 3)
    terms = jax.jit(lambda v, b: model.likelihood(v, b, keys_of(b)).terms)
    by_level = terms(variables, image_of(top, bottom))
    assert np.ptp(by_level["level_1"]) > 0.05
    same = terms(variables, image_of(0 * top, np.random.default_rng(0).integers(0, 4, (3, 4))))
    np.testing.assert_allclose(same["level_0"], same["level_0"][0], rtol=1e-5)


def test_the_label_is_a_condition_only_where_there_are_classes():
    # test_every_family.py tests that it then matters.
    for classes in (0, 2):
        model = family(1, classes)
        assert tuple(conditions_of(model)) == (("label",) if classes else ())
    can = {name for name, protocol in CAPABILITIES.items() if isinstance(model, protocol)}
    assert can == {"sample", "likelihood"}


def test_dropout_is_for_training():
    model = family(1, dropout=0.5)
    variables = trained(model)
    batch, _ = batch_of(model)

    @partial(jax.jit, static_argnums=2)
    def loss(v, key, train):
        given = replace(context(v, batch, train), key=key)
        return model.loss(v.params, given)[0]

    one, two = jax.random.key(1), jax.random.key(2)
    assert (loss(variables, one, True) != loss(variables, two, True)).all()
    np.testing.assert_array_equal(loss(variables, one, False), loss(variables, two, False))


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_greedy_samples_are_the_rollout_of_the_likeliest_code(levels):
    model = family(levels, 2, Truncation(temperature=0.0))
    variables = trained(model)
    labels = jnp.array([0, 1], jnp.int32)
    codes = np.zeros((2, sum(lengths_of(model.tokenizer))), np.int32)
    for i in range(codes.shape[1]):
        codes[:, i] = distribution(model, variables, codes, i, given(labels)).argmax(-1)
    keys = jax.random.split(jax.random.key(0), 2)
    images = jax.jit(model.sample)(variables, keys, given(labels))
    expected = image_of(codes[:, : levels - 1] if levels == 2 else codes[:, :1], codes[:, -4:])
    np.testing.assert_allclose(images[..., 0], expected["x"][..., 0], atol=1e-6)
    if levels == 2:
        np.testing.assert_allclose(images[:, 0, 0, 1], expected["x"][:, 0, 0, 1], atol=1e-6)


def test_samples_are_of_the_tokenizer():
    model = family(2, 2)
    variables = trained(model)
    keys = streams.per_example(jax.random.key(5), jnp.arange(64))
    label = jnp.arange(64, dtype=jnp.int32) % 2
    images = jax.jit(model.sample)(variables, keys, given(label))
    assert images.shape == (64, 2, 2, 2)
    np.testing.assert_array_equal(np.unique(images[..., 0]), (np.arange(4) - 1.5) / 2)
    np.testing.assert_array_equal(np.unique(images[:, 0, 0, 1]), (np.arange(3) - 1.5) / 2)


def test_samples_follow_the_likelihood():
    model = family(1)
    variables = trained(model)
    keys = streams.per_example(jax.random.key(7), jnp.arange(20_000))
    images = jax.jit(model.sample)(variables, keys, {})
    codes = np.round(np.asarray(images[..., 0]) * 2 + 1.5).astype(int).reshape(-1, 4)
    every = np.stack(np.meshgrid(*[range(4)] * 4, indexing="ij"), -1).reshape(-1, 4)
    batch = image_of(every[:, :1] * 0, every)
    nats = jax.jit(lambda v: model.likelihood(v, batch, keys_of(batch)).total)(variables)
    p = np.exp(-np.asarray(nats))
    frequencies = np.bincount(codes @ [64, 16, 4, 1], minlength=256) / len(codes)
    deviation = np.sqrt(p * (1 - p) / len(codes))
    assert np.abs((frequencies - p) / deviation).max() < 5


# --- training -------------------------------------------------------------------------------------


def test_training_leaves_the_tokenizer_alone_and_learns_the_one_sequence():
    model = family(2)
    optimizer = Optimizer(decay=constant, total_steps=100, learning_rate=0.03)
    players = for_players(model.losses, optimizer)
    batch = image_of(np.full((8, 1), 2), np.array([[3, 0, 1, 2]] * 8))
    updater = Updater(
        family=model, optimizers=players,
        averages={"ema": Average(decay=0.9)}, prepare=lambda batch, key: batch,
        root=streams.root(0),
    )  # fmt: skip
    start = initial(model, players, ("ema",), streams.root(0), batch)
    assert start.frozen == {}  # a run puts the trained tokenizer there
    for moving in (start.params, start.opt_state, start.averages, start.stats):
        paths = jax.tree_util.tree_leaves_with_path(moving)
        assert not any("gain" in jax.tree_util.keystr(path) for path, _ in paths)
    state = replace(start, frozen={TOKENIZER: TRAINED})
    rows = jax.tree.map(lambda x: jnp.stack([x] * 80), batch)
    state, _ = jax.jit(updater.call)(state, {}, rows)
    assert state.step == 80 and state.faults.total == 0
    chex.assert_trees_all_equal(state.frozen, {TOKENIZER: TRAINED})
    variables = Variables(params=state.params, frozen=state.frozen)
    loss = jax.jit(lambda v: model.likelihood(v, batch, keys_of(batch)).total)(variables)
    assert loss.max() < 0.05
    keys = streams.per_example(jax.random.key(1), jnp.arange(8))
    images = jax.jit(model.sample)(variables, keys, {})
    shown = batch["x"].at[..., 1].set(-0.75).at[:, 0, 0, 1].set(0.25)  # code 0 where none is
    np.testing.assert_allclose(images, shown, atol=1e-6)


def test_the_report_adds_bits_per_code():
    values = family(2).report({"loss": np.float32(5 * np.log(2)), "nats_per_code_0": 1.0}).values
    assert values["bits_per_code"] == pytest.approx(1.0)
    assert values["nats_per_code_0"] == 1.0
