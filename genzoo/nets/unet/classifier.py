"""A classifier of noisy images: the encoder of a U-Net followed by attention pooling.

Dhariwal & Nichol 2021 (Diffusion models beat GANs, section 4: classifier guidance), pooling as in
Radford et al. 2021 (CLIP). With the tokens x_1 .. x_N of the last feature map and their mean x_0:

    z_i = x_i + p_i,  i = 0..N,   features = attention(query z_0, keys and values z_0 .. z_N)    (1)
    logits = W features + b                                                                      (2)

At time 0 it classifies clean images, and its features can be used for probes and distances.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn

from genzoo.core.conditions import Conditions
from genzoo.core.size import Size
from genzoo.core.types import Array
from genzoo.nets.interface import FeatureNetwork, features_of
from genzoo.nets.parts.attention import attend
from genzoo.nets.parts.counts import dense, norm
from genzoo.nets.parts.layers import FAN_IN, ZEROS, GroupNorm
from genzoo.nets.unet.settings import (
    ADMSettings,
    Attention,
    HeadWidth,
    Multipliers,
    NormEpsilon,
    ResampleName,
    ScaleShift,
    TimeEmbedding,
)
from genzoo.nets.unet.trunk import Trunk, heads_of


class AttentionPool(nn.Module):
    """Equation (1): x [B, *size, C] -> [B, C].

    The learned positions p fix the size at initialisation. heads: must divide C. One fused map
    gives query, key and value, laid out as in `SelfAttention`. fused: see `attend`.
    """

    heads: int
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, channels = x.shape[0], x.shape[-1]
        tokens = x.reshape(batch, -1, channels)
        tokens = jnp.concatenate([tokens.mean(1, keepdims=True), tokens], 1)
        start = nn.initializers.normal(channels**-0.5)
        tokens = tokens + self.param("position", start, tokens.shape[1:])
        h = nn.Dense(3 * channels, kernel_init=FAN_IN, name="query_key_value")(tokens)
        h = h.reshape(batch, -1, 3, self.heads, channels // self.heads)
        h = attend(h[:, :1, 0], h[:, :, 1], h[:, :, 2], fused=self.fused)
        return h.reshape(batch, channels)


class Classifier(nn.Module):
    """(x [B, *size, C], time [B] or [], conditions) -> logits [B, classes] float32.

    The logits are zero at the start. With no classes the output is the features. Conditions other
    than the time are ignored. The features of equation (1) are the output of the inner module
    "pool".
    """

    classes: int
    trunk: Trunk
    condition: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array, time: Array, conditions: Conditions, train: bool) -> Array:
        trunk = self.trunk
        time = jnp.broadcast_to(jnp.asarray(time), x.shape[:1])
        encoded = self.condition(name="condition")(time, conditions, x)
        h, _ = trunk.descend(x, encoded.features, None, None, train)
        # In float32 from here on: it costs little, and probes use the features unrounded.
        h = nn.silu(GroupNorm(trunk.style.groups, trunk.style.epsilon, name="out_norm")(h))
        heads = heads_of(h.shape[-1], trunk.heads, trunk.head_width)
        features = AttentionPool(heads, trunk.style.fused, name="pool")(h)
        if not self.classes:
            return features
        return nn.Dense(self.classes, kernel_init=ZEROS, name="out")(features)


@dataclass(frozen=True, kw_only=True)
class ClassifierUNetSettings(ADMSettings):
    """The encoder of a U-Net as a classifier.

    The defaults are those of ADM. The pooling uses heads and head_width too.
    """

    multipliers: Multipliers = (1, 2, 3, 4)
    attention: Attention = (32, 16, 8)
    head_width: HeadWidth = 64
    scale_shift: ScaleShift = True
    resample: ResampleName = "block"
    time_embedding: TimeEmbedding = "sinusoidal_adm"
    norm_epsilon: NormEpsilon = 1e-5

    def size(self, shape: tuple[int, ...], *, num_classes: int) -> Size:
        """The size of `build` for images of `shape` (*size, C)."""
        count = self.count(shape, {})
        channels, places = count.channels, math.prod(count.sides) + 1
        pool = places * channels + dense(channels, 3 * channels)
        head = norm(channels) + pool + dense(channels, num_classes)
        return Size(params=count.params + head, layer=count.layer)

    def build(self, *, num_classes: int) -> FeatureNetwork:
        """A classifier (x [B, *size, C], time [B] in DDPM steps, {}) -> logits [B, num_classes].

        At time 0 the image is clean. `features(params, x, time, {}, names=("pool",))` gives the
        features before the logits, [B, last width].
        """
        module = Classifier(
            classes=num_classes, trunk=self.trunk(), condition=self.conditioner(entries={})
        )
        return features_of(module, self.widths[-1])
