"""The DDPM++ U-Net: published counts, and the same numbers as a plain NumPy one of signals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import entry_of, label_of
from plain_layers import attention, block, conv, dense, norm, silu, sinusoids

from genzoo.core import bounds, tree
from genzoo.core.conditions import Entry, Given
from genzoo.nets.unet.song_unet import SongUNetSettings

# These tests compile much and run little.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def entries_of(classes, augment):
    told = Entry(kind="vector", size=augment, null=False)
    return {**entry_of(classes, null=False), "augment": told}


@pytest.mark.parametrize(
    "classes, augment, expected",
    # EDM's own networks for CIFAR-10.
    [(0, 9, 55_733_891), (10, 9, 55_735_299)],
)
def test_parameter_count_is_the_published_one(classes, augment, expected):
    settings = SongUNetSettings()
    assert bounds.problems(settings, "network", (32, 32, 3)) == []
    net = settings.build(out_channels=3, entries=entries_of(classes, augment))
    inputs = jnp.zeros((1, 32, 32, 3)), jnp.zeros(1), {}
    assert tree.count(jax.eval_shape(net.init, jax.random.key(0), *inputs)) == expected


def plain_song(p, x, noise, onehot, augment, *, levels, blocks, attentive):
    """The network of a signal, of K classes, with one head, as EDM describes it."""
    half = np.sqrt(0.5)
    h = sinusoids(noise, p["condition"]["augment"]["kernel"].shape[1])
    h = h + dense(onehot * np.sqrt(onehot.shape[1]), p["condition"]["label"])
    h = h + augment @ p["condition"]["augment"]["kernel"]
    c = dense(silu(dense(h, p["condition"]["dense_0"])), p["condition"]["dense_1"])

    def both(h, q, attends):
        h = block(h, c, q["residual"], groups=2, scale=half)
        return attention(h, q["attention"], groups=2, scale=half) if attends else h

    skips = [h := conv(x, p["entry"])]
    for level in range(levels):
        if level:
            resample = p[f"down_{level - 1}_resample"]
            halved = lambda v: (v[:, ::2] + v[:, 1::2]) / 2  # noqa: E731
            skips.append(h := block(h, c, resample, groups=2, scale=half, resize=halved))
        for i in range(blocks):
            h = both(h, p[f"down_{level}_block_{i}"], h.shape[1] in attentive)
            skips.append(h)
    h = both(both(h, p["middle_0"], True), p["middle_1"], False)
    for level in reversed(range(levels)):
        if level < levels - 1:
            resample = p[f"up_{level + 1}_resample"]
            doubled = lambda v: np.repeat(v, 2, 1)  # noqa: E731
            h = block(h, c, resample, groups=2, scale=half, resize=doubled)
        for i in range(blocks + 1):
            last = i == blocks
            h = np.concatenate([h, skips.pop()], -1)
            h = both(h, p[f"up_{level}_block_{i}"], last and h.shape[1] in attentive)
    assert not skips
    return conv(silu(norm(h, p["out_norm"], 2)), p["out"])


def test_it_is_the_plain_network():
    settings = SongUNetSettings(width=8, multipliers=(2, 1), blocks=2, attention=(8, 4))
    net = settings.build(out_channels=2, entries=entries_of(3, 9))
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 8, 3)), np.array([-1.3, 0.9])
    augment = np.array([[1.0], [0.0]]) * rng.normal(size=(2, 9))
    inputs = [jnp.asarray(v, jnp.float32) for v in (x, noise)] + [{
        **label_of([2, 3], absent=3),
        # Absent for the second row, whatever its value.
        "augment": Given(jnp.asarray(augment + [[0], [5]], jnp.float32), jnp.array([True, False])),
    }]  # fmt: skip
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.3, shapes)
    onehot = np.array([[0.0, 0, 1], [0, 0, 0]])  # the null class is nothing at all
    expected = plain_song(
        params, x, noise, onehot, augment, levels=2, blocks=2, attentive=(8, 4)
    )
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    output = jit(net.apply)(single, *inputs)
    np.testing.assert_allclose(output, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(time_embedding="fourrier"), ["network.time_embedding", "'fourier'?"]),
        (dict(attention=(16, 7)), ["network.attention has 7", "32, 16, 8"]),
        (dict(heads=3), ["network.heads is 3", "256"]),
        (dict(embedding_width=33), ["network.embedding_width = 33", "even"]),
        (dict(multipliers=(2,) * 7), ["network.multipliers has 7 levels", "divisible by 64"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = bounds.problems(SongUNetSettings(**settings), "network", (32, 32, 3))
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
