"""Time embeddings.

Sinusoids as in "Attention is all you need" (Vaswani et al. 2017), in the two layouts in use (Ho et
al. 2020; Nichol & Dhariwal 2021), and Gaussian Fourier features (Song et al. 2021).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np

from genzoo.core.types import Array

TimeEmbedding = Callable[[Array, int], Array]  # (time [B], width) -> [B, width] float32

LONGEST = 10_000.0  # the longest wavelength divided by 2 pi, in DDPM steps
FOURIER_SCALE = 16.0  # standard deviation of the frequencies, in periods per unit


def sinusoidal(time: Array, width: int) -> Array:
    """[B] -> [B, width]: sines, then cosines; frequencies from 1 to 1 / 10000 inclusive (DDPM)."""
    half = width // 2
    frequencies = LONGEST ** (-np.arange(half) / max(half - 1, 1))
    angles = _angles(time, frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def sinusoidal_adm(time: Array, width: int) -> Array:
    """[B] -> [B, width]: cosines, then sines; frequencies in (1 / 10000, 1] (iDDPM, ADM)."""
    half = width // 2
    frequencies = LONGEST ** (-np.arange(half) / half)
    angles = _angles(time, frequencies)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)


def sinusoidal_slow(time: Array, width: int) -> Array:
    """[B] -> [B, width]: `sinusoidal_adm` of time / 1000, for times in DDPM steps (JiT).

    It changes little over neighbouring times, which keeps its derivative small.
    """
    return sinusoidal_adm(time / 1000, width)


def fourier(time: Array, width: int) -> Array:
    """[B] -> [B, width]: `fourier_noise_level` of time / 1000, for times in DDPM steps."""
    return fourier_noise_level(time / 1000, width)


def fourier_noise_level(noise_level: Array, width: int) -> Array:
    """[B] -> [B, width]: sines and cosines of random Gaussian frequencies (NCSN++).

    For noise levels of order 1. The frequencies are constants drawn from seed 0. They are not
    params and are never trained.
    """
    frequencies = np.random.default_rng(0).normal(size=width // 2) * FOURIER_SCALE
    angles = _angles(noise_level, 2 * np.pi * frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def _angles(time: Array, frequencies: np.ndarray) -> Array:
    return time.astype(jnp.float32)[:, None] * jnp.asarray(frequencies, jnp.float32)


TIME_EMBEDDINGS: Mapping[str, TimeEmbedding] = MappingProxyType(
    {
        "sinusoidal": sinusoidal,
        "sinusoidal_adm": sinusoidal_adm,
        "sinusoidal_slow": sinusoidal_slow,
        "fourier": fourier,
        "fourier_noise_level": fourier_noise_level,
    }
)
