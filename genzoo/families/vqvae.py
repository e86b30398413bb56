"""VQ-VAE (van den Oord et al. 2017), with one grid of codes, and VQ-VAE-2 (Razavi et al. 2019).

VQ-VAE-2 has several grids. The encoder's vectors z are replaced by the nearest codes q of a
codebook (math.quantisation), the top level first; gradients pass straight through to z:

    loss = |x - decoder(q)|^2 / data_variance + sum over levels of
           commitment |z - sg(q)|^2   [+ |sg(z) - q|^2 for a learned codebook]                (1)

Each squared distance is a mean over its entries. A codebook that is not learned by gradient follows
the moving averages of the vectors assigned to its codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.contract import Aux, CodeGrid, Context, Player, Report, Variables
from genzoo.core.reports import scalars
from genzoo.core.types import (
    Batch,
    Examples,
    Floats,
    Indices,
    Key,
    Keys,
    PerExample,
    Tree,
    Vectors,
    mean_per_example,
)
from genzoo.math import quantisation
from genzoo.nets.autoencoder.hierarchy import Hierarchy

_KMEANS_ROWS = 1 << 16  # the most vectors that the initial codes are fitted to
_ONE_CODE = 1.5  # below this perplexity a codebook of any size has collapsed


class Codebook(Protocol):
    """How the codes of one level are stored and updated. params, stats: the level's, or {}."""

    learned: bool

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """The initial (params, stats) of `size` codes with `width` entries."""

    def codes(self, params: Tree, stats: Tree) -> quantisation.Codes:
        """The codes [K, D]."""

    def opened(self, stats: Tree, key: Key, z: quantisation.Rows) -> Tree:
        """The stats before the vectors z [N, D] of a training step are quantised."""

    def renewed(
        self, stats: Tree, key: Key, z: quantisation.Rows, index: quantisation.Index
    ) -> Tree:
        """The stats after a training step that assigned z [N, D] to the codes `index` [N]."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Codes learned by gradient, as in the first paper."""

    learned: bool = True

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """Random codes as params."""
        return {"codes": quantisation.new_codebook(key, size, width)["codes"]}, {}

    def codes(self, params: Tree, stats: Tree) -> quantisation.Codes:
        """The codes [K, D], from the params."""
        return params["codes"]

    def opened(self, stats: Tree, key: Key, z: quantisation.Rows) -> Tree:
        """The stats unchanged."""
        return stats

    def renewed(
        self, stats: Tree, key: Key, z: quantisation.Rows, index: quantisation.Index
    ) -> Tree:
        """The stats unchanged."""
        return stats


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """Codes that follow the moving averages of the vectors assigned to them.

    decay: of the averages. epsilon: smooths the counts. kmeans: iterations on the first batch,
    whose result initialises the codes; 0 for random codes. revive_below: a code whose count falls
    below this share of the mean count restarts at a vector of the batch; 0 for never.
    """

    decay: float
    epsilon: float
    kmeans: int
    revive_below: float
    learned: bool = False

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """Random codes as stats; with k-means, the first batch replaces them."""
        book = quantisation.new_codebook(key, size, width)
        return {}, {**book, "started": jnp.bool_(self.kmeans == 0)}

    def codes(self, params: Tree, stats: Tree) -> quantisation.Codes:
        """The codes [K, D], from the stats."""
        return stats["codes"]

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


class Seen(NamedTuple):
    """One level of a batch: the vectors, and the codes that replace them."""

    z: Examples  # [B, *grid, D], the encoder's vectors
    index: Indices  # [B, *grid], the chosen codes
    q: Examples  # [B, *grid, D], the entries of the chosen codes


class Quantised(NamedTuple):
    """A batch on its way to the decoder. qs: its inputs by level. loss: the terms of (1) for the
    codes [B]. metrics, stats: as in `Aux`."""

    qs: list[Examples]
    loss: PerExample
    metrics: Mapping[str, Floats]
    stats: Tree


@dataclass(frozen=True, kw_only=True, eq=False)
class VQVAE:
    """The VQ-VAE family. Capabilities: Reconstructs, Encodes, Decodes, Tokenizes.

    network: a Hierarchy (nets/autoencoder/): encode(params, x, quantise) and decode(params, qs),
    where level 0 is the finest. sizes: the number of codes by level. codebook: how codes are stored
    and updated. shape: of one example. commitment: the weight in (1). data_variance: the variance
    of the data's values, the unit of the reconstruction error.
    """

    network: Hierarchy
    sizes: tuple[int, ...]
    codebook: Codebook
    shape: tuple[int, ...]
    commitment: float
    data_variance: float

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network, and the codes of each level in params or stats."""
        params, stats = {}, {}
        params["network"] = self.network.init(streams.named(key, "network"), example["x"])
        for level, size in enumerate(self.sizes):
            name, level_key = f"codes_{level}", streams.named(key, f"codes {level}")
            own_params, own_stats = self.codebook.init(level_key, size, self.network.latent)
            params |= {name: own_params} if own_params else {}
            stats |= {name: own_stats} if own_stats else {}
        return Variables(params=params, stats=stats)

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1) per example [B]; metrics: its terms, and the usage of each code by level."""
        x, quantised = context.batch["x"], self.quantised(params, context)
        reconstruction = self.network.decode(params["network"], quantised.qs)
        error = mean_per_example(jnp.square(reconstruction - x))
        loss = error / self.data_variance + quantised.loss
        metrics = {"loss": loss, "reconstruction": error, **quantised.metrics}
        return loss, Aux(metrics=metrics, stats=quantised.stats)

    def quantised(self, params: Tree, context: Context) -> Quantised:
        """The codes of a batch, whose stats are updated in training."""
        key = context.key if context.train else None
        qs, seen, stats = self._encode(params, context.stats, context.batch["x"], key)
        metrics = {"commitment": sum(quantisation.commitment(s.z, s.q) for s in seen)}
        loss = self.commitment * metrics["commitment"]
        if self.codebook.learned:
            metrics["dictionary"] = sum(quantisation.dictionary(s.z, s.q) for s in seen)
            loss = loss + metrics["dictionary"]
        for level, (one, size) in enumerate(zip(seen, self.sizes, strict=True)):
            metrics[f"usage_{level}"] = quantisation.usage(one.index, size)
        return Quantised(qs, loss, metrics, stats)

    def report(self, measured: Mapping[str, Floats]) -> Report:
        """Perplexity and codes in use by level, and a warning if most codes are never chosen."""
        values: dict = scalars(measured)
        warnings = {}
        for level, size in enumerate(self.sizes):
            name = f"usage_{level}"
            if name not in measured:
                continue
            suffix = f"_{level}" if len(self.sizes) > 1 else ""
            shares = np.asarray(measured[name], np.float64)
            used = int((shares > 0).sum())
            perplexity = float(quantisation.perplexity(shares / shares.sum()))
            values |= {f"perplexity{suffix}": perplexity, f"codes_in_use{suffix}": used}
            if perplexity < max(0.05 * size, _ONE_CODE):
                warnings[name] = (
                    f"Codebook collapse: {used} of {size} codes"
                    f"{f' of level {level}' if suffix else ''} are in use, with a perplexity of "
                    f"{perplexity:.1f}. Codes far from the encoder's vectors are never chosen and "
                    "so never move. Remedies: family.codebook = 'ema' with family.kmeans above 0 "
                    "and family.revive_below about 0.1, a lower optimizer.learning_rate, fewer "
                    "codes."
                )
        return Report(values=values, warnings=warnings)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The vectors z before quantisation, flattened and concatenated over levels: [B, D]."""
        del keys
        _, seen, _ = self._encode(variables.params, variables.stats, batch["x"])
        return jnp.concatenate([s.z.reshape(len(s.z), -1) for s in seen], -1)

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """The images decoded from the codes nearest to the vectors [B, D] of `encode`."""
        qs, start = [], 0
        for level, grid in enumerate(self.network.grids):
            width = int(np.prod(grid)) * self.network.latent
            z = latent[:, start : start + width].reshape(-1, self.network.latent)
            codes = self._codes(variables.params, variables.stats, level)
            q = quantisation.lookup(codes, quantisation.nearest_code(z, codes))
            qs.append(q.reshape(-1, *grid, self.network.latent))
            start += width
        return self.network.decode(variables.params["network"], qs)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The images decoded from the examples' codes."""
        del keys
        qs, _, _ = self._encode(variables.params, variables.stats, batch["x"])
        return self.network.decode(variables.params["network"], qs)

    @property
    def code_grids(self) -> tuple[CodeGrid, ...]:
        """The levels, the top first."""
        both = zip(self.network.grids, self.sizes, strict=True)
        return tuple(CodeGrid(shape=grid, size=size) for grid, size in both)[::-1]

    def codes(self, variables: Variables, batch: Batch) -> tuple[Indices, ...]:
        """The chosen codes, the top level first: int32 [B, *grid] each."""
        _, seen, _ = self._encode(variables.params, variables.stats, batch["x"])
        return tuple(s.index for s in seen)[::-1]

    def decode_codes(self, variables: Variables, codes: tuple[Indices, ...]) -> Examples:
        """The images decoded from codes [B, *grid] by level, the top level first."""
        qs = [
            quantisation.lookup(self._codes(variables.params, variables.stats, level), index)
            for level, index in enumerate(codes[::-1])
        ]
        return self.network.decode(variables.params["network"], qs)

    # --- shared by the methods above -----------------------------------------------------------

    def _codes(self, params: Tree, stats: Tree, level: int) -> quantisation.Codes:
        name = f"codes_{level}"
        return self.codebook.codes(params.get(name, {}), stats.get(name, {}))

    def _encode(
        self, params: Tree, stats: Tree, x: Examples, key: Key | None = None
    ) -> tuple[list[Floats], list[Seen], Tree]:
        """(decoder inputs by level, vectors and codes by level, stats).

        The stats are updated if there is a `key`, which is that of a training step.
        """
        seen: dict[int, Seen] = {}
        stats = dict(stats)

        def quantise(level: int, z: Examples) -> Examples:
            name, flat = f"codes_{level}", z.reshape(-1, z.shape[-1])
            own = stats.get(name, {})
            if key is not None and own:
                held = jax.lax.stop_gradient(flat)
                own = self.codebook.opened(own, streams.named(key, f"start {level}"), held)
            codes = self.codebook.codes(params.get(name, {}), own)
            index = quantisation.nearest_code(flat, codes)
            q = quantisation.lookup(codes, index).reshape(z.shape)
            if key is not None and own:
                revived = streams.named(key, f"revived {level}")
                stats[name] = self.codebook.renewed(own, revived, held, index)
            seen[level] = Seen(z, index.reshape(z.shape[:-1]), q)
            return quantisation.straight_through(z, q)

        qs = self.network.encode(params["network"], x, quantise)
        return qs, [seen[level] for level in range(len(self.sizes))], stats
