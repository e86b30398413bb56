"""Conditions: what a model is told besides x and t, present or absent for each example.

A class, a caption, a map or a vector is read from a record, or from what a frozen model makes of
it. Only the network's embedder knows what absence looks like: here it is a flag. A condition that
a mapping does not hold at all is absent for every example.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Array, Batch, Key, Tree


class Given(NamedTuple):
    """The value of a condition for each example: arrays [B, ...], and whether it is present: bool
    [B]. An absent value is never looked at; it keeps the shape of a present one."""

    value: Tree
    present: Array


class Tokens(NamedTuple):
    """A sequence as a condition: ids int32 [B, L] or features [B, L, D], and mask bool [B, L], True
    where there is a token and not padding."""

    tokens: Array
    mask: Array


Conditions = Mapping[str, Given]
Frozen = Mapping[str, Tree]
Read = Callable[[Batch, Frozen], Tree]


def field(name: str) -> Read:
    """Reads a field of the record as it is."""
    return lambda batch, frozen: batch[name]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Where a condition comes from and how often training hides it.

    read: (batch, frozen) -> the value of each example. dropout: the probability that an example is
    trained without it; 0 means that the model never sees it absent. together: a name that several
    conditions share whose absence is drawn by one coin; "" for a coin of its own.
    """

    read: Read
    dropout: float = 0.0
    together: str = ""


Specs = Mapping[str, Condition]


def gather(
    specs: Specs, batch: Batch, frozen: Frozen | None = None, key: Key | None = None
) -> Conditions:
    """The conditions of a batch. With a key some are dropped at random, each example for itself and
    each coin from a stream of its own name; without a key all are present."""
    gathered = {}
    for name, spec in specs.items():
        value = spec.read(batch, frozen or {})
        rows = jax.tree.leaves(value)[0].shape[:1]
        present = jnp.ones(rows, bool)
        if key is not None and spec.dropout:
            coin = streams.named(key, f"drop {spec.together or name}")
            present = jax.random.uniform(coin, rows) >= spec.dropout
        gathered[name] = Given(value, present)
    return gathered


def without(conditions: Conditions, names: Iterable[str]) -> Conditions:
    """The conditions with those of the given names absent for every example."""
    hidden = frozenset(names)
    return {
        name: given._replace(present=jnp.zeros_like(given.present)) if name in hidden else given
        for name, given in conditions.items()
    }


def droppable(specs: Specs) -> tuple[str, ...]:
    """The names of the conditions that training sometimes hides, which guidance can lean on."""
    return tuple(name for name, spec in specs.items() if spec.dropout)


def groups(specs: Specs, names: Iterable[str]) -> tuple[frozenset[str], ...]:
    """For each name in order, all conditions that share its coin: they are guided together."""
    coin = {name: spec.together or name for name, spec in specs.items()}
    return tuple(frozenset(n for n, c in coin.items() if c == coin[name]) for name in names)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a condition enters a network.

    kind: "class" (int32 [B] below `size`), "scalar" ([B]), "vector" ([B, size]), "ids" (`Tokens`
    of ids below `size`, of `length` positions), "tokens" (`Tokens` of features of width `size`) or
    "map" ([B, *size of x, channels], `size` channels). way: "add" to the features of the time,
    "attend" by cross-attention, "concat" to the network's input. null: whether absence has params
    of its own; without, an absent condition contributes zeros.
    """

    kind: str
    size: int = 0
    length: int = 0
    way: str = "add"
    null: bool = True


Entries = Mapping[str, Entry]
