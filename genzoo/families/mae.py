"""Masked autoencoders: an encoder that sees a quarter of the patches, and a decoder for the rest.

He et al. 2022 (Masked autoencoders are scalable vision learners, MAE). With the visible patches V
and the hidden ones H of an image, drawn anew at every step,

    loss = 1/|H| sum_{i in H} mean over values of (decoder(encoder(V))_i - target_i)^2          (1)

where target_i is patch i, or patch i normalised by its own mean and deviation: see math/masking.py.
Visible patches do not enter the loss. The representation is the encoder's for the whole image.

Predictions of normalised patches are not colours. In pictures they are given the mean and the
deviation of the true patch, which the model does not know: they show structure, not brightness.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import jax.numpy as jnp

from genzoo.core import streams
from genzoo.core.contract import Aux, Context, Player, Variables
from genzoo.core.types import Batch, Examples, Key, Keys, PerExample, Tree, Vectors
from genzoo.math import masking
from genzoo.math.masking import Masking, Patches
from genzoo.nets.transformer.mae import MAENetwork
from genzoo.nets.transformer.patches import grid_of, patchify, unpatchify

HIDDEN = 0.0
"""The value of hidden patches in pictures: grey."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MAE:
    """The family of masked autoencoders. Capabilities: Reconstructs, Observes, Encodes,
    EncodesPatches.

    shape: of one example, (*size, C). ratio: the share of patches that is hidden. normalised:
    whether targets are normalised patch by patch. mean: whether the representation is the mean of
    the patches' tokens rather than the class token.
    """

    network: MAENetwork
    shape: tuple[int, ...]
    ratio: float = 0.75
    normalised: bool = True
    mean: bool = True

    @property
    def patches(self) -> int:
        """The number of patches."""
        return prod(grid_of(self.shape[:-1], self.network.patch))

    # --- the contract -------------------------------------------------------------------------

    def init(self, key: Key, example: Batch) -> Variables:
        """Params of the network."""
        x = example["x"]
        drawn = masking.by_order(jnp.zeros((len(x), self.patches)), self._visible)
        return Variables(params=self.network.init(key, x, drawn.keep, drawn.restore))

    @property
    def losses(self) -> Mapping[str, Player]:
        """One player, "model"."""
        return {"model": Player(loss=self.loss)}

    def loss(self, params: Tree, context: Context) -> tuple[PerExample, Aux]:
        """Equation (1) per example [B]; metrics: the loss."""
        x, key = context.batch["x"], context.key
        drawn = self.draw(streams.per_example(streams.named(key, "mask"), jnp.arange(len(x))))
        drop = streams.named(key, "dropout") if context.train else None
        predicted = self.network.apply(
            params, x, drawn.keep, drawn.restore, train=context.train, key=drop
        )
        values = masking.hidden_error(predicted, self.target(x), drawn.hidden)
        return values, Aux(metrics={"loss": values}, stats=context.stats)

    def observe(self, batch: Batch, keys: Keys) -> Examples:
        """The examples with their hidden patches in grey."""
        hidden = self.draw(keys).hidden
        return self._pasted(batch["x"], hidden, HIDDEN)

    def reconstruct(self, variables: Variables, batch: Batch, keys: Keys) -> Examples:
        """The examples with their hidden patches predicted. Predictions of normalised patches get
        the mean and the deviation of the true ones."""
        x, drawn = batch["x"], self.draw(keys)
        predicted = self.network.apply(variables.params, x, drawn.keep, drawn.restore)
        if self.normalised:
            mean, deviation = masking.moments(self._patches(x))
            predicted = predicted * deviation + mean
        return self._pasted(x, drawn.hidden, predicted)

    def encode(self, variables: Variables, batch: Batch, keys: Keys) -> Vectors:
        """The representation of each whole example: [B, width]."""
        del keys
        tokens = self.network.encode(variables.params, batch["x"])
        return tokens[:, 1:].mean(1) if self.mean else tokens[:, 0]

    @property
    def patch_width(self) -> int:
        """The width of the encoder's tokens."""
        return self.network.width

    def encode_patches(self, variables: Variables, batch: Batch) -> Examples:
        """The encoder's tokens of all patches of the whole examples: [B, *grid, width]."""
        x = batch["x"]
        tokens = self.network.encode(variables.params, x)[:, 1:]
        return tokens.reshape(len(x), *grid_of(x.shape[1:-1], self.network.patch), -1)

    # --- masks and targets --------------------------------------------------------------------

    @property
    def _visible(self) -> int:
        return masking.visible(self.patches, self.ratio)

    def draw(self, keys: Keys) -> Masking:
        """Which patches are hidden, each example by its own key."""
        return masking.by_order(streams.uniform(keys, (self.patches,)), self._visible)

    def target(self, x: Examples) -> Patches:
        """The targets of all patches [B, N, P]."""
        patches = self._patches(x)
        return masking.normalised(patches) if self.normalised else patches

    def _patches(self, x: Examples) -> Patches:
        return patchify(x, self.network.patch)

    def _pasted(self, x: Examples, hidden, values) -> Examples:
        """x with other values in its hidden patches."""
        pasted = jnp.where(hidden[..., None], values, self._patches(x))
        return unpatchify(pasted, x.shape[1:-1], self.network.patch)
