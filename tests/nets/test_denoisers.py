"""Properties of every network for continuous-time diffusion, and of the classifier."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.core.conditions import Entry, Given
from genzoo.nets.point_mlp import PointMLPSettings
from genzoo.nets.unet.classifier import ClassifierUNetSettings
from genzoo.nets.unet.song_unet import SongUNetSettings
from genzoo.nets.unet.vdm_unet import VDMUNetSettings

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

CLASSES = 4
DONE = Entry(kind="vector", size=9, null=False)  # EDM's augmentations
# One level is enough here, because the tests of each network cover changes of resolution.
SMALL = dict(width=8, multipliers=(1,), blocks=1, dropout=0.3)
LEVELS = SMALL | dict(multipliers=(1, 2))

# name: (its settings, shape of an example, what is set)
NETS = {
    "song": (SongUNetSettings, (4, 6, 3), dict(  # NCSN++ differs where the resolution changes
        **SMALL | dict(multipliers=(1, 1)), attention=(4,), resample_filter=(1, 3, 3, 1),
        progressive_input="residual",
    )),
    "vdm": (
        VDMUNetSettings, (4, 6, 3), dict(width=8, blocks=1, fourier=(1, 2), dropout=0.3),
    ),
    "point": (PointMLPSettings, (3,), dict(width=16, depth=2, fourier=4, dropout=0.3)),
    "classifier": (
        ClassifierUNetSettings, (4, 6, 3),
        # With one channel in each group of the norm, the pooling could not distinguish examples.
        dict(**SMALL, attention=(), head_width=4, norm_groups=2),
    ),
}  # fmt: skip
DENOISERS = [name for name in NETS if name != "classifier"]
# Other shapes and settings, for which only the shape of the output is tested.
SHAPES = {
    "song_patch": (SongUNetSettings, (8, 12, 1), dict(
        **LEVELS, attention=(), patch=2, time_embedding="fourier_noise_level", remat="full",
    )),
    "song_signal": (SongUNetSettings, (8, 2), dict(**LEVELS, attention=(8,))),
    "vdm_patch": (VDMUNetSettings, (4, 4, 1), dict(
        width=8, blocks=1, patch=2, fourier=(), middle_attention=False, remat="dots",
    )),
    "vdm_signal": (VDMUNetSettings, (6, 2), dict(width=8, blocks=1, attention=(6,))),
    "point_plain": (PointMLPSettings, (2,), dict(width=8, depth=0)),
    "classifier_signal": (ClassifierUNetSettings, (8, 2), dict(
        **LEVELS, attention=(4,), head_width=8, patch=2, remat="full",
    )),
}  # fmt: skip


def slow(*costly):
    """Every network, these marked as slow because their programs take long to compile."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in costly else n for n in NETS]


class Made:
    """A small network, a batch for it, and params that are all nonzero."""

    def __init__(self, name, **changes):
        kind, self.shape, settings = (NETS | SHAPES)[name]
        self.settings = kind(**settings | changes)
        rng = np.random.default_rng(0)
        self.x = jnp.asarray(rng.normal(size=(3, *self.shape)), jnp.float32)
        self.time = jnp.array([-1.5, 0.4, 30.0])
        if kind is ClassifierUNetSettings:
            self.net = self.settings.build(num_classes=CLASSES)
            self.conditions, self.expected = {}, (3, CLASSES)
        else:
            outputs = self.shape[-1] + 1
            entries = {**entry_of(CLASSES, null=kind is not SongUNetSettings), "done": DONE}
            self.net = self.settings.build(out_channels=outputs, entries=entries)
            done = Given(jnp.asarray(rng.normal(size=(3, 9)), jnp.float32), jnp.ones(3, bool))
            self.conditions = {**label_of(jnp.arange(3)), "done": done}
            self.expected = (3, *self.shape[:-1], outputs)
        shapes = jax.eval_shape(self.net.init, jax.random.key(0), *self.inputs)
        self.params = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.2, leaf.dtype), shapes
        )
        self.apply = jit(self.net.apply)

    @property
    def inputs(self):
        return self.x, self.time, self.conditions


@pytest.fixture(scope="module")
def made():
    return {name: Made(name) for name in NETS}


@pytest.mark.parametrize("name", NETS | SHAPES)
def test_output_has_its_shape_and_the_settings_no_problem(made, name):
    m = made.get(name) or Made(name)
    assert section_problems(m.settings, "network", m.shape) == []
    # A single time applies to the whole batch.
    output = jax.eval_shape(m.net.apply, m.params, m.x, jnp.asarray(2.0), m.conditions)
    assert output.shape == m.expected
    assert output.dtype == jnp.float32


@pytest.mark.parametrize("name", NETS)
def test_rows_do_not_see_each_other(made, name):
    m = made[name]
    together = m.apply(m.params, *m.inputs)
    assert np.abs(together).max() > 0.1
    turned = m.apply(m.params, *jax.tree.map(lambda value: jnp.roll(value, 1, 0), m.inputs))
    np.testing.assert_allclose(turned, np.roll(together, 1, 0), atol=2e-5)
    others = m.apply(m.params, *jax.tree.map(lambda value: value.at[1:].set(value[:1]), m.inputs))
    np.testing.assert_allclose(others[0], together[0], atol=2e-5)
    assert np.abs(others[1:] - together[1:]).max() > 1e-3


@pytest.mark.parametrize("name", slow("classifier"))  # test_every_family.py trains it
def test_every_parameter_and_input_has_a_say(made, name):
    m = made[name]
    leaves, tree_of_inputs = jax.tree.flatten(m.inputs)
    float_inputs = [value for value in leaves if value.dtype == jnp.float32]

    def loss(params, *values):
        values = list(values)
        inputs = [values.pop(0) if v.dtype == jnp.float32 else v for v in leaves]
        inputs = jax.tree.unflatten(tree_of_inputs, inputs)
        return (m.net.apply(params, *inputs) ** 2).sum()

    numbers = tuple(range(1 + len(float_inputs)))
    grads = jit(jax.grad(loss, argnums=numbers))(m.params, *float_inputs)
    silent = [
        jax.tree_util.keystr(path)
        for path, grad in jax.tree_util.tree_leaves_with_path(grads)
        if not (np.abs(grad).max() > 0 and np.isfinite(grad).all())
    ]
    assert silent == []


@pytest.mark.parametrize("name", slow("vdm", "classifier"))
def test_bfloat16_keeps_params_and_output_float32_and_comes_close(made, name):
    full, half = made[name], Made(name, dtype="bfloat16")
    for leaf in jax.tree.leaves(half.params):
        assert leaf.dtype == jnp.float32
    one, two = full.apply(full.params, *full.inputs), half.apply(full.params, *full.inputs)
    assert two.dtype == jnp.float32
    error = np.sqrt(np.mean((one - two) ** 2) / np.mean(one**2))
    assert 0 < error < 0.03


@pytest.mark.parametrize("name", slow("vdm", "classifier"))
def test_dropout_acts_in_training_only_and_depends_on_the_key(made, name):
    m = made[name]
    train = jit(lambda key: m.net.apply(m.params, *m.inputs, train=True, key=key))
    one, two = train(jax.random.key(1)), train(jax.random.key(2))
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(one, train(jax.random.key(1)))
    assert np.abs(one - m.apply(m.params, *m.inputs)).max() > 1e-3


@pytest.mark.parametrize("name", DENOISERS)
def test_conditions_matter_and_missing_ones_are_absent(made, name):
    m = made[name]
    outputs = [
        m.apply(m.params, m.x, m.time, {**m.conditions, **label_of([k] * 3, absent=4)})
        for k in (0, 3, 4)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    assert np.abs(outputs[1] - outputs[2]).max() > 1e-3
    done = {"done": m.conditions["done"]}
    np.testing.assert_allclose(m.apply(m.params, m.x, m.time, done), outputs[2], atol=1e-6)
    absent = jnp.zeros(3, bool)
    hidden = {name: given._replace(present=absent) for name, given in m.conditions.items()}
    nothing = m.apply(m.params, m.x, m.time, {})
    np.testing.assert_allclose(m.apply(m.params, m.x, m.time, hidden), nothing, atol=1e-6)
    assert np.abs(nothing - outputs[2]).max() > 1e-3


@pytest.mark.parametrize("name", DENOISERS)
def test_an_unconditional_network_ignores_the_label_and_learns_nothing_for_it(name):
    kind, shape, settings = NETS[name]
    net = kind(**settings).build(out_channels=2, entries={})
    x, time = jnp.zeros((3, *shape)), jnp.zeros(3)
    params = jax.eval_shape(net.init, jax.random.key(0), x, time, {})
    paths = [tree.path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert paths and not [path for path in paths if "label" in path]
    programs = [
        jax.make_jaxpr(lambda p, conditions=conditions: net.apply(p, x, time, conditions))(params)
        for conditions in ({}, label_of([0] * 3))
    ]
    assert str(programs[0]) == str(programs[1])


@pytest.mark.parametrize("name", NETS)
def test_several_mistakes_come_at_once(name):
    kind, shape, settings = NETS[name]
    wrong = kind(**settings | dict(width=0, dropout=1.0, dtype="float16"))
    found = section_problems(wrong, "network", shape)
    for key in ("width", "dropout", "dtype"):
        assert sum(f"network.{key} =" in problem for problem in found) == 1, (key, found)
