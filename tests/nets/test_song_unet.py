"""DDPM++ and NCSN++: published counts, and the same output as a plain NumPy network for signals and
as score_sde's NCSN++ with the same weights (tests/peers/make_ncsnpp_fixture.py)."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from drawn import drawn
from oracles import entry_of, label_of
from plain_layers import attention, block, conv, dense, norm, silu, sinusoids

from genzoo.core import tree
from genzoo.core.conditions import Entry, Given
from genzoo.nets.unet.song_unet import SongUNetSettings

# These tests spend their time compiling, not running.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


NCSNPP = dict(
    time_embedding="fourier_noise_level", embedding_width=256, resample_filter=(1, 3, 3, 1),
    progressive_input="residual",
)  # fmt: skip
DEEPER = dict(multipliers=(1, 2, 2, 2))
FIXTURE = Path(__file__).parent / "fixtures" / "ncsnpp_score_sde.npz"


def entries_of(classes, augment):
    labels = Entry(kind="vector", size=augment, null=False)
    return {**entry_of(classes, null=False), **({"augment": labels} if augment else {})}


@pytest.mark.parametrize(
    "side, classes, settings, expected",
    # Counted in the networks that EDM's train.py builds for CIFAR-10 and for FFHQ. The networks of
    # score_sde (ncsnpp and ddpmpp, continuous) are those for FFHQ without augmentation.
    [
        pytest.param(32, 0, dict(augment=9), 55_733_891, marks=pytest.mark.slow),
        (32, 10, dict(augment=9), 55_735_299),
        pytest.param(64, 0, dict(augment=9, **DEEPER), 61_805_571, marks=pytest.mark.slow),
        pytest.param(32, 0, DEEPER, 61_804_419, marks=pytest.mark.slow),
        pytest.param(32, 0, dict(augment=9, **NCSNPP), 56_397_827, marks=pytest.mark.slow),
        (32, 10, dict(augment=9, **NCSNPP), 56_400_643),
        pytest.param(
            64, 0, dict(augment=9, **NCSNPP, **DEEPER), 62_761_091, marks=pytest.mark.slow
        ),
        # test_config.py has this count too.
        pytest.param(32, 0, NCSNPP | DEEPER, 62_758_787, marks=pytest.mark.slow),
        pytest.param(
            32, 0, NCSNPP | DEEPER | dict(blocks=8), 107_586_947, marks=pytest.mark.slow
        ),
    ],
)
def test_parameter_count_is_the_published_one(side, classes, settings, expected):
    settings = dict(settings)
    entries = entries_of(classes, settings.pop("augment", 0))
    settings = SongUNetSettings(**settings)
    assert section_problems(settings, "network", (side, side, 3)) == []
    net = settings.build(out_channels=3, entries=entries)
    inputs = jnp.zeros((1, side, side, 3)), jnp.zeros(1), {}
    assert tree.count(jax.eval_shape(net.init, jax.random.key(0), *inputs)) == expected


def test_same_weights_same_output_as_score_sde():
    saved = np.load(FIXTURE)
    settings = SongUNetSettings(multipliers=(1, 1, 2), blocks=1, attention=(4,), **NCSNPP)
    net = settings.build(out_channels=3, entries={})
    inputs = jnp.asarray(saved["x"]), jnp.asarray(saved["log_sigma"]), {}
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    assert tree.count(shapes) == saved["count"]
    params = drawn(shapes)
    output = jit(net.apply)(params, *inputs)
    np.testing.assert_allclose(output, saved["output"], atol=2e-5 * np.abs(saved["output"]).max())


def halved(v):
    return (v[:, ::2] + v[:, 1::2]) / 2


def doubled(v):
    return np.repeat(v, 2, 1)


def fir_halved(v):
    """Taps (1, 3, 3, 1): each output lies between two positions."""
    v = np.pad(v, ((0, 0), (1, 1), (0, 0)))
    return (v[:, :-3:2] + 3 * v[:, 1:-2:2] + 3 * v[:, 2:-1:2] + v[:, 3::2]) / 8


def fir_doubled(v):
    """Taps (1, 3, 3, 1): linear interpolation, a quarter of the way to each neighbour."""
    v = np.pad(v, ((0, 0), (1, 1), (0, 0)))
    pairs = np.stack([v[:, :-2] + 3 * v[:, 1:-1], 3 * v[:, 1:-1] + v[:, 2:]], 2) / 4
    return pairs.reshape(len(v), -1, v.shape[2])


def input_step(v, p):
    """The filter and strided convolution of the input, which is padded once."""
    v = np.pad(v, ((0, 0), (2, 2), (0, 0)))
    v = (v[:, :-3] + 3 * v[:, 1:-2] + 3 * v[:, 2:-1] + v[:, 3:]) / 8
    kernel, bias = p["conv"]["conv"]["kernel"], p["conv"]["conv"]["bias"]
    return bias + v[:, :-2:2] @ kernel[0] + v[:, 1:-1:2] @ kernel[1] + v[:, 2::2] @ kernel[2]


def plain_song(p, x, noise, onehot, augment, *, levels, blocks, attentive, ncsnpp):
    """The network for a signal with K classes and one head, as EDM describes it."""
    down, up = (fir_halved, fir_doubled) if ncsnpp else (halved, doubled)
    half = np.sqrt(0.5)
    h = sinusoids(noise, p["condition"]["augment"]["kernel"].shape[1])
    h = h + dense(onehot * np.sqrt(onehot.shape[1]), p["condition"]["label"])
    h = h + augment @ p["condition"]["augment"]["kernel"]
    c = dense(silu(dense(h, p["condition"]["dense_0"])), p["condition"]["dense_1"])

    def both(h, q, attends):
        h = block(h, c, q["residual"], groups=2, scale=half)
        return attention(h, q["attention"], groups=2, scale=half) if attends else h

    skips, source = [h := conv(x, p["entry"])], x
    for level in range(levels):
        if level:
            h = block(h, c, p[f"down_{level - 1}_resample"], groups=2, scale=half, resize=down)
            if ncsnpp:
                h = source = half * (h + input_step(source, p[f"down_{level - 1}_input"]))
            skips.append(h)
        for i in range(blocks):
            h = both(h, p[f"down_{level}_block_{i}"], h.shape[1] in attentive)
            skips.append(h)
    h = both(both(h, p["middle_0"], True), p["middle_1"], False)
    for level in reversed(range(levels)):
        if level < levels - 1:
            h = block(h, c, p[f"up_{level + 1}_resample"], groups=2, scale=half, resize=up)
        for i in range(blocks + 1):
            last = i == blocks
            h = np.concatenate([h, skips.pop()], -1)
            h = both(h, p[f"up_{level}_block_{i}"], last and h.shape[1] in attentive)
    assert not skips
    return conv(silu(norm(h, p["out_norm"], 2)), p["out"])


@pytest.mark.parametrize("ncsnpp", [False, True])
def test_it_is_the_plain_network(ncsnpp):
    filtered = {key: NCSNPP[key] for key in ("resample_filter", "progressive_input")}
    settings = SongUNetSettings(
        width=8, multipliers=(2, 1), blocks=2, attention=(8, 4), **filtered if ncsnpp else {}
    )
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
    onehot = np.array([[0.0, 0, 1], [0, 0, 0]])  # the null class adds nothing
    expected = plain_song(
        params, x, noise, onehot, augment, levels=2, blocks=2, attentive=(8, 4),
        ncsnpp=ncsnpp,
    )
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    output = jit(net.apply)(single, *inputs)
    np.testing.assert_allclose(output, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(time_embedding="fourrier"), ["network.time_embedding", "'fourier'?"]),
        (dict(attention=(16, 7)), ["network.attention contains 7", "32, 16, 8"]),
        (dict(heads=3), ["network.heads is 3", "256"]),
        (dict(embedding_width=33), ["network.embedding_width = 33", "even"]),
        (dict(resample_filter=(1, 2, 1)), ["resample_filter = (1.0, 2.0, 1.0)", "(1, 3, 3, 1)"]),
        (dict(resample_filter=(1, -1, -1, 1)), ["network.resample_filter", "sum to 0"]),
        (dict(resample_filter=()), ["network.resample_filter = () must be", "2 to 64 entries"]),
        (dict(progressive_input="residul"), ["network.progressive_input", "'residual'?"]),
        (dict(multipliers=(2,) * 7), ["network.multipliers has 7 levels", "divisible by 64"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = section_problems(SongUNetSettings(**settings), "network", (32, 32, 3))
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
    assert problems[0].endswith((".", "?"))
