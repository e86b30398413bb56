"""How conditions enter a network: an embedder with its own null for each kind, and the module that
combines them.

A network sees features (added to those of the time), tokens (by attention) and maps (concatenated
to its input). An absent condition is replaced by its null: a row of the class table, learned
features or one learned token if the null has params, otherwise zeros. For a published network we
choose whichever reproduces its parameter count.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions, Entry, Given, Tokens
from genzoo.core.errors import UserError
from genzoo.core.types import Array, broadcast
from genzoo.nets.parts.embeddings import TimeEmbedding, sinusoidal
from genzoo.nets.parts.layers import FAN_AVG, ZEROS

TOKEN_STD = 0.02
"""Standard deviation of embedded tokens and positions at the start (Radford et al. 2019)."""


class Encoded(NamedTuple):
    """The encoded conditions: features [B, E], tokens [B, L, D] with mask bool [B, L], maps
    [B, *size, C]; None if no condition enters in that way."""

    features: Array | None = None
    tokens: Array | None = None
    mask: Array | None = None
    maps: Array | None = None


class ClassTable(nn.Module):
    """(label int32 [B], present [B]) -> [B, features]: a row of a table, whose last is the null
    where there is one."""

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
    """(vector [B, D], present [B]) -> [B, features]: a dense map, and learned features where it is
    absent. bias: whether the map has one; without it and without a null, zeros mean absence."""

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


class Scalar(nn.Module):
    """(number [B], present [B]) -> [B, features]: the sinusoids of 1000 times the number, for
    numbers of order 1, through two dense layers."""

    features: int
    null: bool
    embed: TimeEmbedding = sinusoidal

    @nn.compact
    def __call__(self, number: Array, present: Array) -> Array:
        h = self.embed(1000 * number, self.features)
        h = nn.Dense(self.features, kernel_init=FAN_AVG, name="dense_0")(h)
        return Vector(self.features, self.null, name="dense_1")(nn.silu(h), present)


class TokenSequence(nn.Module):
    """(Tokens of ids or features, present [B]) -> (tokens [B, L, width], mask [B, L]).

    Ids are looked up in a table and given positions; features of another width go through a dense
    layer. Where the sequence is absent one token is left: a learned one, or zeros.
    """

    width: int
    null: bool
    vocabulary: int = 0
    length: int = 0

    @nn.compact
    def __call__(self, given: Tokens, present: Array) -> tuple[Array, Array]:
        h, mask = given
        if self.vocabulary:
            start = nn.initializers.normal(TOKEN_STD)
            h = nn.Embed(self.vocabulary, self.width, embedding_init=start, name="embed")(h)
            h = h + self.param("position", start, (self.length, self.width))[: h.shape[1]]
        elif h.shape[-1] != self.width:
            h = nn.Dense(self.width, kernel_init=FAN_AVG, name="width")(h)
        absent = self.param("null", ZEROS, (self.width,)) if self.null else jnp.zeros(self.width)
        first = jnp.arange(mask.shape[1]) == 0
        h = jnp.where(present[:, None, None], h, absent)
        return h, jnp.where(present[:, None], mask, first)


class Map(nn.Module):
    """(map [B, *size, C], present [B]) -> the same; where absent one learned value a channel, or
    zeros."""

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

    otherwise: what else the user can do.
    """
    for name, entry in entries.items():
        if entry.way not in ways:
            offered = " or ".join(map(repr, ways))
            raise UserError(
                f"The condition {name!r} enters by way = {entry.way!r}, for which this network has "
                f"no place: take {offered}{otherwise}."
            )


def value_of(entry: Entry, given: Given | None, like: Array) -> Given:
    """The condition, or one of the right shape that is absent for every example of x [B, ...]."""
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


def feature_embedder(entry: Entry, features: int, name: str, std: float = 1.0) -> nn.Module:
    """The embedder of a condition that enters by features. std: of a table's rows at the start."""
    if entry.kind == "class":
        return ClassTable(entry.size, features, entry.null, std, name=name)
    if entry.kind == "scalar":
        return Scalar(features, entry.null, name=name)
    return Vector(features, entry.null, name=name)


class Conditioner(nn.Module):
    """(time [B], conditions, x [B, *size, C]) -> Encoded: embeds the time and the conditions.

    The embedded time [width] goes through two dense layers, and embedded conditions are added to
    the features that come of it (Nichol & Dhariwal 2021). context: width of the tokens.
    """

    embed: TimeEmbedding
    width: int
    features: int
    entries: Mapping[str, Entry]
    context: int = 0

    @nn.compact
    def __call__(self, time: Array, conditions: Conditions, x: Array) -> Encoded:
        h = self.embed(time, self.width)
        h = nn.Dense(self.features, kernel_init=FAN_AVG, name="dense_0")(h)
        h = nn.Dense(self.features, kernel_init=FAN_AVG, name="dense_1")(nn.silu(h))
        for name, entry in self.entries.items():
            if entry.way == "add":
                given = value_of(entry, conditions.get(name), x)
                h = h + feature_embedder(entry, self.features, name)(*given)
        tokens, mask = attended(self.entries, conditions, x, self.context)
        return Encoded(h, tokens, mask, concatenated(self.entries, conditions, x))


def attended(
    entries: Mapping[str, Entry], conditions: Conditions, x: Array, width: int
) -> tuple[Array | None, Array | None]:
    """(tokens [B, L, width], mask [B, L]) of all conditions to attend to, one after the other; call
    it inside a compact `__call__`."""
    parts = []
    for name, entry in entries.items():
        if entry.way != "attend":
            continue
        given = value_of(entry, conditions.get(name), x)
        if entry.kind in ("ids", "tokens"):
            vocabulary = entry.size if entry.kind == "ids" else 0
            module = TokenSequence(width, entry.null, vocabulary, entry.length, name=name)
            parts.append(module(*given))
        else:  # one token
            one = feature_embedder(entry, width, name)(*given)[:, None]
            parts.append((one, jnp.ones(one.shape[:2], bool)))
    if not parts:
        return None, None
    tokens, masks = zip(*parts, strict=True)
    return jnp.concatenate(tokens, 1), jnp.concatenate(masks, 1)


def concatenated(entries: Mapping[str, Entry], conditions: Conditions, x: Array) -> Array | None:
    """The maps [B, *size, C] of all conditions to concatenate, a smaller one enlarged bilinearly
    (Saharia et al. 2021, "Image super-resolution via iterative refinement"); call it inside a
    compact `__call__`."""
    maps = []
    for name, entry in entries.items():
        if entry.way == "concat":
            given = Map(entry.null, name=name)(*value_of(entry, conditions.get(name), x))
            size = (*x.shape[:-1], given.shape[-1])
            maps.append(given if given.shape == size else jax.image.resize(given, size, "linear"))
    return jnp.concatenate(maps, -1) if maps else None
