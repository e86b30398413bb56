"""The assignment against every permutation, scipy, and known properties of optimal transport."""

import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from genzoo.math.coupling import optimal_assignment


def squared_distances(x, y):
    """float64 [B, B]."""
    x, y = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (x, y))
    return np.square(x[:, None] - y[None]).sum(-1)


def total(distances, pi):
    return distances[np.arange(len(pi)), pi].sum()


@pytest.mark.parametrize("seed", range(3))
def test_no_permutation_is_better(compiled, seed):
    x, y = np.random.default_rng(seed).normal(size=(2, 6, 2)).astype(np.float32)
    pi = np.asarray(compiled(optimal_assignment)(x, y))
    distances = squared_distances(x, y)
    best = min(itertools.permutations(range(6)), key=lambda p: total(distances, list(p)))
    np.testing.assert_array_equal(pi, best)
    assert pi.dtype == np.int32


@pytest.mark.parametrize("shape", [(64, 2), (33, 4, 4, 3), (1, 5)])
def test_its_cost_is_that_of_scipy(shape):
    rng = np.random.default_rng(1)
    # Far from the origin too, where the squares are much larger than what tells pairings apart.
    for offset in (0.0, 30.0):
        x = rng.uniform(-1, 1, shape).astype(np.float32) + np.float32(offset)
        y = rng.normal(size=shape).astype(np.float32)
        pi = np.asarray(jax.jit(optimal_assignment)(x, y))
        distances = squared_distances(x, y)
        np.testing.assert_array_equal(np.sort(pi), np.arange(shape[0]))
        best = distances[linear_sum_assignment(distances)].sum()
        assert total(distances, pi) == pytest.approx(best, rel=1e-6)


def test_on_a_line_the_ranks_are_paired(compiled):
    x, y = np.random.default_rng(2).normal(size=(2, 40, 1)).astype(np.float32)
    pi = np.asarray(compiled(optimal_assignment)(x, y))
    np.testing.assert_array_equal(np.argsort(x[:, 0]), np.argsort(y[pi, 0]))


def test_what_was_shuffled_is_found_again_ties_and_all():
    x = np.random.default_rng(3).normal(size=(16, 3, 2)).astype(np.float32)
    shuffle = np.random.default_rng(4).permutation(16)
    pi = jax.jit(optimal_assignment)(x, x[shuffle])
    np.testing.assert_array_equal(shuffle[pi], np.arange(16))
    alike = np.ones((16, 3, 2), np.float32)
    np.testing.assert_array_equal(np.sort(jax.jit(optimal_assignment)(alike, x)), np.arange(16))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_it_ends_whatever_the_numbers(bad):
    x = np.random.default_rng(5).normal(size=(16, 3, 2)).astype(np.float32)
    y = np.where(np.arange(16)[:, None, None] == 3, bad, x).astype(np.float32)
    pi = np.asarray(jax.jit(optimal_assignment)(x, y))
    assert pi.shape == (16,) and (pi >= 0).all() and (pi < 16).all()


@pytest.mark.parametrize("filling", [0.0, 1.0, -1e6, np.inf, np.nan])
def test_padding_is_paired_with_padding_whatever_it_holds(filling):
    rng = np.random.default_rng(9)
    for offset in (0.0, 30.0):
        x, y = (offset + rng.normal(size=(2, 6, 3, 2))).astype(np.float32)
        mask = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1, 0], np.float32)
        real = mask > 0
        padded, noise = (np.full((10, 3, 2), filling, np.float32) for _ in range(2))
        padded[real], noise[real] = x, y
        pi = np.asarray(jax.jit(optimal_assignment)(padded, noise, mask))
        np.testing.assert_array_equal(np.sort(pi), np.arange(10))
        np.testing.assert_array_equal(real[pi], real)
        np.testing.assert_array_equal(noise[pi][real], y[optimal_assignment(x, y)])
    # Even where nothing tells the examples apart.
    alone = jax.jit(optimal_assignment)(np.zeros((10, 2)), rng.normal(size=(10, 2)), mask)
    np.testing.assert_array_equal(real[np.asarray(alone)], real)


def test_a_batch_without_padding_is_paired_as_one_without_a_mask():
    x, y = np.random.default_rng(10).normal(size=(2, 32, 5)).astype(np.float32)
    paired = jax.jit(optimal_assignment)
    np.testing.assert_array_equal(paired(x, y, np.ones(32)), paired(x, y))
    assert set(np.asarray(paired(x, y, np.zeros(32)))) == set(range(32))


def test_half_precision_is_compared_in_float32():
    x, y = np.random.default_rng(6).normal(size=(2, 16, 3, 2)).astype(jnp.bfloat16)
    pi = np.asarray(jax.jit(optimal_assignment)(x, y))
    distances = squared_distances(x, y)
    best = distances[linear_sum_assignment(distances)].sum()
    assert total(distances, pi) == pytest.approx(best, rel=1e-6)


def test_no_gradient_stands_in_the_way():
    x, y = np.random.default_rng(7).normal(size=(2, 16, 3)).astype(np.float32)

    def loss(scale):
        pi = optimal_assignment(scale * x, y)
        return jnp.square(scale * x - jnp.asarray(y)[pi]).sum(), pi

    slope, pi = jax.jit(jax.grad(loss, has_aux=True))(1.0)
    assert slope == pytest.approx((2 * x * (x - y[np.asarray(pi)])).sum(), rel=1e-5)


def test_paired_noise_tells_two_classes_apart(compiled):
    # The noise of all data is standard normal, that of a class is not: which is why pairing is
    # refused with conditions.
    rng = np.random.default_rng(9)
    found = {1: [], -1: []}
    for _ in range(20):
        label = rng.choice([1, -1], 64)
        x = (3 * label + 0.1 * rng.normal(size=64))[:, None].astype(np.float32)
        eps = rng.normal(size=(64, 1)).astype(np.float32)
        eps = eps[np.asarray(compiled(optimal_assignment)(x, eps))]
        for one, of_class in found.items():
            of_class.append(eps[label == one])
    means = [np.concatenate(found[label]).mean() for label in (1, -1)]
    np.testing.assert_allclose(means, [0.8, -0.8], atol=0.1)  # of half a normal: sqrt(2 / pi)


SHARDED = """
import jax, numpy as np
from genzoo.math.coupling import optimal_assignment
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
x, y = np.random.default_rng(8).normal(size=(2, 16, 3)).astype(np.float32)
pair = jax.jit(lambda x, y: y[optimal_assignment(x, y)], out_shardings=rows)
there = pair(jax.device_put(x, rows), jax.device_put(y, rows))
assert len(there.sharding.device_set) == 4
print(np.array2string(np.asarray(there).ravel(), separator=",", threshold=10**6))
"""


def test_a_batch_on_four_devices_is_paired_as_one():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], capture_output=True, text=True, timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    paired = np.array(done.stdout.strip()[1:-1].split(","), np.float32).reshape(16, 3)
    x, y = np.random.default_rng(8).normal(size=(2, 16, 3)).astype(np.float32)
    best = linear_sum_assignment(squared_distances(x, y))[1]
    np.testing.assert_allclose(paired, y[best], atol=1e-6)
