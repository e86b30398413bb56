"""VQ-VAE against hand computations on networks with two params, and the published sizes."""

from dataclasses import dataclass, replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core import tree
from genzoo.core.contract import CAPABILITIES, CodeGrid, Context, Variables
from genzoo.experiment import Experiment
from genzoo.families.quantisers import Averaged, FiniteScalar, Learned, LookupFree
from genzoo.families.vqvae import VQVAE
from genzoo.nets.autoencoder.hierarchy import HierarchySettings

SHAPE, D = (4, 4, 2), 2
A, B = 1.5, 0.7
CODES = {
    "codes_0": np.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1], [0, 0], [30, 30]], np.float32),
    "codes_1": np.array([[0.5, 0], [-0.5, 0], [0, 0.25], [0, -2]], np.float32),
}


@dataclass(frozen=True)
class Simple:
    """One level: z = a x, decoded b q. Two: z_1 = the means of a x over 2 x 2, z_0 = a x - q_1
    (repeated), decoded b (q_0 + q_1)."""

    levels: int = 1
    latent: int = D

    @property
    def grids(self):
        return ((4, 4), (2, 2))[: self.levels]

    def init(self, key, x):
        del key, x
        return {"a": jnp.float32(A), "b": jnp.float32(B)}

    def encode(self, params, x, quantise):
        h = params["a"] * x
        if self.levels == 1:
            return [quantise(0, h)]
        top = quantise(1, h.reshape(-1, 2, 2, 2, 2, D).mean((2, 4)))
        return [quantise(0, h - repeated(top)), top]

    def decode(self, params, qs):
        return params["b"] * (qs[0] + (repeated(qs[1]) if self.levels == 2 else 0))


def repeated(q):
    return q.repeat(2, 1).repeat(2, 2)


# Each number of levels and each kind of codebook; the other pairs are slow.
PAIRS = pytest.mark.parametrize(
    ("levels", "learned"),
    [
        (1, False),
        (2, True),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(2, False, marks=pytest.mark.slow),
    ],
)
AVERAGED = Averaged(commitment=0.25, decay=0.99, epsilon=1e-5, kmeans=0, revive_below=0.0)
LEARNED = Learned(commitment=0.25)


def family(levels=1, quantiser=AVERAGED, data_variance=1.0, **settings) -> VQVAE:
    sizes = tuple(len(CODES[f"codes_{level}"]) for level in range(levels))
    parts = {"network": Simple(levels), "sizes": sizes, "shape": SHAPE, "quantiser": quantiser}
    return VQVAE(**parts, data_variance=data_variance, **settings)


def variables_of(model: VQVAE) -> Variables:
    """Params of Simple, the codes above, and different counts."""
    names = [f"codes_{level}" for level in range(len(model.sizes))]
    network = {"network": model.network.init(None, None)}
    if isinstance(model.quantiser, Learned):
        return Variables(params=network | {k: {"codes": jnp.asarray(CODES[k])} for k in names})
    stats = {}
    for name in names:
        counts = 3.0 + np.arange(len(CODES[name]), dtype=np.float32)
        sums = CODES[name] * counts[:, None]
        stats[name] = {"codes": CODES[name], "counts": counts, "sums": sums, "started": True}
    return Variables(params=network, stats=jax.tree.map(jnp.asarray, stats))


def images(count=5, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *SHAPE)).astype(np.float32)


def context(x, stats, train=True, seed=0) -> Context:
    key = jax.random.key(seed)
    return Context(batch={"x": x}, key=key, step=jnp.int32(0), stats=stats, train=train)


def nearest(z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Brute force, z [..., D]."""
    return np.square(z[..., None, :].astype(np.float64) - codes).sum(-1).argmin(-1)


def by_hand(x: np.ndarray, levels: int) -> dict:
    """z, index and q by level, and the image, in NumPy."""
    h = np.float32(A) * x
    z, index, q = {}, {}, {}
    above = 0
    if levels == 2:
        z[1] = h.reshape(-1, 2, 2, 2, 2, D).mean((2, 4))
        index[1] = nearest(z[1], CODES["codes_1"])
        q[1] = CODES["codes_1"][index[1]]
        above = q[1].repeat(2, 1).repeat(2, 2)
    z[0] = h - above
    index[0] = nearest(z[0], CODES["codes_0"])
    q[0] = CODES["codes_0"][index[0]]
    return {"z": z, "index": index, "q": q, "x": np.float32(B) * (q[0] + above)}


# --- the loss -------------------------------------------------------------------------------------


@PAIRS
def test_the_loss_is_equation_1_by_hand(levels, learned, compiled):
    quantiser = replace(LEARNED if learned else AVERAGED, commitment=0.3)
    model = family(levels, quantiser, data_variance=0.2)
    variables, x = variables_of(model), images()
    hand = by_hand(x, levels)
    error = np.square(hand["x"] - x).mean((1, 2, 3))
    distance = sum(np.square(hand["z"][k] - hand["q"][k]).mean((1, 2, 3)) for k in hand["z"])
    expected = error / 0.2 + (0.3 + learned) * distance
    for train in (True, False):
        losses, aux = compiled(lambda p, s, train=train: model.loss(p, context(x, s, train)))(
            variables.params, variables.stats
        )
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(aux.metrics["reconstruction"], error, rtol=1e-5)
        np.testing.assert_allclose(aux.metrics["commitment"], distance, rtol=1e-5)
        assert ("dictionary" in aux.metrics) == learned
    for level in range(levels):
        shares = [np.bincount(i.ravel(), minlength=model.sizes[level]) / i.size
                  for i in hand["index"][level]]  # fmt: skip
        np.testing.assert_allclose(aux.metrics[f"usage_{level}"], shares, rtol=1e-6)


@pytest.mark.parametrize("learned", [False, True])
def test_each_gradient_comes_from_its_own_terms(learned):
    quantiser = replace(LEARNED if learned else AVERAGED, commitment=0.3)
    model = family(1, quantiser, data_variance=0.2)
    variables, x = variables_of(model), images()
    gradient = jax.grad(lambda p: model.loss(p, context(x, variables.stats))[0].mean())(
        variables.params
    )
    hand = by_hand(x, 1)
    q, z = hand["q"][0], hand["z"][0]
    residual = 2 * (B * q - x) / 0.2
    # b is trained by the reconstruction alone; a by it, as if q were z, and by the commitment.
    np.testing.assert_allclose(gradient["network"]["b"], (residual * q).mean(), rtol=1e-4)
    through = (residual * B * x).mean() + 0.3 * (2 * (z - q) * x).mean()
    np.testing.assert_allclose(gradient["network"]["a"], through, rtol=1e-4)
    assert ("codes_0" in gradient) == learned
    if learned:
        expected = np.zeros_like(CODES["codes_0"])
        np.add.at(expected, hand["index"][0].ravel(), (2 * (q - z) / z.size).reshape(-1, D))
        np.testing.assert_allclose(gradient["codes_0"]["codes"], expected, atol=1e-6)


def test_the_top_level_learns_through_what_stands_on_it():
    # The encoder's param a affects the image through both levels, each straight through.
    model = family(2, replace(AVERAGED, commitment=0.0))
    variables, x = variables_of(model), images()
    gradient = jax.grad(lambda p: model.loss(p, context(x, variables.stats))[0].mean())(
        variables.params
    )
    # q_0 + q_1 with q_0 as z_0 = a x - q_1: the copies of q_1 cancel, a x is left.
    residual = 2 * (by_hand(x, 2)["x"] - x)
    np.testing.assert_allclose(gradient["network"]["a"], (residual * B * x).mean(), rtol=1e-4)


# --- codes and images -----------------------------------------------------------------------------


@PAIRS
def test_codes_are_the_nearest_and_lead_back_to_the_reconstruction(levels, learned):
    model = family(levels, LEARNED if learned else AVERAGED)
    variables, x = variables_of(model), images()
    batch, hand, keys = {"x": x}, by_hand(x, levels), jax.random.split(jax.random.key(0), 5)
    codes = model.codes(variables, batch)
    grids = tuple(CodeGrid(shape=g, size=s) for g, s in (((2, 2), 4), ((4, 4), 6)))[2 - levels :]
    assert model.code_grids == grids
    for level, (index, grid) in enumerate(zip(codes[::-1], grids[::-1], strict=True)):
        assert index.shape == (5, *grid.shape) and index.dtype == jnp.int32
        np.testing.assert_array_equal(index, hand["index"][level])
    copies = model.reconstruct(variables, batch, keys)
    np.testing.assert_allclose(copies, hand["x"], rtol=1e-6)
    np.testing.assert_allclose(model.decode_codes(variables, codes), copies, rtol=1e-6)
    latent = model.encode(variables, batch, keys)
    assert latent.shape == (5, sum(int(np.prod(g.shape)) for g in grids) * D)
    both = [hand["z"][level].reshape(5, -1) for level in range(levels)]
    np.testing.assert_allclose(latent, np.concatenate(both, -1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.decode(variables, latent), copies, rtol=1e-6)


def test_what_it_can():
    can = {name for name, protocol in CAPABILITIES.items() if isinstance(family(), protocol)}
    assert can == {"reconstruct", "encode", "decode", "tokenize"}


# --- codebooks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2])
def test_stats_are_renewed_in_training_alone_and_by_the_closed_form(levels, compiled):
    decay, epsilon = 0.9, 1e-3
    model = family(levels, replace(AVERAGED, decay=decay, epsilon=epsilon, kmeans=0))
    variables, x = variables_of(model), images()
    step = compiled(lambda s: model.loss(variables.params, context(x, s))[1].stats)
    chex.assert_trees_all_equal(
        model.loss(variables.params, context(x, variables.stats, train=False))[1].stats,
        variables.stats,
    )
    after, hand = step(variables.stats), by_hand(x, levels)
    for level, size in enumerate(model.sizes):
        old, new = (s[f"codes_{level}"] for s in (variables.stats, after))
        z, index = hand["z"][level].reshape(-1, D), hand["index"][level].ravel()
        members = np.bincount(index, minlength=size)
        sums = np.zeros((size, D))
        np.add.at(sums, index, z)
        counts = decay * np.asarray(old["counts"]) + (1 - decay) * members
        sums = decay * np.asarray(old["sums"]) + (1 - decay) * sums
        total = counts.sum()
        smoothed = (counts + epsilon) * total / (total + size * epsilon)
        codes = np.where(members[:, None] > 0, sums / smoothed[:, None], old["codes"])
        assert (members == 0).any() and (members > 0).any()
        np.testing.assert_allclose(new["counts"], counts, rtol=1e-5)
        np.testing.assert_allclose(new["sums"], sums, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(new["codes"], codes, rtol=1e-4, atol=1e-5)


CENTRES = np.array([[-0.8, -0.8], [-0.8, 0.8], [0.8, -0.8], [0.8, 0.8], [0, 0], [0, 0.9]])


def clustered(offset=0.0, seed=0) -> np.ndarray:
    """Images whose pixels are the six centres (each equally often), slightly moved."""
    random = np.random.default_rng(seed)
    which = random.permutation(np.arange(6).repeat(16)).reshape(6, 4, 4)
    return (CENTRES[which] + offset + random.uniform(-0.01, 0.01, (6, 4, 4, 2))).astype(np.float32)


def test_codes_start_by_k_means_on_the_first_batch_of_training_and_never_again():
    model = family(1, replace(AVERAGED, decay=0.9, kmeans=10))
    x = clustered()
    variables = model.init(jax.random.key(1), {"x": x})
    start = variables.stats["codes_0"]
    assert not start["started"]
    # In evaluation the codes are not initialised.
    _, aux = jax.jit(lambda s: model.loss(variables.params, context(x, s, train=False)))(
        variables.stats
    )
    chex.assert_trees_all_equal(aux.stats, variables.stats)
    step = jax.jit(lambda x, s, key: model.loss(
        variables.params, Context(batch={"x": x}, key=key, step=jnp.int32(0), stats=s)
    ))  # fmt: skip
    _, aux = step(x, variables.stats, jax.random.key(0))
    book = aux.stats["codes_0"]
    assert book["started"]
    # The clusters' means, in some order; 16 members each, so that the counts stand still.
    means = np.stack([z.mean(0) for z in by_centre(x)])
    order = nearest(means, np.asarray(book["codes"]))
    assert sorted(order) == list(range(6))
    np.testing.assert_allclose(book["codes"][order], means, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(book["counts"], 16.0, rtol=1e-5)
    # z is quantised with them in this very step.
    assert aux.metrics["commitment"].max() < 1e-3
    np.testing.assert_allclose(aux.metrics["usage_0"].mean(0), 1 / 6, rtol=1e-5)
    # A later batch moves them by a tenth of the way; also after they were saved and loaded.
    saved = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), aux.stats)
    other = clustered(offset=0.05, seed=1)
    _, aux = step(other, saved, jax.random.key(2))
    expected = 0.9 * means + 0.1 * np.stack([z.mean(0) for z in by_centre(other, 0.05)])
    np.testing.assert_allclose(aux.stats["codes_0"]["codes"][order], expected, atol=1e-4)


def by_centre(x, offset=0.0) -> list[np.ndarray]:
    z = x.reshape(-1, D)
    which = nearest(z, CENTRES + offset)
    return [A * z[which == k] for k in range(6)]


def test_each_level_starts_from_its_own_vectors_and_key():
    seen = {}

    class Spy(Averaged):
        def opened(self, stats, key, z):
            seen[len(stats["counts"])] = (z, jax.random.key_data(key).tolist())
            return stats

    model, x = family(2, Spy(**vars(AVERAGED))), images()
    model.loss(variables_of(model).params, context(x, variables_of(model).stats))
    for level, size in enumerate(model.sizes):
        z = by_hand(x, 2)["z"][level].reshape(-1, D)
        np.testing.assert_allclose(seen[size][0], z, rtol=1e-5, atol=1e-6)
    assert seen[4][1] != seen[6][1]


def test_k_means_sees_no_more_vectors_than_it_says(monkeypatch):
    monkeypatch.setattr("genzoo.families.quantisers._KMEANS_ROWS", 10)
    taken = []
    monkeypatch.setattr(
        "genzoo.families.quantisers.quantisation.kmeans",
        lambda key, rows, size, iterations: taken.append(len(rows)) or jnp.zeros((size, D)),
    )
    book = replace(AVERAGED, kmeans=1)
    _, stats = book.init(jax.random.key(0), 4, D)
    for count in (7, 10, 11, 19, 20, 95):
        opened = book.opened(stats, jax.random.key(0), jnp.zeros((count, D)))
        # As if each code had its share of the whole batch.
        np.testing.assert_allclose(opened["counts"], count / 4)
        assert min(count, 5) <= taken[-1] <= 10


def test_a_dead_code_is_moved_to_a_vector_of_the_batch():
    x = images()
    for below, moved in ((0.0, False), (0.1, True)):
        model = family(1, replace(AVERAGED, decay=0.5, kmeans=0, revive_below=below))
        variables = variables_of(model)
        counts = jnp.asarray([20.0, 20, 20, 20, 20, 0.1])
        stats = {"codes_0": {**variables.stats["codes_0"], "counts": counts}}
        _, aux = model.loss(variables.params, context(x, stats))
        book = jax.device_get(aux.stats["codes_0"])
        z = by_hand(x, 1)["z"][0].reshape(-1, D)
        assert book["started"]
        if moved:
            assert np.abs(z - book["codes"][5]).sum(-1).min() < 1e-6
            # A tenth of the mean of the counts before it was revived.
            alive = 0.5 * counts + 0.5 * np.bincount(by_hand(x, 1)["index"][0].ravel(), minlength=6)
            np.testing.assert_allclose(book["counts"][5], 0.1 * alive.mean(), rtol=1e-5)
        else:
            np.testing.assert_array_equal(book["codes"][5], [30, 30])


def test_random_codes_and_learned_ones_wait_for_nothing():
    x = clustered()
    random = family(1, AVERAGED).init(jax.random.key(0), {"x": x})
    assert random.stats["codes_0"]["started"] and set(random.params) == {"network"}
    learned = family(2, LEARNED).init(jax.random.key(0), {"x": x})
    assert learned.stats == {} and set(learned.params) == {"network", "codes_0", "codes_1"}
    assert learned.params["codes_1"]["codes"].shape == (4, D)


# --- no codebook ----------------------------------------------------------------------------------

FSQ = FiniteScalar(steps=(3, 4))
LFQ = LookupFree(width=D, commitment=0.3, entropy=0.2, temperature=1.5)


@pytest.mark.parametrize(("quantiser", "size"), [(FSQ, 12), (LFQ, 4)])
@pytest.mark.parametrize("levels", [1, 2])
def test_codes_of_a_grid_lead_back_to_the_reconstruction(quantiser, size, levels):
    model = replace(family(levels, quantiser), sizes=(size,) * levels)
    x, keys = images(), jax.random.split(jax.random.key(0), 5)
    variables = model.init(jax.random.key(0), {"x": x})
    assert variables.stats == {} and set(variables.params) == {"network"}
    copies = model.reconstruct(variables, {"x": x}, keys)
    codes = model.codes(variables, {"x": x})
    assert all(int(c.min()) >= 0 and int(c.max()) < size for c in codes)
    assert len(np.unique(codes[-1])) > size / 2
    np.testing.assert_allclose(model.decode_codes(variables, codes), copies, rtol=1e-6)
    latent = model.encode(variables, {"x": x}, keys)
    np.testing.assert_allclose(model.decode(variables, latent), copies, rtol=1e-6)


def test_signs_are_trained_by_their_commitment_and_entropy():
    model = replace(family(1, LFQ), sizes=(4,))
    x, params = images(), {"network": model.network.init(None, None)}
    mask = jnp.array([1.0, 1, 1, 0, 0])
    held = replace(context(x, {}), mask=mask)
    losses, aux = model.loss(params, held)
    z = np.float64(A) * x
    q = np.where(z > 0, 1.0, -1.0)
    on = 1 / (1 + np.exp(-4 * z / 1.5))
    entropy = -(on * np.log(on) + (1 - on) * np.log(1 - on)).sum(-1).mean((1, 2))
    first, second = on[:3].reshape(-1, D).T
    joint = [(f * s).mean() for f in (first, 1 - first) for s in (second, 1 - second)]
    entropy = entropy + sum(p * np.log(p) for p in joint)
    commitment = np.square(z - q).mean((1, 2, 3))
    expected = np.square(B * q - x).mean((1, 2, 3)) + 0.3 * commitment + 0.2 * entropy
    np.testing.assert_allclose(losses[:3], expected[:3], rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["entropy"][:3], entropy[:3], rtol=1e-5)
    assert model.losses["model"].couples_rows and not family().losses["model"].couples_rows


# --- the report -----------------------------------------------------------------------------------


def shares(used: int, size: int) -> np.ndarray:
    return np.where(np.arange(size) < used, 1 / used, 0.0)


def test_the_report_is_of_averaged_usage():
    model = replace(family(2), sizes=(8, 4))
    # 3 codes of shares 1/2, 1/4, 1/4: an entropy of 1.5 bits.
    usage = {"usage_0": shares(4, 8), "usage_1": np.array([0.5, 0.25, 0.25, 0])}
    measured = {"loss": np.float32(2.5), **usage}
    values = model.report(measured).values
    assert values["loss"] == 2.5 and "usage_0" not in values
    assert values["perplexity_0"] == pytest.approx(4) and values["codes_in_use_0"] == 4
    assert values["perplexity_1"] == pytest.approx(2**1.5) and values["codes_in_use_1"] == 3
    one = replace(family(), sizes=(8,)).report({"usage_0": shares(8, 8)})
    assert one.values == {"perplexity": pytest.approx(8), "codes_in_use": 8} and not one.warnings
    assert model.report({"loss": np.float32(1)}).warnings == {}


@pytest.mark.parametrize(
    ("used", "size", "collapsed"),
    [(25, 512, True), (26, 512, False), (1, 16, True), (2, 16, False), (1, 2, True), (2, 2, False)],
)
def test_a_collapse_is_said_exactly_when_it_is_one(used, size, collapsed):
    warnings = replace(family(), sizes=(size,)).report({"usage_0": shares(used, size)}).warnings
    assert bool(warnings) == collapsed
    if collapsed:
        text = warnings["usage_0"]
        assert f"{used} of {size} codes are in use, with a perplexity of {used}.0" in text
        assert "family.revive_below" in text


def test_the_collapsed_level_is_named():
    model = replace(family(2), sizes=(64, 64))
    measured = {"usage_0": shares(64, 64), "usage_1": shares(2, 64)}
    warnings = model.report(measured).warnings
    assert list(warnings) == ["usage_1"] and "2 of 64 codes of level 1 are" in warnings["usage_1"]


# --- the published networks -----------------------------------------------------------------------


def checked(path, **overrides):
    dotted = {k.replace("__", "."): v for k, v in overrides.items()}
    return check.check(config.override(config.load(path), dotted))


def test_published_sizes():
    state = Experiment(checked("configs/vqvae_cifar.py")).abstract_state
    assert tree.count(state.params) == 662_723
    assert state.stats["codes_0"]["codes"].size == 512 * 64
    assert tree.count(state.params) + state.stats["codes_0"]["codes"].size == 695_491
    learned = checked(
        "configs/vqvae_cifar.py", family__codebook="gradient", family__revive_below="0"
    )
    assert tree.count(Experiment(learned).abstract_state.params) == 695_491
    two = checked("configs/vqvae2_cifar.py", network__downsamples="2")
    assert tree.count(Experiment(two).abstract_state.params) == 1_388_867


def test_the_real_network_is_consistent_too():
    settings = HierarchySettings(levels=2, downsamples=1, width=8, block_width=4, blocks=0)
    network = settings.build(shape=(8, 8, 1), latent=4, decoded=1)
    model = replace(family(2), network=network, sizes=(9, 7), shape=(8, 8, 1))
    x = images(3)[..., :1].repeat(2, 1).repeat(2, 2)

    @jax.jit
    def everything(x):
        variables = model.init(jax.random.key(1), {"x": x})
        codes = model.codes(variables, {"x": x})
        keys = jax.random.split(jax.random.key(0), len(x))
        latent = model.encode(variables, {"x": x}, keys)
        copies = model.reconstruct(variables, {"x": x}, keys)
        back = model.decode_codes(variables, codes), model.decode(variables, latent)
        return codes, copies, back

    codes, copies, back = everything(x)
    assert [(g.shape, g.size) for g in model.code_grids] == [((2, 2), 7), ((4, 4), 9)]
    assert [c.shape for c in codes] == [(3, 2, 2), (3, 4, 4)]
    for image in back:
        np.testing.assert_allclose(image, copies, atol=1e-5)
    assert isinstance(build.family(checked("configs/vqvae_fashion.py:smoke")), VQVAE)
