"""The convolutions of VGG-16 (Simonyan & Zisserman 2015), and LPIPS (Zhang et al. 2018) on them.

With the maps h_l of five layers at positions p, divided by their norm over channels, LPIPS is

    d(x, y) = sum_l mean_p w_l . (h_l(x) / |h_l(x)| - h_l(y) / |h_l(y)|)^2                    (1)

with learned weights w_l >= 0 for each channel (version 0.1).
"""

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.types import Array
from genzoo.nets.judges.distance import differences

# The last layers of five stages: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
FEATURES, SMALLEST = 512, 16  # channels of the last map; the smallest side of an image
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet, for [-1, 1]

class VGG16(nn.Module):
    """Images [B, H, W, 3] in [-1, 1] -> the maps [B, h, w, C] of five stages.

    H and W must be at least `SMALLEST`.
    """

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        x, maps, number = (x - jnp.array(_MEAN)) / jnp.array(_STD), [], 0
        for stage, (features, layers) in enumerate(STAGES):
            if stage:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for _ in range(layers):
                x = nn.relu(nn.Conv(features, (3, 3), name=f"Conv_{number}")(x))
                number += 1
            maps.append(x)
        return tuple(maps)


class LPIPS(nn.Module):
    """Two batches of images [B, H, W, 3] in [-1, 1] -> their distances (1), [B]."""

    @nn.compact
    def __call__(self, one: Array, other: Array) -> Array:
        trunk, total = VGG16(name="trunk"), 0.0
        maps = trunk(jnp.concatenate([one, other]))  # one pass over the weights
        for stage, h in enumerate(maps):
            squared = differences(h[: len(one)], h[len(one) :])
            weight = self.param(f"weight_{stage}", nn.initializers.ones_init(), (h.shape[-1],))
            total = total + (squared * weight).sum(-1)
        return total
