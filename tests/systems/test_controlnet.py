"""ControlNets on every denoising family: where they start, what moves, how they act in sampling."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo import build, check, config
from genzoo.core import streams, tree
from genzoo.core.conditions import gather
from genzoo.core.contract import Context, Variables
from genzoo.core.errors import UserError
from genzoo.experiment import Experiment
from genzoo.families.denoising import Guidance
from genzoo.systems.controlnet import BASE, GUESS_DECAY, TUNED, Control

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
IMAGES = dict(name="tfds:none", size=8, channels=1, num_classes=3, flip=False)
UNET = dict(name="unet", width=8, multipliers=(1,), blocks=1, attention=(), norm_groups=2,
            dropout=0.2)  # fmt: skip
VDM = dict(name="vdm_unet", width=8, blocks=1, fourier=(1,), middle_attention=False)
HINT = dict(of="x", transform="edges", way="control")
LABEL = dict(dropout=0.1)
BASES = {
    "ddpm": (dict(name="ddpm", variance="learned_range", objective="hybrid"), UNET),
    "edm": (
        dict(name="edm", augment=0.5),
        UNET | dict(time_embedding="fourier_noise_level"),
    ),
    "flow_matching": (dict(name="flow_matching"), UNET),
    "score_sde": (dict(name="score_sde"), UNET),
    "vdm": (dict(name="vdm", schedule="linear"), VDM),
}  # fmt: skip
KEYS = streams.per_example(jax.random.key(6), jnp.arange(2))


def base_config(name="flow_matching", conditions=None, **family):
    own, network = BASES[name]
    known = dict(label=LABEL) if conditions is None else conditions
    raw = config.load("configs/fm_fashion.py:smoke")
    raw = {k: raw[k] for k in ("seed", "train", "optimizer")}
    return raw | dict(
        data=IMAGES, family={**own, **family}, network=network, conditions=known,
        sample=dict(steps=3, count=4, batch_size=4),
    )  # fmt: skip


def control_config(base, hints=None, sample=None, **family):
    raw = config.load("configs/controlnet_fashion.py:smoke")
    return raw | dict(
        data=IMAGES,
        family=dict(name="controlnet", hint_widths=(2, 3)) | family,
        conditions=dict(base["conditions"]) | (dict(hint=HINT) if hints is None else hints),
        frozen=dict(base=dict(workdir="none", weights="raw", config=check.check(base).to_dict())),
        sample=dict(method="ddim", grid="trailing", steps=1, count=4, batch_size=4)
        | (sample or {}),
    )  # fmt: skip


def moved(leaves, seed=0):
    """Leaves without zeros."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), leaves
    )


class Made:
    """A ControlNet as it starts, on a base without zeros, and a batch."""

    def __init__(self, name="flow_matching", hints=None, **family):
        self.base = base_config(name)
        self.experiment = Experiment(check.check(control_config(self.base, hints, **family)))
        self.family = self.experiment.family
        shapes = self.experiment.abstract_state
        frozen = moved(shapes.frozen)
        if name == "vdm":  # an increasing schedule
            gamma = frozen[BASE]["params"]["gamma"]
            frozen[BASE]["params"]["gamma"] = jax.tree.map(lambda v: jnp.abs(v) + 1, gamma)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), self.experiment.example(1))
        fresh = jit(self.family.init)(jax.random.key(0), zeros)
        variables = replace(fresh, frozen=frozen)
        self.variables = replace(variables, params=self.family.start(variables))
        branches = moved(self.variables.params["branches"], 1)
        self.trained = replace(variables, params={**self.variables.params, "branches": branches})
        x = np.random.default_rng(5).uniform(-1, 1, (2, 8, 8, 1))
        self.batch = {"x": jnp.float32(x), "label": jnp.arange(2)}
        self.conditions = gather(self.family.conditions, self.batch)
        # As it was trained: with its own sampler, but that of the ControlNet.
        self.alone = replace(self.family.base, guidance=self.family.guidance)
        self.alone_variables = Variables(**frozen[BASE])

    def context(self, step=0, train=True):
        return Context(
            batch=self.batch, key=jax.random.key(step), step=jnp.int32(step),
            stats=self.variables.stats, frozen=self.variables.frozen, train=train,
        )  # fmt: skip

    def predicted(self, family, variables=None, conditions=None, t=0.4):
        """x_0 as sampling predicts it."""
        x = jnp.linspace(-1, 1, 128).reshape(2, 8, 8, 1)
        given = self.conditions if conditions is None else conditions
        made = family.predictor(variables or self.trained, given)
        return np.asarray(jit(made)(x, jnp.float32(t)).x_0)


@pytest.fixture(scope="module")
def made():
    kept = {}

    def of(name="flow_matching"):
        if name not in kept:
            kept[name] = Made(name)
        return kept[name]

    return of


def without_hint(m):
    given = m.conditions["hint"]
    return {**m.conditions, "hint": given._replace(present=jnp.zeros(2, bool))}


# --- the start ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_a_fresh_branch_samples_what_its_base_does(made, name):
    m = made(name)
    off = replace(m.family, control=Control(scale=0.0))

    @jit
    def samples(variables, alone):
        told = {"label": m.conditions["label"]}
        return (
            m.family.sample(variables, KEYS, m.conditions),
            off.sample(variables, KEYS, m.conditions),
            m.alone.sample(alone, KEYS, told),
        )

    with_branch, at_zero, of_base = samples(m.variables, m.alone_variables)
    np.testing.assert_array_equal(with_branch, at_zero)
    np.testing.assert_allclose(with_branch, of_base, rtol=1e-6, atol=1e-6)
    assert np.isfinite(with_branch).all()
    if name == "flow_matching":  # and a trained one does not
        trained, at_zero, _ = samples(m.trained, m.alone_variables)
        assert np.abs(trained - of_base).max() > 1e-3
        np.testing.assert_allclose(at_zero, of_base, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["flow_matching", "vdm"])
def test_the_copy_is_that_of_the_base(made, name):
    m = made(name)
    theirs = m.variables.frozen[BASE]["params"]
    theirs = tree.by_path(theirs["network"] if name == "vdm" else theirs)
    ours = tree.by_path(m.variables.params["branches"]["hint"])
    both = ours.keys() & theirs.keys()
    for path in both:
        np.testing.assert_array_equal(ours[path], theirs[path])
    fresh = {path.removeprefix("core/").split("/")[0] for path in ours.keys() - both}
    assert fresh == {"hint", *(f"zero_{i}" for i in range(3))} and len(both) > 10


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASES)
def test_the_loss_reaches_only_the_zero_convolutions_at_first(made, name):
    m = made(name)

    @jit
    def gradient(variables, context):
        player = m.family.losses["model"]
        return jax.grad(lambda p: player.loss(p, context)[0].mean())(variables.params)

    found = tree.by_path(gradient(m.variables, m.context()))
    zeros = {k for k in found if "/zero_" in k}
    nonzero = {k for k, leaf in found.items() if np.any(leaf)}
    assert nonzero - {k for k in nonzero if k.startswith("gamma/")} == zeros and len(zeros) == 6


def test_three_steps_of_training_move_one_part_after_the_other_and_never_the_base():
    m = Made("vdm")
    updater = m.experiment.updater(1)
    state = m.experiment.new_state()
    state = replace(state, params=m.variables.params, frozen=m.variables.frozen)
    frozen = jax.device_get(state.frozen)
    stored = {"x": np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8),
              "label": np.arange(16, dtype=np.int32) % 3}  # fmt: skip

    @jit
    def step(state):
        def loss(params):
            context = m.context(1)
            return m.family.losses["model"].loss(params, context)[0].mean()

        return jax.grad(loss)(state.params), updater.update(state, stored)[0]

    names = []
    for _ in range(3):
        gradient, state = step(state)
        branch = gradient["branches"]["hint"]["core"]
        names.append({k for k, v in tree.by_path(branch).items() if np.any(v)})
    every = tree.by_path(branch).keys()
    hint = {k for k in every if k.startswith("hint/")}
    assert names[0] == {k for k in every if k.startswith("zero_")}
    assert every - names[1] == {k for k in hint if not k.startswith("hint/out/")}
    assert names[2] == every
    chex.assert_trees_all_equal(state.frozen, frozen)
    chex.assert_trees_all_equal(state.params["gamma"], frozen[BASE]["params"]["gamma"])


def test_the_decoder_can_be_trained_along():
    m = Made(decoder=True)
    theirs = m.variables.frozen[BASE]["params"]
    names = {path.split("/")[0] for path in tree.by_path(m.variables.params["decoder"])}
    assert names == {"up_0_block_0", "up_0_block_1", "out_norm", "out"}
    for path, leaf in tree.by_path(m.variables.params["decoder"]).items():
        np.testing.assert_array_equal(leaf, tree.by_path(theirs)[path])
    loss = m.family.losses["model"].loss
    gradient = jit(jax.grad(lambda p: loss(p, m.context())[0].mean()))(m.variables.params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["decoder"]))
    changed = {**m.variables.params, "decoder": moved(m.variables.params["decoder"], 3)}
    other = replace(m.variables, params=changed)
    swapped = tree.replaced(theirs, changed["decoder"])
    expected = m.alone.predictor(Variables(params=swapped), {"label": m.conditions["label"]})
    x = jnp.linspace(-1, 1, 128).reshape(2, 8, 8, 1)
    np.testing.assert_allclose(
        m.predicted(m.family, other), expected(x, jnp.float32(0.4)).x_0, rtol=1e-4, atol=1e-4
    )


# --- sampling -------------------------------------------------------------------------------------


def test_an_absent_hint_leaves_the_base():
    m = Made()
    plain = m.predicted(m.alone, m.alone_variables, {"label": m.conditions["label"]})
    np.testing.assert_allclose(
        m.predicted(m.family, conditions=without_hint(m)), plain, rtol=1e-5, atol=1e-5
    )
    one = {**m.conditions, "hint": m.conditions["hint"]._replace(present=jnp.array([True, False]))}
    mixed, hinted = m.predicted(m.family, conditions=one), m.predicted(m.family)
    np.testing.assert_allclose(mixed[0], hinted[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mixed[1], plain[1], rtol=1e-5, atol=1e-5)
    assert np.abs(hinted - plain).max() > 1e-2


def test_scale_and_decay_are_factors_of_the_residuals(made):
    m = made()
    control = Control(scale=0.7, decay=0.5)
    branch = dict(m.trained.params["branches"]["hint"])
    for i, factor in enumerate((0.7 * 0.25, 0.7 * 0.5, 0.7)):
        branch[f"zero_{i}"] = jax.tree.map(lambda v, factor=factor: factor * v, branch[f"zero_{i}"])
    scaled = replace(m.trained, params={"branches": {"hint": branch}})
    ours = m.predicted(replace(m.family, control=control))
    np.testing.assert_allclose(ours, m.predicted(m.family, scaled), rtol=1e-4, atol=1e-5)
    assert np.abs(ours - m.predicted(m.family)).max() > 1e-3


def test_the_branch_acts_in_an_interval_of_times(made):
    m = made()
    part = replace(m.family, control=Control(low=0.3, high=0.6))
    for t, expected in (
        (0.2, without_hint(m)), (0.3, m.conditions), (0.6, m.conditions), (0.7, without_hint(m)),
    ):  # fmt: skip
        inside = m.predicted(m.family, conditions=expected, t=t)
        np.testing.assert_allclose(m.predicted(part, t=t), inside, rtol=1e-5, atol=1e-5)


def test_guess_mode_guides_towards_the_hint(made):
    """base without conditions + w (with all of them - that), and the residuals decay."""
    m = made()
    decayed = Control(decay=GUESS_DECAY)
    on = m.predicted(replace(m.family, control=decayed))
    gone = {k: given._replace(present=jnp.zeros(2, bool)) for k, given in m.conditions.items()}
    off = m.predicted(m.family, conditions=gone)
    guess = replace(m.family, control=replace(decayed, guess=True), guidance=Guidance(scale=3.0))
    np.testing.assert_allclose(m.predicted(guess), off + 3 * (on - off), rtol=1e-3, atol=1e-3)
    usual = replace(guess, control=decayed)
    off = m.predicted(replace(m.family, control=decayed), conditions={
        **m.conditions, "label": gone["label"]
    })  # fmt: skip
    np.testing.assert_allclose(m.predicted(usual), off + 3 * (on - off), rtol=1e-3, atol=1e-3)


def test_several_branches_are_added():
    m = Made(hints=dict(hint=HINT, line=HINT | dict(transform="outline")))
    absent = {k: v._replace(present=jnp.zeros(2, bool)) for k, v in m.conditions.items()}
    alone = [
        m.predicted(m.family, conditions={**m.conditions, other: absent[other]})
        for other in ("line", "hint")
    ]
    both = m.predicted(m.family)
    assert min(np.abs(both - one).max() for one in alone) > 1e-3
    # The same branch twice, at half the scale each, is that branch.
    branches = m.trained.params["branches"]
    same = {**m.conditions, "line": m.conditions["hint"]}
    twice = replace(m.trained, params={"branches": dict.fromkeys(branches, branches["hint"])})
    halved = replace(m.family, control=Control(scale=0.5))
    np.testing.assert_allclose(m.predicted(halved, twice, same), alone[0], rtol=1e-4, atol=1e-4)


def test_a_model_tuned_from_the_base_takes_its_place(made):
    m = made()
    tuned = moved(m.variables.frozen[BASE], 7)
    frozen = {**m.trained.frozen, TUNED: tuned}
    ours = m.predicted(replace(m.family, tuned=m.alone), replace(m.trained, frozen=frozen))
    instead = replace(m.trained, frozen={BASE: tuned})
    np.testing.assert_array_equal(ours, m.predicted(m.family, instead))
    assert np.abs(ours - m.predicted(m.family)).max() > 1e-3


# --- settings -------------------------------------------------------------------------------------


def problems(base, *, hints=None, sample=None, **changes):
    raw = control_config(base, hints, sample)
    raw |= changes
    with pytest.raises(UserError) as caught:
        build.family(build.settled(check.check(raw)))
    return "\n".join(caught.value.problems)


def test_mistakes_are_named():
    base = base_config()
    assert "needs a hint, which is a condition with way = 'control'" in problems(base, hints={})
    assert "conditions.label is a condition of the base, but not of this run" in problems(
        base, conditions=dict(hint=HINT)
    )
    assert "conditions.low is not a condition of the base: leave it out" in problems(
        base, hints=dict(hint=HINT, low=dict(of="x", transform="downsample2"))
    )
    dit = base | dict(network=dict(name="dit", width=8, depth=1, heads=2, patch=4))
    assert "holds a model without a U-Net" in problems(dit)
    paired = base_config(conditions={}, paired=True)
    assert "trained with family.paired = True" in problems(paired)
    assert "sample.steps = 0 must be at least 1" in problems(base, sample=dict(steps=0))
    assert "sample.steps_offset = 1 has no effect in continuous time" in problems(
        base, sample=dict(steps_offset=1, grid="uniform")
    )
    interval = dict(control_low=0.6, control_high=0.5)
    assert "must be times with 0 <= low <= high <= 1" in problems(base, sample=interval)
    assert "sample.tuned_weights = 'ema' has no effect" in problems(
        base, sample=dict(tuned_weights="ema")
    )
    assert "null = False has no effect" in problems(base, hints=dict(hint=HINT | dict(null=False)))
    assert "conditions.label.way = 'control' is not possible for a class" in problems(
        base, conditions=dict(label=dict(way="control"))
    )
    with pytest.raises(UserError, match=r"way = 'control', which this network does not support"):
        build.family(check.check(base_config(conditions=dict(hint=HINT))))
    # Guidance needs something that can be left out; in guess mode, the hint is.
    alone = base_config(conditions={})
    assert "needs a condition that training sometimes drops" in problems(
        alone, sample=dict(guidance_scale=2.0)
    )
    guessed = control_config(alone, sample=dict(guidance_scale=2.0, control_guess=True))
    assert build.family(check.check(guessed)).control.guess


def test_a_table_has_as_many_steps_as_it_has():
    raw = control_config(base_config("ddpm"), sample=dict(method="ancestral", steps=0, clip="clip",
                                                          grid="uniform"))  # fmt: skip
    family = build.family(check.check(raw))
    assert family.sampler(family.base.schedule).times.shape == (1001,)
