"""Corruptions: how much of an example is corrupted, where, and by which key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import streams
from genzoo.math.corruption import GaussianNoise, Masking, Nothing, SaltAndPepper

COUNT, SHAPE = 300, (8, 6, 3)
KEYS = streams.per_example(jax.random.key(0), jnp.arange(COUNT))
# No value of the data is one that a corruption sets.
X = jnp.asarray(np.random.default_rng(0).uniform(-0.9, 0.9, (COUNT, *SHAPE)), jnp.float32)
EVERY = pytest.mark.parametrize(
    "corrupt", [Nothing(), GaussianNoise(amount=0.3), Masking(amount=0.25),
                SaltAndPepper(amount=0.25)],
    ids=lambda c: type(c).__name__,
)  # fmt: skip


@EVERY
def test_a_row_is_its_own(corrupt):
    run, here = jax.jit(corrupt), np.arange(COUNT) == 7
    out = run(X, KEYS)
    assert out.shape == X.shape
    assert out.dtype == X.dtype
    others = run(jnp.where(here[:, None, None, None], X, -X), jnp.where(here, KEYS, KEYS[::-1]))
    np.testing.assert_array_equal(out[7], others[7])


@EVERY
def test_with_and_without_jit_it_is_the_same(corrupt):
    np.testing.assert_allclose(jax.jit(corrupt)(X, KEYS), corrupt(X, KEYS), atol=1e-6)


def test_nothing_is_nothing():
    assert Nothing()(X, KEYS) is X


def test_noise_is_normal_and_fresh():
    noise = np.asarray(GaussianNoise(amount=0.3)(X, KEYS) - X, np.float64) / 0.3
    n = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(n)
    assert abs((noise**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / n)
    np.testing.assert_array_less(np.abs(np.corrcoef(noise[:5].reshape(5, -1)) - np.eye(5)), 0.4)


@pytest.mark.parametrize("kind", [Masking, SaltAndPepper])
@pytest.mark.parametrize(("amount", "places"), [(0.0, 0), (0.25, 12), (0.3, 14), (1.0, 48)])
def test_a_share_of_whole_pixels_is_spoilt(kind, amount, places):
    out = np.asarray(kind(amount=amount)(X, KEYS))
    spoilt = out != np.asarray(X)
    np.testing.assert_array_equal(spoilt.all(-1), spoilt.any(-1))
    np.testing.assert_array_equal(spoilt.all(-1).sum((1, 2)), places)
    values = {-1.0} if kind is Masking else {-1.0, 1.0}
    assert set(np.unique(out[spoilt])) == (values if places else set())


@pytest.mark.parametrize("kind", [Masking, SaltAndPepper])
def test_every_place_is_spoilt_as_often(kind):
    spoilt = (np.asarray(kind(amount=0.25)(X, KEYS)) != np.asarray(X))[..., 0]
    deviation = np.sqrt(0.25 * 0.75 / COUNT)
    assert np.abs(spoilt.mean(0) - 0.25).max() < 4.5 * deviation
    # Two examples agree on 12 * 12 / 48 = 3 places on average: each has its own.
    agreed = (spoilt[:-1] & spoilt[1:]).sum((1, 2))
    assert abs(agreed.mean() - 3) < 5 * agreed.std() / np.sqrt(COUNT)


def test_salt_and_pepper_are_as_frequent_wherever_they_are():
    out = np.asarray(SaltAndPepper(amount=1.0)(X, KEYS))[..., 0]
    assert abs(out.mean()) < 4.5 / np.sqrt(out.size)
    assert np.abs(out.mean(0)).max() < 4.5 / np.sqrt(COUNT)
    assert np.abs(out.mean((1, 2))).max() < 4.5 / np.sqrt(48)


def test_signals_are_spoilt_by_place_too():
    out = np.asarray(Masking(amount=0.5)(X.reshape(COUNT, 48, 3), KEYS))
    np.testing.assert_array_equal((out == -1).all(-1).sum(1), 24)
