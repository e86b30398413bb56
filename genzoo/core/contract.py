"""What a model family is, and what it may be able to do.

A family is a frozen object with two members, `init` and `losses`. Everything else is a capability:
a protocol that it may satisfy and that a mode asks for. The trainer, the evaluators and the modes
know a family through this file alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.conditions import Condition, Conditions
from genzoo.core.types import Array, Batch, Images, Key, Keys, Tree, broadcast


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Variables:
    """What a family is made of: `params` are learned by gradient, `stats` by the losses' own rule.

    Both are nested dicts. Codebook averages, running statistics and loss histories are stats.
    frozen: the variables of models that other runs have trained, by name, each as a `tree`. They
    never change. `init` leaves them out: they are put in place once the runs are opened.
    """

    params: Tree
    stats: Tree = field(default_factory=dict)
    frozen: Mapping[str, Tree] = field(default_factory=dict)

    @property
    def tree(self) -> dict[str, Tree]:
        """The same as a nested dict, {"params": .., "stats": ..}, with "frozen" where there are
        such: what the model is in the `frozen` of another one."""
        parts = {"params": self.params, "stats": self.stats}
        return parts | ({"frozen": dict(self.frozen)} if self.frozen else {})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Context:
    """Everything a loss may look at besides the params.

    batch: arrays with a leading axis B; `x` is float in [-1, 1], `label` int32.
    key: the randomness of this step. step: int32 scalar.
    stats: the family's own statistics; a loss hands back their new value in `Aux`.
    averages: params averaged over time, by name (a consistency model reads its target there).
    frozen: the variables of other runs' models, as in Variables.
    mask: of a loss that couples the rows of a batch, and of no other: [B], 1 for an example and 0
    for padding, whatever the padding holds.
    train: whether dropout is on and stats are to be renewed.
    """

    batch: Batch
    key: Key
    step: Array
    stats: Tree
    averages: Mapping[str, Tree] = field(default_factory=dict)
    frozen: Mapping[str, Tree] = field(default_factory=dict)
    mask: Array | None = None
    train: bool = field(default=True, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A metric in which examples count differently, or not at all: values [B, ...], weights [B]
    >= 0."""

    values: Array
    weights: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Aux:
    """What a loss hands back beside its values: metrics and the new stats.

    A metric is [B], or Weighted, or has trailing axes [B, ...]: the mean over the examples is then
    an array, from which the family makes what is worth reporting (`Reports`).
    """

    metrics: Mapping[str, Array | Weighted] = field(default_factory=dict)
    stats: Tree = field(default_factory=dict)


Loss = Callable[[Tree, Context], tuple[Array, Aux]]


@dataclass(frozen=True, kw_only=True)
class Player:
    """A loss, the part of the params that it trains, and when.

    loss: (params, context) -> (values [B] in nats or its own unit, Aux). The caller averages.
    trains: path prefixes such as ("generator/",); the empty prefix is everything. after, every: the
    player moves at the steps n >= after for which n - after is a multiple of `every`. couples_rows:
    whether the loss of one example depends on the others of its batch, as a contrastive loss does.
    """

    loss: Loss
    trains: tuple[str, ...] = ("",)
    after: int = 0
    every: int = 1
    couples_rows: bool = False

    @property
    def always(self) -> bool:
        """Whether it moves at every step."""
        return self.after == 0 and self.every == 1

    def owns(self, path: str) -> bool:
        """Whether it trains the param at this path."""
        return f"{path}/".startswith(self.trains)

    def moves_at(self, step: Array) -> Array:
        """Whether it moves at this step, the first being 0."""
        return (step >= self.after) & ((step - self.after) % self.every == 0)

    def moves_before(self, step: int | Array) -> int | Array:
        """How many times it moves at the steps 0 .. step - 1."""
        late = step - self.after + self.every - 1
        return (late * (late > 0)) // self.every


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

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Images:
        """One example per key [B] -> [B, ...]; row i depends on row i of the arguments alone."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Solution:
    """What solving for samples gave.

    x: [B, ...]. evaluations: int [B], how often the model was asked for each sample (NFE): a guided
    prediction is one. network_rows: int [B], rows that networks were given for each sample in all,
    one for every branch of guidance, a guide's and a classifier's among them. states, predicted: on
    request what x was after each step, and which data were predicted there: [S, B, ...].
    """

    x: Array
    evaluations: Array
    network_rows: Array
    states: Array | None = None
    predicted: Array | None = None


@runtime_checkable
class Solves(Protocol):
    """The family samples by solving an equation from noise to data, by whatever solver it is given:
    what pictures of fields, paths and solvers need."""

    def solve(
        self, variables: Variables, keys: Keys, conditions: Conditions, **others
    ) -> Solution:
        """As `sample`, with what it took; `sampler` and `guidance_scale` other than its own."""

    def schedule_of(self, params: Tree) -> Any:
        """The noise schedule."""

    def predictor(self, variables: Variables, conditions: Conditions) -> Callable:
        """(x_t [B, ...], t) -> the data and the noise that x_t is made of."""


@runtime_checkable
class Reconstructs(Protocol):
    """The family can encode an example and decode it again."""

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Images:
        """What comes back of each example of the batch: [B, ...]."""


@runtime_checkable
class Observes(Protocol):
    """The family is not shown the data as they are: corrupted, binarised or masked."""

    def observe(self, batch: Batch, keys: Keys) -> Images:
        """What `reconstruct` with these keys is shown of each example: [B, ...]."""


@runtime_checkable
class Encodes(Protocol):
    """The family has a representation."""

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Array:
        """The representation of each example: [B, D]."""


@runtime_checkable
class Decodes(Protocol):
    """The family can decode its representation: what `encode` gives, and points between."""

    def decode(self, variables: Variables, latent: Array) -> Images:
        """The examples that points [B, D] of the space of `encode` stand for: [B, ...]."""


@dataclass(frozen=True, kw_only=True)
class CodeGrid:
    """One level of a discrete representation: codes 0 .. size - 1 at the places of `shape`."""

    shape: tuple[int, ...]
    size: int


@runtime_checkable
class Tokenizes(Protocol):
    """The family has a discrete representation: grids of codes, the coarsest first."""

    @property
    def code_grids(self) -> tuple[CodeGrid, ...]:
        """The levels."""

    def codes(self, variables: Variables, batch: Batch) -> tuple[Array, ...]:
        """The codes of each example: int32 [B, *shape] by level."""

    def decode_codes(self, variables: Variables, codes: tuple[Array, ...]) -> Images:
        """The examples that codes stand for: [B, ...]."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """An exact likelihood, or a bound on it, in nats per example (negative log-likelihood).

    total: [B]. terms: name -> [B], which sum to the total.
    curve: optional (positions [K] in [0, 1], values [B, K]): how the total spreads over time.
    density: the total is that of a density of data in [-1, 1], not of a probability of levels:
    there are no bits per dimension of it. of, dimensions: what it is a likelihood of and how many
    numbers that has, if not of the data.
    """

    total: Array
    terms: Mapping[str, Array]
    curve: tuple[Array, Array] | None = None
    density: bool = field(default=False, metadata={"static": True})
    of: str = field(default="", metadata={"static": True})
    dimensions: int = field(default=0, metadata={"static": True})


@runtime_checkable
class Likelihoods(Protocol):
    """The family can say how likely an example is."""

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """Per example, by the randomness of its own key: the same in whatever batch it stands."""


@runtime_checkable
class Fits(Protocol):
    """The family is learned in closed form from one pass over the data, not by gradient steps."""

    def fit(self, batches: Iterable[Batch], key: Key) -> Variables:
        """The variables, from prepared batches of any size, each example once."""


@runtime_checkable
class Starts(Protocol):
    """The family starts from the params of another model: a student of its teacher's, a ControlNet
    of those of the model that it steers."""

    def start(self, variables: Variables) -> Tree:
        """The params at step 0, of the same structure as those of `init`, which `variables` holds
        together with the models of other runs in `frozen`."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """values: what is logged, numbers or lists of them. warnings: sentences for the user, by what
    they are about."""

    values: Mapping[str, float | list]
    warnings: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Reports(Protocol):
    """The family reads its own metrics: what is no mean over examples (a perplexity, the number of
    active units) is made here of what is, and what has gone wrong is said in words."""

    def report(self, measured: Mapping[str, np.ndarray]) -> Report:
        """measured: the metrics of the losses, averaged over many examples."""


@runtime_checkable
class Conditional(Protocol):
    """The family can be told more than x and t."""

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """What it can be told, by name."""


def conditions_of(family: Family) -> Mapping[str, Condition]:
    """What the family can be told, by name; nothing where it has no conditions."""
    return family.conditions if isinstance(family, Conditional) else {}


CAPABILITIES: Mapping[str, type] = {
    "sample": Samples,
    "reconstruct": Reconstructs,
    "encode": Encodes,
    "decode": Decodes,
    "tokenize": Tokenizes,
    "likelihood": Likelihoods,
    "fit": Fits,
}


def capabilities(family: Family) -> tuple[str, ...]:
    """The names of what this family can do."""
    return tuple(name for name, protocol in CAPABILITIES.items() if isinstance(family, protocol))


def weighted(metric: Array | Weighted, mask: Array | None = None) -> tuple[Array, Array]:
    """(sum, weight) of a metric over the batch; `mask` [B] leaves padding out."""
    if not isinstance(metric, Weighted):
        metric = Weighted(values=metric, weights=jnp.ones(metric.shape[:1], metric.dtype))
    weights = metric.weights if mask is None else metric.weights * mask
    each = broadcast(weights, metric.values)
    # A zero weight must silence even a non-finite value, which 0 * nan would not.
    return jnp.where(each > 0, metric.values * each, 0).sum(0), weights.sum()


_OF_THE_FIRST = ("loss", "gradient_norm", "learning_rate")


def by_name(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What each player measures, {player: {metric: value}}, under one name each. The metrics of a
    single player keep theirs. Of several, each is `metric_player`, and the loss, the gradient norm
    and the learning rate of the first stand under their own names as well."""
    if len(measured) == 1:
        return dict(*measured.values())
    named = {f"{k}_{player}": v for player, own in measured.items() for k, v in own.items()}
    first = next(iter(measured.values()))
    return {k: first[k] for k in _OF_THE_FIRST if k in first} | named


def scalars(measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The averaged metrics that are single numbers: what every report begins with."""
    return {k: float(v) for k, v in measured.items() if np.ndim(v) == 0}


def reported(family: Family, measured: Mapping[str, np.ndarray]) -> Report:
    """The family's own report of averaged metrics, or the metrics as they are."""
    if isinstance(family, Reports):
        return family.report(measured)
    return Report(values={k: np.asarray(v).tolist() for k, v in measured.items()})
