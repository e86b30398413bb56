"""Corruptions of the input of a denoising autoencoder (Vincent et al. 2008, 2010).

A corruption is a function (x [B, *places, C] in [-1, 1], keys [B]) -> [B, *places, C]. Row i of the
result depends on x[i] and keys[i] alone. A place is corrupted in all of its channels or in none.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from genzoo.core import streams
from genzoo.core.types import Array, ArrayLike, Keys

Places = Float[ArrayLike, "B *places C"]
Corruption = Callable[[Places, Keys], Places]


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No corruption: a plain autoencoder."""

    def __call__(self, x: Places, keys: Keys) -> Places:
        """Returns x unchanged."""
        return x


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Additive Gaussian noise. amount: its standard deviation, for data in [-1, 1]."""

    amount: float

    def __call__(self, x: Places, keys: Keys) -> Places:
        """x plus independent noise for every value, not clipped."""
        return x + self.amount * streams.normal(keys, x.shape[1:], x.dtype)


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Sets a share of the places to -1, the background. amount: the share, in [0, 1].

    As in the paper, a "fixed number of components chosen at random": every example loses the same
    number of places.
    """

    amount: float

    def __call__(self, x: Places, keys: Keys) -> Places:
        """x with round(amount * places) places set to -1."""
        return jnp.where(_chosen(keys, x, self.amount), -1, x)


@dataclass(frozen=True, kw_only=True)
class SaltAndPepper:
    """Sets a share of the places to -1 or 1, by a fair coin. amount: the share, in [0, 1]."""

    amount: float

    def __call__(self, x: Places, keys: Keys) -> Places:
        """x with round(amount * places) places set to -1 or 1."""
        coin = streams.uniform(streams.fold(keys, 1), (*x.shape[1:-1], 1)) < 0.5
        salt = jnp.where(coin, 1, -1).astype(x.dtype)
        return jnp.where(_chosen(streams.fold(keys, 0), x, self.amount), salt, x)


def _chosen(keys: Keys, x: Places, amount: float) -> Bool[Array, "B *places 1"]:
    """Whether each place is corrupted: [B, *places, 1], exactly round(amount * places) of them."""
    places = math.prod(x.shape[1:-1])
    order = jax.vmap(lambda key: jax.random.permutation(key, places))(keys)
    return (order < round(amount * places)).reshape(*x.shape[:-1], 1)
