"""Properties that every network must have, tested for all of `NETWORKS`.

Tests of single networks and of denoisers are in tests/nets/.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genzoo.build import NETWORKS
from genzoo.core.conditions import Entry, Given, Tokens

CLASSES = 3
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TOLD = {"label": Entry(kind="class", size=CLASSES)}


def labels(*values: int) -> dict[str, Given]:
    """Labels as the only condition; the last one is absent."""
    present = np.arange(len(values)) < len(values) - 1
    return {"label": Given(jnp.asarray(values, jnp.int32), jnp.asarray(present))}


@dataclass(frozen=True)
class Whole:
    """A network, or several that share a latent, as one function. init(key) -> params;
    apply(params, *inputs) -> outputs of `shapes`. inputs: the floating-point ones."""

    init: Callable
    apply: Callable
    inputs: tuple[np.ndarray, ...]
    shapes: tuple[tuple[int, ...], ...]


def _denoiser(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(out_channels=shape[-1] + 1, entries=TOLD)
    x, time = _normal(3, *shape), np.float32([-1.5, 0.4, 30.0])
    return Whole(
        lambda key: net.init(key, x, time, labels(0, 1, 2)),
        lambda params, x, time: (net.apply(params, x, time, labels(0, 1, 2)),),
        (x, time),
        ((3, *shape[:-1], shape[-1] + 1),),
    )


def _conditioned(made: Callable, shape: tuple[int, ...]) -> Whole:
    """A denoiser with one condition for every way in: added, attended to, concatenated."""
    entries = {
        **TOLD,
        "text": Entry(kind="tokens", size=5, length=4, way="attend", layers=1),
        "low": Entry(kind="map", size=2, way="concat"),
    }
    net = made(out_channels=1, entries=entries)
    mask = jnp.asarray([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]], bool)
    x, time, low = _normal(3, *shape), np.float32([-1.5, 0.4, 30.0]), _normal(3, *shape[:-1], 2)

    def told(tokens, low):
        present = jnp.asarray([True, False, True])
        text = Given(Tokens(tokens, mask), present)
        return {**labels(0, 1, 2), "text": text, "low": Given(low, present)}

    inputs = (x, time, _normal(3, 4, 5), low)
    return Whole(
        lambda key: net.init(key, x, time, told(*inputs[2:])),
        lambda params, x, time, *others: (net.apply(params, x, time, told(*others)),),
        inputs,
        ((3, *shape[:-1], 1),),
    )


def _classifier(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(num_classes=CLASSES)
    x, time = _normal(3, *shape), np.float32([-1.5, 0.4, 30.0])
    return Whole(
        lambda key: net.init(key, x, time, {}),
        lambda params, x, time: (net.apply(params, x, time, {}),),
        (x, time),
        ((3, CLASSES),),
    )


def _pairs(made: Callable, shape: tuple[int, ...]) -> Whole:
    pairs = made(shape=shape, encoded=(4, 6), latents=(2, 3), decoded=(5, 4))
    places = int(np.prod(pairs[0].grid))
    between = (places * 2,)
    ends = ((shape, pairs[0].grid, 2), (between, pairs[1].grid, 3))
    inputs = tuple(_normal(2, *s) for x, grid, latent in ends for s in (x, (*grid, latent)))
    nets = [net for pair in pairs for net in (pair.encoder, pair.decoder)]

    def init(key):
        both = zip(nets, inputs, strict=True)
        return {str(i): net.init(key, x) for i, (net, x) in enumerate(both)}

    def apply(params, *inputs):
        both = enumerate(zip(nets, inputs, strict=True))
        return tuple(net.apply(params[str(i)], x) for i, (net, x) in both)

    first, second = pairs[0].grid, pairs[1].grid
    shapes = ((*first, 4), (*shape[:-1], 5), (*second, 6), (places * 4,))
    return Whole(init, apply, inputs, tuple((2, *s) for s in shapes))


def _hierarchy(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(shape=shape, latent=3, decoded=2)
    x = _normal(2, *shape)

    def apply(params, x):
        qs = net.encode(params, x, lambda level, z: z)
        return (*qs, net.decode(params, qs))

    codes = tuple((2, *grid, 3) for grid in net.grids)
    return Whole(lambda key: net.init(key, x), apply, (x,), (*codes, (2, *shape[:-1], 2)))


def _dalle(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(shape=shape, vocabulary=5, decoded=2)
    x, initial = _normal(2, *shape), 6

    def init(key):
        return {
            "encoder": net.encoder.init(key, x),
            "embed": net.embed.init(key, jnp.zeros((2, *net.grid, 5))),
            "decoder": net.decoder.init(key, jnp.zeros((2, *net.grid, initial))),
        }

    def apply(params, x):
        logits = net.encoder.apply(params["encoder"], x)
        embedded = net.embed.apply(params["embed"], jax.nn.softmax(logits))
        return logits, embedded, net.decoder.apply(params["decoder"], embedded)

    grids = tuple((2, *net.grid, width) for width in (5, initial))
    return Whole(init, apply, (x,), (*grids, (2, *shape[:-1], 2)))


def _transformer(made: Callable, shape: tuple[int, ...]) -> Whole:
    del shape
    net = made(vocabularies=(3, 4), lengths=(2, 4), entries=TOLD)
    tokens = jnp.asarray([[0, 2, 1, 3, 0, 2], [1, 1, 3, 3, 0, 1]], jnp.int32)
    return Whole(
        lambda key: net.init(key, tokens, None, labels(0, 2)),
        lambda params: (net.apply(params, tokens, None, labels(0, 2)),),
        (),
        ((2, 6, 4),),
    )


def _mae(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(shape=shape)
    x, keep = _normal(2, *shape), jnp.asarray([[4, 0], [1, 3]])
    restore = jnp.asarray([[1, 2, 3, 4, 0, 5], [2, 0, 3, 1, 4, 5]])
    values = net.patch**2 * shape[-1]
    return Whole(
        lambda key: net.init(key, x, keep, restore),
        lambda params, x: (net.apply(params, x, keep, restore), net.encode(params, x)),
        (x,),
        ((2, 6, values), (2, 7, 8)),
    )


def _towers(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(vocabulary=7, length=4)
    x, ids = _normal(2, *shape), jnp.asarray([[1, 5, 2, 0], [3, 0, 0, 0]])
    return Whole(
        lambda key: {"image": net.image.init(key, x), "text": net.text.init(key, ids, ids > 0)},
        lambda params, x: (
            net.image.apply(params["image"], x), net.text.apply(params["text"], ids, ids > 0)
        ),
        (x,),
        ((2, 6), (2, 6)),
    )


def _texts(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(vocabulary=7)
    ids = jnp.asarray([[1, 5, 2, 0], [3, 0, 0, 0]])
    mask = ids > 0
    return Whole(
        lambda key: net.init(key, ids, mask),
        lambda params: (net.apply(params, ids, mask),),
        (),
        ((2, 4, net.width),),
    )


def _adversaries(made: Callable, shape: tuple[int, ...]) -> Whole:
    net = made(shape=shape, entries=TOLD, latent=3)
    z, x, given = _normal(2, 3), _normal(2, *shape), labels(0, 2)
    return Whole(
        lambda key: {
            "generator": net.generator.init(key, z, given), "critic": net.critic.init(key, x, given)
        },
        lambda params, x: (
            net.generator.apply(params["generator"], z, given),
            net.critic.apply(params["critic"], x, given),
        ),
        (x,),
        ((2, *shape), (2,)),
    )


def _kl(made: Callable, shape: tuple[int, ...]) -> Whole:
    nets = made(shape=shape, latent=2, critic=True)
    x, z = _normal(2, *shape), _normal(2, *nets.pair.grid, 2)
    return Whole(
        lambda key: {
            "encoder": nets.pair.encoder.init(key, x),
            "decoder": nets.pair.decoder.init(key, z),
            "critic": nets.critic.init(key, x, None),
        },
        lambda params, x, z: (
            nets.pair.encoder.apply(params["encoder"], x),
            nets.pair.decoder.apply(params["decoder"], z),
            nets.critic.apply(params["critic"], x, None),
        ),
        (x, z),
        ((2, *nets.pair.grid, 4), (2, *shape), (2, 2, 3)),
    )


def _vqgan(made: Callable, shape: tuple[int, ...]) -> Whole:
    nets = made(shape=shape, latent=3, critic=True)
    x, net = _normal(2, *shape), nets.autoencoder

    def apply(params, x):
        (q,) = net.encode(params["network"], x, lambda level, z: z)
        made = net.decode(params["network"], [q])
        return q, made, nets.critic.apply(params["critic"], x, None)

    return Whole(
        lambda key: {"network": net.init(key, x), "critic": nets.critic.init(key, x, None)},
        apply,
        (x,),
        ((2, *net.grids[0], 3), (2, *shape), (2, 2, 3)),
    )


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """whole: (a builder with its settings, the shape of the data) -> the network."""

    whole: Callable[..., Whole]
    shape: tuple[int, ...]
    settings: dict = field(default_factory=dict)


_SMALL = dict(width=8, multipliers=(1,), blocks=1, attention=(4,))
CASES = {
    "unet": Case(
        _conditioned, (4, 6, 3),
        dict(**_SMALL, norm_groups=2, heads=2, transformer_depth=1, context_width=5),
    ),
    "song_unet": Case(_denoiser, (4, 6, 3), _SMALL),
    "vdm_unet": Case(_denoiser, (4, 6, 3), dict(width=8, blocks=1, fourier=(1,))),
    "dit": Case(_conditioned, (4, 6, 3), dict(width=8, depth=2, heads=2)),
    "mmdit": Case(_conditioned, (4, 6, 3), dict(width=8, depth=2, heads=2, dual=1)),
    "jit": Case(
        _conditioned, (4, 6, 3),
        dict(width=8, depth=3, heads=2, patch=2, bottleneck=3, class_tokens=2, class_start=1),
    ),
    "point_mlp": Case(_denoiser, (3,), dict(width=16, depth=2, fourier=4)),
    "classifier": Case(_classifier, (4, 6, 3), dict(**_SMALL, head_width=4, norm_groups=2)),
    "vit": Case(_classifier, (4, 6, 3), dict(width=8, depth=2, heads=2, patch=2)),
    "mae": Case(
        _mae, (4, 6, 3),
        dict(width=8, depth=2, heads=2, patch=2, decoder_width=8, decoder_depth=1,
             decoder_heads=2),
    ),
    "clip": Case(
        _towers, (4, 6, 3),
        dict(width=8, depth=1, heads=2, patch=2, text_width=8, text_depth=2, text_heads=2,
             embedding=6),
    ),
    "text_transformer": Case(
        _texts, (4, 6, 3), dict(width=8, depth=2, heads=2, positions=5)
    ),
    "word_table": Case(_texts, (4, 6, 3), dict(width=6)),
    "r3gan": Case(
        _adversaries, (4, 6, 3), dict(widths=(8, 4), blocks=1, group=4, embedding=5)
    ),
    "mlp": Case(_pairs, (4, 6, 3), dict(widths=(5,), top_widths=(4,))),
    "conv": Case(
        _pairs, (4, 8, 3), dict(width=4, block_width=3, blocks=1, downsamples=1, top_widths=(4,))
    ),
    "hierarchy": Case(
        _hierarchy, (4, 8, 3), dict(width=4, block_width=3, blocks=1, downsamples=1, levels=2)
    ),
    "dalle": Case(_dalle, (4, 6, 3), dict(width=4, initial=6, groups=2, blocks=1)),
    "autoencoder_kl": Case(
        _kl, (8, 10, 3),
        dict(width=4, multipliers=(1, 2), blocks=1, attention=(4,), norm_groups=2, critic_width=1,
             critic_layers=1),
    ),
    "vqgan": Case(
        _vqgan, (8, 10, 3),
        dict(width=4, multipliers=(1, 2), blocks=1, attention=(4,), norm_groups=2, critic_width=1,
             critic_layers=1),
    ),
    "transformer": Case(_transformer, (4, 6, 3), dict(width=8, depth=1, heads=2)),
}  # fmt: skip


def has(name: str, key: str) -> bool:
    """Whether a network has this setting."""
    return key in NETWORKS[name].settings.__dataclass_fields__


def whole(name: str, **changes) -> Whole:
    """The network of a case."""
    case = CASES[name]
    settings = NETWORKS[name].settings(**{**case.settings, **changes})
    return case.whole(settings.build, case.shape)


def params_of(net: Whole) -> dict:
    """Params without zeros."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, leaf.dtype), shapes
    )


def test_every_network_has_a_case():
    assert CASES.keys() == NETWORKS.keys()


def test_settings_have_no_problem_and_outputs_their_shapes_and_dtype():
    wrong = []
    for name, case in CASES.items():
        row = NETWORKS[name]
        wrong += row.settings(**case.settings).problems(case.shape)
        dtypes = [{}] + [{"dtype": "bfloat16"}] * has(name, "dtype")
        for changes in dtypes:
            net = whole(name, **changes)
            params = jax.eval_shape(net.init, jax.random.key(0))
            outputs = jax.eval_shape(net.apply, params, *net.inputs)
            shapes = tuple(out.shape for out in outputs)
            if shapes != net.shapes:
                wrong.append(f"{name}, {changes}: {shapes}, not {net.shapes}")
            leaves = [*jax.tree.leaves(params), *outputs]
            if any(leaf.dtype != jnp.float32 for leaf in leaves):
                wrong.append(f"{name}, {changes}: params or outputs are not float32")
    assert wrong == []


@pytest.mark.parametrize("name", CASES)
def test_forward_derivatives_are_those_of_finite_differences(name):
    # With respect to params and inputs together, along a random direction.
    net = whole(name)
    again = whole(name, remat="full") if has(name, "remat") else net
    at = (params_of(net), *net.inputs)
    rng = np.random.default_rng(2)
    along = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), at)
    jvp = jax.jit(lambda at, along: jax.jvp(lambda at: again.apply(*at), (at,), (along,))[1])
    h, apply = 1e-3, jax.jit(lambda at: net.apply(*at))
    ahead, behind = (
        apply(jax.tree.map(lambda a, b, s=s: a + s * h * b, at, along)) for s in (1, -1)
    )
    for tangent, a, b in zip(jvp(at, along), ahead, behind, strict=True):
        difference = (a - b) / (2 * h)
        assert np.abs(tangent).max() > 0.01
        close = np.abs(tangent - difference) < 0.02 * np.abs(tangent).max()
        assert close.mean() > 0.9  # a ReLU may switch between the two points


@pytest.mark.parametrize("name", [name for name in CASES if has(name, "fused")])
def test_fused_attention_computes_the_same(name):
    nets = [whole(name, fused=fused) for fused in (False, True)]
    shapes = [jax.eval_shape(net.init, jax.random.key(0)) for net in nets]
    assert shapes[0] == shapes[1]
    params = params_of(nets[0])
    plain, fused = (jit(net.apply)(params, *net.inputs) for net in nets)
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(one).max())
    texts = [str(jax.make_jaxpr(net.apply)(params, *net.inputs)) for net in nets]
    assert texts[0] != texts[1]


@pytest.mark.slow  # the test above differentiates with remat too
@pytest.mark.parametrize("name", [name for name in CASES if has(name, "remat")])
def test_remat_changes_neither_params_nor_gradients(name):
    # test_unet.py tests remat = "dots".
    plain, again = (whole(name, remat=remat) for remat in ("none", "full"))
    shapes = jax.eval_shape(plain.init, jax.random.key(0))
    params = params_of(plain)

    def loss(params, net):
        return sum(jnp.sin(3 * out).sum() for out in net.apply(params, *net.inputs))

    def gradient(net):
        return jax.jit(jax.value_and_grad(partial(loss, net=net)))(params)

    value, expected = gradient(plain)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    assert scale > 0.1
    assert jax.eval_shape(again.init, jax.random.key(0)) == shapes
    same, grads = gradient(again)
    np.testing.assert_allclose(same, value, rtol=1e-5)
    chex.assert_trees_all_close(grads, expected, rtol=0, atol=2e-5 * scale)
