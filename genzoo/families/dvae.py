"""The discrete VAE of DALL-E (Ramesh et al. 2021): a grid of codes by Gumbel-softmax relaxation.

    y = softmax((logits + gumbel) / temperature) in training, one-hot argmax logits otherwise (1)
    loss = [-log p(x | y) + kl_weight KL(softmax(logits) || uniform)] / dimensions of x       (2)

The KL is summed over the positions of the grid. During training its weight rises and the
temperature falls. The loss is divided by the dimensions of x, as in the paper, so that its scale
does not depend on the image size.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genzoo.core import streams
from genzoo.core.contract import Aux, CodeGrid, Context, Player, Report, Variables
from genzoo.core.reports import scalars
from genzoo.core.types import (
    ArrayLike,
    Batch,
    Examples,
    Floats,
    Indices,
    Key,
    Keys,
    PerExample,
    Tree,
    Vectors,
    sum_per_example,
)
from genzoo.math import quantisation
from genzoo.math.observation import Observation
from genzoo.math.variational import Warmup
from genzoo.nets.autoencoder.dalle import DVAENetworks

Logits = Float[ArrayLike, "B *grid K"]
"""A number for each of the K codes, at each place of the grid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DVAE:
    """The dVAE family. Capabilities: Reconstructs, Encodes, Decodes, Tokenizes.

    networks: encoder, embed, decoder and grid (nets/autoencoder/). vocabulary: the number of codes.
    shape: of one example. observation: p(x | decoder output). kl_weight, temperature: functions of
    the step.
    """

    networks: DVAENetworks
    vocabulary: int
    shape: tuple[int, ...]
    observation: Observation
    kl_weight: Warmup
    temperature: Warmup

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the three networks."""
        x = example["x"]
        weights = jnp.zeros((len(x), *self.networks.grid, self.vocabulary))
        params = {
            "encoder": self.networks.encoder.init(streams.named(key, "encoder"), x),
            "embed": self.networks.embed.init(streams.named(key, "embed"), weights),
            "observation": self.observation.init(),
        }
        embedded = self.networks.embed.apply(params["embed"], weights)
        decoder = self.networks.decoder.init(streams.named(key, "decoder"), embedded)
        return Variables(params={**params, "decoder": decoder})

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (2) per example [B], in nats per dimension.

        Metrics: its terms in nats, their weight and temperature, and how often each code is the
        most likely.
        """
        x = context.batch["x"]
        logits = self._logits(params, x)
        temperature, weight = self.temperature(context.step), self.kl_weight(context.step)
        if context.train:
            gumbel = jax.random.gumbel(streams.named(context.key, "gumbel"), logits.shape)
            weights = quantisation.gumbel_softmax(logits, gumbel, temperature)
        else:
            weights = self._one_hot(jnp.argmax(logits, -1))
        output = self._decoded(params, self.networks.embed.apply(params["embed"], weights))
        log_prob = sum_per_example(self.observation.log_prob(params["observation"], output, x))
        kl = sum_per_example(quantisation.uniform_kl(logits))
        loss = (weight * kl - log_prob) / x[0].size
        metrics = {
            "loss": loss,
            "reconstruction": -log_prob,
            "kl": kl,
            "kl_weight": jnp.full_like(loss, weight),
            "temperature": jnp.full_like(loss, temperature),
            "usage": quantisation.usage(jnp.argmax(logits, -1), self.vocabulary),
        }
        return loss, Aux(metrics=metrics, stats=context.stats)

    def report(self, measured: Mapping[str, Floats]) -> Report:
        """Perplexity and codes in use, and a warning if the codes carry no information."""
        values: dict = scalars(measured)
        if "usage" not in measured:
            return Report(values=values)
        shares = np.asarray(measured["usage"], np.float64)
        perplexity = float(quantisation.perplexity(shares / shares.sum()))
        values |= {"perplexity": perplexity, "codes_in_use": int((shares > 0).sum())}
        warnings = {}
        if perplexity < 1.5:  # two codes used equally often give 2
            warnings["usage"] = (
                f"Codebook collapse: {values['codes_in_use']} of {self.vocabulary} codes are in "
                f"use (perplexity {perplexity:.2f}), so the codes carry almost no information "
                "about the image. Remedies: a lower family.kl_weight, more family.kl_steps, a "
                "temperature that falls more slowly (more family.temperature_steps), a lower "
                "optimizer.learning_rate."
            )
        return Report(values=values, warnings=warnings)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The embedded codes of the grid: [B, D]."""
        del keys
        (index,) = self.codes(variables, batch)
        embedded = self.networks.embed.apply(variables.params["embed"], self._one_hot(index))
        return embedded.reshape(len(embedded), -1)

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """The mean of p(x | embedded codes [B, D])."""
        embedded = latent.reshape(len(latent), *self.networks.grid, -1)
        output = self._decoded(variables.params, embedded)
        return self.observation.mean(variables.params["observation"], output)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The mean of p(x | most likely codes)."""
        return self.decode(variables, self.encode(variables, batch, keys))

    @property
    def code_grids(self) -> tuple[CodeGrid, ...]:
        """One level."""
        return (CodeGrid(shape=self.networks.grid, size=self.vocabulary),)

    def codes(self, variables: Variables, batch: Batch) -> tuple[Indices, ...]:
        """The most likely code at each position: one level, int32 [B, *grid]."""
        return (jnp.argmax(self._logits(variables.params, batch["x"]), -1).astype(jnp.int32),)

    def decode_codes(self, variables: Variables, codes: tuple[Indices, ...]) -> Examples:
        """The mean of p(x | codes), where the one level of codes is int [B, *grid]."""
        (index,) = codes
        embedded = self.networks.embed.apply(variables.params["embed"], self._one_hot(index))
        return self.decode(variables, embedded.reshape(len(embedded), -1))

    # --- shared by the methods above -----------------------------------------------------------

    def _one_hot(self, index: Indices) -> Logits:
        return jax.nn.one_hot(index, self.vocabulary)

    def _logits(self, params: Tree, x: Examples) -> Logits:
        return self.networks.encoder.apply(params["encoder"], x)

    def _decoded(self, params: Tree, embedded: Examples) -> Floats:
        return self.networks.decoder.apply(params["decoder"], embedded)
