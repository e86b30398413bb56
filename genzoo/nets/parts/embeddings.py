"""Embeddings of the time and of the class label, and the map that turns their sum into features.

Sinusoids as in "Attention is all you need" (Vaswani et al. 2017), in the two layouts in use (Ho et
al. 2020; Nichol & Dhariwal 2021), and Gaussian Fourier features (Song et al. 2021).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from genzoo.core.types import Array, Labels
from genzoo.nets.parts.layers import FAN_AVG

TimeEmbedding = Callable[[Array, int], Array]  # (time [B], width) -> [B, width] float32

NullClass = Annotated[
    bool, "Whether a further class stands for no label, as label dropping and guidance need."
]

LONGEST = 10_000.0  # the longest wavelength, over 2 pi, in DDPM steps
FOURIER_SCALE = 16.0  # standard deviation of the frequencies, in periods


def sinusoidal(time: Array, width: int) -> Array:
    """[B] -> [B, width]: sines, then cosines; frequencies 1 .. 1 / 10000 with both ends (DDPM)."""
    half = width // 2
    frequencies = LONGEST ** (-np.arange(half) / max(half - 1, 1))
    angles = _angles(time, frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def sinusoidal_adm(time: Array, width: int) -> Array:
    """[B] -> [B, width]: cosines, then sines; frequencies 1 .. above 1 / 10000 (iDDPM, ADM)."""
    half = width // 2
    frequencies = LONGEST ** (-np.arange(half) / half)
    angles = _angles(time, frequencies)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


def fourier(time: Array, width: int) -> Array:
    """[B] -> [B, width]: `fourier_label` of time / 1000, for times in DDPM steps."""
    return fourier_label(time / 1000, width)


def fourier_label(label: Array, width: int) -> Array:
    """[B] -> [B, width]: sines and cosines of fixed Gaussian frequencies (NCSN++), for noise labels
    of order 1.

    The frequencies are constants drawn once from seed 0, not params: they are never trained.
    """
    frequencies = np.random.default_rng(0).normal(size=width // 2) * FOURIER_SCALE
    angles = _angles(label, 2 * np.pi * frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def _angles(time: Array, frequencies: np.ndarray) -> Array:
    return time.astype(jnp.float32)[:, None] * jnp.asarray(frequencies, jnp.float32)


TIME_EMBEDDINGS: Mapping[str, TimeEmbedding] = MappingProxyType(
    {
        "sinusoidal": sinusoidal,
        "sinusoidal_adm": sinusoidal_adm,
        "fourier": fourier,
        "fourier_label": fourier_label,
    }
)


class Condition(nn.Module):
    """(time [B], label [B] int32 or None) -> features [B, features] float32.

    The embedded time [width] goes through two dense layers; the embedding of the label is added.
    classes: rows of the table of classes, the null class included; 0 is unconditional and ignores
    the label. null: the row that `label=None` stands for; None forbids it (ValueError).
    """

    embed: TimeEmbedding
    width: int
    features: int
    classes: int = 0
    null: int | None = None

    @nn.compact
    def __call__(self, time: Array, label: Labels | None) -> Array:
        h = self.embed(time, self.width)
        h = nn.Dense(self.features, kernel_init=FAN_AVG, name="dense_0")(h)
        h = nn.Dense(self.features, kernel_init=FAN_AVG, name="dense_1")(nn.silu(h))
        if not self.classes:
            return h
        if label is None:
            if self.null is None:
                raise ValueError("this network is conditional and has no null class: give a label")
            label = jnp.full(time.shape, self.null, jnp.int32)
        rows = nn.Embed(
            self.classes, self.features, embedding_init=nn.initializers.normal(1.0), name="label"
        )
        return h + rows(label)
