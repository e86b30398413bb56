"""How the vectors of a VQ-VAE become codes: four quantisers of one protocol.

`Learned` and `Averaged` find the nearest code of a codebook (math/quantisation.py). `FiniteScalar`
and `LookupFree` have no codebook: their codes are the points of a grid (math/implicit_codes.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from genzoo.core.types import Examples, Indices, Key, PerExample, Tree
from genzoo.math import implicit_codes, quantisation

_KMEANS_ROWS = 1 << 16  # the most vectors that the initial codes are fitted to

_FAR_CODES = (
    "Codes far from the encoder's vectors are never chosen and so never move. Remedies: "
    "family.codebook = 'ema' with family.kmeans above 0 and family.revive_below about 0.1, a lower "
    "optimizer.learning_rate, fewer codes."
)

Terms = Mapping[str, tuple[float, PerExample]]
"""Parts of a loss by name: (weight, values [B])."""


class Quantiser(Protocol):
    """How one level is quantised. params, stats: the level's, or {}."""

    couples_rows: bool
    """Whether `terms` of an example depend on the others in its batch."""
    remedy: str
    """What to do if few codes are used."""

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """The initial (params, stats) of `size` codes with `width` entries."""

    def bounded(self, z: Examples) -> Examples:
        """The vectors [B, *grid, D] that are quantised, from those of the encoder."""

    def index(self, params: Tree, stats: Tree, z: quantisation.Rows) -> quantisation.Index:
        """The indices int32 [N] of the codes of bounded vectors z [N, D]."""

    def lookup(self, params: Tree, stats: Tree, index: Indices) -> Examples:
        """The codes [.., D] at indices [..]."""

    def terms(self, z: Examples, q: Examples, mask: PerExample | None) -> Terms:
        """What the loss has besides the reconstruction, for bounded vectors z and their codes q,
        [B, *grid, D]. mask: [B], 0 for padding."""


@runtime_checkable
class Renews(Protocol):
    """A quantiser that updates its stats in training."""

    def opened(self, stats: Tree, key: Key, z: quantisation.Rows) -> Tree:
        """The stats before the vectors z [N, D] of a training step are quantised."""

    def renewed(
        self, stats: Tree, key: Key, z: quantisation.Rows, index: quantisation.Index
    ) -> Tree:
        """The stats after a training step that assigned z [N, D] to the codes `index` [N]."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Codes learned by gradient, as in the first paper. commitment: the weight of that loss."""

    commitment: float
    couples_rows = False
    remedy = _FAR_CODES

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """Random codes as params."""
        return {"codes": quantisation.new_codebook(key, size, width)["codes"]}, {}

    def bounded(self, z: Examples) -> Examples:
        """z itself."""
        return z

    def index(self, params: Tree, stats: Tree, z: quantisation.Rows) -> quantisation.Index:
        """The nearest codes."""
        return quantisation.nearest_code(z, params["codes"])

    def lookup(self, params: Tree, stats: Tree, index: Indices) -> Examples:
        """The codes, from the params."""
        return quantisation.lookup(params["codes"], index)

    def terms(self, z: Examples, q: Examples, mask: PerExample | None) -> Terms:
        """Commitment, and the distance that trains the codes."""
        return {
            "commitment": (self.commitment, quantisation.commitment(z, q)),
            "dictionary": (1.0, quantisation.dictionary(z, q)),
        }


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """Codes that follow the moving averages of the vectors assigned to them.

    commitment: the weight of that loss. decay: of the averages. epsilon: smooths the counts.
    kmeans: iterations on the first batch, whose result initialises the codes; 0 for random codes.
    revive_below: a code whose count falls below this share of the mean count restarts at a vector
    of the batch; 0 for never.
    """

    commitment: float
    decay: float
    epsilon: float
    kmeans: int
    revive_below: float
    couples_rows = False
    remedy = _FAR_CODES

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """Random codes as stats; with k-means, the first batch replaces them."""
        book = quantisation.new_codebook(key, size, width)
        return {}, {**book, "started": jnp.bool_(self.kmeans == 0)}

    def bounded(self, z: Examples) -> Examples:
        """z itself."""
        return z

    def index(self, params: Tree, stats: Tree, z: quantisation.Rows) -> quantisation.Index:
        """The nearest codes."""
        return quantisation.nearest_code(z, stats["codes"])

    def lookup(self, params: Tree, stats: Tree, index: Indices) -> Examples:
        """The codes, from the stats."""
        return quantisation.lookup(stats["codes"], index)

    def terms(self, z: Examples, q: Examples, mask: PerExample | None) -> Terms:
        """Commitment."""
        return {"commitment": (self.commitment, quantisation.commitment(z, q))}

    def opened(self, stats: Tree, key: Key, z: quantisation.Rows) -> Tree:
        """On the first batch, stats with codes by k-means; otherwise the stats unchanged."""
        if not self.kmeans:
            return stats

        def start(stats):
            rows = z[:: -(-len(z) // _KMEANS_ROWS)]
            size = len(stats["counts"])
            codes = quantisation.kmeans(key, rows, size, self.kmeans)
            # As if each code had an equal share of the batch; the averages then forget it.
            counts = jnp.full(size, len(z) / size)
            sums = codes * counts[:, None]
            return {"codes": codes, "counts": counts, "sums": sums, "started": jnp.bool_(True)}

        return jax.lax.cond(stats["started"], lambda stats: dict(stats), start, dict(stats))

    def renewed(
        self, stats: Tree, key: Key, z: quantisation.Rows, index: quantisation.Index
    ) -> Tree:
        """One step of the moving averages, then new positions for dead codes."""
        book = quantisation.ema_update(stats, z, index, self.decay, self.epsilon)
        if self.revive_below:
            threshold = self.revive_below * book["counts"].mean()
            book = quantisation.revive(key, book, z, threshold)
        return {**book, "started": stats["started"]}


@dataclass(frozen=True, kw_only=True)
class FiniteScalar:
    """FSQ: every channel is rounded to one of a few steps. steps: their number for each channel;
    there are as many codes as their product."""

    steps: tuple[int, ...]
    couples_rows = False
    remedy = "Remedies: a higher optimizer.learning_rate, fewer family.steps."

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """No params and no stats."""
        return {}, {}

    def bounded(self, z: Examples) -> Examples:
        """z between the outer steps."""
        return implicit_codes.bounded_scalars(z, self.steps)

    def index(self, params: Tree, stats: Tree, z: quantisation.Rows) -> quantisation.Index:
        """The nearest steps."""
        return implicit_codes.scalar_index(z, self.steps)

    def lookup(self, params: Tree, stats: Tree, index: Indices) -> Examples:
        """The steps."""
        return implicit_codes.scalar_code(index, self.steps)

    def terms(self, z: Examples, q: Examples, mask: PerExample | None) -> Terms:
        """None: the encoder cannot leave the grid."""
        return {}


@dataclass(frozen=True, kw_only=True)
class LookupFree:
    """LFQ: the signs of the channels. commitment, entropy: weights of the losses. temperature: T
    of the soft choice in the entropy."""

    width: int
    commitment: float
    entropy: float
    temperature: float
    couples_rows = True
    remedy = "Remedies: a higher family.entropy, fewer codes."

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """No params and no stats."""
        return {}, {}

    def bounded(self, z: Examples) -> Examples:
        """z itself."""
        return z

    def index(self, params: Tree, stats: Tree, z: quantisation.Rows) -> quantisation.Index:
        """The signs, as the bits of an integer."""
        return implicit_codes.sign_index(z)

    def lookup(self, params: Tree, stats: Tree, index: Indices) -> Examples:
        """The signs."""
        return implicit_codes.sign_code(index, self.width)

    def terms(self, z: Examples, q: Examples, mask: PerExample | None) -> Terms:
        """Commitment, and the entropy that makes choices sure and all codes used."""
        entropy = implicit_codes.entropy_loss(z, self.temperature, mask)
        return {
            "commitment": (self.commitment, quantisation.commitment(z, q)),
            "entropy": (self.entropy, entropy),
        }
