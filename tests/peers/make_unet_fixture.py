"""Write what diffusers' UNet2DModel gives on drawn weights, for tests/nets/test_unet_peer.py.

Not part of the suite; needs torch and diffusers (written with 2.13.0 and 0.42.1):

    python tests/peers/make_unet_fixture.py tests/nets/fixtures/unet_diffusers.npz

Weights are not stored: both sides draw each array from the CRC-32 of our path of it. The outputs
are computed in float64, which makes the fixture a few kilobytes of exact answers.
"""

import sys
import zlib

import numpy as np
import torch
from diffusers import UNet2DModel

COMMON = dict(in_channels=3, block_out_channels=(8, 16), norm_num_groups=4)
ATTENTIVE = dict(
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
MODELS = {
    "ddpm": dict(
        **COMMON, **ATTENTIVE, sample_size=8, out_channels=3, layers_per_block=2, norm_eps=1e-6,
        attention_head_dim=None, downsample_padding=0, freq_shift=1, flip_sin_to_cos=False,
    ),
    "adm": dict(
        **COMMON, sample_size=8, out_channels=6, layers_per_block=1, norm_eps=1e-5,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        downsample_type="resnet", upsample_type="resnet", attention_head_dim=4,
        resnet_time_scale_shift="scale_shift", freq_shift=0, flip_sin_to_cos=True,
        num_class_embeds=5, attn_norm_num_groups=4,
    ),
}  # fmt: skip
LEVELS = 2

BLOCK = {"norm1": "norm_0", "conv1": "conv_0", "time_emb_proj": "condition", "norm2": "norm_1",
         "conv2": "conv_1", "conv_shortcut": "shortcut"}  # fmt: skip


def draw(path, shape):
    """The array of this path: RandomState's stream is frozen for good."""
    values = np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    if path.endswith("/scale"):
        return 1 + 0.2 * values
    return values / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.2 * values


def our_path(name):
    """Our path of a diffusers module, without the leaf: a convolution ends in /conv."""
    parts = name.split(".")
    if parts[0] in ("conv_in", "conv_out"):
        return {"conv_in": "entry/conv", "conv_out": "out/conv"}[parts[0]]
    if parts[0] == "conv_norm_out":
        return "out_norm"
    if parts[0] == "time_embedding":
        return f"condition/dense_{int(parts[1][-1]) - 1}"
    if parts[0] == "class_embedding":
        return "condition/label"
    if parts[0] == "mid_block":
        block, rest = f"middle_{parts[2]}", parts[1:]
    else:
        way, level, rest = parts[0].split("_")[0], int(parts[1]), parts[2:]
        level = level if way == "down" else LEVELS - 1 - level
        block = f"{way}_{level}_block_{rest[1]}"
    kind = rest[0]
    if kind in ("downsamplers", "upsamplers"):
        block = f"{way}_{level}_resample"
        return f"{block}/conv/conv" if rest[2] == "conv" else _in_block(block, rest[2])
    if kind == "resnets":
        return _in_block(f"{block}/residual", rest[2])
    inner = {"group_norm": "norm", "to_out": "out"}.get(rest[2], "query_key_value")
    return f"{block}/attention/{inner}"


def _in_block(block, part):
    ours = BLOCK[part]
    return f"{block}/{ours}/conv" if ours.startswith(("conv", "short")) else f"{block}/{ours}"


def drawn_parameter(name, shape):
    """The value of one torch parameter, from our array of the same meaning."""
    module, leaf = name.rsplit(".", 1)
    path = our_path(module)
    fused = path.endswith("query_key_value")
    if leaf == "bias":
        if not fused:
            return draw(f"{path}/bias", shape)
        return np.split(draw(f"{path}/bias", (3 * shape[0],)), 3)[_which(module)]
    if path == "condition/label":
        return draw(f"{path}/embedding", shape)
    if len(shape) == 1:
        return draw(f"{path}/scale", shape)
    if fused:
        kernel = draw(f"{path}/kernel", (shape[1], 3 * shape[0]))
        return np.split(kernel, 3, axis=1)[_which(module)].T
    axes = (*range(2, len(shape)), 1, 0)  # torch OIHW -> ours HWIO
    kernel = draw(f"{path}/kernel", tuple(shape[axis] for axis in axes))
    return kernel.transpose(np.argsort(axes))


def _which(module):
    return ("to_q", "to_k", "to_v").index(module.rsplit(".", 1)[1])


def main(target):
    rng = np.random.RandomState(0)
    saved = {
        "x": rng.normal(size=(2, 8, 8, 3)).astype(np.float32),
        "time": np.array([3.0, 987.0], np.float32),
        "label": np.array([4, 1], np.int32),
    }
    for name, settings in MODELS.items():
        model = UNet2DModel(**settings).double().eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                value.copy_(torch.from_numpy(drawn_parameter(key, tuple(value.shape)).copy()))
            x = torch.from_numpy(saved["x"]).double().permute(0, 3, 1, 2)
            labels = torch.from_numpy(saved["label"]) if "num_class_embeds" in settings else None
            time = torch.from_numpy(saved["time"]).double()
            out = model(x, time, class_labels=labels).sample.permute(0, 2, 3, 1)
        saved[name] = out.numpy()
        saved[f"{name}_count"] = sum(value.numel() for value in model.parameters())
        print(name, saved[f"{name}_count"], "largest output", np.abs(saved[name]).max())
    np.savez_compressed(target, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
