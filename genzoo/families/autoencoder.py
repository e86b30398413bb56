"""Autoencoders: plain (Hinton & Salakhutdinov 2006) and denoising (Vincent et al. 2008, 2010).

    loss = mean over values of (x - decoder(encoder(corrupt(x))))^2                           (1)

The corruption defines the task, so it is applied in evaluation too; a plain autoencoder uses
`Nothing`. The decoder's output is used unchanged; only pictures are clipped to [-1, 1].

For documents the loss is the cross-entropy of their words, as in the first paper, which retrieves
documents by the angle between codes; the encoder sees scaled logarithms of the counts
(math.counts).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Player, Variables
from genzoo.core.types import (
    Batch,
    Examples,
    Floats,
    Key,
    Keys,
    PerExample,
    Tree,
    Vectors,
    mean_per_example,
)
from genzoo.math import counts
from genzoo.math.corruption import Corruption
from genzoo.nets.autoencoder.pair import Pair


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How data enter the encoder and are compared with the decoder's output.

    inputs: x [B, ...] -> the encoder's input. error: (x, output) -> the loss per example [B]. mean:
    output -> the reconstruction of x.
    """

    inputs: Callable[[Examples], Examples]
    error: Callable[[Examples, Examples], PerExample]
    mean: Callable[[Examples], Examples]


def _unchanged(x: Examples) -> Examples:
    return x


def squared_error(x: Examples, output: Examples) -> PerExample:
    """Equation (1), [B]."""
    return mean_per_example(jnp.square(x - output))


VALUES = Comparison(inputs=_unchanged, error=squared_error, mean=_unchanged)
"""For images."""
WORDS = Comparison(inputs=counts.log_scaled, error=counts.cross_entropy, mean=jax.nn.softmax)
"""For word counts; the reconstruction is the probability of each word."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Autoencoder:
    """The autoencoder family. Capabilities: Reconstructs, Observes, Encodes, Decodes, Compresses.

    pair: two networks as (init, apply), `encoder` from x [B, H, W, C] to z [B, *grid, D] and
    `decoder` back, and `grid`. latent: D. shape: of one example, (H, W, C). corruption: of the
    encoder's input (math.corruption). comparison: `VALUES` or `WORDS`.
    """

    pair: Pair
    latent: int
    shape: tuple[int, ...]
    corruption: Corruption
    comparison: Comparison = VALUES

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the two networks."""
        x = example["x"]
        encoder = self.pair.encoder.init(streams.named(key, "encoder"), x)
        z = jnp.zeros_like(jax.eval_shape(self.pair.encoder.apply, encoder, x))
        decoder = self.pair.decoder.init(streams.named(key, "decoder"), z)
        return Variables(params={"encoder": encoder, "decoder": decoder})

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1), or the cross-entropy, per example [B]; metrics: the loss."""
        x = context.batch["x"]
        keys = streams.per_example(streams.named(context.key, "corruption"), jnp.arange(len(x)))

        def applied(name, network, inputs):
            drop = streams.named(context.key, f"dropout {name}") if context.train else None
            return network.apply(params[name], inputs, train=context.train, key=drop)

        inputs = self.comparison.inputs(self.observe(context.batch, keys))
        z = applied("encoder", self.pair.encoder, inputs)
        values = self.comparison.error(x, applied("decoder", self.pair.decoder, z))
        return values, Aux(metrics={"loss": values}, stats=context.stats)

    def observe(self, batch: Batch, keys: Keys) -> Examples:
        """The corrupted examples."""
        return self.corruption(batch["x"], keys)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The reconstructions of the corrupted examples."""
        corrupted = {**batch, "x": self.observe(batch, keys)}
        return self.decode(variables, self.encode(variables, corrupted, keys))

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The code of each uncorrupted example: [B, D'], with the grid flattened."""
        z, _ = self.moments(variables, batch)
        return z.reshape(len(z), -1)

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """The examples decoded from codes [B, D']."""
        return self.decode_latents(variables, latent.reshape(len(latent), *self.latent_shape))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(*grid, D)."""
        return (*self.pair.grid, self.latent)

    def moments(self, variables: Variables, batch: Batch) -> tuple[Floats, Floats]:
        """The code of each uncorrupted example on its grid [B, *grid, D], and zeros."""
        inputs = self.comparison.inputs(batch["x"])
        z = self.pair.encoder.apply(variables.params["encoder"], inputs)
        return z, jnp.zeros_like(z)

    def decode_latents(self, variables: Variables, latents: Floats) -> Examples:
        """The examples decoded from codes [B, *grid, D]."""
        return self.comparison.mean(self.pair.decoder.apply(variables.params["decoder"], latents))
