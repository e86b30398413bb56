"""Latents of a first stage as data: a field that holds their moments.

A record of `latents:DIR` has, in place of an image, the means and standard deviations of its
latents, and if the set was written for mirrored training, those of the mirrored image too.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array
from genzoo.data.fields import Field


@dataclass(frozen=True, kw_only=True)
class Moments(Field):
    """The means and standard deviations of the latents of an example, and perhaps of its mirror
    image: stored as [sides, 2, *latent], float32; a model sees those of one side, [2, *latent]."""

    singular: ClassVar[str] = "latent"
    plural: ClassVar[str] = "latents"

    def __post_init__(self):
        if len(self.shape) < 3 or self.shape[0] not in (1, 2) or self.shape[1] != 2:
            raise ValueError(f"Moments are [1 or 2 sides, 2, *latent]: {self}.")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of a latent."""
        return self.shape[2:]

    @property
    def spatial(self) -> bool:
        """Whether it holds those of the mirror image."""
        return self.shape[0] == 2

    def example(self, *rows: int) -> jax.ShapeDtypeStruct:
        """Shape [*rows, 2, *latent], float32."""
        return jax.ShapeDtypeStruct((*rows, *self.shape[1:]), self.dtype)

    def prepare(self, values: Array | np.ndarray) -> Array:
        """The moments of the examples themselves, [N, 2, *latent]."""
        return super().prepare(values)[:, 0]

    def mirrored(self, values: Array | np.ndarray, which: Array) -> Array:
        """The same, but those of the mirror image where `which` bool [N] is true."""
        own, mirror = jnp.moveaxis(super().prepare(values), 1, 0)
        return jnp.where(which.reshape(-1, *(1,) * (own.ndim - 1)), mirror, own)
