"""Properties of every U-Net, for settings that together use every option."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.nets.unet.unet import UNetSettings

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# name: (size, channels, classes, settings)
NETS = {
    "ddpm": ((8, 8), 3, 0, dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,),
                                norm_groups=2)),
    "adm": (
        (8, 8), 3, 4,
        dict(width=8, multipliers=(1, 2), blocks=1, attention=(8, 4), head_width=4,
             scale_shift=True, resample="block", time_embedding="sinusoidal_adm"),
    ),
    "patch": (
        (8, 12), 1, 4,
        dict(width=12, multipliers=(1, 1), blocks=1, attention=(), heads=2, patch=2,
             resample="plain", time_embedding="fourier", dropout=0.3, norm_groups=3),
    ),
    "uneven": (
        (24, 40), 5, 0,
        dict(width=6, multipliers=(1, 1.5, 2), blocks=1, attention=(6,), embedding_width=10,
             norm_groups=3),
    ),
    "signal": ((16,), 2, 3, dict(width=8, multipliers=(1, 2), blocks=1, attention=(8,),
                               norm_groups=2)),
    "volume": ((4, 4, 4), 1, 0, dict(width=4, multipliers=(1, 1), blocks=1, attention=(),
                                    norm_groups=1)),
}  # fmt: skip


class Made:
    """A small network, a batch for it, and params that are all nonzero."""

    def __init__(self, name, **changes):
        size, channels, classes, settings = NETS[name]
        self.settings = settings | changes
        self.net = UNetSettings(**self.settings).build(
            out_channels=channels + 1, entries=entry_of(classes)
        )
        rng = np.random.default_rng(0)
        self.shape = (*size, channels)
        self.x = jnp.asarray(rng.normal(size=(3, *self.shape)), jnp.float32)
        self.time = jnp.array([0.0, 10.0, 999.0])
        self.conditions = label_of(jnp.arange(3)) if classes else {}
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


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "uneven" else n for n in NETS]
)
def test_output_has_the_shape_of_the_input(made, name):
    m = made[name]
    assert section_problems(UNetSettings(**m.settings), "network", m.shape) == []
    output = m.apply(m.params, *m.inputs)
    assert output.shape == (3, *m.shape[:-1], m.shape[-1] + 1)
    assert output.dtype == jnp.float32
    assert np.abs(output).max() > 0.1


@pytest.mark.parametrize("name", ["ddpm", pytest.param("adm", marks=pytest.mark.slow)])
def test_output_is_zero_at_the_start_and_blocks_are_their_short_cuts(made, name):
    m = made[name]
    start = jit(m.net.init)(jax.random.key(0), *m.inputs)
    np.testing.assert_array_equal(m.apply(start, *m.inputs), 0)
    zero = {
        tree.path_string(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(start)
        if leaf.ndim > 1 and not leaf.any()
    }
    kernels = [tree.path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(start)]
    last = ("conv_1/conv/kernel", "attention/out/kernel")
    assert zero == {path for path in kernels if path.endswith(last) or path == "out/conv/kernel"}


@pytest.mark.parametrize("name", ["ddpm", "adm", "patch"])
def test_rows_do_not_see_each_other(made, name):
    m = made[name]
    together = m.apply(m.params, *m.inputs)
    turned = m.apply(m.params, *jax.tree.map(lambda value: jnp.roll(value, 1, 0), m.inputs))
    np.testing.assert_allclose(turned, np.roll(together, 1, 0), atol=2e-5)
    others = m.apply(m.params, *jax.tree.map(lambda value: value.at[1:].set(value[:1]), m.inputs))
    np.testing.assert_allclose(others[0], together[0], atol=2e-5)
    assert np.abs(others[1:] - together[1:]).max() > 1e-3


@pytest.mark.parametrize("groups, blind", [(2, False), (32, True)])
def test_a_norm_of_each_channel_alone_hides_the_time(made, groups, blind):
    m = Made("ddpm", norm_groups=groups) if blind else made["ddpm"]
    early = m.apply(m.params, m.x, jnp.zeros(3), {})
    late = m.apply(m.params, m.x, jnp.full(3, 900.0), {})
    assert (np.abs(early - late).max() < 1e-4) == blind
    assert bool(section_problems(UNetSettings(**m.settings), "network", m.shape)) == blind


def test_vmap_over_params_and_single_inputs(made):
    m = made["ddpm"]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, m.params)
    two = jax.tree.map(lambda a, b: jnp.stack([a, b]), doubled, m.params)
    single = lambda p, x, t: m.net.apply(p, x[None], t, {})[0]  # noqa: E731
    of_each = jax.vmap(jax.vmap(single, (None, 0, 0)), (0, None, None))
    both = jit(of_each)(two, m.x, m.time)
    np.testing.assert_allclose(both[1], m.apply(m.params, *m.inputs), atol=2e-5)
    np.testing.assert_allclose(both[0], m.apply(doubled, *m.inputs), atol=2e-5 * np.abs(both).max())


def test_every_parameter_and_input_has_a_say_and_remat_of_all_but_products_changes_nothing():
    # With dropout, recomputed with the same key. test_every_network.py tests remat = "full", and
    # test_unet_peer.py the weights of the layers between two levels.
    key = jax.random.key(7)
    plain, other = (
        Made("adm", multipliers=(1,), attention=(8,), remat=remat, dropout=0.2)
        for remat in ("none", "dots")
    )

    def grads(m):
        def loss(params, x, time):
            return (m.net.apply(params, x, time, m.conditions, train=True, key=key) ** 2).sum()

        return jit(jax.grad(loss, argnums=(0, 1, 2)))(plain.params, plain.x, plain.time)

    expected = grads(plain)
    silent = [
        jax.tree_util.keystr(path)
        for path, grad in jax.tree_util.tree_leaves_with_path(expected)
        if not np.abs(grad).max() > 0
    ]
    assert silent == []
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[0]))
    chex.assert_trees_all_equal_shapes(plain.params, other.params)
    chex.assert_trees_all_close(grads(other)[0], expected[0], rtol=1e-3, atol=1e-5 * scale)


def test_bfloat16_keeps_params_and_output_float32_and_comes_close(made):
    full, half = made["adm"], Made("adm", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    one, two = full.apply(full.params, *full.inputs), half.apply(full.params, *full.inputs)
    assert two.dtype == jnp.float32
    error = np.sqrt(np.mean((one - two) ** 2) / np.mean(one**2))
    assert 0 < error < 0.03


def test_dropout_acts_in_training_only_and_depends_on_the_key(made):
    m = made["patch"]
    train = jit(lambda key: m.net.apply(m.params, *m.inputs, train=True, key=key))
    one, two = train(jax.random.key(1)), train(jax.random.key(2))
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(one, train(jax.random.key(1)))
    still = m.apply(m.params, *m.inputs)
    assert np.abs(one - still).max() > 1e-3


def test_labels_matter_and_an_absent_one_is_the_null_class(made):
    m = made["adm"]
    outputs = [m.apply(m.params, m.x, m.time, label_of([k] * 3, absent=4)) for k in (0, 3, 4)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    assert np.abs(outputs[1] - outputs[2]).max() > 1e-3
    np.testing.assert_array_equal(m.apply(m.params, m.x, m.time, {}), outputs[2])


def test_without_a_null_class_an_absent_label_adds_nothing(made):
    m = made["adm"]
    _, channels, classes, settings = NETS["adm"]
    entries = entry_of(classes, null=False)
    net = UNetSettings(**settings).build(out_channels=channels + 1, entries=entries)
    condition = m.params["condition"]
    table = condition["label"]["embedding"]

    def with_table(rows):
        return {**m.params, "condition": {**condition, "label": {"embedding": rows}}}

    expected = m.apply(with_table(table.at[-1].set(0)), m.x, m.time, {})
    found = jit(net.apply)(with_table(table[:-1]), m.x, m.time, {})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_unconditional_network_ignores_the_label(made):
    m = made["ddpm"]
    labelled = m.apply(m.params, m.x, m.time, label_of([0] * 3))
    np.testing.assert_array_equal(labelled, m.apply(m.params, *m.inputs))


def test_one_time_serves_the_whole_batch(made):
    m = made["ddpm"]
    alone = m.apply(m.params, m.x, jnp.asarray(10.0), {})
    np.testing.assert_array_equal(alone, m.apply(m.params, m.x, jnp.full(3, 10.0), {}))


@pytest.mark.parametrize("remat", [pytest.param("none", marks=pytest.mark.slow), "full"])
def test_inner_features_are_handed_out(made, remat):
    m = Made("ddpm", remat=remat)
    names = ("middle_0", "middle_0/attention", "up_0_block_1")
    output, found = jit(partial(m.net.features, names=names))(m.params, *m.inputs)
    assert {path: value.shape for path, value in found.items()} == {
        "middle_0": (3, 4, 4, 16),
        "middle_0/attention": (3, 4, 4, 16),
        "up_0_block_1": (3, 8, 8, 8),
    }
    np.testing.assert_allclose(output, made["ddpm"].apply(m.params, *m.inputs), atol=2e-5)
