"""What a model family is, and what it may be able to do.

A family is a frozen object with two members, `init` and `losses`. Everything else is a capability:
a protocol that it may satisfy and that a mode asks for. The trainer, the evaluators and the modes
know a family through this file alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from genzoo.core.types import Array, Batch, Images, Key, Keys, Tree


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Variables:
    """What a family is made of: `params` are learned by gradient, `stats` by the losses' own rule.

    Both are nested dicts. Codebook averages, running statistics and loss histories are stats.
    """

    params: Tree
    stats: Tree = field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything a loss may look at besides the params.

    batch: arrays with a leading axis B; `image` is float in [-1, 1], `label` int32.
    key: the randomness of this step. step: int32 scalar.
    stats: the family's own statistics; a loss hands back their new value in `Aux`.
    averages: params averaged over time, by name (a consistency model reads its target there).
    frozen: params of first stages and teachers, by name.
    train: whether dropout is on and stats are to be renewed.
    """

    batch: Batch
    key: Key
    step: Array
    stats: Tree
    averages: Mapping[str, Tree] = field(default_factory=dict)
    frozen: Mapping[str, Tree] = field(default_factory=dict)
    train: bool = field(default=True, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A metric in which examples count differently, or not at all: values [B], weights [B] >= 0."""

    values: Array
    weights: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Aux:
    """What a loss hands back beside its values: metrics ([B] or Weighted) and the new stats."""

    metrics: Mapping[str, Array | Weighted] = field(default_factory=dict)
    stats: Tree = field(default_factory=dict)


Loss = Callable[[Tree, Context], tuple[Array, Aux]]


@dataclass(frozen=True, kw_only=True)
class Player:
    """A loss and the part of the params that it trains.

    loss: (params, context) -> (values [B] in nats or its own unit, Aux). The caller averages.
    trains: path prefixes such as ("generator/",); the empty prefix is everything.
    """

    loss: Loss
    trains: tuple[str, ...] = ("",)


@runtime_checkable
class Family(Protocol):
    """The contract that every family satisfies."""

    @property
    def losses(self) -> Mapping[str, Player]:
        """Player name -> player. One, named "model", for nearly all; a GAN has two."""

    def init(self, key: Key, example: Batch) -> Variables:
        """The variables at the start. `example` is a batch of which only the shapes count."""


@runtime_checkable
class Samples(Protocol):
    """The family can draw new examples."""

    def sample(self, variables: Variables, keys: Keys, condition: Batch) -> Images:
        """One example per key [B] -> [B, ...]; row i depends on row i of the arguments alone."""


@runtime_checkable
class Reconstructs(Protocol):
    """The family can encode an example and decode it again."""

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Images:
        """What comes back of each example of the batch: [B, ...]."""


@runtime_checkable
class Encodes(Protocol):
    """The family has a representation."""

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Array:
        """The representation of each example: [B, D]."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """An exact likelihood, or a bound on it, in nats per example (negative log-likelihood).

    total: [B]. terms: name -> [B], which sum to the total.
    curve: optional (positions [K] in [0, 1], values [B, K]): how the total spreads over time.
    """

    total: Array
    terms: Mapping[str, Array]
    curve: tuple[Array, Array] | None = None


@runtime_checkable
class Likelihoods(Protocol):
    """The family can say how likely an example is."""

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """Per example, by the randomness of its own key: the same in whatever batch it stands."""


@runtime_checkable
class Fits(Protocol):
    """The family is learned in closed form from one pass over the data, not by gradient steps."""

    def fit(self, batches, key: Key) -> Variables:
        """The variables, from an iterable of batches."""


@runtime_checkable
class Conditional(Protocol):
    """The family can be told a class."""

    @property
    def num_classes(self) -> int:
        """How many classes, 0 for none; the number itself is the null class."""


def class_count(family: Family) -> int:
    """How many classes the family can be told; 0 where it knows of none."""
    return family.num_classes if isinstance(family, Conditional) else 0


CAPABILITIES: Mapping[str, type] = {
    "sample": Samples,
    "reconstruct": Reconstructs,
    "encode": Encodes,
    "likelihood": Likelihoods,
    "fit": Fits,
}


def capabilities(family: Family) -> tuple[str, ...]:
    """The names of what this family can do."""
    return tuple(name for name, protocol in CAPABILITIES.items() if isinstance(family, protocol))


def weighted(metric: Array | Weighted, mask: Array | None = None) -> tuple[Array, Array]:
    """(sum, weight) of a metric over the batch; `mask` [B] leaves padding out."""
    if not isinstance(metric, Weighted):
        metric = Weighted(values=metric, weights=jnp.ones_like(metric))
    weights = metric.weights if mask is None else metric.weights * mask
    # A zero weight must silence even a non-finite value, which 0 * nan would not.
    return jnp.where(weights > 0, metric.values * weights, 0).sum(), weights.sum()
