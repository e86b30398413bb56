"""The projector of contrastive learning: an MLP between features and what the loss compares.

Chen et al. 2020 (SimCLR, section 4.2): the features before it are the better representation.
"""

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts import counts
from genzoo.nets.parts.layers import FAN_AVG


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
