"""Vector quantisation: nearest codes, codebooks by gradients or moving averages, Gumbel-softmax.

For vectors x [N, D] and codes e [K, D]:

    index = argmin_k |x - e_k|^2 = argmin_k |e_k|^2 / 2 - x . e_k                            (1)
    q = e_index,  passed on as  q + x - sg(x)      (straight-through; sg stops gradients)    (2)
    dictionary = mean |sg(x) - q|^2,   commitment = mean |x - sg(q)|^2                       (3)
    counts_k <- d counts_k + (1 - d) n_k,  sums_k <- d sums_k + (1 - d) sum of k's members,
    e_k = sums_k / smoothed_k,  smoothed_k = (counts_k + epsilon) C / (C + K epsilon),
    C = sum of counts                                                                        (4)
    y = softmax((logits + gumbel) / temperature)                                             (5)

(1)-(3): van den Oord et al. 2017, "Neural Discrete Representation Learning"; (4): its appendix A.1
with the smoothing of Razavi et al. 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2";
(5): Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax", and Maddison et al.
2017, "The Concrete Distribution".

A codebook kept by moving averages is a plain dict {"codes": [K, D], "counts": [K], "sums": [K, D]}.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Float, Int

from genzoo.core.types import (
    Array,
    ArrayLike,
    Broadcast,
    Count,
    Examples,
    Key,
    PerExample,
    Scalar,
    Values,
    mean_per_example,
)

Codes = Float[ArrayLike, "K D"]
Rows = Float[ArrayLike, "N D"]
Index = Int[ArrayLike, " N"]
"""The index of a code for each row, in 0..K - 1."""
Codebook = Mapping[str, Float[ArrayLike, "K ..."]]


def _shift(codebook: Codes) -> Float[Array, " D"]:
    # Translations leave distances unchanged, while the rounding error of (1) grows with the squared
    # distance from the origin. The translation is rounded to a grid as coarse as the spread of the
    # codes, which makes it exact for codes of small integers: they keep their exact ties.
    mean = codebook.mean(0)
    _, exponent = jnp.frexp(jnp.abs(codebook - mean).max())
    grid = jnp.ldexp(jnp.ones((), codebook.dtype), exponent - 1)
    return grid * jnp.round(mean / grid)


def nearest_code(x: Rows, codebook: Codes, block: int = 1024, tile: int = 512) -> Index:
    """Index int32 [N] of the code [K, D] nearest to each row of x [N, D], equation (1).

    Ties go to the lowest index, and a row of nan gets 0. Computed in float32 or wider; no gradient
    flows. Distances are held in tiles of at most [block, tile]: for every block of rows, a scan
    over the codes keeps the smallest value per lane, which on a CPU is faster than argmin over long
    rows. Accelerators prefer a larger block and tile.
    """
    dtype = jnp.promote_types(jnp.result_type(x, codebook), jnp.float32)
    x, codebook = jax.lax.stop_gradient((x, codebook))
    (count, width), size = x.shape, len(codebook)
    shift = _shift(codebook.astype(dtype))
    tiles = -(-size // tile)
    tile = -(-size // tiles)
    missing = tiles * tile - size
    half = 0.5 * jnp.square(codebook.astype(dtype) - shift).sum(-1)
    half = jnp.pad(half, (0, missing), constant_values=jnp.inf).reshape(tiles, tile)
    codes = jnp.pad(codebook, ((0, missing), (0, 0))).reshape(tiles, tile, width)
    scanned = (codes, half, jnp.arange(tiles, dtype=jnp.int32))

    def of_block(rows: Rows) -> Index:
        rows = rows.astype(dtype) - shift

        def compare(best, scanned):
            least, where = best
            codes, half, number = scanned
            codes = codes.astype(dtype) - shift  # tile by tile: no shifted codebook is kept
            value = half - jnp.matmul(rows, codes.T, precision=jax.lax.Precision.HIGHEST)
            better = value < least
            return (jnp.where(better, value, least), jnp.where(better, number, where)), None

        shape = (len(rows), tile)
        best = (jnp.full(shape, jnp.inf, dtype), jnp.zeros(shape, jnp.int32))
        if tiles == 1:
            (least, where), _ = compare(best, jax.tree.map(lambda part: part[0], scanned))
        else:
            (least, where), _ = jax.lax.scan(compare, best, scanned)
        index = where * tile + jnp.arange(tile, dtype=jnp.int32)
        return jnp.where(least == least.min(-1, keepdims=True), index, size).min(-1)

    blocks = max(1, -(-count // block))
    if blocks == 1:
        return of_block(x)
    rows = -(-count // blocks)
    # Block i holds rows i, i + blocks, ...: if the rows of x are sharded over devices, every device
    # has its share of each block, and the loop runs along an axis that is not sharded.
    strided = jnp.pad(x, ((0, rows * blocks - count), (0, 0))).reshape(rows, blocks, width)
    index = jax.lax.map(
        lambda i: of_block(jax.lax.dynamic_index_in_dim(strided, i, axis=1, keepdims=False)),
        jnp.arange(blocks),
    )
    return index.T.reshape(-1)[:count]


def lookup(codebook: Codes, index: Int[ArrayLike, "*shape"]) -> Float[ArrayLike, "*shape D"]:
    """The codes [..., D] at the indices [...] of a codebook [K, D]."""
    return codebook[index]


def straight_through(x: Values, quantised: Values) -> Values:
    """Equation (2): exactly the value of `quantised`, with the gradient of the identity to x.

    No gradient flows to `quantised`. Both have the same shape.
    """
    return jax.lax.stop_gradient(quantised) + (x - jax.lax.stop_gradient(x))


def commitment(x: Examples, quantised: Examples) -> PerExample:
    """Equation (3): mean squared distance [B] of x [B, ...] from its codes, gradient to x."""
    return mean_per_example(jnp.square(x - jax.lax.stop_gradient(quantised)))


def dictionary(x: Examples, quantised: Examples) -> PerExample:
    """Equation (3): mean squared distance [B] of the codes from x [B, ...], gradient to them."""
    return mean_per_example(jnp.square(jax.lax.stop_gradient(x) - quantised))


def new_codebook(key: Key, size: int, width: int) -> Codebook:
    """Normal codes [size, width] of expected squared length 1, each with a count of 1."""
    codes = jax.random.normal(key, (size, width)) / jnp.sqrt(width)
    return {"codes": codes, "counts": jnp.ones(size), "sums": codes}


def _members(x: Rows, index: Index, size: int) -> tuple[Float[Array, " K"], Codes]:
    # A scatter: 100 times faster on a CPU than a matrix product with one-hot rows at K = 16,384.
    counts = jax.ops.segment_sum(jnp.ones(len(x), x.dtype), index, size)
    return counts, jax.ops.segment_sum(x, index, size)


def ema_update(
    book: Codebook, x: Rows, index: Index, decay: Scalar, epsilon: float = 1e-5
) -> Codebook:
    """Equation (4): the codebook updated with rows x [N, D] whose codes are `index` [N].

    A code without members here stays where it is while its count and sum decay together: their
    ratio does not change, and the smoothing would pull the code to the origin once its count is
    near epsilon. With decay 0 this is one Lloyd step of k-means: codes without members stay, and
    the others move to the mean of their members, exactly for epsilon = 0 and otherwise times n_k /
    smoothed_k, which differs from 1 by less than epsilon max(1, K / N).
    """
    size = len(book["counts"])
    x = jax.lax.stop_gradient(jnp.asarray(x, book["codes"].dtype))
    new_counts, new_sums = _members(x, index, size)
    counts = decay * book["counts"] + (1 - decay) * new_counts
    sums = decay * book["sums"] + (1 - decay) * new_sums
    total = counts.sum()
    smoothed = (counts + epsilon) * (total / (total + size * epsilon))
    moves = (new_counts > 0) & (counts > 0)
    codes = sums / jnp.where(moves, smoothed, 1)[:, None]
    return {
        "codes": jnp.where(moves[:, None], codes, book["codes"]), "counts": counts, "sums": sums
    }  # fmt: skip


def _seeds(key: Key, x: Rows, size: int) -> Codes:
    # k-means++ (Arthur & Vassilvitskii 2007): the next row is drawn with probability proportional
    # to its squared distance from the nearest row so far, or uniformly once all of these are 0.
    def distance(row):
        return jnp.square(x - row).sum(-1)

    def take(number, carry):
        codes, nearest = carry
        log_weight = jnp.where(nearest.max() > 0, jnp.log(nearest), 0.0)
        row = x[jax.random.categorical(jax.random.fold_in(key, number), log_weight)]
        return codes.at[number].set(row), jnp.minimum(nearest, distance(row))

    first = x[jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(x))]
    codes = jnp.zeros((size, x.shape[1]), x.dtype).at[0].set(first)
    return jax.lax.fori_loop(1, size, take, (codes, distance(first)))[0]


def kmeans(key: Key, x: Rows, size: int, iterations: Count) -> Codes:
    """Codes [size, D] by Lloyd's iterations on x [N, D], seeded by k-means++.

    A code without members keeps its place. With fewer rows than codes, the first N codes start at
    the rows and the others at repeated rows plus noise of a hundredth of x's standard deviation.
    The number of iterations may be traced.
    """
    x = jax.lax.stop_gradient(jnp.asarray(x))
    if len(x) < size:
        noise = 0.01 * x.std(0) * jax.random.normal(key, (size, x.shape[1]), x.dtype)
        number = jnp.arange(size)
        codes = x[number % len(x)] + jnp.where(number[:, None] < len(x), 0, noise)
    else:
        codes = _seeds(key, x, size)

    def lloyd(_, codes):
        counts, sums = _members(x, nearest_code(x, codes), size)
        means = sums / jnp.maximum(counts, 1)[:, None]
        return jnp.where(counts[:, None] > 0, means, codes)

    return jax.lax.fori_loop(0, iterations, lloyd, codes)


def revive(key: Key, book: Codebook, x: Rows, threshold: Scalar) -> Codebook:
    """Moves every code whose count is below `threshold` to a random row of x [N, D].

    A moved code gets the count `threshold`; the others are untouched. No row is taken twice unless
    more than N codes move. (Random restarts: Dhariwal et al. 2020, "Jukebox", section 3.1.)
    """
    x = jax.lax.stop_gradient(jnp.asarray(x, book["codes"].dtype))
    dead = book["counts"] < threshold
    order = jax.random.permutation(key, len(x))
    fresh = x[order[(jnp.cumsum(dead) - 1) % len(x)]]
    return {
        "codes": jnp.where(dead[:, None], fresh, book["codes"]),
        "counts": jnp.where(dead, threshold, book["counts"]),
        "sums": jnp.where(dead[:, None], threshold * fresh, book["sums"]),
    }


def usage(index: Int[ArrayLike, "B ..."], size: int) -> Float[Array, "B {size}"]:
    """Share of each code among the positions of an example: [B, ...] -> float32 [B, size]."""
    index = index.reshape(len(index), -1)
    counts = jnp.zeros((len(index), size)).at[jnp.arange(len(index))[:, None], index].add(1)
    return counts / index.shape[1]


def perplexity(probabilities: Float[ArrayLike, "*same K"]) -> Values:
    """exp of the entropy in nats: [..., K] -> [...], from 1 (a single code) to K (uniform)."""
    return jnp.exp(entr(probabilities).sum(-1))


def gumbel_softmax(logits: Broadcast, gumbel: Broadcast, temperature: Scalar) -> Broadcast:
    """The relaxed one-hot sample (5) [..., K] from logits and standard Gumbel noise [..., K]."""
    return jax.nn.softmax((logits + gumbel) / temperature)


def uniform_kl(logits: Float[ArrayLike, "*same K"]) -> Values:
    """KL(softmax(logits) || uniform) in nats, from 0 to log K: [..., K] -> [...].

    Computed as the mean over k of r log r - r + 1 with r = K p_k. No term is negative, so nothing
    cancels near 0.
    """
    log_ratio = jax.nn.log_softmax(logits) + jnp.log(jnp.asarray(logits.shape[-1], logits.dtype))
    finite = jnp.where(jnp.isneginf(log_ratio), 0, log_ratio)
    terms = jnp.exp(log_ratio) * finite - jnp.expm1(log_ratio)
    return jnp.maximum(terms.mean(-1), 0)
