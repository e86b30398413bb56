"""VQGAN (Esser et al. 2021): a VQ-VAE that is trained for perceived quality, against a critic.

With the error r per value and the critic's term of adversarial_training.py, and the terms of a
quantiser (quantisers.py; commitment and, for a learned codebook, dictionary):

    loss = r(x, y) + codes(z) + a w d (-D(y))                                                    (1)

The first two terms are means, so that the balance between them, unlike in kl_autoencoder.py, does
not depend on the size of the image. (The authors' code weights the dictionary term by the factor of
the commitment, and not the commitment, by mistake; here each has its own.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax

from genzoo.core.contract import Aux, CodeGrid, Context, Player, Report, Variables
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
from genzoo.families.vqvae import VQVAE


@dataclass(frozen=True, kw_only=True, eq=False)
class VQGAN:
    """The VQGAN family. Capabilities: Reconstructs, Encodes, Decodes, Compresses, Tokenizes,
    Reports.

    autoencoder: encodes, quantises and decodes; its own loss is not used. comparison: the error r.
    adversary: None for training without a critic.
    """

    autoencoder: VQVAE
    comparison: Comparison
    adversary: Adversary | None

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """The variables of the autoencoder, and params of the critic."""
        variables = self.autoencoder.init(key, example)
        if not self.adversary:
            return variables
        critic = self.adversary.init(key, example["x"])
        return replace(variables, params={**variables.params, CRITIC: critic})

    @property
    def losses(self) -> Mapping[str, Player]:
        """The autoencoder with its codes and, if there is one, the critic."""
        couples = self.autoencoder.quantiser.couples_rows
        player = Player(loss=self.loss, trains=("network/", "codes_"), couples_rows=couples)
        if not self.adversary:
            return {AUTOENCODER: player}
        return {
            AUTOENCODER: replace(player, couples_rows=True),
            CRITIC: self.adversary.player(self._reconstruction),
        }

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1) per example [B]; metrics: its terms, and the usage of each code by level."""
        context = without_padding(context)
        x, network = context.batch["x"], self.autoencoder.network
        quantised = self.autoencoder.quantised(params, context)
        y = network.decode(params["network"], quantised.qs)
        error, metrics = self.comparison(x, y)
        losses = error + quantised.loss
        if self.adversary:
            fixed, others = jax.lax.stop_gradient((quantised.qs, params["network"]))
            decoded = Decoded(
                decode=lambda decoder: network.decode({**others, "decoder": decoder}, fixed),
                likelihood=lambda y: self.comparison(x, y)[0],
            )
            term, own = self.adversary.term(
                params[CRITIC], context, y, params["network"]["decoder"], decoded
            )
            losses, metrics = losses + term, {**metrics, **own}
        metrics = {"loss": losses, **metrics, **quantised.metrics}
        return losses, Aux(metrics=metrics, stats=quantised.stats)

    def report(self, measured: Mapping[str, Floats]) -> Report:
        """As for VQ-VAE: perplexity and codes in use, and a warning if few are chosen."""
        return self.autoencoder.report(of_autoencoder(measured))

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The vectors before quantisation, flattened: [B, D]."""
        return self.autoencoder.encode(variables, batch, keys)

    def decode(self, variables: Variables, latent: Vectors) -> Examples:
        """The images decoded from the codes nearest to the vectors [B, D] of `encode`."""
        return self.autoencoder.decode(variables, latent)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The images decoded from the examples' codes."""
        return self.autoencoder.reconstruct(variables, batch, keys)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(*grid, D) of the vectors before quantisation."""
        return self.autoencoder.latent_shape

    def moments(self, variables: Variables, batch: Batch) -> tuple[Floats, Floats]:
        """The vectors before quantisation, [B, *latent_shape], and zeros."""
        return self.autoencoder.moments(variables, batch)

    def decode_latents(self, variables: Variables, latents: Floats) -> Examples:
        """The images decoded from the codes nearest to the vectors."""
        return self.autoencoder.decode_latents(variables, latents)

    @property
    def code_grids(self) -> tuple[CodeGrid, ...]:
        """The one grid."""
        return self.autoencoder.code_grids

    def codes(self, variables: Variables, batch: Batch) -> tuple[Indices, ...]:
        """The chosen codes, int32 [B, *grid]."""
        return self.autoencoder.codes(variables, batch)

    def decode_codes(self, variables: Variables, codes: tuple[Indices, ...]) -> Examples:
        """The images decoded from codes [B, *grid]."""
        return self.autoencoder.decode_codes(variables, codes)

    # --- shared by the methods above -----------------------------------------------------------

    def _reconstruction(self, params: Tree, context: Context) -> Examples:
        """y for the critic, whose turn updates no codes."""
        qs = self.autoencoder.quantised(params, replace(context, train=False)).qs
        return self.autoencoder.network.decode(params["network"], qs)
