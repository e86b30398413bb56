"""Transformers over patches: published counts, and identities that hold exactly.

The published counts follow from the authors' code: facebookresearch/DiT, LTH14/JiT (the paper
prints 131M) and SD3. We do not count frozen tables of positions.
"""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked import section_problems
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.core.conditions import Entry, Given, Tokens
from genzoo.nets.parts.attention import attend
from genzoo.nets.transformer import positions
from genzoo.nets.transformer.block import MLPS, Attention, Norm, Rates, Told, TransformerBlock
from genzoo.nets.transformer.dit import DiTSettings
from genzoo.nets.transformer.jit import JiTSettings
from genzoo.nets.transformer.joint import JointBlock
from genzoo.nets.transformer.mmdit import MMDiTSettings
from genzoo.nets.transformer.patches import patchify, unpatchify
from genzoo.train.optimizer import Optimizer, constant

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

CLASS = entry_of(1000)
TEXT = {
    "text": Entry(kind="tokens", size=4096, length=77, way="attend", null=False),
    "pooled": Entry(kind="vector", size=2048, null=False),
}
LATENT, WIDE = (32, 32, 4), (64, 64, 16)
XL = dict(depth=28, width=1152, heads=16, scan=True)
SD3 = dict(depth=24, width=1536, heads=24, scan=True)

# name: (settings, shape, output channels, entries, our count, patches of a frozen table, published)
PUBLISHED = {
    "DiT-B/2": (DiTSettings(scan=True), LATENT, 8, CLASS, 130_315_808, 256, 130_512_416),
    "DiT-XL/2": (DiTSettings(**XL), LATENT, 8, CLASS, 674_834_720, 256, 675_129_632),
    "JiT-B/16": (JiTSettings(scan=True), (256, 256, 3), 3, CLASS, 131_123_712, 256, 131_320_320),
    "SD3 medium": (MMDiTSettings(**SD3), WIDE, 16, TEXT, 2_028_328_000, 0, 2_028_328_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name):
    settings, shape, channels, entries, expected, patches, published = PUBLISHED[name]
    assert section_problems(settings, "network", shape) == []
    net = settings.build(out_channels=channels, entries=entries)
    inputs = jnp.zeros((1, *shape)), jnp.zeros(1), {}
    count = tree.count(jax.eval_shape(net.init, jax.random.key(0), *inputs))
    assert (count, count + patches * settings.width) == (expected, published)
    size = settings.size(shape, out_channels=channels, entries=entries)
    assert count <= size.params <= 1.001 * count


# name: (settings, shape)
NETS = {
    "dit": (DiTSettings(width=8, depth=3, heads=2, patch=2, dropout=0.1, drop_path=0.2), (4, 6, 3)),
    "jit": (
        JiTSettings(
            width=16, depth=4, heads=2, patch=2, bottleneck=3, class_tokens=2, class_start=2
        ),
        (4, 6, 3),
    ),
}


def changed(settings, **changes):
    return type(settings)(**{**vars(settings), **changes})


def made(settings, shape):
    """(apply, params without zeros, inputs)."""
    net = settings.build(out_channels=2, entries=entry_of(3))
    rng = np.random.default_rng(0)
    x, time = rng.normal(size=(3, *shape)), np.float32([3.0, 400.0, 900.0])
    inputs = jnp.asarray(x, jnp.float32), time, label_of(jnp.arange(3))
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3), shapes)
    return net.apply, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params), inputs


def stacked(params, parts):
    """The params of written-out blocks, stacked as a scan holds them. parts: (first, last)."""
    rest = {name: leaf for name, leaf in params.items() if not name.startswith("block_")}
    for first, last in parts:
        blocks = [params[f"block_{i}"] for i in range(first, last)]
        rest[f"layers_{first}"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    return rest


@pytest.mark.parametrize("name, parts", [("dit", [(0, 3)]), ("jit", [(0, 2), (2, 4)])])
def test_a_scan_is_the_blocks_written_out_and_remat_changes_nothing(name, parts):
    settings, shape = NETS[name]
    apply, params, inputs = made(settings, shape)
    expected = jit(apply)(params, *inputs)
    assert np.abs(expected).max() > 0.1
    for changes in (dict(scan=True), dict(scan=True, remat="full"), dict(remat="dots")):
        again, _, _ = made(changed(settings, **changes), shape)
        ours = stacked(params, parts) if "scan" in changes else params
        np.testing.assert_allclose(jit(again)(ours, *inputs), expected, rtol=0, atol=2e-6)


def test_a_scan_draws_other_dropout_for_every_block_and_none_outside_training():
    settings, shape = NETS["dit"]
    apply, params, inputs = made(changed(settings, scan=True), shape)
    train = jit(lambda key: apply(params, *inputs, train=True, key=key))
    one, two = train(jax.random.key(1)), train(jax.random.key(2))
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(one, train(jax.random.key(1)))
    assert np.abs(one - jit(apply)(params, *inputs)).max() > 1e-3


def test_muon_takes_each_layer_of_a_stack_as_a_matrix():
    rng = np.random.default_rng(0)
    kernels = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    muon = Optimizer(
        method="muon", decay=constant, total_steps=10, learning_rate=0.01, clip=0.0
    ).transformation()

    def update(params):
        return muon.update(params, muon.init(params), params)[0]

    together = update({"layers_0": {"dense": {"kernel": kernels}}})["layers_0"]["dense"]["kernel"]
    for kernel, ours in zip(kernels, together, strict=True):
        alone = update({"dense": {"kernel": kernel}})["dense"]["kernel"]
        np.testing.assert_allclose(ours, alone, atol=1e-6)


@pytest.mark.parametrize("size", [(7,), (3, 5), (2, 3, 2)])
def test_rotary_attention_depends_on_differences_of_positions_only(size):
    rng = np.random.default_rng(0)
    places = positions.coordinates(size)
    count, width = len(places), 14  # one pair of channels is left over for three axes
    query, key = (jnp.asarray(rng.normal(size=(1, count, 2, width)), jnp.float32) for _ in "qk")

    def products(shift):
        by = positions.rotary(places + shift, width)
        turned = positions.turned(query, by), positions.turned(key, by)
        return jnp.einsum("bnhd,bmhd->bhnm", *turned)

    plain = products(0.0)
    np.testing.assert_allclose(products(np.arange(len(size)) * 3.7 - 2), plain, atol=2e-5)
    assert np.abs(plain - jnp.einsum("bnhd,bmhd->bhnm", query, key)).max() > 0.1
    turned = positions.turned(query, positions.rotary(places, width))
    lengths = (np.linalg.norm(vectors, axis=-1) for vectors in (query, turned))
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_positions_of_another_size_are_stretched_to_those_of_training():
    base, large = positions.coordinates((4, 6)), positions.coordinates((8, 6), (4, 6))
    assert large.shape == (48, 2)
    np.testing.assert_array_equal(large.reshape(8, 6, 2)[::2].reshape(-1, 2), base)
    table = positions.sincos(base, 8)
    angles = base[:, ::-1, None] * np.array([1.0, 0.01])  # columns first, two frequencies each
    expected = np.concatenate([np.sin(angles), np.cos(angles)], -1).reshape(24, 8)
    np.testing.assert_allclose(table, expected, atol=1e-6)


def test_learned_positions_are_counted_and_interpolated():
    settings, shape = NETS["dit"]
    learned = changed(settings, positions="learned")
    apply, params, inputs = made(learned, shape)
    table = np.asarray(params["position"]["table"])
    assert table.shape == (2, 3, 8)
    known = dict(out_channels=2, entries=entry_of(3))
    assert learned.size(shape, **known).params == settings.size(shape, **known).params + table.size
    rest = {name: leaf for name, leaf in params.items() if name != "position"}
    plain = made(settings, shape)[0]
    sincos = positions.sincos(positions.coordinates((2, 3)), 8).reshape(2, 3, 8)
    same = apply({**params, "position": {"table": jnp.asarray(sincos)}}, *inputs)
    np.testing.assert_allclose(same, plain(rest, *inputs), atol=1e-6)
    # The same params at twice the resolution: half a linear step beside each place.
    wide = changed(learned, base=(2, 3))
    net = wide.build(**known)
    large = jnp.concatenate([jnp.concatenate([inputs[0]] * 2, 1)] * 2, 2), *inputs[1:]
    assert jax.eval_shape(net.init, jax.random.key(0), *large)["position"]["table"].shape == (
        2, 3, 8
    )  # fmt: skip
    rows = np.asarray([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    columns = np.asarray(
        [[4, 0, 0], [3, 1, 0], [1, 3, 0], [0, 3, 1], [0, 1, 3], [0, 0, 4]]
    ) / 4  # fmt: skip
    between = np.einsum("ih,jw,hwd->ijd", rows, columns, table).astype(np.float32)
    exact = {**params, "position": {"table": jnp.asarray(between)}}
    expected = changed(learned).build(**known).apply(exact, *large)
    np.testing.assert_allclose(net.apply(params, *large), expected, atol=1e-5)


@pytest.mark.parametrize("size, patch", [((12,), 3), ((4, 6), 2), ((4, 2, 6), 2)])
def test_patches_round_trip_and_hold_neighbours(size, patch):
    x = jnp.arange(2 * np.prod(size) * 3, dtype=jnp.float32).reshape(2, *size, 3)
    patches = patchify(x, patch)
    assert patches.shape == (2, np.prod(size) // patch ** len(size), patch ** len(size) * 3)
    np.testing.assert_array_equal(unpatchify(patches, size, patch), x)
    corner = x[(0, *(slice(patch),) * len(size))]
    np.testing.assert_array_equal(patches[0, 0], corner.reshape(-1))
    with pytest.raises(ValueError, match="are not"):
        unpatchify(patches[:, 1:], size, patch)


STYLE = dict(width=8, mlp=MLPS["swiglu"](24), norm=Norm(learned=False), modulated=True)


def block_of(*, dual=False, ends=False):
    attention = Attention(heads=2, qk_norm=True, dual=dual)
    return TransformerBlock(attention=attention, ends=ends, **STYLE)


def test_a_block_with_adaln_zero_is_the_identity_at_the_start():
    rng = np.random.default_rng(0)
    h = jnp.asarray(rng.normal(size=(2, 5, 8)), jnp.float32)
    told = Told(jnp.asarray(rng.normal(size=(2, 8)), jnp.float32))
    block = block_of()
    params = block.init(jax.random.key(0), h, told, Rates(), False)
    np.testing.assert_array_equal(block.apply(params, h, told, Rates(), False), h)
    joint = JointBlock(lambda dual, ends: block_of(dual=dual, ends=ends), dual=True)
    params = joint.init(jax.random.key(0), (h, h[:, :3]), told, Rates(), False)
    ours, tokens = joint.apply(params, (h, h[:, :3]), told, Rates(), False)
    np.testing.assert_array_equal(ours, h)
    np.testing.assert_array_equal(tokens, h[:, :3])


def test_joint_attention_with_an_empty_stream_is_self_attention():
    rng = np.random.default_rng(0)
    h, features = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 5, 8), (2, 8)))
    told, empty = Told(features), jnp.zeros((2, 0, 8))
    joint = JointBlock(lambda dual, ends: block_of(dual=dual, ends=ends))
    shapes = jax.eval_shape(joint.init, jax.random.key(0), (h, empty), told, Rates(), False)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.3, s.dtype), shapes)
    ours, _ = joint.apply(params, (h, empty), told, Rates(), False)
    alone = block_of().apply({"params": params["params"]["x"]}, h, told, Rates(), False)
    np.testing.assert_allclose(ours, alone, atol=1e-5)
    # Tokens that are padding are as good as none, however large they are.
    tokens = 100 * h[:, :3]
    masked, _ = joint.apply(
        params, (h, tokens), told._replace(token_mask=jnp.zeros((2, 3), bool)), Rates(), False
    )
    np.testing.assert_allclose(masked, alone, atol=1e-5)
    seen, _ = joint.apply(params, (h, tokens), told, Rates(), False)
    assert np.abs(seen - alone).max() > 0.1


def random_joint(dual, told, *streams):
    """A joint block, and params of it without zeros."""
    rng = np.random.default_rng(1)
    joint = JointBlock(lambda dual, ends: block_of(dual=dual, ends=ends), dual=dual)
    shapes = jax.eval_shape(joint.init, jax.random.key(0), streams, told, Rates(), False)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.3, s.dtype), shapes)
    return joint, params


@pytest.mark.parametrize("rates", [Rates(dropout=1.0), Rates(path=1.0)])
def test_dropout_reaches_all_that_a_joint_block_adds(rates):
    rng = np.random.default_rng(0)
    h, features = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 5, 8), (2, 8)))
    told, streams = Told(features), (h, h[:, :3])
    joint, params = random_joint(True, told, *streams)
    drop = {"dropout": jax.random.key(0)}
    kept = joint.apply(params, streams, told, rates, True, rngs=drop)
    np.testing.assert_array_equal(kept[0], h)
    np.testing.assert_array_equal(kept[1], h[:, :3])
    assert np.abs(joint.apply(params, streams, told, rates, False)[0] - h).max() > 0.1


def test_padding_of_the_second_stream_may_hold_anything():
    text = Entry(kind="tokens", size=5, length=4, way="attend", null=False)
    net = MMDiTSettings(width=8, depth=2, heads=2, patch=2, qk_norm=True).build(
        out_channels=1, entries={"text": text}
    )
    rng = np.random.default_rng(0)
    x, tokens = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 4, 4, 1), (2, 4, 5)))
    mask = jnp.asarray([[1, 1, 1, 1], [1, 1, 0, 0]], bool)

    def given(tokens):
        return {"text": Given(Tokens(tokens, mask), jnp.ones(2, bool))}

    shapes = jax.eval_shape(net.init, jax.random.key(0), x, jnp.zeros(2), given(tokens))
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.3, s.dtype), shapes)
    apply = jit(lambda tokens: net.apply(params, x, jnp.full(2, 300.0), given(tokens)))
    spoiled = jnp.where(mask[..., None], tokens, jnp.nan)
    np.testing.assert_array_equal(apply(spoiled), apply(tokens))


def test_attention_is_that_of_jax():
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, 5, 3, 4)), jnp.float32) for _ in "qkv")
    for causal in (False, True):
        expected = jax.nn.dot_product_attention(query, key, value, is_causal=causal)
        for fused in (False, True):
            ours = attend(query, key, value, causal=causal, fused=fused)
            np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("dtype, error", [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02)])
@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_and_its_gradient_are_those_of_the_other(dtype, error, causal):
    rng = np.random.default_rng(0)
    shapes = (3, 5, 2, 8), (3, 5, 2, 8), (3, 5, 2, 8)
    parts = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    mask = jnp.asarray([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    mask = None if causal else mask

    def loss(parts, fused):
        attended = attend(*parts, mask, causal=causal, fused=fused)
        assert attended.dtype == dtype
        return jnp.sin(attended.astype(jnp.float32)).sum(), attended

    plain, fused = (
        jit(jax.grad(partial(loss, fused=fused), has_aux=True))(parts) for fused in (False, True)
    )
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(fused), strict=True):
        one, other = np.float32(one), np.float32(other)
        np.testing.assert_allclose(one, other, rtol=0, atol=error * np.abs(one).max())
    if mask is not None:
        assert not np.any(fused[1][1])


def test_cudnn_is_asked_for_where_it_applies(monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    device = SimpleNamespace(device_kind="NVIDIA H200")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(
        jax.nn, "dot_product_attention",
        lambda query, *_, implementation, **others: asked.append(implementation) or query,
    )  # fmt: skip

    def ask(dtype=jnp.bfloat16, length=4, width=8, mask=None):
        x = jnp.zeros((1, length, 1, width), dtype)
        attend(x, x, x, mask, fused=True)
        return asked[-1]

    assert ask() == ask(length=5) == ask(mask=jnp.ones((1, 4), bool)) == "cudnn"
    assert ask(dtype=jnp.float32) == ask(width=12) == ask(width=256) == "xla"
    assert ask(length=5, mask=jnp.ones((1, 5), bool)) == "xla"
    device.device_kind = "AMD"
    assert ask() == "xla"


@pytest.mark.parametrize(
    "settings, words",
    [
        (DiTSettings(heads=5), ["network.heads is 5", "network.width, 768"]),
        (DiTSettings(patch=3), ["network.patch is 3", "28 x 28"]),
        (DiTSettings(width=12, heads=4, rotary=True), ["network.rotary", "a head has 3"]),
        (DiTSettings(base=(4,)), ["network.base", "2 axes"]),
        (JiTSettings(patch=7, class_start=12), ["network.class_start = 12", "network.depth = 12"]),
        (JiTSettings(patch=7, class_tokens=0, class_start=5), ["network.class_start", "no effect"]),
        (MMDiTSettings(dual=13), ["network.dual = 13", "network.depth = 12"]),
        (MMDiTSettings(table=13), ["network.table = 13", "at least 14"]),
        (MMDiTSettings(table=14, positions="learned"), ["network.table = 14", "no effect"]),
    ],
)
def test_each_mistake_is_one_sentence(settings, words):
    problems = section_problems(settings, "network", (28, 28, 1))
    assert len(problems) == 1, problems
    for word in words:
        assert word in problems[0]
