"""The autoencoders of latent diffusion and their critic: published numbers of params, sizes in
closed form, the statistics of the critic's norm."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.core import tree
from genzoo.core.errors import UserError
from genzoo.nets.autoencoder.latent import LAST, KLSettings, VQSettings
from genzoo.nets.gan.patch import BatchNorm, PatchCritic

KEY = jax.random.key(0)
LARGE, CRITIC = (256, 256, 3), 2_765_633


def shapes_of(settings, shape, latent):
    """The shapes of all params of a KL autoencoder and its critic."""
    nets = settings.build(shape=shape, latent=latent, critic=True)
    x, z = jnp.zeros((1, *shape)), jnp.zeros((1, *nets.pair.grid, latent))
    return {
        "encoder": jax.eval_shape(nets.pair.encoder.init, KEY, x),
        "decoder": jax.eval_shape(nets.pair.decoder.init, KEY, z),
        "critic": jax.eval_shape(lambda: nets.critic.init(KEY, x, None)),
    }


F8, F16, F32 = (1, 2, 4, 4), (1, 1, 2, 2, 4), (1, 1, 2, 2, 4, 4)


@pytest.mark.parametrize(
    ("settings", "latent", "halvings", "expected"),
    [
        (KLSettings(multipliers=F8), 4, 3, 83_653_863),
        (KLSettings(quant=False), 16, 3, 83_819_683),
        (KLSettings(), 16, 3, 83_821_011),
        (KLSettings(multipliers=(1, 2, 4)), 3, 2, None),
        (KLSettings(multipliers=F16, attention=(16,)), 16, 4, None),
        (KLSettings(multipliers=F32, attention=(16, 8)), 64, 5, None),
    ],
    ids=["f8", "sd3", "sd3 with quant", "f4", "f16", "f32"],
)
def test_published_numbers_of_params(settings, latent, halvings, expected):
    shapes = shapes_of(settings, LARGE, latent)
    assert tree.count(shapes["critic"]) == CRITIC
    count = tree.count(shapes["encoder"]) + tree.count(shapes["decoder"])
    assert expected is None or count == expected
    size = settings.size(LARGE, shape=LARGE, latent=latent, critic=True)
    assert size.params == count + CRITIC
    grid = settings.build(shape=LARGE, latent=latent, critic=False).pair.grid
    assert grid == (256 >> halvings,) * 2


def test_the_parts_of_f8():
    shapes = shapes_of(KLSettings(), LARGE, 4)
    quant = [tree.count(shapes[name].pop("quant")) for name in ("encoder", "decoder")]
    assert quant == [72, 20]
    assert tree.count(shapes["encoder"]) == 34_163_592
    assert tree.count(shapes["decoder"]) == 49_490_179
    assert LAST in tree.by_path(shapes["decoder"])


def test_the_number_of_params_of_vqgan():
    settings = VQSettings()
    net = settings.build(shape=LARGE, latent=256, critic=False).autoencoder
    count = tree.count(jax.eval_shape(net.init, KEY, jnp.zeros((1, *LARGE))))
    assert count + 1024 * 256 == 72_141_699
    assert net.grids == ((16, 16),)
    assert settings.size(LARGE, shape=LARGE, latent=256, critic=False).params == count
    judged = settings.size(LARGE, shape=LARGE, latent=256, critic=True)
    assert judged.params == count + CRITIC


def test_the_largest_array_is_known_beforehand():
    wide = KLSettings(width=8, multipliers=(1, 2), norm_groups=4)
    size = wide.size((8, 16, 3), shape=(8, 16, 3), latent=2, critic=False)
    assert size.layer == 4 * 8 * 16 * 8  # the first maps; the logits have 4 * 32^2 bytes
    flat = KLSettings(width=8, multipliers=(1,), norm_groups=4)
    assert flat.size((8, 16, 3), shape=(8, 16, 3), latent=2, critic=False).layer == 4 * 128**2


@pytest.mark.parametrize(("layers", "patch"), [(3, 70), (2, 34), (1, 16)])
def test_patches_that_the_critic_scores(layers, patch, monkeypatch):
    """The pixels with a gradient of one score, without the norms, which see the whole image."""
    monkeypatch.setattr(BatchNorm, "__call__", lambda self, x, mask: x)
    critic, x = PatchCritic(1, layers, jnp.dtype("float32")), jnp.zeros((1, 128, 24, 1))
    shapes = jax.eval_shape(lambda: critic.init(KEY, x, None, False))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)

    @jax.jit
    @jax.grad
    def slopes(x):
        scores = critic.apply(params, x, None, False)
        return scores[0, scores.shape[1] // 2, 0]

    reached = np.flatnonzero(np.abs(slopes(x)).sum((0, 2, 3)))
    assert reached[-1] - reached[0] + 1 == patch


def test_the_norm_of_a_batch():
    x = 3 + 2 * jax.random.normal(KEY, (4, 3, 5, 2))
    norm = BatchNorm()
    params = {"params": {"scale": jnp.asarray([1.0, 2.0]), "bias": jnp.asarray([0.0, -1.0])}}
    normal = norm.apply(params, x, None)
    np.testing.assert_allclose(normal.mean((0, 1, 2)), [0, -1], atol=1e-5)
    np.testing.assert_allclose(normal.std((0, 1, 2)), [1, 2], rtol=1e-4)
    mask = jnp.asarray([1.0, 1, 1, 0])
    padded = norm.apply(params, x.at[3].set(1e6), mask)
    np.testing.assert_allclose(padded[:3], norm.apply(params, x[:3], None), atol=1e-5)


def test_shapes_of_scores():
    """Windows of four: halved three times with one pixel of padding, then twice one less."""
    for sides, expected in (((28, 28), (1, 1)), ((256, 256), (30, 30)), ((32, 48), (2, 4))):
        nets = KLSettings(multipliers=(1, 2), norm_groups=4, width=8, critic_width=4).build(
            shape=(*sides, 3), latent=2, critic=True
        )
        x = jnp.zeros((2, *sides, 3))
        scores = jax.eval_shape(
            lambda x, nets=nets: nets.critic.apply(nets.critic.init(KEY, x, None), x, None), x
        )
        chex.assert_shape(scores, (2, *expected))


def test_settings_that_do_not_fit_the_data():
    (problem,) = KLSettings().problems((28, 28, 1))
    assert "network.multipliers" in problem and "divisible by 8" in problem
    (problem,) = KLSettings(width=2, multipliers=(0.25, 1)).problems((28, 28, 1))
    assert "leaves a level without channels" in problem
    (problem,) = VQSettings(attention=(12,)).problems((128, 128, 3))
    assert "network.attention" in problem
    with pytest.raises(UserError, match=r"critic_layers = 3 needs sides of at least 24 pixels"):
        KLSettings().build(shape=(16, 32, 3), latent=4, critic=True)
