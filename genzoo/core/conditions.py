"""Conditions: inputs of a model besides x and t, present or absent for each example.

A class, a caption, a map or a vector is read from a record, or computed from it by a frozen model.
Here absence is only a flag; the network's embedder decides how to represent it. A condition missing
from a mapping is absent for every example.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.types import Array, Batch, Key, Tree, broadcast


class Given(NamedTuple):
    """A condition of a batch.

    value: arrays [B, ...]. present: bool [B]. The value of an absent condition is never read, but
    has the shape of a present one.
    """

    value: Tree
    present: Array


class Tokens(NamedTuple):
    """A sequence as a condition.

    tokens: ids, int32 [B, L], or features [B, L, D]. mask: bool [B, L], False for padding.
    """

    tokens: Array
    mask: Array


Conditions = Mapping[str, Given]
Frozen = Mapping[str, Tree]
Read = Callable[[Batch, Frozen], Tree]


def field(name: str) -> Read:
    """A `read` that returns a field of the record unchanged."""
    return lambda batch, frozen: batch[name]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Where a condition comes from and how often training drops it.

    read: (batch, frozen) -> its value for each example. dropout: the probability that it is dropped
    for an example in training; 0 means that the model never sees it absent. together: a name shared
    by conditions that are dropped together; "" for one that is dropped on its own. blank: in place
    of a `read` that needs frozen models, makes a value of the same shape without them. noise: the
    largest level of the noise that training adds to an array (`noised`), uniform from 0 for each
    example; the model is told it as a condition of its own (`level_of`).
    """

    read: Read
    dropout: float = 0.0
    together: str = ""
    blank: Read | None = None
    noise: float = 0.0


def level_of(name: str) -> str:
    """The name of the condition that tells the level of the noise in the condition `name`."""
    return f"{name}_noise"


def noised(value: Array, level: Array, eps: Array) -> Array:
    """sqrt(1 - s^2) value + s eps for a value [B, ...] at levels s [B], as in a diffusion process
    that keeps the variance (conditioning augmentation, Ho et al. 2022, section 4)."""
    s = broadcast(level, value)
    return jnp.sqrt(1 - jnp.square(s)) * value + s * eps


Specs = Mapping[str, Condition]


def gather(
    specs: Specs, batch: Batch, frozen: Frozen | None = None, key: Key | None = None
) -> Conditions:
    """The conditions of a batch. With a key, some are dropped at random, independently for each
    example and from a named stream per group, and some are noisy; without a key, all are present
    and clean."""
    gathered = {}
    for name, spec in specs.items():
        value = spec.read(batch, frozen or {})
        rows = jax.tree.leaves(value)[0].shape[:1]
        present = jnp.ones(rows, bool)
        if key is not None and spec.dropout:
            coin = streams.named(key, f"drop {spec.together or name}")
            present = jax.random.uniform(coin, rows) >= spec.dropout
        if spec.noise:
            level = jnp.zeros(rows)
            if key is not None:
                level = spec.noise * jax.random.uniform(streams.named(key, f"level {name}"), rows)
                eps = jax.random.normal(streams.named(key, f"noise {name}"), value.shape)
                value = noised(value, level, eps)
            gathered[level_of(name)] = Given(level, jnp.ones(rows, bool))
        gathered[name] = Given(value, present)
    return gathered


def examples(specs: Specs, batch: Batch) -> Conditions:
    """Example conditions for initialising a network: all present, with the shapes of those that
    `gather` returns, but made without frozen models."""
    blank = {name: replace(spec, read=spec.blank or spec.read) for name, spec in specs.items()}
    return gather(blank, batch)


def without(conditions: Conditions, names: Iterable[str]) -> Conditions:
    """The conditions, with the named ones absent for every example."""
    absent = frozenset(names)
    return {
        name: given._replace(present=jnp.zeros_like(given.present)) if name in absent else given
        for name, given in conditions.items()
    }


def droppable(specs: Specs) -> tuple[str, ...]:
    """The names of the conditions that training sometimes drops, so that they can be guided."""
    return tuple(name for name, spec in specs.items() if spec.dropout)


def groups(specs: Specs, names: Iterable[str]) -> tuple[frozenset[str], ...]:
    """For each name in order, all conditions that are dropped, and so guided, together with it."""
    group = {name: spec.together or name for name, spec in specs.items()}
    return tuple(frozenset(n for n, g in group.items() if g == group[name]) for name in names)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a condition enters a network.

    kind: "class" (int32 [B] below `size`), "scalar" ([B]), "vector" ([B, size]), "ids" (`Tokens`
    of ids below `size`, with `length` positions), "tokens" (`Tokens` of features of width `size`)
    or "map" ([B, *spatial shape of x, size]). way: "add" to the time embedding, "attend" by
    cross-attention, "concat" to the network's input, or "control" by a branch of its own
    (ControlNet). null: whether absence has a learned embedding; otherwise an absent condition
    contributes zeros. layers: those of a transformer that encodes a sequence; 0 for none.
    """

    kind: str
    size: int = 0
    length: int = 0
    way: str = "add"
    null: bool = True
    layers: int = 0


Entries = Mapping[str, Entry]
WAYS: Mapping[str, tuple[str, ...]] = {
    "class": ("add", "attend"),
    "scalar": ("add", "attend"),
    "vector": ("add", "attend"),
    "ids": ("attend",),
    "tokens": ("attend",),
    "map": ("concat", "control"),
}
"""Kind of condition -> the ways in which it may enter a network, the default first."""
