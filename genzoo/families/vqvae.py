"""VQ-VAE (van den Oord et al. 2017), with one grid of codes, and VQ-VAE-2 (Razavi et al. 2019).

VQ-VAE-2 has several grids. The encoder's vectors z are replaced by codes q, the top level first;
gradients pass straight through to z:

    loss = |x - decoder(q)|^2 / data_variance + sum over levels of the quantiser's terms       (1)

For the nearest codes of a codebook these terms are commitment |z - sg(q)|^2, and |sg(z) - q|^2 if
the codes are learned by gradient and do not follow the moving averages of the vectors assigned to
them. Each squared distance is a mean over its entries. families/quantisers.py has the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

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
from genzoo.families.quantisers import Quantiser, Renews
from genzoo.math import quantisation
from genzoo.nets.autoencoder.hierarchy import Hierarchy

_ONE_CODE = 1.5  # below this perplexity a codebook of any size has collapsed


class Seen(NamedTuple):
    """One level of a batch: the vectors, and the codes that replace them."""

    z: Examples  # [B, *grid, D], the encoder's vectors, bounded
    index: Indices  # [B, *grid], the chosen codes
    q: Examples  # [B, *grid, D], the entries of the chosen codes


class Quantised(NamedTuple):
    """A batch on its way to the decoder. qs: its inputs by level. loss: the quantiser's terms of
    (1) [B]. metrics, stats: as in `Aux`."""

    qs: list[Examples]
    loss: PerExample
    metrics: Mapping[str, Floats]
    stats: Tree


@dataclass(frozen=True, kw_only=True, eq=False)
class VQVAE:
    """The VQ-VAE family. Capabilities: Reconstructs, Encodes, Decodes, Compresses, Tokenizes.

    network: a Hierarchy (nets/autoencoder/): encode(params, x, quantise) and decode(params, qs),
    where level 0 is the finest. sizes: the number of codes by level. quantiser: of every level.
    shape: of one example. data_variance: the variance of the data's values, the unit of the
    reconstruction error.
    """

    network: Hierarchy
    sizes: tuple[int, ...]
    quantiser: Quantiser
    shape: tuple[int, ...]
    data_variance: float

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network, and the codes of each level in params or stats."""
        params, stats = {}, {}
        params["network"] = self.network.init(streams.named(key, "network"), example["x"])
        for level, size in enumerate(self.sizes):
            name, level_key = f"codes_{level}", streams.named(key, f"codes {level}")
            own_params, own_stats = self.quantiser.init(level_key, size, self.network.latent)
            params |= {name: own_params} if own_params else {}
            stats |= {name: own_stats} if own_stats else {}
        return Variables(params=params, stats=stats)

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss, couples_rows=self.quantiser.couples_rows)}

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
        x = context.batch["x"]
        key = context.key if context.train else None
        qs, seen, stats = self._encode(params, context.stats, x, key)
        loss, metrics = jnp.zeros(len(x)), {}
        for one in seen:
            for name, (weight, term) in self.quantiser.terms(one.z, one.q, context.mask).items():
                metrics[name] = metrics.get(name, 0) + term
                loss = loss + weight * term
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
                    f"{perplexity:.1f}. {self.quantiser.remedy}"
                )
        return Report(values=values, warnings=warnings)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The bounded vectors z before quantisation, flattened and concatenated over levels:
        [B, D]."""
        del keys
        z, _ = self.moments(variables, batch)
        return z.reshape(len(z), -1)

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """The images decoded from the codes nearest to the vectors [B, D] of `encode`."""
        qs, start = [], 0
        for level, grid in enumerate(self.network.grids):
            width = int(np.prod(grid)) * self.network.latent
            z = latent[:, start : start + width].reshape(-1, self.network.latent)
            own = self._own(variables.params, variables.stats, level)
            q = self.quantiser.lookup(*own, self.quantiser.index(*own, z))
            qs.append(q.reshape(-1, *grid, self.network.latent))
            start += width
        return self.network.decode(variables.params["network"], qs)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(*grid, D) of the vectors z; with several levels they are one vector, as in `encode`."""
        grids, width = self.network.grids, self.network.latent
        if len(grids) == 1:
            return (*grids[0], width)
        return (width * sum(int(np.prod(grid)) for grid in grids),)

    def moments(self, variables: Variables, batch: Batch) -> tuple[Floats, Floats]:
        """The vectors z before quantisation, [B, *latent_shape], and zeros."""
        _, seen, _ = self._encode(variables.params, variables.stats, batch["x"])
        z = jnp.concatenate([s.z.reshape(len(s.z), -1) for s in seen], -1)
        z = z.reshape(len(z), *self.latent_shape)
        return z, jnp.zeros_like(z)

    def decode_latents(self, variables: Variables, latents: Floats) -> Examples:
        """The images decoded from the codes nearest to the vectors z."""
        return self.decode(variables, latents.reshape(len(latents), -1))

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
            self.quantiser.lookup(*self._own(variables.params, variables.stats, level), index)
            for level, index in enumerate(codes[::-1])
        ]
        return self.network.decode(variables.params["network"], qs)

    # --- shared by the methods above -----------------------------------------------------------

    def _own(self, params: Tree, stats: Tree, level: int) -> tuple[Tree, Tree]:
        """The (params, stats) of a level's quantiser."""
        name = f"codes_{level}"
        return params.get(name, {}), stats.get(name, {})

    def _encode(
        self, params: Tree, stats: Tree, x: Examples, key: Key | None = None
    ) -> tuple[list[Floats], list[Seen], Tree]:
        """(decoder inputs by level, vectors and codes by level, stats).

        The stats are updated if there is a `key`, which is that of a training step.
        """
        seen: dict[int, Seen] = {}
        stats = dict(stats)

        def quantise(level: int, z: Examples) -> Examples:
            quantiser, z = self.quantiser, self.quantiser.bounded(z)
            own_params, own_stats = self._own(params, stats, level)
            flat = z.reshape(-1, z.shape[-1])
            renews = key is not None and isinstance(quantiser, Renews)
            if renews:
                held = jax.lax.stop_gradient(flat)
                start = streams.named(key, f"start {level}")
                own_stats = quantiser.opened(own_stats, start, held)
            index = quantiser.index(own_params, own_stats, flat)
            q = quantiser.lookup(own_params, own_stats, index).reshape(z.shape)
            if renews:
                revived = streams.named(key, f"revived {level}")
                stats[f"codes_{level}"] = quantiser.renewed(own_stats, revived, held, index)
            seen[level] = Seen(z, index.reshape(z.shape[:-1]), q)
            return quantisation.straight_through(z, q)

        qs = self.network.encode(params["network"], x, quantise)
        return qs, [seen[level] for level in range(len(self.sizes))], stats
