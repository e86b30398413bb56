"""The contract of a model family: two members that all have, and optional capabilities.

A family is a frozen object with `init` and `losses`. Everything else is a capability: a protocol
that a family may satisfy and a mode may require. The trainer, the evaluators and the modes know
families only through this file.
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
    """The arrays of a model: `params` are trained by gradient, `stats` are updated by the losses.

    Both are nested dicts. Codebook averages, running statistics and loss histories are stats.
    frozen: the variables of models trained by other runs, by name, each as a `tree`. They never
    change. `init` leaves them out; they are added when those runs are opened.
    """

    params: Tree
    stats: Tree = field(default_factory=dict)
    frozen: Mapping[str, Tree] = field(default_factory=dict)

    @property
    def tree(self) -> dict[str, Tree]:
        """The same as a nested dict, {"params": .., "stats": ..}, plus "frozen" if not empty: the
        form in which another model holds this one in its own `frozen`."""
        parts = {"params": self.params, "stats": self.stats}
        return parts | ({"frozen": dict(self.frozen)} if self.frozen else {})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Context:
    """The inputs of a loss besides the params.

    batch: arrays with a leading axis B; `x` is float in [-1, 1], `label` int32.
    key: the randomness of this step. step: int32 scalar.
    stats: the family's own statistics; a loss returns their new values in `Aux`.
    averages: params averaged over time, by name (a consistency model finds its target here).
    frozen: the variables of other runs' models, as in Variables.
    mask: [B], 1 for examples and 0 for padding, whose content is arbitrary; None unless the loss
    couples the rows of a batch.
    train: whether dropout is active and stats are updated.
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
    """A metric to be averaged with weights: values [B, ...], weights [B], at least 0."""

    values: Array
    weights: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Aux:
    """What a loss returns beside its values: metrics and the new stats.

    A metric is an array [B], Weighted, or an array [B, ...]. The mean of the last over the examples
    is an array, which the family turns into reported numbers (see `Reports`).
    """

    metrics: Mapping[str, Array | Weighted] = field(default_factory=dict)
    stats: Tree = field(default_factory=dict)


Loss = Callable[[Tree, Context], tuple[Array, Aux]]


@dataclass(frozen=True, kw_only=True)
class Player:
    """A loss, the params that it trains, and the steps at which it trains them.

    loss: (params, context) -> (values [B] in nats or the family's own unit, Aux). The caller
    averages. trains: path prefixes such as ("generator/",); the empty prefix matches everything.
    after, every: the player moves at steps n >= after where n - after is a multiple of `every`.
    couples_rows: whether the loss of an example depends on the others in its batch, as a
    contrastive loss does.
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
        """Whether it moves at this step, counted from 0."""
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
        """Player name -> player. Most families have one, named "model"; a GAN has two."""

    def init(self, key: Key, example: Batch) -> Variables:
        """Fresh variables. Only the shapes and dtypes of `example`, a batch, are used."""


@runtime_checkable
class Samples(Protocol):
    """The family can draw new examples."""

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Images:
        """One example per key [B] -> [B, ...]. Row i depends only on row i of the arguments."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Solution:
    """Samples obtained by solving an equation, with their cost and, on request, their path.

    x: [B, ...]. evaluations: int [B], model evaluations per sample (NFE); a guided prediction is
    one. network_rows: int [B], rows of network input per sample: one for each branch of guidance,
    and those of a guide or a classifier. states, predicted: [S, B, ...], x after each step and the
    data predicted there; None unless requested.
    """

    x: Array
    evaluations: Array
    network_rows: Array
    states: Array | None = None
    predicted: Array | None = None


@runtime_checkable
class Solves(Protocol):
    """The family samples by solving an equation from noise to data, with any solver. Pictures of
    fields, paths and solvers need this."""

    def solve(
        self, variables: Variables, keys: Keys, conditions: Conditions, **others
    ) -> Solution:
        """As `sample`, with its cost. others: another `sampler` or `guidance_scale`."""

    def schedule_of(self, params: Tree) -> Any:
        """The noise schedule."""

    def predictor(self, variables: Variables, conditions: Conditions) -> Callable:
        """(x_t [B, ...], t) -> a prediction of the data and the noise in x_t."""


@runtime_checkable
class Reconstructs(Protocol):
    """The family can encode an example and decode the result."""

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Images:
        """The reconstruction of each example in the batch: [B, ...]."""


@runtime_checkable
class Observes(Protocol):
    """The model sees a modified version of the data: corrupted, binarised or masked."""

    def observe(self, batch: Batch, keys: Keys) -> Images:
        """The version of each example that `reconstruct` sees with these keys: [B, ...]."""


@runtime_checkable
class Encodes(Protocol):
    """The family has a representation."""

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Array:
        """The representation of each example: [B, D]."""


@runtime_checkable
class EncodesPatches(Protocol):
    """The family has a representation of every patch of an example."""

    @property
    def patch_width(self) -> int:
        """D, the number of features of a patch."""

    def encode_patches(self, variables: Variables, batch: Batch) -> Array:
        """The features [B, *grid, D] of the patches, on a grid over each example."""


@runtime_checkable
class Retrieves(Protocol):
    """The family embeds two fields of a record, x and text, in one space, so that each finds the
    other."""

    def embed(self, variables: Variables, batch: Batch, name: str) -> Array:
        """Unit vectors [B, D] of the field of this name; only that field of the batch is read."""


@runtime_checkable
class EncodesText(Protocol):
    """The family encodes texts token by token, so that other models can attend to them."""

    @property
    def text_width(self) -> int:
        """D, the number of features of a token."""

    @property
    def text_length(self) -> int:
        """The maximum number of tokens of a text; 0 if there is no limit."""

    def text_features(self, variables: Variables, ids: Array, mask: Array) -> Array:
        """Features [B, L, D] of ids int32 [B, L]. mask: bool [B, L], False for padding, whose
        features have no meaning."""


@runtime_checkable
class Classifies(Protocol):
    """The family tells the classes of examples."""

    def classify(self, variables: Variables, batch: Batch) -> tuple[Array, Array]:
        """The features [B, D] that the last layer reads, and the logits [B, classes]."""


@runtime_checkable
class Decodes(Protocol):
    """The family can decode points in the space of its representation."""

    def decode(self, variables: Variables, latent: Array) -> Images:
        """The examples decoded from points [B, D] in the space of `encode`: [B, ...]."""


@dataclass(frozen=True, kw_only=True)
class CodeGrid:
    """One level of a discrete representation: a grid of `shape` with codes from 0 to size - 1."""

    shape: tuple[int, ...]
    size: int


@runtime_checkable
class Tokenizes(Protocol):
    """The family has a discrete representation: grids of codes, coarsest first."""

    @property
    def code_grids(self) -> tuple[CodeGrid, ...]:
        """The levels."""

    def codes(self, variables: Variables, batch: Batch) -> tuple[Array, ...]:
        """The codes of each example: int32 [B, *shape] for each level."""

    def decode_codes(self, variables: Variables, codes: tuple[Array, ...]) -> Images:
        """The examples decoded from codes, int32 [B, *shape] for each level: [B, ...]."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Negative log-likelihoods in nats per example, exact or as an upper bound.

    total: [B]. terms: name -> [B]; they sum to the total.
    curve: optional (positions [K] in [0, 1], values [B, K]): the total as a function of time.
    density: whether bits per dimension are undefined, because the total is that of a density of
    data in [-1, 1] or of words, and not of the probability of pixel levels. of, dimensions: the
    variable that is scored and its dimension, when that is not the data.
    """

    total: Array
    terms: Mapping[str, Array]
    curve: tuple[Array, Array] | None = None
    density: bool = field(default=False, metadata={"static": True})
    of: str = field(default="", metadata={"static": True})
    dimensions: int = field(default=0, metadata={"static": True})


@runtime_checkable
class Likelihoods(Protocol):
    """The family can compute the likelihood of an example, or a bound on it."""

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """Row i depends only on row i of the batch and of the keys, in a batch of any size."""


@runtime_checkable
class Fits(Protocol):
    """The family is fitted in closed form in one pass over the data, without gradient steps."""

    def fit(self, batches: Iterable[Batch], key: Key) -> Variables:
        """The fitted variables, from prepared batches of any size that hold each example once."""


@runtime_checkable
class Starts(Protocol):
    """The family starts from the params of another model: a student from its teacher, a ControlNet
    from the model that it steers."""

    def start(self, variables: Variables) -> Tree:
        """The params at step 0, with the same structure as those of `init`. `variables` holds
        those of `init`, and in `frozen` the models of other runs."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """values: logged numbers, or lists of them. warnings: topic -> a sentence for the user."""

    values: Mapping[str, float | list]
    warnings: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Reports(Protocol):
    """The family interprets its metrics. Figures that are no mean over examples (perplexity, the
    number of active units) are computed here from such means; problems become warnings."""

    def report(self, measured: Mapping[str, np.ndarray]) -> Report:
        """measured: the metrics of the losses, averaged over many examples."""


@runtime_checkable
class Conditional(Protocol):
    """The family takes conditions besides x and t."""

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Its conditions by name."""


def conditions_of(family: Family) -> Mapping[str, Condition]:
    """The conditions of the family by name; empty if it takes none."""
    return family.conditions if isinstance(family, Conditional) else {}


CAPABILITIES: Mapping[str, type] = {
    "sample": Samples,
    "reconstruct": Reconstructs,
    "encode": Encodes,
    "encode_patches": EncodesPatches,
    "retrieve": Retrieves,
    "encode_text": EncodesText,
    "decode": Decodes,
    "tokenize": Tokenizes,
    "likelihood": Likelihoods,
    "fit": Fits,
}


def capabilities(family: Family) -> tuple[str, ...]:
    """The names of the family's capabilities."""
    return tuple(name for name, protocol in CAPABILITIES.items() if isinstance(family, protocol))


def weighted(metric: Array | Weighted, mask: Array | None = None) -> tuple[Array, Array]:
    """(weighted sum, total weight) of a metric over the batch. mask: [B], 0 for padding."""
    if not isinstance(metric, Weighted):
        metric = Weighted(values=metric, weights=jnp.ones(metric.shape[:1], metric.dtype))
    weights = metric.weights if mask is None else metric.weights * mask
    each = broadcast(weights, metric.values)
    # A weight of zero must remove even a non-finite value; 0 * nan would not.
    return jnp.where(each > 0, metric.values * each, 0).sum(0), weights.sum()
