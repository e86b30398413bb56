"""Vector quantisation against brute force, NumPy's own loops and exact distributions."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import few

from genzoo.math import quantisation as vq


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def squared_distances(x, codes):
    """Squared distances [N, K] in float64, by definition."""
    x, codes = np.asarray(x, np.float64), np.asarray(codes, np.float64)
    return np.square(x[:, None] - codes[None]).sum(-1)


def lloyd(x, codes):
    """One step of k-means, code by code; a code without members stays."""
    index, moved = squared_distances(x, codes).argmin(1), np.array(codes, np.float64)
    for k in range(len(codes)):
        if np.any(index == k):
            moved[k] = np.mean(np.asarray(x, np.float64)[index == k], axis=0)
    return moved


# (N, K, block, tile): one tile; many; neither count a multiple; fewer rows than a block.
SHAPES = [
    (5, 3, 1024, 512), (64, 48, 16, 8), (61, 47, 16, 8), (7, 100, 3, 33), (1, 1, 1, 1),
    (50, 2, 7, 1),
]  # fmt: skip


@pytest.mark.parametrize("shape", few([[*shape] for shape in SHAPES], (2, 3, 4)))
def test_nearest_code_is_brute_force(compiled, float64, shape):
    count, size, block, tile = shape
    x, codes = normal(0, count, 6), normal(1, size, 6)
    index = compiled(partial(vq.nearest_code, block=block, tile=tile))(x, codes)
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(index, squared_distances(x, codes).argmin(1))


@pytest.mark.parametrize("offset", few([1e3, 0.0]))
def test_nearest_code_in_float32_errs_on_near_ties_only(compiled, offset):
    # With the offset |x|^2 is 1e7 and float32 knows it to 1: more than distances differ by.
    x = (normal(0, 700, 16) + offset).astype(np.float32)
    codes = (normal(1, 300, 16) + offset).astype(np.float32)
    index = compiled(partial(vq.nearest_code, block=128, tile=64))(x, codes)
    distances = squared_distances(x, codes)
    chosen, least = distances[np.arange(700), index], distances.min(1)
    assert np.all(chosen <= least + 1e-5)
    assert np.mean(index == distances.argmin(1)) > 0.998


def test_half_precision_rows_are_compared_in_float32(compiled):
    x, codes = (jnp.asarray(normal(i, n, 8) + 5, jnp.bfloat16) for i, n in ((0, 200), (1, 90)))
    index = compiled(partial(vq.nearest_code, block=64, tile=16))(x, codes)
    np.testing.assert_array_equal(index, squared_distances(x, codes).argmin(1))


@pytest.mark.parametrize("tile", few([5, 512, 1]))
def test_the_lowest_index_wins_a_tie(compiled, tile):
    # Small integers: every distance is exact and most are shared by several codes.
    rng = np.random.default_rng(2)
    x, codes = rng.integers(-2, 3, (80, 3)), rng.integers(-2, 3, (57, 3)) + 7 * np.array([0, 1, 2])
    x = (x + 7 * np.array([0, 1, 2])).astype(np.float32)
    distances = squared_distances(x, codes)
    assert np.mean((distances == distances.min(1, keepdims=True)).sum(1) > 1) > 0.3
    run = compiled(partial(vq.nearest_code, block=32, tile=tile))
    np.testing.assert_array_equal(run(x, codes.astype(np.float32)), distances.argmin(1))


def test_a_code_held_twice_is_found_at_its_first_place(compiled):
    codes = normal(3, 40, 9).astype(np.float32)
    twice = np.concatenate([codes, codes[::-1]])
    run = compiled(partial(vq.nearest_code, block=16, tile=24))
    np.testing.assert_array_equal(run(twice, twice), np.r_[np.arange(40), np.arange(40)[::-1]])


def test_the_index_of_a_row_that_is_nan_is_in_range(compiled):
    x = jnp.array([[jnp.nan, 0.0], [3.0, 1.0]])
    codes = jnp.array([[0.0, 0.0], [1.0, 1.0], [3.0, 1.0]])
    index = compiled(partial(vq.nearest_code, block=1, tile=2))(x, codes)
    np.testing.assert_array_equal(index, [0, 2])


def test_no_gradient_flows_through_the_index(compiled):
    x, codes = jnp.asarray(normal(0, 6, 3)), jnp.asarray(normal(1, 5, 3))

    def of_index(x, codes):
        return vq.nearest_code(x, codes, block=4, tile=2).astype(jnp.float32).sum()

    for gradient in compiled(jax.grad(of_index, argnums=(0, 1)))(x, codes):
        np.testing.assert_array_equal(gradient, 0)
    # Nor is any work done for it: the loop holds one product.
    forward = jax.make_jaxpr(lambda x, codes: jax.jvp(of_index, (x, codes), (x, codes)))
    assert str(forward(x, codes)).count("dot_general[") == 1


@pytest.mark.parametrize("shape", few([[4090, 4000], [4096, 4096]]))
def test_distances_live_one_tile_at_a_time(shape):
    count, size, width, tile = *shape, 16, 256
    run = jax.jit(partial(vq.nearest_code, block=tile, tile=tile))
    arguments = (jnp.zeros((count, width)), jnp.zeros((size, width)))
    temporary = run.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    # Value, least, its place (and what the loop carries of both); the inputs may be padded.
    assert temporary < 6 * 4 * tile * tile + 4 * width * (count + size)
    assert temporary < 4 * count * size / 25


def test_a_batch_of_sets_may_be_mapped(compiled):
    x, codes = normal(0, 64, 4), normal(1, 32, 4)
    run = compiled(jax.vmap(partial(vq.nearest_code, block=8, tile=8), in_axes=(0, None)))
    index = run(x.reshape(4, 16, 4), codes).reshape(-1)
    np.testing.assert_array_equal(index, squared_distances(x, codes).argmin(1))


SHARDED = """
import re, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from genzoo.math.quantisation import nearest_code

mesh = jax.make_mesh((4,), ("data",))
rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
x, codes = jax.random.normal(jax.random.key(0), (64, 4)), jax.random.normal(jax.random.key(1), (32, 4))
run = jax.jit(lambda x, codes: nearest_code(x, codes, 16, 8), in_shardings=(rows, whole), out_shardings=rows)
program = run.lower(x, codes).compile()
assert not re.search("all-gather|all-to-all|all-reduce|collective", program.as_text())
brute = np.square(np.asarray(x)[:, None] - np.asarray(codes)).sum(-1).argmin(1)
np.testing.assert_array_equal(run(x, codes), brute)
"""  # noqa: E501


def test_rows_sharded_over_devices_stay_where_they_are():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], capture_output=True, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_lookup_gives_the_codes():
    codes, index = normal(0, 7, 3), np.array([[0, 6], [2, 2]])
    actual = vq.lookup(jnp.asarray(codes, jnp.float32), index)
    np.testing.assert_array_equal(actual, codes.astype(np.float32)[index])


def test_straight_through_is_the_code_with_the_identity_as_gradient(compiled):
    x, codes, weight = (jnp.asarray(normal(seed, 4, 3), jnp.float32) for seed in range(3))
    np.testing.assert_array_equal(compiled(vq.straight_through)(100 * x, codes), codes)
    of_x, of_codes = compiled(
        jax.grad(lambda x, q: jnp.vdot(weight, vq.straight_through(x, q)), argnums=(0, 1))
    )(x, codes)
    np.testing.assert_array_equal(of_x, weight)
    np.testing.assert_array_equal(of_codes, 0)
    value, slope = jax.jvp(vq.straight_through, (x, codes), (weight, jnp.ones_like(codes)))
    np.testing.assert_array_equal(value, codes)
    np.testing.assert_array_equal(slope, weight)


def test_dictionary_and_commitment_pull_one_side_each(compiled, float64):
    x, q = normal(0, 2, 5, 3), normal(1, 2, 5, 3)
    expected = np.array([np.mean((x[b] - q[b]) ** 2) for b in range(2)])
    for loss, sign, moved in ((vq.dictionary, -1, 1), (vq.commitment, 1, 0)):
        np.testing.assert_allclose(compiled(loss)(x, q), expected, rtol=1e-12)
        gradients = compiled(jax.grad(lambda x, q, f=loss: f(x, q).sum(), argnums=(0, 1)))(x, q)
        np.testing.assert_allclose(gradients[moved], sign * 2 * (x - q) / 15, rtol=1e-12)
        np.testing.assert_array_equal(gradients[1 - moved], 0)


def test_a_new_codebook_is_consistent():
    book = vq.new_codebook(jax.random.key(0), 2000, 8)
    np.testing.assert_array_equal(book["sums"] / book["counts"][:, None], book["codes"])
    squares = np.square(book["codes"]).sum(-1)  # chi^2_8 / 8: mean 1, variance 1/4
    assert abs(squares.mean() - 1) < 4 * np.sqrt(0.25 / 2000)


def test_moving_averages_are_the_closed_form(compiled, float64):
    # After three updates: counts = d^3 + (1 - d) sum over i of d^(2 - i) n_i, sums likewise.
    decay, epsilon, size = 0.7, 1e-2, 5
    rng = np.random.default_rng(0)
    x, index = rng.normal(size=(3, 9, 2)), rng.integers(0, 4, (3, 9))  # code 4 has no member
    index[:, 0] = 0
    book = vq.new_codebook(jax.random.key(0), size, 2)
    first = {name: np.asarray(value, np.float64) for name, value in book.items()}
    counts, sums = decay**3 * first["counts"], decay**3 * first["sums"]
    for i in range(3):
        for row, k in zip(x[i], index[i], strict=True):
            counts[k] += (1 - decay) * decay ** (2 - i)
            sums[k] += (1 - decay) * decay ** (2 - i) * row
    smoothed = (counts + epsilon) / (counts.sum() + size * epsilon) * counts.sum()
    update = compiled(lambda book, x, i: vq.ema_update(book, x, i, decay, epsilon))
    book = {name: jnp.asarray(value) for name, value in first.items()}
    for i in range(3):
        before, book = book, update(book, x[i], index[i])
    np.testing.assert_allclose(book["counts"], counts, rtol=1e-12)
    np.testing.assert_allclose(book["sums"], sums, rtol=1e-12)
    used = np.isin(np.arange(size), index[2])
    assert used.any() and not used.all()
    np.testing.assert_allclose(book["codes"][used], (sums / smoothed[:, None])[used], rtol=1e-12)
    np.testing.assert_array_equal(book["codes"][~used], before["codes"][~used])
    np.testing.assert_array_equal(book["codes"][4], first["codes"][4])


@pytest.mark.parametrize("epsilon", few([1e-5, 0.0]))
def test_decay_zero_is_a_step_of_k_means(compiled, float64, epsilon):
    x, size = normal(0, 60, 2), 30
    book = vq.new_codebook(jax.random.key(1), size, 2)
    book = {name: jnp.asarray(value, jnp.float64) for name, value in book.items()}
    codes = np.asarray(book["codes"])
    step = compiled(
        lambda book: vq.ema_update(book, x, vq.nearest_code(x, book["codes"]), 0.0, epsilon)
    )
    for _ in range(4):
        index = squared_distances(x, codes).argmin(1)
        assert len(set(index)) < size  # some codes have no member
        codes, book = lloyd(x, codes), step(book)
        np.testing.assert_allclose(book["codes"], codes, rtol=1e-12 + 4 * epsilon)


def test_a_code_out_of_use_stays_until_it_is_used_again():
    book = {"codes": jnp.array([[3.0], [-2.0]]), "counts": jnp.ones(2)}
    book["sums"] = book["codes"]
    x, index = jnp.array([[3.0], [3.0]]), jnp.array([0, 0])
    update = jax.jit(lambda book, x, index: vq.ema_update(book, x, index, 0.9))
    book = jax.lax.fori_loop(0, 3000, lambda _, book: update(book, x, index), book)
    assert book["counts"][1] == 0 and book["codes"][1] == -2
    np.testing.assert_allclose(book["codes"][0], 3, rtol=1e-4)
    book = update(book, jnp.array([[-5.0], [3.0]]), jnp.array([1, 0]))
    np.testing.assert_allclose(book["codes"], [[3], [-5]], rtol=2e-4)
    fixed = vq.ema_update({**book, "counts": 0 * book["counts"]}, x, index, 1.0)
    np.testing.assert_array_equal(fixed["codes"], book["codes"])


kmeans = jax.jit(vq.kmeans, static_argnums=2)  # any number of iterations by one program


def test_k_means_is_numpys_loop_and_never_loses(float64):
    x, size, key, before = normal(4, 120, 3), 9, jax.random.key(0), np.inf
    codes = np.asarray(kmeans(key, x, size, 0))
    for iterations in range(1, 6):
        codes, actual = lloyd(x, codes), kmeans(key, x, size, iterations)
        np.testing.assert_allclose(actual, codes, rtol=1e-10)
        distortion = squared_distances(x, actual).min(1).mean()
        assert distortion < before
        before = distortion


@pytest.mark.parametrize("seed", few(range(5), 2))
def test_k_means_recovers_separated_clusters(seed):
    # 16 clusters, 10 apart, deviation 0.1, of 30 rows each: the means are known to 0.1 / sqrt(30).
    means = 10 * np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(16, 2)
    x = np.repeat(means, 30, axis=0) + 0.1 * normal(seed, 480, 2)
    codes = kmeans(jax.random.key(seed), jnp.asarray(x, jnp.float32), 16, 10)
    index = squared_distances(means, codes).argmin(1)
    assert len(set(index)) == 16
    exact = x.reshape(16, 30, 2).mean(1)
    np.testing.assert_allclose(np.asarray(codes)[index], exact, atol=1e-4)


def test_seeds_follow_the_squared_distance(float64):
    # Rows 0, 1, 3: first any, then by squared distance. Unordered pairs, by hand:
    # {0, 1}: (1/10 + 1/5) / 3, {0, 3}: (9/10 + 9/13) / 3, {1, 3}: (4/5 + 4/13) / 3.
    x = jnp.array([[0.0], [1.0], [3.0]])
    keys = jax.random.split(jax.random.key(0), 20_000)
    pairs = np.asarray(jax.jit(jax.vmap(lambda key: vq.kmeans(key, x, 2, 0)))(keys))[..., 0]
    totals = pairs.sum(1)
    for total, share in ((1, (1 / 10 + 1 / 5) / 3), (3, (9 / 10 + 9 / 13) / 3)):
        error = np.sqrt(share * (1 - share) / len(keys))
        assert abs(np.mean(totals == total) - share) < 4 * error
    assert set(totals) == {1.0, 3.0, 4.0}


def test_k_means_with_few_or_equal_rows():
    x = jnp.asarray(normal(0, 5, 2), jnp.float32)
    codes = np.asarray(vq.kmeans(jax.random.key(0), x, 12, 3))
    assert len(np.unique(codes, axis=0)) == 12
    np.testing.assert_array_equal(codes[:5], x)
    assert squared_distances(codes, x).min(1).max() < 0.1
    same = vq.kmeans(jax.random.key(0), jnp.ones((6, 2)), 4, 2)
    np.testing.assert_array_equal(same, 1)


def test_revival_moves_dead_codes_to_distinct_rows(compiled):
    book = vq.new_codebook(jax.random.key(0), 8, 3)
    counts = jnp.array([0.0, 5.0, 0.9, 1.0, 0.5, 2.0, 0.0, 1.1])
    book = {**book, "counts": counts, "sums": counts[:, None] * book["codes"]}
    x = jnp.asarray(normal(5, 20, 3), jnp.float32)
    revived = compiled(lambda key: vq.revive(key, book, x, 1.0))(jax.random.key(1))
    dead = np.asarray(counts < 1)
    for name in book:
        np.testing.assert_array_equal(revived[name][~dead], book[name][~dead])
    rows = squared_distances(revived["codes"][dead], x)
    np.testing.assert_array_equal(rows.min(1), 0)
    assert len(set(rows.argmin(1))) == dead.sum()
    np.testing.assert_array_equal(revived["counts"][dead], 1)
    ratio = revived["sums"] / revived["counts"][:, None]
    np.testing.assert_allclose(ratio, revived["codes"], rtol=1e-6)
    other = vq.revive(jax.random.key(2), book, x, 1.0)
    assert np.any(other["codes"][dead] != revived["codes"][dead])
    few = vq.revive(jax.random.key(1), book, x[:2], 1.0)  # rows are taken twice
    assert set(squared_distances(few["codes"][dead], x).argmin(1)) == {0, 1}


def test_usage_is_a_histogram_per_example(compiled):
    index = np.random.default_rng(0).integers(0, 6, (3, 4, 5))
    out = compiled(partial(vq.usage, size=7))(index)
    assert out.dtype == jnp.float32
    expected = np.array([np.bincount(rows.reshape(-1), minlength=7) / 20 for rows in index])
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_perplexity_counts_codes(compiled, float64):
    rows = np.array([[1 / 4] * 4, [1.0, 0, 0, 0], [0.5, 0, 0.5, 0], [0.5, 0.25, 0.25, 0]])
    out = compiled(vq.perplexity)(rows)
    np.testing.assert_allclose(out, [4, 1, 2, 2**1.5], rtol=1e-12)


def test_gumbel_softmax_draws_from_the_softmax():
    logits = jnp.array([0.3, -1.0, 2.0, -jnp.inf])
    noise = jax.random.gumbel(jax.random.key(0), (40_000, 4))
    soft = jax.jit(vq.gumbel_softmax)(logits, noise, 0.7)
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-5)
    weights = np.exp([0.3, -1.0, 2.0, -np.inf])
    share = weights / weights.sum()
    error = np.sqrt(share * (1 - share) / len(noise))
    chosen = np.eye(4)[np.asarray(soft).argmax(-1)]
    assert np.all(np.abs(chosen.mean(0) - share) <= 4 * error)


def test_gumbel_softmax_is_its_definition_and_ends_in_one_hot(compiled, float64):
    logits, noise = normal(0, 6, 5), normal(1, 6, 5)
    scaled = np.exp((logits + noise) / 0.5)
    out = compiled(vq.gumbel_softmax)(logits, noise, 0.5)
    np.testing.assert_allclose(out, scaled / scaled.sum(-1, keepdims=True), rtol=1e-12)
    one_hot = np.eye(5)[(logits + noise).argmax(-1)]
    np.testing.assert_allclose(vq.gumbel_softmax(logits, noise, 1e-3), one_hot, atol=1e-12)
    np.testing.assert_allclose(vq.gumbel_softmax(logits, noise, 1e6), 1 / 5, rtol=1e-4)


def test_kl_from_uniform(compiled, float64):
    logits = normal(0, 4, 3, 7)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    out = compiled(vq.uniform_kl)(logits)
    np.testing.assert_allclose(out, (p * np.log(7 * p)).sum(-1), rtol=1e-11)
    ends = np.stack([np.full(7, 3.0), np.where(np.arange(7) == 2, 0, -np.inf), 900 * np.eye(7)[1]])
    np.testing.assert_allclose(compiled(vq.uniform_kl)(ends), [0, np.log(7), np.log(7)], atol=1e-12)
    assert np.all(np.isfinite(compiled(jax.grad(lambda a: vq.uniform_kl(a).sum()))(ends)))


def test_kl_from_uniform_is_accurate_near_zero():
    # Logits d, -d, 0, 0: half the variance, d^2 / 4, but for a term of fourth order.
    d = np.float32(1e-3)
    out = vq.uniform_kl(jnp.array([d, -d, 0, 0]))
    np.testing.assert_allclose(out, 0.25e-6, rtol=1e-3)
    rows = np.float32(1e-4 * normal(0, 2000, 512))
    assert np.all(np.asarray(vq.uniform_kl(rows)) >= 0)
