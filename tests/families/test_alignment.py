"""Representation alignment: the loss by hand, where its gradient goes, and what stays fixed."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core import streams, tree
from genzoo.core.contract import Context
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.families.alignment import nearer
from genzoo.math import continuous, schedules
from genzoo.math.alignment import minus_cosine, smooth_l1

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
IMAGES = dict(name="tfds:none", size=8, channels=1, num_classes=3)
DIT = dict(name="dit", width=8, depth=3, heads=2, patch=2)
MAE = dict(
    name="mae", width=6, depth=1, heads=2, patch=4, decoder_width=4, decoder_depth=1,
    decoder_heads=1,
)  # fmt: skip
ALIGNED = dict(align_weight=0.5, align_block=1, align_width=16)
ENCODER = dict(align="encoder", **ALIGNED)
AVERAGE = dict(align="average", align_target=2, **ALIGNED)
KEY = jax.random.key(3)


def raw(family="flow_matching", network=None, **own):
    """A config of a small transformer, with a masked autoencoder as its encoder if it needs one."""
    made = dict(
        data=IMAGES, family=dict(name=family, **own), network=network or DIT,
        conditions=dict(label=dict(dropout=0.1)),
        train=dict(averages=dict(ema=dict())), sample=dict(steps=4),
    )  # fmt: skip
    if own.get("align") == "encoder":
        theirs = dict(
            data=IMAGES, family=dict(name="mae"), network=MAE, train=dict(averages=dict())
        )
        filled = {**config.load("configs/mae_fashion.py:smoke"), **theirs}
        filled["train"] = config.load("configs/mae_fashion.py:smoke")["train"]
        stored = check.check(filled).to_dict()
        made["frozen"] = dict(encoder=dict(workdir="none", weights="raw", config=stored))
    base = config.load("configs/dit_fashion.py:smoke")
    sample = {k: v for k, v in base["sample"].items() if k in ("count", "batch_size")}
    train = {**base["train"], **made["train"]}
    return {**made, "train": train, "sample": {**sample, **made["sample"]}, "seed": 0}


def moved(leaves, seed=0):
    """Leaves without zeros."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), leaves
    )


class Made:
    """A family, its state with params away from their initial values, and a batch."""

    def __init__(self, **own):
        self.experiment = Experiment(check.check(raw(**own)))
        self.family = self.experiment.family
        shapes = self.experiment.abstract_state
        self.params, self.average = moved(shapes.params), moved(shapes.params, 1)
        self.frozen, self.stats = moved(shapes.frozen, 2), shapes.stats
        self.stats = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), shapes.stats)
        rng = np.random.default_rng(5)
        x = rng.uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
        self.batch = {"x": jnp.asarray(x), "label": jnp.arange(3)}

    def context(self, train=True):
        return Context(
            batch=self.batch, key=KEY, step=jnp.int32(0), stats=self.stats,
            averages={"ema": self.average}, frozen=self.frozen, train=train,
        )  # fmt: skip

    def loss(self, params, context):
        values, aux = self.family.losses["model"].loss(params, context)
        return values.mean(), aux


def test_distances_are_those_of_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 2, 4, 5))
    cosines = np.einsum("bhwd,bhwd->bhw", a, b)
    cosines /= np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    jnp_a, jnp_b = jnp.float32(a), jnp.float32(b)
    np.testing.assert_allclose(minus_cosine(jnp_a, jnp_b), -cosines.mean((1, 2)), rtol=1e-5)
    b = a + rng.uniform(-0.1, 0.1, a.shape)  # on both sides of the corner at 0.05
    size = np.abs(a - b)
    rounded = np.where(size < 0.05, size**2 / 0.1, size - 0.025)
    found = smooth_l1(jnp_a, jnp.float32(b))
    np.testing.assert_allclose(found, rounded.mean((1, 2, 3)), rtol=1e-4)
    zero = jax.grad(lambda a: minus_cosine(a, jnp_b).sum())(jnp.zeros_like(jnp_a))
    assert np.isfinite(zero).all()


SCHEDULES = {
    "straight": continuous.Straight(),
    "vp": continuous.VariancePreserving(),
    "edm": continuous.LinearNoise(sigma_min=0.002, sigma_max=80.0),
    "table": schedules.cosine(1000),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_average_sees_less_noise_by_the_gap_on_the_straight_path(name):
    schedule = SCHEDULES[name]

    def straight(t):
        sigma = schedule.sigma(t)
        return sigma / (schedule.alpha(t) + sigma)

    t = jnp.linspace(0.1, 0.9, 5) if name != "edm" else jnp.asarray([0.3, 1.0, 5.0, 40.0]) / 80
    s = jit(lambda t: nearer(schedule, t, jnp.full(t.shape, 0.07)))(t)
    inside = straight(t) > 0.08
    assert inside.sum() >= 3
    np.testing.assert_allclose(straight(s)[inside], straight(t)[inside] - 0.07, atol=2e-4)
    # Nearer the data than it can be, it stays at the nearest time.
    edge = nearer(schedule, jnp.asarray([schedule.nearest]), jnp.asarray([0.2]))
    np.testing.assert_allclose(edge, schedule.nearest, atol=1e-6)


def by_hand(params, h):
    """The projector in NumPy."""
    h = np.float64(h)
    for i in range(3):
        h = h / (1 + np.exp(-h)) if i else h
        layer = params["alignment"][f"dense_{i}"]
        h = h @ np.float64(layer["kernel"]) + np.float64(layer["bias"])
    return h


def pieces(made):
    """(t, x_t, conditions, drop key) of the training step, drawn as the family draws them."""
    family, x = made.family, made.batch["x"]
    eps = jax.random.normal(streams.named(KEY, "noise"), x.shape)
    t = family.times.draw(streams.named(KEY, "time"), len(x), family.schedule)
    return x, eps, t, family.gathered(made.context()), streams.named(KEY, "dropout")


def looking(made, conditions):
    """The output of an inner module, from (params, x_t, t, its path, the key of dropout)."""

    def look(params, x, t, path, key=None):
        def features(params, x, t):
            return made.family.denoiser.network.features(
                network_of(params), x, 1000 * t, conditions, names=(path,), train=key is not None,
                key=key,
            )[1][path]  # fmt: skip

        return jit(features)(params, jnp.float32(x), jnp.float32(t))

    return look


def at(t):
    return np.asarray(t)[:, None, None, None]


def network_of(params):
    return {name: own for name, own in params.items() if name != "alignment"}


def test_alignment_with_an_encoder_is_that_of_numpy():
    made = Made(**ENCODER)
    x, eps, t, conditions, drop = pieces(made)
    look = looking(made, conditions)
    inner = look(made.params, (1 - at(t)) * x + at(t) * eps, t, "block_0", drop)
    projected = by_hand(made.params, inner)
    encoder = made.experiment.family.alignment.target.encoder
    tokens = jit(encoder.network.encode)(made.frozen["encoder"]["params"], x)[:, 1:]
    # 2 x 2 patches become 4 x 4 places, half of a linear step beside each centre.
    rows = np.asarray([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    grid = np.einsum("ih,jw,bhwd->bijd", rows, rows, np.float64(tokens).reshape(3, 2, 2, -1))
    y = grid.reshape(3, 16, -1)
    cosines = (projected * y).sum(-1)
    cosines /= np.linalg.norm(projected, axis=-1) * np.linalg.norm(y, axis=-1)
    with_it, aux = jit(made.loss)(made.params, made.context())
    np.testing.assert_allclose(aux.metrics["alignment"], -cosines.mean(-1), atol=1e-5)
    plain = replace(made.family, alignment=None).losses["model"].loss
    without = jit(plain)(network_of(made.params), made.context())[0].mean()
    np.testing.assert_allclose(with_it - without, -0.5 * cosines.mean(), atol=1e-5)


def test_alignment_with_the_average_is_that_of_numpy():
    made = Made(**AVERAGE)
    x, eps, t, conditions, drop = pieces(made)
    look = looking(made, conditions)
    inner = look(made.params, (1 - at(t)) * x + at(t) * eps, t, "block_0", drop)
    gap = 0.2 * jax.random.uniform(streams.named(KEY, "alignment"), t.shape)
    s = np.maximum(np.float64(t) - np.float64(gap), made.family.schedule.nearest)
    assert (s < t - 0.001).all()
    later = look(made.average, (1 - at(s)) * x + at(s) * eps, s, "block_1")
    size = np.abs(by_hand(made.params, inner) - np.float64(later))
    expected = np.where(size < 0.05, size**2 / 0.1, size - 0.025).mean((1, 2))
    _, aux = jit(made.loss)(made.params, made.context())
    np.testing.assert_allclose(aux.metrics["alignment"], expected, rtol=1e-4)


@pytest.mark.parametrize("own", [ENCODER, AVERAGE], ids=["encoder", "average"])
def test_the_gradient_reaches_the_first_blocks_and_neither_encoder_nor_average(own):
    made = Made(**own)

    def aligned(params, frozen, average):
        context = replace(made.context(), frozen=frozen, averages={"ema": average})
        return made.loss(params, context)[1].metrics["alignment"].mean()

    derive = jit(jax.grad(aligned, argnums=(0, 1, 2)))
    gradient, *fixed = derive(made.params, made.frozen, made.average)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(fixed))
    reached = {
        path.split("/")[0] for path, leaf in tree.by_path(gradient).items() if np.any(leaf)
    }
    assert reached == {"alignment", "block_0", "condition", "entry"}


@pytest.mark.parametrize("own, compiled", [(ENCODER, jit), (AVERAGE, jax.jit)])
def test_with_weight_zero_the_model_trains_as_without(own, compiled):
    made = Made(**{**own, "align_weight": 0.0})
    plain = replace(made.family, alignment=None)

    def derive(family, params):
        def loss(params):
            return family.losses["model"].loss(params, made.context())[0].mean()

        return compiled(jax.value_and_grad(loss))(params)

    value, gradient = derive(made.family, made.params)
    expected = derive(plain, network_of(made.params))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["alignment"]))
    chex.assert_trees_all_equal((value, network_of(gradient)), expected)
    first, alone = jit(
        lambda key: [family.init(key, made.batch).params for family in (made.family, plain)]
    )(KEY)
    chex.assert_trees_all_equal(network_of(first), alone)


def test_evaluation_leaves_it_out_and_sampling_does_not_read_the_projector():
    made = Made(**ENCODER)
    plain = replace(made.family, alignment=None)
    own, aux = made.family.losses["model"].loss(made.params, made.context(train=False))
    expected, _ = plain.losses["model"].loss(network_of(made.params), made.context(train=False))
    np.testing.assert_array_equal(own, expected)
    assert "alignment" not in aux.metrics
    other = {**made.params, "alignment": jax.tree.map(jnp.zeros_like, made.params["alignment"])}
    _, params = made.family.opened(other)
    assert params.keys() == network_of(made.params).keys()


def test_one_pass_of_the_network_in_a_step():
    made, calls = Made(**ENCODER), []
    network = made.family.denoiser.network

    def counted(name):
        def call(*inputs, **others):
            calls.append(name)
            return getattr(network, name)(*inputs, **others)

        return call

    spied = replace(network, apply=counted("apply"), features=counted("features"))
    family = replace(made.family, denoiser=replace(made.family.denoiser, network=spied))
    jax.eval_shape(family.losses["model"].loss, made.params, made.context())
    assert calls == ["features"]


UNET = dict(name="unet", width=4, multipliers=(1, 1), blocks=1, attention=(), norm_groups=2)
WHOLE = {**ENCODER, "align_block": 0}
FAMILIES = {
    "ddpm": dict(family="ddpm", **AVERAGE),
    "edm": dict(family="edm", network={**DIT, "scan": True}, **AVERAGE),
    "score_sde": dict(family="score_sde", **ENCODER),
    "vdm": dict(family="vdm", network={**DIT, "dropout": 0.1}, **AVERAGE),
    "unet": dict(family="edm", network=UNET, augment=0.5, **WHOLE),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_and_network_aligns(name):
    made = Made(**FAMILIES[name])

    def derive(params):
        return jax.grad(lambda params: made.loss(params, made.context())[1].metrics[
            "alignment"].mean())(params)  # fmt: skip

    gradient = jit(derive)(made.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["alignment"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(network_of(gradient)))
    config = made.experiment.config
    assert build.size(config).params >= tree.count(made.params)


MISTAKES = {
    "family.align_block = 4 must be between 1 and network.depth = 3": {**ENCODER, "align_block": 4},
    "family.align_block = 0 must be between 1": {**ENCODER, "align_block": 0},
    "family.align_target = 1 must be above family.align_block = 1": {**AVERAGE, "align_target": 1},
    "family.align_target = 2 has no effect with family.align = 'encoder'": {
        **ENCODER, "align_target": 2
    },
    "family.align_width = 16 has no effect with family.align = ''": dict(align_width=16),
    "family.align_block = 1 is for transformers": dict(network=UNET, **ENCODER),
    "a U-Net is aligned with an encoder only": dict(network=UNET, **{**AVERAGE, "align_block": 0}),
}  # fmt: skip


@pytest.mark.parametrize("words", MISTAKES)
def test_each_mistake_is_one_sentence(words):
    with pytest.raises(UserError) as caught:
        build.family(check.check(raw(**MISTAKES[words])))
    (problem,) = caught.value.problems
    assert words in problem


def test_an_encoder_that_is_not_used_and_a_missing_average_are_refused():
    unused = raw(**ENCODER)
    unused["family"] = dict(name="flow_matching")
    averages = raw(**AVERAGE)
    averages["train"]["averages"] = dict()
    missing = raw(**ENCODER)
    del missing["frozen"]
    points = raw(**AVERAGE) | dict(
        data=dict(name="mixture"), network=dict(name="point_mlp"), conditions={}
    )
    for case, words in (
        (unused, "frozen.encoder is not used with family.align = ''"),
        (averages, "exactly one average in train.averages, but it has none"),
        (missing, "frozen.encoder.workdir must be given, that of a model of the same data with f"),
        (points, "needs features of patches"),
    ):
        with pytest.raises(UserError) as caught:
            build.family(check.check(case))
        (problem,) = caught.value.problems
        assert words in problem
