"""Writes the outputs of score_sde's NCSN++ on random weights, for tests/nets/test_song_unet.py.

Not part of the suite. Needs a checkout of github.com/yang-song/score_sde (Apache 2.0), whose models
run on today's Flax (written with 0.12.8) without their training code:

    python tests/peers/make_ncsnpp_fixture.py CHECKOUT tests/nets/fixtures/ncsnpp_score_sde.npz

Weights are not stored: both sides draw each array from the CRC-32 of its path in our tree. The
outputs are computed in float64.
"""

import sys
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

SIDE, WIDTH, MULTIPLIERS, BLOCKS, ATTENTION = 8, 128, (1, 1, 2), 1, (4,)
BLOCK = {"GroupNorm_0": "norm_0", "Conv_0": "conv_0/conv", "Dense_0": "condition",
         "GroupNorm_1": "norm_1", "Conv_1": "conv_1/conv", "Conv_2": "shortcut/conv"}  # fmt: skip


def their_model(checkout):
    """The NCSNpp of the checkout, without its module of training states."""
    sys.path.insert(0, checkout)
    utils = types.ModuleType("models.utils")
    utils.register_model = lambda name: lambda cls: cls
    utils.get_sigmas = lambda config: None
    sys.modules["models.utils"] = utils
    import models

    models.utils = utils
    from models.ncsnpp import NCSNpp

    model = dict(
        nf=WIDTH, ch_mult=MULTIPLIERS, num_res_blocks=BLOCKS, attn_resolutions=ATTENTION,
        dropout=0.0, resamp_with_conv=True, conditional=True, fir=True, fir_kernel=(1, 3, 3, 1),
        skip_rescale=True, resblock_type="biggan", progressive="none",
        progressive_input="residual", progressive_combine="sum", embedding_type="fourier",
        fourier_scale=16, init_scale=0.0, nonlinearity="swish", scale_by_sigma=False,
    )  # fmt: skip
    config = dict(model=model, data=dict(centered=True), training=dict(continuous=True))
    return NCSNpp(ConfigDict(config))


def our_blocks():
    """Our paths of the residual blocks and of the attention layers, in their order."""
    levels, residuals, attentions = len(MULTIPLIERS), [], []
    for level in range(levels):
        for i in range(BLOCKS):
            residuals.append(f"down_{level}_block_{i}/residual")
            if SIDE >> level in ATTENTION:
                attentions.append(f"down_{level}_block_{i}/attention")
        if level < levels - 1:
            residuals.append(f"down_{level}_resample")
    residuals += ["middle_0/residual", "middle_1/residual"]
    attentions.append("middle_0/attention")
    for level in reversed(range(levels)):
        residuals += [f"up_{level}_block_{i}/residual" for i in range(BLOCKS + 1)]
        if SIDE >> level in ATTENTION:
            attentions.append(f"up_{level}_block_{BLOCKS}/attention")
        if level:
            residuals.append(f"up_{level}_resample")
    return residuals, attentions


def draw(path, shape):
    """The random array of a path. The stream of RandomState will never change."""
    values = np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    if path.endswith("/scale"):
        return 1 + 0.2 * values
    return values / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.2 * values


def drawn(path, shape):
    """Their array at this path, from our array of the same meaning."""
    residuals, attentions = our_blocks()
    kind, number = path[0].rsplit("_", 1)
    leaf = {"weight": "kernel", "W": "kernel", "b": "bias"}.get(path[-1], path[-1])
    if kind == "GaussianFourierProjection":
        return np.random.default_rng(0).normal(size=shape) * 16
    if kind == "ResnetBlockBigGANpp":
        return draw(f"{residuals[int(number)]}/{BLOCK[path[1]]}/{leaf}", shape)
    if kind == "Downsample":
        return draw(f"down_{number}_input/conv/conv/{leaf}", shape)
    if kind == "AttnBlockpp":
        ours = attentions[int(number)]
        if path[1] == "GroupNorm_0":
            return draw(f"{ours}/norm/{leaf}", shape)
        which = int(path[1][-1])  # query, key, value, output
        if which == 3:
            return draw(f"{ours}/out/{leaf}", shape)
        fused = draw(f"{ours}/query_key_value/{leaf}", (*shape[:-1], 3 * shape[-1]))
        return np.split(fused, 3, -1)[which]
    ours = {"Dense_0": "condition/dense_0", "Dense_1": "condition/dense_1",
            "Conv_0": "entry/conv", "GroupNorm_0": "out_norm", "Conv_1": "out/conv"}  # fmt: skip
    return draw(f"{ours[path[0]]}/{leaf}", shape)


def main(checkout, target):
    jax.config.update("jax_enable_x64", True)
    rng = np.random.RandomState(0)
    x = rng.normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    log_sigma = np.array([-3.0, 1.5], np.float32)
    inputs = jnp.asarray(x, jnp.float64), jnp.exp(jnp.asarray(log_sigma, jnp.float64)), False
    model = their_model(checkout)
    shapes = jax.eval_shape(lambda key: model.init(key, *inputs), jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(drawn([p.key for p in path], leaf.shape), jnp.float64),
        shapes["params"],
    )
    frequencies = WIDTH  # theirs are an untrained parameter, ours a constant
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) - frequencies
    output = model.apply({"params": params}, *inputs)
    print("ncsnpp", count, "largest output", jnp.abs(output).max(), output.dtype)
    np.savez_compressed(
        target, x=x, log_sigma=log_sigma, output=np.asarray(output), count=np.asarray(count)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
