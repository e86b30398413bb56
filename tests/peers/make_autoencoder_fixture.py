"""Writes the outputs of diffusers' AutoencoderKL and VQModel on random weights, for tests/nets.

Not part of the suite; needs torch and diffusers (written with 2.13.0 and 0.42.1):

    python tests/peers/make_autoencoder_fixture.py tests/nets/fixtures/autoencoders_diffusers.npz

Weights are drawn from the paths of our arrays, as in make_unet_fixture.py. The outputs are computed
in float64.
"""

import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, VQModel
from make_unet_fixture import BLOCK, draw, to_numpy, to_torch

COMMON = dict(
    in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
    norm_num_groups=4, latent_channels=3,
)  # fmt: skip
PLAIN = dict(
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2
)
ATTENTIVE = dict(
    down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
)
LEVELS = 2
PARTS = ("to_q", "to_k", "to_v")


def our_path(name):
    """Our path of a diffusers module, without the leaf, from "encoder" or "decoder" on."""
    parts = name.split(".")
    if parts[0] in ("quant_conv", "post_quant_conv"):
        return {"q": "encoder", "p": "decoder"}[parts[0][0]] + "/quant/conv"
    side, *parts = parts
    outer = {"conv_in": "entry/conv", "conv_out": "out/conv", "conv_norm_out": "out_norm"}
    if parts[0] in outer:
        return f"{side}/{outer[parts[0]]}"
    if parts[0] == "mid_block":
        block, attention, rest = f"middle_{parts[2]}", "middle_attention", parts[1:]
    else:
        way, level, rest = parts[0].split("_")[0], int(parts[1]), parts[2:]
        level = level if way == "down" else LEVELS - 1 - level
        block, attention = (f"{way}_{level}_{kind}_{rest[1]}" for kind in ("block", "attention"))
    if rest[0] in ("downsamplers", "upsamplers"):
        return f"{side}/{way}_{level}_resample/conv"
    if rest[0] == "resnets":
        ours = BLOCK[rest[2]]
        return f"{side}/{block}/{ours}" + ("" if ours.startswith("norm") else "/conv")
    inner = {"group_norm": "norm", "to_out": "out"}.get(rest[2], "query_key_value")
    return f"{side}/{attention}/{inner}"


def drawn_parameter(name, shape):
    """The value of one torch parameter, from our array of the same meaning."""
    module, leaf = name.rsplit(".", 1)
    path, which = our_path(module), module.rsplit(".", 1)[-1]
    fused = 3 if path.endswith("query_key_value") else 1
    part = PARTS.index(which) if fused == 3 else 0
    if leaf == "bias":
        return np.split(draw(f"{path}/bias", (fused * shape[0],)), fused)[part]
    if len(shape) == 1:
        return draw(f"{path}/scale", shape)
    if len(shape) == 2:
        kernel = draw(f"{path}/kernel", (shape[1], fused * shape[0]))
        return np.split(kernel, fused, axis=1)[part].T
    kernel = draw(f"{path}/kernel", (*shape[2:], shape[1], shape[0]))
    return kernel.transpose(3, 2, 0, 1)


def drawn(model):
    """The model in float64 with random weights; the codes of a VQModel are not used."""
    model = model.double().eval()
    for key, value in model.named_parameters():
        if not key.startswith("quantize."):
            value.copy_(torch.from_numpy(drawn_parameter(key, tuple(value.shape)).copy()))
    return model


@torch.no_grad()
def main(target):
    rng = np.random.RandomState(0)
    x = rng.normal(size=(2, 8, 12, 3)).astype(np.float32)
    z = rng.normal(size=(2, 4, 6, 3)).astype(np.float32)
    saved = {"x": x, "z": z}
    for name, own in {"plain": PLAIN, "attentive": ATTENTIVE}.items():
        model = drawn(AutoencoderKL(**COMMON, **own))
        saved[f"{name}_moments"] = to_numpy(model.quant_conv(model.encoder(to_torch(x))))
        saved[f"{name}_decoded"] = to_numpy(model.decode(to_torch(z)).sample)
        saved[f"{name}_count"] = sum(value.numel() for value in model.parameters())
    model = drawn(VQModel(**COMMON, **PLAIN, num_vq_embeddings=5))
    saved["vq_encoded"] = to_numpy(model.encode(to_torch(x)).latents)
    saved["vq_decoded"] = to_numpy(model.decode(to_torch(z), force_not_quantize=True).sample)
    saved["vq_count"] = sum(value.numel() for value in model.parameters())
    for name, value in saved.items():
        print(name, value if np.ndim(value) == 0 else np.abs(value).max())
    np.savez_compressed(target, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
