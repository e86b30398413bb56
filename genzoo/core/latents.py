"""Capabilities of the two parts of a latent model: of the first stage, whose latents are modelled,
and of a model that first needs to know statistics of its data."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from genzoo.core.contract import Variables
from genzoo.core.types import Array, Batch, Images, Tree


@runtime_checkable
class Compresses(Protocol):
    """The family encodes data as latents, in whose space another model can work, and decodes them.

    Given the data the latents are independent Gaussians; their standard deviation is 0 for a
    deterministic encoder. Nothing here is random.
    """

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(*grid, C): C channels at each place of a grid; (C,) for one vector."""

    def moments(self, variables: Variables, batch: Batch) -> tuple[Array, Array]:
        """The means and the standard deviations of the latents, [B, *latent_shape] each."""

    def decode_latents(self, variables: Variables, latents: Array) -> Images:
        """The examples decoded from latents [B, *latent_shape]: [B, ...]."""


@runtime_checkable
class Measures(Protocol):
    """The family needs statistics of the training data, which are measured once, before the first
    step, and become part of its stats."""

    def measure(self, variables: Variables, batch: Batch) -> Mapping[str, Array]:
        """What is measured of each example, by name: [B, ...] each. Row i depends only on row i."""

    def with_measured(self, stats: Tree, measured: Mapping[str, np.ndarray]) -> Tree:
        """The stats to start from. measured: the values of `measure` of N examples, [N, ...]."""
