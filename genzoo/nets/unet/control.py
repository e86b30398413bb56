"""The control branch of a U-Net, and the network that turns a hint into its second input.

Zhang et al. 2023 (Adding conditional control to text-to-image diffusion models). The branch is a
copy of the encoder and the middle of a trained U-Net, which stays as it is:

    h = entry(x) + hint_network(hint)                                                           (1)
    r_i = zero_i(the i-th output of the copy, from h on)                                        (2)

The outputs are those that a U-Net hands to its decoder: one after every step of the encoder and
that of the middle. Each zero_i is a 1 x 1 convolution that starts at zero, as does the last layer
of the hint network. The residuals r_i are added to the outputs of the U-Net's own encoder and
middle, so that a fresh branch changes nothing.
"""

from collections.abc import Callable
from math import log2

import jax
import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions
from genzoo.core.types import Array
from genzoo.nets.parts.layers import Conv
from genzoo.nets.unet.trunk import Trunk


class HintNetwork(nn.Module):
    """(hint [B, *size, C], side) -> [B, *side, features], zero at the start.

    The first layer has widths[0] channels. Between any two widths come a layer of the first and one
    of the second, which halves the map as long as that is larger than `side`; the last layer has
    `features`. All are 3 x 3 convolutions with a silu between them. With the widths 16, 32, 96, 256
    this is the published network, for hints of eight times the side. Before all layers, a hint is
    resized to a power of two times `side`.
    """

    widths: tuple[int, ...]
    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hint: Array, side: tuple[int, ...]) -> Array:
        ratio = min(a / b for a, b in zip(hint.shape[1:-1], side, strict=True))
        halvings = max(0, min(len(self.widths) - 1, round(log2(ratio))))
        size = (len(hint), *(n * 2**halvings for n in side), hint.shape[-1])
        h = hint if hint.shape == size else jax.image.resize(hint, size, "linear")
        h = nn.silu(Conv(self.widths[0], dtype=self.dtype, name="conv_0")(h))
        for i, width in enumerate(self.widths[1:]):
            same = Conv(self.widths[i], dtype=self.dtype, name=f"conv_{2 * i + 1}")
            stride = 2 if i < halvings else 1
            wider = Conv(
                width, stride=stride, padding=1, dtype=self.dtype, name=f"conv_{2 * i + 2}"
            )
            h = nn.silu(wider(nn.silu(same(h))))
        return Conv(self.features, zero=True, dtype=self.dtype, name="out")(h)


class ControlBranch(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions, hint [B, *size', D]) -> the residuals (2).

    They have the shapes of the skip connections and of the output of the middle of a `UNet` with
    this trunk and `condition`, whose modules of the same names have the same params. hint: on a map
    of any size, in [0, 1]. widths: those of the `HintNetwork`.
    """

    trunk: Trunk
    condition: Callable[..., nn.Module]
    widths: tuple[int, ...]

    @nn.compact
    def __call__(
        self, x: Array, time: Array, conditions: Conditions, hint: Array, *, train: bool
    ) -> tuple[Array, ...]:
        trunk, dtype = self.trunk, self.trunk.style.dtype
        time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
        encoded = self.condition(name="condition")(time, conditions, x)
        side = tuple(n // trunk.patch for n in x.shape[1:-1])
        hinted = HintNetwork(self.widths, trunk.entry, dtype, name="hint")(hint, side)
        if encoded.maps is not None:
            x = jnp.concatenate([x, encoded.maps.astype(x.dtype)], -1)
        inputs = encoded.features, encoded.tokens, encoded.mask, train
        h, skips = trunk.descend(x, *inputs, hint=hinted)
        return tuple(
            Conv(out.shape[-1], window=1, zero=True, dtype=dtype, name=f"zero_{i}")(out)
            for i, out in enumerate((*skips, h))
        )
