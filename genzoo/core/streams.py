"""Random streams: keys are derived from (seed, name, step), never carried in a state.

Step N therefore has the same noise after a restart and on any number of devices or processes, and
adding a use of randomness does not change the others.
"""

import zlib

import jax
import jax.numpy as jnp

from genzoo.core.types import Array, Key, Keys


def root(seed: int) -> Key:
    """The key from which every other key of a run is derived."""
    return jax.random.key(seed)


def named(key: Key, name: str) -> Key:
    """The key of a named stream, by the CRC-32 of the name, which is stable across versions."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def at(key: Key, step: int | Array) -> Key:
    """The key of one step in a stream."""
    return jax.random.fold_in(key, step)


def per_example(key: Key, indices: Array) -> Keys:
    """One key per example, from its index [B]; example i has the same key in any batch."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def normal(keys: Keys, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Standard normal noise [B, *shape], row i drawn from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def uniform(keys: Keys, shape: tuple[int, ...] = (), dtype=jnp.float32) -> Array:
    """Uniform numbers in [0, 1) of shape [B, *shape], row i drawn from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype))(keys)


def fold(keys: Keys, step: int | Array) -> Keys:
    """Every key of [B] folded with the same step."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, step)
