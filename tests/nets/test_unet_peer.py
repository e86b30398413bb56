"""Our U-Net is diffusers' UNet2DModel: the same weights give the same numbers.

The fixture holds what diffusers computed in float64 (tests/peers/make_unet_fixture.py); the weights
are drawn here and there by the same rule.
"""

import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import entry_of, label_of

from genzoo.core import tree
from genzoo.nets.unet.unet import UNetSettings

FIXTURE = Path(__file__).parent / "fixtures" / "unet_diffusers.npz"
COMMON = dict(width=8, multipliers=(1, 2), attention=(4,), norm_groups=4)
NETS = {
    "ddpm": (3, 0, dict(blocks=2, **COMMON)),
    "adm": (6, 5, dict(
        blocks=1, head_width=4, scale_shift=True,
        resample="block", time_embedding="sinusoidal_adm", norm_epsilon=1e-5, **COMMON,
    )),
}  # fmt: skip


def draw(path, shape):
    """The array of this path, as in tests/peers/make_unet_fixture.py."""
    values = np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    if path.endswith("/scale"):
        return 1 + 0.2 * values
    return values / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.2 * values


@pytest.mark.parametrize("name", NETS)
def test_same_weights_same_output_as_diffusers(name):
    saved = np.load(FIXTURE)
    channels, classes, settings = NETS[name]
    net = UNetSettings(**settings).build(
        out_channels=channels, entries=entry_of(classes, null=False)
    )
    inputs = (jnp.asarray(saved["x"]), jnp.asarray(saved["time"]), label_of(saved["label"]))
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    assert tree.count(shapes) == saved[f"{name}_count"]
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(draw(tree.path_string(path), leaf.shape), jnp.float32),
        shapes,
    )
    output = jax.jit(net.apply)(params, *inputs)
    np.testing.assert_allclose(output, saved[name], atol=1e-5 * np.abs(saved[name]).max())
