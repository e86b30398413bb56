"""Conditions: what is dropped, by which coin, and what absence is."""

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import conditions
from genzoo.core.conditions import Condition, Tokens, field, gather, without

COUNT = 20_000
BATCH = {
    "label": jnp.arange(COUNT, dtype=jnp.int32) % 7,
    "depth": jnp.ones((COUNT, 2, 2, 1)),
    "words": jnp.ones((COUNT, 3), jnp.int32),
}


def absent(given):
    return 1 - np.mean(given.present)


def test_without_a_key_everything_is_present_and_read_from_record_and_frozen():
    def shifted(batch, frozen):
        return batch["label"] + frozen["encoder"]["shift"]

    specs = {"label": Condition(read=field("label"), dropout=0.9), "code": Condition(read=shifted)}
    gathered = gather(specs, BATCH, {"encoder": {"shift": 5}})
    np.testing.assert_array_equal(gathered["code"].value, BATCH["label"] + 5)
    assert all(np.all(given.present) for given in gathered.values())


def test_each_condition_is_dropped_at_its_rate_and_on_its_own():
    specs = {
        "label": Condition(read=field("label"), dropout=0.1),
        "depth": Condition(read=field("depth"), dropout=0.3),
        "words": Condition(read=field("words")),
    }
    gathered = jax.jit(lambda key: gather(specs, BATCH, key=key))(jax.random.key(0))
    deviation = np.sqrt(0.25 / COUNT)
    assert abs(absent(gathered["label"]) - 0.1) < 5 * deviation
    assert abs(absent(gathered["depth"]) - 0.3) < 5 * deviation
    assert absent(gathered["words"]) == 0
    both = ~gathered["label"].present & ~gathered["depth"].present
    assert abs(np.mean(both) - 0.03) < 5 * deviation  # two coins
    np.testing.assert_array_equal(gathered["label"].value, BATCH["label"])


def test_conditions_that_share_a_coin_are_absent_together():
    specs = {
        "label": Condition(read=field("label"), dropout=0.2, together="all"),
        "depth": Condition(read=field("depth"), dropout=0.2, together="all"),
        "words": Condition(read=field("words"), dropout=0.2),
    }
    gathered = gather(specs, BATCH, key=jax.random.key(1))
    np.testing.assert_array_equal(gathered["label"].present, gathered["depth"].present)
    assert np.any(gathered["label"].present != gathered["words"].present)
    assert conditions.groups(specs, ("depth", "words")) == (
        frozenset({"label", "depth"}), frozenset({"words"}),
    )  # fmt: skip


def test_another_condition_does_not_move_the_coins_of_those_there_are():
    one = {"label": Condition(read=field("label"), dropout=0.5)}
    more = {"depth": Condition(read=field("depth"), dropout=0.5), **one}
    alone, beside = (gather(specs, BATCH, key=jax.random.key(2))["label"] for specs in (one, more))
    np.testing.assert_array_equal(alone.present, beside.present)


def test_without_hides_the_named_ones_for_every_example():
    specs = {name: Condition(read=field(name), dropout=0.5 * (name == "label")) for name in BATCH}
    hidden = without(gather(specs, BATCH), ("label", "words"))
    assert [absent(hidden[name]) for name in ("label", "depth", "words")] == [1, 0, 1]
    assert conditions.droppable(specs) == ("label",)


def test_a_sequence_is_one_value_with_its_mask():
    def words(batch, frozen):
        return Tokens(batch["words"], batch["words"] > 0)

    gathered = gather({"text": Condition(read=words, dropout=0.5)}, BATCH, key=jax.random.key(3))
    assert gathered["text"].present.shape == (COUNT,)
    assert gathered["text"].value.mask.shape == (COUNT, 3)
