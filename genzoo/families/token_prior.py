"""A transformer prior over the codes of a frozen tokenizer (VQ-VAE, VQ-VAE-2, dVAE).

It turns the tokenizer into a generative model (van den Oord et al. 2017, section 3.3; Razavi et al.
2019; Ramesh et al. 2021).

    -log p(codes) = -sum_i log p(c_i | c_1 .. c_{i-1})     in nats per example                (1)

The codes form one sequence, in raster order with the coarsest level first. The codes of a finer
level are therefore predicted from all of the coarser ones: p(bottom | top) p(top).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from genzoo.core import streams
from genzoo.core.conditions import Condition, Conditions, examples, gather
from genzoo.core.contract import (
    Aux,
    Context,
    Family,
    Likelihood,
    Player,
    Report,
    Tokenizes,
    Variables,
)
from genzoo.core.reports import scalars
from genzoo.core.types import (
    ArrayLike,
    Batch,
    Examples,
    Floats,
    Key,
    Keys,
    PerExample,
    Tree,
    Vectors,
)
from genzoo.math import tokens
from genzoo.nets.transformer.transformer import TokenNetwork
from genzoo.samplers import autoregressive

TOKENIZER = "tokenizer"
"""The name of the tokenizer in `Variables.frozen` and in a config."""


def lengths_of(tokenizer: Tokenizes) -> tuple[int, ...]:
    """The number of codes per example on each level."""
    return tuple(int(np.prod(grid.shape)) for grid in tokenizer.code_grids)


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPrior:
    """The token prior family. Capabilities: Samples, Likelihoods (of the codes).

    network: a transformer for the tokenizer's grids. truncate: logits -> logits, which limits
    samples to a part of the distribution. conditions: the model's conditions, by name.
    """

    network: TokenNetwork
    tokenizer: Family
    truncate: Callable[[autoregressive.Logits], autoregressive.Logits]
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the transformer. Those of the tokenizer come from its own run."""
        count = len(example["x"])
        sequence = jnp.zeros((count, sum(lengths_of(self.tokenizer))), jnp.int32)
        return Variables(
            params=self.network.init(
                streams.named(key, "network"), sequence, None, examples(self.conditions, example)
            )
        )

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1) in nats per example [B]; metrics: the loss, and nats per code by level."""
        key = context.key if context.train else None
        conditions = gather(self.conditions, context.batch, context.frozen, key)
        nats = self._nats(params, context.frozen, context.batch, conditions, key)
        loss = sum(level.sum(-1) for level in nats)
        metrics = {"loss": loss}
        for level, each in enumerate(nats):
            metrics[f"nats_per_code_{level}"] = each.mean(-1)
        return loss, Aux(metrics=metrics, stats=context.stats)

    def report(self, measured: Mapping[str, Floats]) -> Report:
        """The metrics, and the loss in bits per code over all levels."""
        values = scalars(measured)
        codes = sum(lengths_of(self.tokenizer))
        if "loss" in values:
            values["bits_per_code"] = values["loss"] / codes / float(np.log(2))
        return Report(values=values)

    def sample(self, variables: Variables, keys: Keys, conditions: Conditions) -> Examples:
        """Samples [B, ...]: codes are drawn one at a time, then decoded by the tokenizer."""
        count = len(keys)

        def step(cache, token, position):
            return self.network.step(variables.params, cache, token, position, conditions)

        sequence = autoregressive.generate(
            step,
            self.network.new_cache(count),
            keys,
            sum(lengths_of(self.tokenizer)),
            self.truncate,
            jnp.zeros(count, jnp.int32),
        )
        codes = tuple(
            part.reshape(count, *grid.shape)
            for part, grid in zip(self._split(sequence), self.tokenizer.code_grids, strict=True)
        )
        return self.tokenizer.decode_codes(Variables(**variables.frozen[TOKENIZER]), codes)

    def likelihood(self, variables: Variables, batch: Batch, keys: Keys) -> Likelihood:
        """Equation (1) by level: the exact likelihood of the codes, not of the image."""
        del keys
        conditions = gather(self.conditions, batch, variables.frozen)
        nats = self._nats(variables.params, variables.frozen, batch, conditions)
        terms = {f"level_{level}": each.sum(-1) for level, each in enumerate(nats)}
        return Likelihood(
            total=sum(terms.values()),
            terms=terms,
            of="the codes of the tokenizer, one dimension each",
            dimensions=sum(lengths_of(self.tokenizer)),
        )

    # --- shared by the methods above -----------------------------------------------------------

    def _nats(self, params, frozen, batch, conditions, key=None) -> list[Vectors]:
        """-log p of every code, [B, positions] by level. key: of a training step."""
        codes = self.tokenizer.codes(Variables(**frozen[TOKENIZER]), batch)
        sequence = jnp.concatenate([level.reshape(len(level), -1) for level in codes], -1)
        sequence = jax.lax.stop_gradient(sequence)
        drop = None if key is None else streams.named(key, "dropout")
        logits = self.network.apply(
            params, sequence, None, conditions, train=key is not None, key=drop
        )
        return self._split(tokens.next_token_nats(logits, sequence))

    def _split(self, sequence: Shaped[ArrayLike, "B N"]) -> list[Shaped[ArrayLike, "B _"]]:
        return jnp.split(sequence, np.cumsum(lengths_of(self.tokenizer))[:-1], axis=-1)
