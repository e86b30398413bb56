"""The U-Net of pixel diffusion models: DDPM, improved DDPM and ADM are settings of this one module.

Ho et al. 2020 (Denoising diffusion probabilistic models), Nichol & Dhariwal 2021 (Improved DDPM),
Dhariwal & Nichol 2021 (Diffusion models beat GANs). Works for images, signals and volumes.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions, Entries
from genzoo.core.types import Array
from genzoo.nets.interface import Network, network
from genzoo.nets.parts.conditioning import Conditioner
from genzoo.nets.parts.embeddings import TIME_EMBEDDINGS
from genzoo.nets.parts.layers import DTYPES, Conv, GroupNorm, unfold
from genzoo.nets.unet.residual import RESAMPLES, BlockStyle
from genzoo.nets.unet.trunk import REMATS, Trunk, width_of


class UNet(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions) -> [B, *size, out_channels].

    size: any number of axes; each side must be divisible by patch 2^(levels - 1).
    condition: the module that makes `Encoded` of (time, conditions, x).
    attention_up: whether every block on the way up attends where those on the way down do, or only
    the last of its level. The output is float32, and zero at the start.
    """

    out_channels: int
    trunk: Trunk
    condition: Callable[..., nn.Module]
    attention_up: bool = True

    @nn.compact
    def __call__(
        self, x: Array, time: Array, conditions: Conditions, train: bool
    ) -> Array:
        trunk, style, axes = self.trunk, self.trunk.style, x.ndim - 2
        time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
        encoded = self.condition(name="condition")(time, conditions, x)
        condition = encoded.features
        if encoded.maps is not None:
            x = jnp.concatenate([x, encoded.maps.astype(x.dtype)], -1)
        h, skips = trunk.descend(x, condition, train)
        for level, features in reversed(list(enumerate(trunk.widths))):
            for i in range(trunk.blocks + 1):
                attentive = trunk.attends(h) and (self.attention_up or i == trunk.blocks)
                block = trunk.block(f"up_{level}_block_{i}", features, attentive)
                h = block(jnp.concatenate([h, skips.pop()], -1), condition, train)
            if level:
                up = trunk.resample.up(features, style, name=f"up_{level}_resample")
                h = up(h, condition, train)

        # The last norm and convolution are float32: rounding here would be noise in the output.
        h = nn.silu(GroupNorm(style.groups, style.epsilon, name="out_norm")(h))
        channels = self.out_channels * trunk.patch**axes
        return unfold(Conv(channels, zero=True, name="out")(h), trunk.patch)


def unet(
    *,
    out_channels: int,
    entries: Entries,
    width: int = 128,
    multipliers: tuple[float, ...] = (1, 2, 2, 2),
    blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    head_width: int = 0,
    scale_shift: bool = False,
    resample: str = "conv",
    time_embedding: str = "sinusoidal",
    embedding_width: int = 0,
    dropout: float = 0.0,
    norm_groups: int = 32,
    norm_epsilon: float = 1e-6,
    patch: int = 1,
    remat: str = "none",
    dtype: str = "float32",
) -> Network:
    """A U-Net of x [B, *size, C], time [B] in DDPM steps, and conditions.

    out_channels: of the output (twice the image's for a learned variance).
    entries: how conditions enter, by name; others are ignored.

    width, multipliers: level l has int(width * multipliers[l]) channels, at size / 2^l.
    blocks: residual blocks per level on the way down; one more on the way up.
    attention: smaller sides of the feature maps at which each block ends in self-attention.
    heads, head_width: attention heads by number, or by their width when `head_width` is not 0.
    scale_shift: time features scale and shift the norms (iDDPM, ADM) instead of being added.
    resample: "conv" (DDPM, iDDPM), "block" (ADM) or "plain" (means and copies).
    time_embedding: "sinusoidal" (DDPM), "sinusoidal_adm" (iDDPM, ADM) or "fourier" (NCSN++); or
        "fourier_label", which is the last for noise labels of order 1 instead of DDPM steps.
    embedding_width: of the sinusoids; 0 is `width`. The features have four times as many.
    dropout: inside residual blocks, in training.
    norm_groups, norm_epsilon: of GroupNorm (DDPM 1e-6, ADM 1e-5). Channels that 32 does not
        divide are normed in their greatest divisor below.
    patch: squares of patch x patch pixels become channels before the first convolution and pixels
        again after the last: the cheap entry for small networks on a CPU.
    remat: "none", "full" (keep block inputs only) or "dots" (keep what convolutions and products
        gave): memory against time.
    dtype: of convolutions and attention, "float32" or "bfloat16". Params, norms, softmax, time
        features and the output are float32 in any case.

    Published members, with their exact parameter counts: tests/nets/test_unet_counts.py.
    """
    style = BlockStyle(
        scale_shift=scale_shift,
        dropout=dropout,
        groups=norm_groups,
        epsilon=norm_epsilon,
        dtype=DTYPES[dtype],
    )
    condition = partial(
        Conditioner,
        embed=TIME_EMBEDDINGS[time_embedding],
        width=embedding_width or width,
        features=4 * (embedding_width or width),
        entries=entries,
    )
    widths = tuple(width_of(width, multiplier) for multiplier in multipliers)
    trunk = Trunk(
        entry=widths[0],
        widths=widths,
        blocks=blocks,
        attention=tuple(attention),
        middle=True,
        heads=heads,
        head_width=head_width,
        style=style,
        resample=RESAMPLES[resample],
        remat=REMATS[remat],
        patch=patch,
    )
    return network(UNet(out_channels=out_channels, trunk=trunk, condition=condition))
