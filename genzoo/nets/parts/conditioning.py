"""How conditions enter a network: an embedder for each kind, and the module that combines them.

A network receives features (added to those of the time), tokens (by attention) and maps
(concatenated to its input). An absent condition is replaced by its null. If the null has params, it
is a row of the class table, learned features or one learned token; otherwise it is zero. For a
published network we choose whichever reproduces its parameter count.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import WAYS, Conditions, Entry, Given, Tokens
from genzoo.core.errors import UserError
from genzoo.core.types import Array, broadcast
from genzoo.nets.parts.embeddings import TimeEmbedding, sinusoidal
from genzoo.nets.parts.layers import FAN_AVG, ZEROS
from genzoo.nets.parts.text_encoder import TextEncoder, pooled

TOKEN_STD = 0.02
"""Initial standard deviation of token and position embeddings (Radford et al. 2019)."""


class Encoded(NamedTuple):
    """The encoded conditions; each entry is None if no condition enters in that way.

    features: [B, E], of the time and all added conditions. tokens: [B, L, D]. mask: bool [B, L],
    False for padding. maps: [B, *size, C]. added: [B, E], of the added conditions alone.
    """

    features: Array | None = None
    tokens: Array | None = None
    mask: Array | None = None
    maps: Array | None = None
    added: Array | None = None


class ClassTable(nn.Module):
    """(label int32 [B], present bool [B]) -> [B, features], rows of a table.

    null: whether the table has a last row for absent labels; otherwise their features are zero.
    std: the initial standard deviation of the table.
    """

    classes: int
    features: int
    null: bool
    std: float = 1.0

    @nn.compact
    def __call__(self, label: Array, present: Array) -> Array:
        rows = (self.classes + self.null, self.features)
        table = self.param("embedding", nn.initializers.normal(self.std), rows)
        if self.null:
            return table[jnp.where(present, label, self.classes)]
        return jnp.where(present[:, None], table[label], 0)


class Vector(nn.Module):
    """(vector [B, D], present bool [B]) -> [B, features], by a dense layer.

    null: whether an absent vector has learned features; otherwise they are zero. bias: whether the
    layer has a bias. With neither bias nor null, an absent vector is the same as a zero vector.
    """

    features: int
    null: bool
    bias: bool = True

    @nn.compact
    def __call__(self, vector: Array, present: Array) -> Array:
        kernel = self.param("kernel", FAN_AVG, (vector.shape[-1], self.features))
        out = vector.astype(jnp.float32) @ kernel
        if self.bias:
            out = out + self.param("bias", ZEROS, (self.features,))
        absent = self.param("null", ZEROS, (self.features,)) if self.null else 0.0
        return jnp.where(present[:, None], out, absent)


class DeepVector(nn.Module):
    """(vector [B, D], present bool [B]) -> [B, features], by two dense layers (SD3).

    null: as in `Vector`.
    """

    features: int
    null: bool

    @nn.compact
    def __call__(self, vector: Array, present: Array) -> Array:
        h = nn.Dense(self.features, kernel_init=FAN_AVG, name="dense_0")(vector)
        return Vector(self.features, self.null, name="dense_1")(nn.silu(h), present)


class Scalar(nn.Module):
    """(number [B], present bool [B]) -> [B, features], for numbers of order 1.

    Two dense layers act on the sinusoidal embedding of 1000 times the number. null: as in `Vector`.
    """

    features: int
    null: bool
    embed: TimeEmbedding = sinusoidal

    @nn.compact
    def __call__(self, number: Array, present: Array) -> Array:
        h = self.embed(1000 * number, self.features)
        h = nn.Dense(self.features, kernel_init=FAN_AVG, name="dense_0")(h)
        return Vector(self.features, self.null, name="dense_1")(nn.silu(h), present)


class TokenSequence(nn.Module):
    """(Tokens of ids or features, present bool [B]) -> (tokens [B, L, width], mask bool [B, L]).

    Ids (vocabulary > 0) are embedded by a table, and learned positions are added. Features of
    another width go through a dense layer. An absent sequence is replaced by a single token, which
    is learned (null) or zero. length: the number of learned positions, at least L. layers: those
    of a `TextEncoder` over the sequence; 0 for none.
    """

    width: int
    null: bool
    vocabulary: int = 0
    length: int = 0
    layers: int = 0

    @nn.compact
    def __call__(self, given: Tokens, present: Array) -> tuple[Array, Array]:
        h, mask = given
        if self.vocabulary:
            start = nn.initializers.normal(TOKEN_STD)
            h = nn.Embed(self.vocabulary, self.width, embedding_init=start, name="embed")(h)
            h = h + self.param("position", start, (self.length, self.width))[: h.shape[1]]
        elif h.shape[-1] != self.width:
            h = nn.Dense(self.width, kernel_init=FAN_AVG, name="width")(h)
        if self.layers:
            h = TextEncoder(self.layers, name="encoder")(h, mask)
        absent = self.param("null", ZEROS, (self.width,)) if self.null else jnp.zeros(self.width)
        first = jnp.arange(mask.shape[1]) == 0
        h = jnp.where(present[:, None, None], h, absent)
        return h, jnp.where(present[:, None], mask, first)


class Map(nn.Module):
    """(map [B, *size, C], present bool [B]) -> [B, *size, C].

    An absent map is replaced by one learned value for each channel (null), or by zeros.
    """

    null: bool

    @nn.compact
    def __call__(self, given: Array, present: Array) -> Array:
        channels = given.shape[-1]
        absent = self.param("null", ZEROS, (channels,)) if self.null else jnp.zeros(channels)
        return jnp.where(broadcast(present, given), given, absent)


def check_ways(
    entries: Mapping[str, Entry], ways: Iterable[str], otherwise: str = ""
) -> None:
    """Raises a UserError if a condition enters in a way that the network does not support.

    ways: the supported ways. otherwise: what else the user can do, as an imperative.
    """
    for name, entry in entries.items():
        if entry.way not in ways:
            possible = [repr(way) for way in ways if way in WAYS[entry.kind]]
            remedies = [f"use {' or '.join(possible)}"] if possible else []
            remedies += [otherwise] if otherwise else []
            remedies = remedies or ["leave it out", "use another network"]
            raise UserError(
                f"conditions.{name} has way = {entry.way!r}, which this network does not support: "
                f"{', or '.join(remedies)}."
            )


def value_of(entry: Entry, given: Given | None, like: Array) -> Given:
    """`given`, or if it is None, a condition absent for every example of `like` [B, ...]."""
    if given is not None:
        return given
    rows, length = like.shape[0], max(entry.length, 1)
    mask = jnp.zeros((rows, length), bool)
    empty = {
        "class": jnp.zeros(rows, jnp.int32),
        "scalar": jnp.zeros(rows),
        "vector": jnp.zeros((rows, entry.size)),
        "ids": Tokens(jnp.zeros((rows, length), jnp.int32), mask),
        "tokens": Tokens(jnp.zeros((rows, length, entry.size)), mask),
        "map": jnp.zeros((*like.shape[:-1], entry.size)),
    }
    return Given(empty[entry.kind], jnp.zeros(rows, bool))


def feature_embedder(
    entry: Entry, features: int, name: str, std: float = 1.0, deep: bool = False
) -> nn.Module:
    """The embedder of a condition with way = "add". std: the initial deviation of a class table.
    deep: whether vectors go through two layers."""
    if entry.kind == "class":
        return ClassTable(entry.size, features, entry.null, std, name=name)
    if entry.kind == "scalar":
        return Scalar(features, entry.null, name=name)
    return (DeepVector if deep else Vector)(features, entry.null, name=name)


class Conditioner(nn.Module):
    """(time [B], conditions, x [B, *size, C]) -> Encoded: embeds the time and the conditions.

    The time embedding [B, width] goes through two dense layers, and the embedded conditions are
    added to the result (Nichol & Dhariwal 2021). For each sequence with a text encoder, a linear
    map of its mean token is added too. features: the width of these features. context: the width of
    the tokens. start: the initial weights of the two layers. std: the initial standard deviation of
    class tables. deep: whether vectors go through two layers.
    """

    embed: TimeEmbedding
    width: int
    features: int
    entries: Mapping[str, Entry]
    context: int = 0
    start: nn.initializers.Initializer = FAN_AVG
    std: float = 1.0
    deep: bool = False

    @nn.compact
    def __call__(self, time: Array, conditions: Conditions, x: Array) -> Encoded:
        h = self.embed(time, self.width)
        h = nn.Dense(self.features, kernel_init=self.start, name="dense_0")(h)
        h = nn.Dense(self.features, kernel_init=self.start, name="dense_1")(nn.silu(h))
        added = []
        for name, entry in self.entries.items():
            if entry.way == "add":
                given = value_of(entry, conditions.get(name), x)
                embedder = feature_embedder(entry, self.features, name, self.std, self.deep)
                added.append(embedder(*given))
                h = h + added[-1]
        sequences = attended(self.entries, conditions, x, self.context)
        for name, sequence in sequences.items():
            if self.entries[name].layers:
                whole = nn.Dense(
                    self.features, use_bias=False, kernel_init=FAN_AVG, name=f"{name}_whole"
                )
                added.append(whole(pooled(*sequence)))
                h = h + added[-1]
        tokens, mask = joined(sequences)
        maps = concatenated(self.entries, conditions, x)
        return Encoded(h, tokens, mask, maps, sum(added) if added else None)


def attended(
    entries: Mapping[str, Entry], conditions: Conditions, x: Array, width: int
) -> dict[str, tuple[Array, Array]]:
    """(tokens [B, L, width], mask bool [B, L]) of each condition with way = "attend", by name.

    Call it inside a compact `__call__`.
    """
    sequences = {}
    for name, entry in entries.items():
        if entry.way != "attend":
            continue
        given = value_of(entry, conditions.get(name), x)
        if entry.kind in ("ids", "tokens"):
            vocabulary = entry.size if entry.kind == "ids" else 0
            module = TokenSequence(
                width, entry.null, vocabulary, entry.length, entry.layers, name=name
            )
            sequences[name] = module(*given)
        else:  # one token
            one = feature_embedder(entry, width, name)(*given)[:, None]
            sequences[name] = one, jnp.ones(one.shape[:2], bool)
    return sequences


def joined(sequences: Mapping[str, tuple[Array, Array]]) -> tuple[Array | None, Array | None]:
    """The concatenated sequences: tokens [B, L, D] and mask bool [B, L], or (None, None)."""
    if not sequences:
        return None, None
    tokens, masks = zip(*sequences.values(), strict=True)
    return jnp.concatenate(tokens, 1), jnp.concatenate(masks, 1)


def concatenated(entries: Mapping[str, Entry], conditions: Conditions, x: Array) -> Array | None:
    """The maps [B, *size, C] of all conditions with way = "concat", or None if there are none.

    Maps of another size are resized bilinearly to that of x (Saharia et al. 2021, Image
    super-resolution via iterative refinement). Call it inside a compact `__call__`.
    """
    maps = []
    for name, entry in entries.items():
        if entry.way == "concat":
            given = Map(entry.null, name=name)(*value_of(entry, conditions.get(name), x))
            size = (*x.shape[:-1], given.shape[-1])
            maps.append(given if given.shape == size else jax.image.resize(given, size, "linear"))
    return jnp.concatenate(maps, -1) if maps else None
