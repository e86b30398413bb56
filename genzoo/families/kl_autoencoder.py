"""The autoencoder of latent diffusion (Rombach et al. 2022), after VAE-GAN (Larsen et al. 2016).

The encoder gives a diagonal Gaussian q(z | x) on a grid of latents. With the error r per value and
the critic's term of adversarial_training.py, N values in an image and a learned scale s:

    loss = N (r(x, y) e^-s + s) + kl_weight KL(q(z | x) || N(0, I)) + a w d (-D(y))              (1)

where y = decoder(z) for z drawn from q. Up to N ln 2, the first term is -log p(x | z) of a Laplace
distribution with scale e^s, in whose exponent the perceptual distance is counted for every value.
The weight of the KL is so small that it only keeps the latents from growing without limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Player, Report, Variables
from genzoo.core.reports import scalars
from genzoo.core.types import (
    Batch,
    Examples,
    Floats,
    Key,
    Keys,
    PerExample,
    Scalar,
    Tree,
    Vectors,
    mean_per_example,
    sum_per_example,
)
from genzoo.families.adversarial_training import (
    AUTOENCODER,
    CRITIC,
    Adversary,
    Comparison,
    Decoded,
    of_autoencoder,
    without_padding,
)
from genzoo.math import variational
from genzoo.nets.autoencoder.pair import Pair


@dataclass(frozen=True, kw_only=True, eq=False)
class KLAutoencoder:
    """The KL autoencoder family. Capabilities: Reconstructs, Encodes, Decodes, Compresses,
    Reports.

    pair: an encoder to means and log variances, and the decoder. latent: channels of z. comparison:
    the error r. kl_weight: of the KL in nats. adversary: None for training without a critic.
    sampled: whether z is drawn in the loss, and not the mean of q.
    """

    pair: Pair
    latent: int
    comparison: Comparison
    kl_weight: float
    adversary: Adversary | None
    sampled: bool = True

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of encoder, decoder and critic, and the scale s = 0."""
        x, pair = example["x"], self.pair
        z = jnp.zeros((len(x), *pair.grid, self.latent))
        params = {
            "encoder": pair.encoder.init(streams.named(key, "encoder"), x),
            "decoder": pair.decoder.init(streams.named(key, "decoder"), z),
            "log_scale": jnp.zeros(()),
        }
        if self.adversary:
            params[CRITIC] = self.adversary.init(key, x)
        return Variables(params=params)

    @property
    def losses(self) -> Mapping[str, Player]:
        """The autoencoder and, if there is one, the critic."""
        player = Player(loss=self.loss, trains=("encoder/", "decoder/", "log_scale/"))
        if not self.adversary:
            return {AUTOENCODER: player}
        return {
            AUTOENCODER: replace(player, couples_rows=True),
            CRITIC: self.adversary.player(self._reconstruction),
        }

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1) in nats per example [B]; metrics: its terms, and the latents' moments."""
        context = without_padding(context)
        x, q = context.batch["x"], self._posterior(params, context.batch["x"])
        z = self._latents(q, context.key)
        y = self.pair.decoder.apply(params["decoder"], z)
        likelihood, metrics = self._likelihood(params["log_scale"], x, y)
        kl = sum_per_example(variational.standard_kl(q))
        losses = likelihood + self.kl_weight * kl
        if self.adversary:
            fixed, scale = jax.lax.stop_gradient((z, params["log_scale"]))
            decoded = Decoded(
                decode=lambda decoder: self.pair.decoder.apply(decoder, fixed),
                likelihood=lambda y: self._likelihood(scale, x, y)[0],
            )
            term, own = self.adversary.term(
                params[CRITIC], context, y, params["decoder"], decoded
            )
            losses, metrics = losses + term, metrics | own
        metrics |= {
            "loss": losses,
            "kl": kl,
            "log_scale": jnp.broadcast_to(params["log_scale"], losses.shape),
            "latent_mean": mean_per_example(z),
            "latent_square": mean_per_example(jnp.square(z)),
        }
        return losses, Aux(metrics=metrics, stats=context.stats)

    def report(self, measured: Mapping[str, Floats]) -> Report:
        """The metrics, with the scale e^s and the standard deviation of all latents, by which a
        model of them should divide."""
        values: dict = scalars(of_autoencoder(measured))
        if "log_scale" in values:
            values["scale"] = float(np.exp(values.pop("log_scale")))
        if "latent_square" in values:
            variance = values.pop("latent_square") - values["latent_mean"] ** 2
            values["latent_std"] = float(np.sqrt(max(variance, 0.0)))
        return Report(values=values)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The mean of q(z | x), flattened: [B, D]."""
        del keys
        mean, _ = self.moments(variables, batch)
        return mean.reshape(len(mean), -1)

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """The images decoded from latents [B, D]."""
        return self.decode_latents(variables, latent.reshape(len(latent), *self.latent_shape))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(*grid, channels of z)."""
        return (*self.pair.grid, self.latent)

    def moments(self, variables: Variables, batch: Batch) -> tuple[Floats, Floats]:
        """The mean and deviation of q(z | x), [B, *latent_shape]."""
        q = self._posterior(variables.params, batch["x"])
        return q.mean, jnp.exp(q.log_variance / 2)

    def decode_latents(self, variables: Variables, latents: Floats) -> Examples:
        """The images decoded from latents [B, *latent_shape]."""
        return self.pair.decoder.apply(variables.params["decoder"], latents)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The images decoded from the mean of q(z | x)."""
        return self.decode(variables, self.encode(variables, batch, keys))

    # --- shared by the methods above -----------------------------------------------------------

    def _posterior(self, params: Tree, x: Examples) -> variational.Diagonal:
        return variational.diagonal(self.pair.encoder.apply(params["encoder"], x))

    def _latents(self, q: variational.Diagonal, key: Key) -> Examples:
        if not self.sampled:
            return q.mean
        noise = jax.random.normal(streams.named(key, "latents"), q.mean.shape)
        return variational.reparameterise(q, noise)

    def _reconstruction(self, params: Tree, context: Context) -> Examples:
        """y for the critic."""
        q = self._posterior(params, context.batch["x"])
        return self.pair.decoder.apply(params["decoder"], self._latents(q, context.key))

    def _likelihood(
        self, log_scale: Scalar, x: Examples, y: Examples
    ) -> tuple[PerExample, Mapping[str, PerExample]]:
        """The first term of (1) and the terms of the error, [B] each."""
        error, terms = self.comparison(x, y)
        values = int(np.prod(x.shape[1:]))
        return values * (error * jnp.exp(-log_scale) + log_scale), terms
