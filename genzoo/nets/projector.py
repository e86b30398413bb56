"""Projectors: MLPs from features to the vectors that a loss compares.

Chen et al. 2020 (SimCLR, section 4.2): the features before a projector are the better
representation. Yu et al. 2024 (REPA) align the features of one network with those of another
through a deeper projector.
"""

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.layers import FAN_AVG, flat_product


class Projector(nn.Module):
    """Features [B, W] -> [B, out] float32, with one hidden layer and ReLU."""

    hidden: int
    out: int

    @nn.compact
    def __call__(self, features: Array, train: bool) -> Array:
        del train
        h = nn.Dense(self.hidden, kernel_init=FAN_AVG, name="hidden")(features)
        return nn.Dense(self.out, kernel_init=FAN_AVG, use_bias=False, name="out")(
            jnp.maximum(h, 0)
        )


def projector(hidden: int, out: int) -> Network:
    """A network from features [B, W] to embeddings [B, out]."""
    return network(Projector(hidden=hidden, out=out))


def projector_params(width: int, hidden: int, out: int) -> int:
    """The number of its params for features of this width."""
    return counts.dense(width, hidden) + hidden * out


class DeepProjector(nn.Module):
    """Features [.., W] -> [.., out] float32, with two hidden layers and SiLU."""

    hidden: int
    out: int

    @nn.compact
    def __call__(self, features: Array, train: bool) -> Array:
        del train
        h = features.astype(jnp.float32)
        for i, width in enumerate((self.hidden, self.hidden, self.out)):
            h = nn.silu(h) if i else h
            h = nn.Dense(
                width, kernel_init=FAN_AVG, dot_general=flat_product, name=f"dense_{i}"
            )(h)
        return h


def deep_projector(hidden: int, out: int) -> Network:
    """A network from features [.., W] to [.., out]."""
    return network(DeepProjector(hidden=hidden, out=out))


def deep_projector_params(width: int, hidden: int, out: int) -> int:
    """The number of its params for features of this width."""
    return counts.dense(width, hidden, hidden, out)
