"""VQ-VAE (van den Oord et al. 2017): one grid of codes; VQ-VAE-2 (Razavi et al. 2019): several.

An encoder's vectors z are replaced by the nearest codes q of a codebook (math.quantisation), the
top level first; gradients pass through to z:

    loss = |x - decoder(q)|^2 / data_variance + sum over levels of
           commitment |z - sg(q)|^2   [+ |sg(z) - q|^2 for a codebook that is learned]        (1)

each squared distance a mean over its numbers. A codebook that is not learned by gradient follows
the moving averages of the vectors that choose its codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.contract import Aux, CodeGrid, Context, Player, Report, Variables, scalars
from genzoo.core.types import Array, Batch, Images, Key, Keys, Tree, mean_per_example
from genzoo.math import quantisation
from genzoo.nets.autoencoder.hierarchy import Hierarchy

_KMEANS_ROWS = 1 << 16  # vectors at most that the first codes are made of
_ONE_CODE = 1.5  # a perplexity below which a codebook of any size has collapsed


class Codebook(Protocol):
    """How the codes of one level are kept. `own`: the level's params and stats, {} where none."""

    learned: bool

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """(params, stats) at the start."""

    def codes(self, params: Tree, stats: Tree) -> Array:
        """The codes [K, D]."""

    def opened(self, stats: Tree, key: Key, z: Array) -> Tree:
        """The stats before vectors z [N, D] of a training step are looked up."""

    def renewed(self, stats: Tree, key: Key, z: Array, index: Array) -> Tree:
        """The stats after a training step in which z [N, D] chose the codes index [N]."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Codes learned by gradient, as in the first paper."""

    learned: bool = True

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """Random codes as params."""
        return {"codes": quantisation.new_codebook(key, size, width)["codes"]}, {}

    def codes(self, params: Tree, stats: Tree) -> Array:
        """The params."""
        return params["codes"]

    def opened(self, stats: Tree, key: Key, z: Array) -> Tree:
        """Nothing."""
        return stats

    def renewed(self, stats: Tree, key: Key, z: Array, index: Array) -> Tree:
        """Nothing."""
        return stats


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """Codes that follow the moving averages of their members. kmeans: iterations on the first
    batch, from which the codes start; 0 for random codes. revive_below: a code whose count falls
    below this share of the mean count starts anew at a vector of the batch; 0 for never."""

    decay: float
    epsilon: float
    kmeans: int
    revive_below: float
    learned: bool = False

    def init(self, key: Key, size: int, width: int) -> tuple[Tree, Tree]:
        """Random codes as stats, which wait for the first batch."""
        book = quantisation.new_codebook(key, size, width)
        return {}, {**book, "started": jnp.bool_(self.kmeans == 0)}

    def codes(self, params: Tree, stats: Tree) -> Array:
        """The stats."""
        return stats["codes"]

    def opened(self, stats: Tree, key: Key, z: Array) -> Tree:
        """With codes by k-means, if this is the first batch."""
        if not self.kmeans:
            return stats

        def start(stats):
            rows = z[:: -(-len(z) // _KMEANS_ROWS)]
            size = len(stats["counts"])
            codes = quantisation.kmeans(key, rows, size, self.kmeans)
            # As if each had its share of the batch: the averages then forget it at their own pace.
            counts = jnp.full(size, len(z) / size)
            sums = codes * counts[:, None]
            return {"codes": codes, "counts": counts, "sums": sums, "started": jnp.bool_(True)}

        return jax.lax.cond(stats["started"], lambda stats: dict(stats), start, dict(stats))

    def renewed(self, stats: Tree, key: Key, z: Array, index: Array) -> Tree:
        """One step of the averages, then new places for the dead."""
        book = quantisation.ema_update(stats, z, index, self.decay, self.epsilon)
        if self.revive_below:
            threshold = self.revive_below * book["counts"].mean()
            book = quantisation.revive(key, book, z, threshold)
        return {**book, "started": stats["started"]}


class Seen(NamedTuple):
    """One level of a batch."""

    z: Array  # [B, *grid, D]
    index: Array  # [B, *grid]
    q: Array  # [B, *grid, D], the codes themselves


@dataclass(frozen=True, kw_only=True, eq=False)
class VQVAE:
    """The family. Capabilities: Reconstructs, Encodes, Decodes, Tokenizes.

    network: a Hierarchy (nets/autoencoder/): encode(params, x, quantise) and decode(params, qs),
    with level 0 the finest. sizes: codes by level. codebook: how they are kept. shape: of one
    example. data_variance: of the data's numbers, the unit of the reconstruction error.
    """

    network: Hierarchy
    sizes: tuple[int, ...]
    codebook: Codebook
    shape: tuple[int, ...]
    commitment: float
    data_variance: float

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network; codes by level in params or stats."""
        params, stats = {}, {}
        params["network"] = self.network.init(streams.named(key, "network"), example["x"])
        for level, size in enumerate(self.sizes):
            mine = streams.named(key, f"codes {level}")
            own, kept = self.codebook.init(mine, size, self.network.latent)
            params |= {f"codes_{level}": own} if own else {}
            stats |= {f"codes_{level}": kept} if kept else {}
        return Variables(params=params, stats=stats)

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[Array, Aux]:
        """Equation (1), [B]; metrics: its parts, and by level how often each code is chosen."""
        x = context.batch["x"]
        key = context.key if context.train else None
        qs, seen, stats = self._encode(params, context.stats, x, key)
        copy = self.network.decode(params["network"], qs)
        error = mean_per_example(jnp.square(copy - x))
        commitment = sum(quantisation.commitment(s.z, s.q) for s in seen)
        loss = error / self.data_variance + self.commitment * commitment
        metrics = {"reconstruction": error, "commitment": commitment}
        if self.codebook.learned:
            metrics["dictionary"] = sum(quantisation.dictionary(s.z, s.q) for s in seen)
            loss = loss + metrics["dictionary"]
        for level, (one, size) in enumerate(zip(seen, self.sizes, strict=True)):
            metrics[f"usage_{level}"] = quantisation.usage(one.index, size)
        return loss, Aux(metrics={"loss": loss, **metrics}, stats=stats)

    def report(self, measured: Mapping[str, np.ndarray]) -> Report:
        """Perplexity and codes in use by level, and a warning where most codes are never chosen."""
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
                    f"Codebook collapse: of {size} codes{f' of level {level}' if suffix else ''} "
                    f"{used} are in use, with a perplexity of {perplexity:.1f}. Codes far from the "
                    "encoder's vectors are never chosen and so never move. Remedies: "
                    "family.codebook = 'ema' with family.kmeans above 0 and family.revive_below "
                    "about 0.1, a lower optimizer.learning_rate, fewer codes."
                )
        return Report(values=values, warnings=warnings)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Array:
        """The vectors z before they are quantised, level after level, [B, D]."""
        del keys
        _, seen, _ = self._encode(variables.params, variables.stats, batch["x"])
        return jnp.concatenate([s.z.reshape(len(s.z), -1) for s in seen], -1)

    def decode(self, variables: Variables, latent: Array) -> Images:
        """The image of the codes nearest to the vectors."""
        qs, start = [], 0
        for level, grid in enumerate(self.network.grids):
            width = int(np.prod(grid)) * self.network.latent
            z = latent[:, start : start + width].reshape(-1, self.network.latent)
            codes = self._codes(variables.params, variables.stats, level)
            q = quantisation.lookup(codes, quantisation.nearest_code(z, codes))
            qs.append(q.reshape(-1, *grid, self.network.latent))
            start += width
        return self.network.decode(variables.params["network"], qs)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Images:
        """The image of an example's codes."""
        del keys
        qs, _, _ = self._encode(variables.params, variables.stats, batch["x"])
        return self.network.decode(variables.params["network"], qs)

    @property
    def code_grids(self) -> tuple[CodeGrid, ...]:
        """The levels, the top first."""
        both = zip(self.network.grids, self.sizes, strict=True)
        return tuple(CodeGrid(shape=grid, size=size) for grid, size in both)[::-1]

    def codes(self, variables: Variables, batch: Batch) -> tuple[Array, ...]:
        """The indices of the chosen codes, the top level first."""
        _, seen, _ = self._encode(variables.params, variables.stats, batch["x"])
        return tuple(s.index for s in seen)[::-1]

    def decode_codes(self, variables: Variables, codes: tuple[Array, ...]) -> Images:
        """The image of the codes."""
        qs = [
            quantisation.lookup(self._codes(variables.params, variables.stats, level), index)
            for level, index in enumerate(codes[::-1])
        ]
        return self.network.decode(variables.params["network"], qs)

    # --- what the parts above share ------------------------------------------------------------

    def _codes(self, params: Tree, stats: Tree, level: int) -> Array:
        name = f"codes_{level}"
        return self.codebook.codes(params.get(name, {}), stats.get(name, {}))

    def _encode(
        self, params: Tree, stats: Tree, x: Array, key: Key | None = None
    ) -> tuple[list[Array], list[Seen], Tree]:
        """(what the decoder is given, what was seen, both by level; the stats after it, renewed if
        there is a key of training)."""
        found: dict[int, Seen] = {}
        stats = dict(stats)

        def quantise(level: int, z: Array) -> Array:
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
            found[level] = Seen(z, index.reshape(z.shape[:-1]), q)
            return quantisation.straight_through(z, q)

        qs = self.network.encode(params["network"], x, quantise)
        return qs, [found[level] for level in range(len(self.sizes))], stats
