"""Writes the outputs of diffusers' U-Nets and FIR layers on random weights, for tests/nets.

Not part of the suite; needs torch and diffusers (written with 2.13.0 and 0.42.1):

    python tests/peers/make_unet_fixture.py tests/nets/fixtures/unet_diffusers.npz

Weights are not stored: both sides draw each array from the CRC-32 of its path in our tree. The
outputs are computed in float64, so the fixture is a few kilobytes of exact answers.
"""

import sys
import zlib

import numpy as np
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.downsampling import FirDownsample2D
from diffusers.models.upsampling import FirUpsample2D

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
# Stable Diffusion's U-Net. `attention_head_dim` is the number of heads there.
CROSS = dict(
    sample_size=8, in_channels=3, out_channels=2, block_out_channels=(8, 16), norm_num_groups=4,
    layers_per_block=1, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2,
    cross_attention_dim=6, transformer_layers_per_block=2,
)  # fmt: skip
LEVELS = 2

BLOCK = {"norm1": "norm_0", "conv1": "conv_0", "time_emb_proj": "condition", "norm2": "norm_1",
         "conv2": "conv_1", "conv_shortcut": "shortcut"}  # fmt: skip
TRANSFORMER = {"norm1": "norm_0", "norm2": "norm_1", "norm3": "norm_2", "ff.net.0.proj":
               "feedforward/dense_0", "ff.net.2": "feedforward/dense_1", "to_q": "query",
               "to_k": "key_value", "to_v": "key_value", "to_out.0": "out"}  # fmt: skip
FUSED = {"query_key_value": ("to_q", "to_k", "to_v"), "key_value": ("to_k", "to_v")}


def draw(path, shape):
    """The random array of a path. The stream of RandomState will never change."""
    values = np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    if path.endswith("/scale"):
        return 1 + 0.2 * values
    return values / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.2 * values


def our_path(name):
    """Our path of a diffusers module, without the leaf; a convolution ends in /conv."""
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
    if rest[2] in ("norm", "proj_in", "proj_out"):
        inner = {"proj_in": "entry", "proj_out": "out"}.get(rest[2], "norm")
        return f"{block}/transformer/{inner}"
    if rest[2] == "transformer_blocks":
        inner = {"attn1": "self_attention/", "attn2": "cross_attention/"}.get(rest[4], "")
        inner += TRANSFORMER[".".join(rest[5:] if inner else rest[4:])]
        return f"{block}/transformer/block_{rest[3]}/{inner}"
    inner = {"group_norm": "norm", "to_out": "out"}.get(rest[2], "query_key_value")
    return f"{block}/attention/{inner}"


def _in_block(block, part):
    ours = BLOCK[part]
    return f"{block}/{ours}/conv" if ours.startswith(("conv", "short")) else f"{block}/{ours}"


def drawn_parameter(name, shape):
    """The value of one torch parameter, from our array of the same meaning."""
    module, leaf = name.rsplit(".", 1)
    path = our_path(module)
    fused = FUSED.get(path.rsplit("/", 1)[1]) if "/" in path else None
    if leaf == "bias":
        if not fused:
            return draw(f"{path}/bias", shape)
        return np.split(draw(f"{path}/bias", (len(fused) * shape[0],)), len(fused))[
            _which(module, fused)
        ]
    if path == "condition/label":
        return draw(f"{path}/embedding", shape)
    if len(shape) == 1:
        return draw(f"{path}/scale", shape)
    if fused:
        kernel = draw(f"{path}/kernel", (shape[1], len(fused) * shape[0]))
        return np.split(kernel, len(fused), axis=1)[_which(module, fused)].T
    if path.endswith(("/transformer/entry", "/transformer/out")):
        return draw(f"{path}/kernel", shape[1::-1]).T.reshape(shape)  # theirs is a 1x1 convolution
    axes = (*range(2, len(shape)), 1, 0)  # torch OIHW -> ours HWIO
    kernel = draw(f"{path}/kernel", tuple(shape[axis] for axis in axes))
    return kernel.transpose(np.argsort(axes))


def _which(module, fused):
    return fused.index(module.rsplit(".", 1)[1])


def drawn(model):
    """The model in float64 with random weights."""
    model = model.double().eval()
    for key, value in model.named_parameters():
        value.copy_(torch.from_numpy(drawn_parameter(key, tuple(value.shape)).copy()))
    return model


def to_torch(x):
    """[B, H, W, C] -> [B, C, H, W] in float64."""
    return torch.from_numpy(x).double().permute(0, 3, 1, 2)


def to_numpy(x):
    """[B, C, H, W] -> [B, H, W, C], as NumPy."""
    return x.permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def main(target):
    rng = np.random.RandomState(0)
    saved = {
        "x": rng.normal(size=(2, 8, 8, 3)).astype(np.float32),
        "time": np.array([3.0, 987.0], np.float32),
        "label": np.array([4, 1], np.int32),
        "tokens": rng.normal(size=(2, 5, 6)).astype(np.float32),
        "token_mask": np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]], bool),
        "wide": rng.normal(size=(2, 8, 12, 3)).astype(np.float32),
    }
    time = torch.from_numpy(saved["time"]).double()
    for name, settings in MODELS.items():
        model = drawn(UNet2DModel(**settings))
        labels = torch.from_numpy(saved["label"]) if "num_class_embeds" in settings else None
        saved[name] = to_numpy(model(to_torch(saved["x"]), time, class_labels=labels).sample)
        saved[f"{name}_count"] = sum(value.numel() for value in model.parameters())
    model = drawn(UNet2DConditionModel(**CROSS))
    told = dict(encoder_hidden_states=torch.from_numpy(saved["tokens"]).double())
    saved["cross"] = to_numpy(model(to_torch(saved["wide"]), time, **told).sample)
    told["encoder_attention_mask"] = torch.from_numpy(saved["token_mask"])
    saved["cross_masked"] = to_numpy(model(to_torch(saved["wide"]), time, **told).sample)
    saved["cross_count"] = sum(value.numel() for value in model.parameters())

    small = to_torch(saved["wide"][:1, :4, :6])
    saved["fir_halved"] = to_numpy(FirDownsample2D()(small))
    saved["fir_doubled"] = to_numpy(FirUpsample2D()(small))
    step = FirDownsample2D(3, 5, use_conv=True).double()
    kernel, bias = draw("conv/conv/kernel", (3, 3, 3, 5)), draw("conv/conv/bias", (5,))
    step.Conv2d_0.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
    step.Conv2d_0.bias.copy_(torch.from_numpy(bias))
    saved["fir_step"] = to_numpy(step(small))
    for name, value in saved.items():
        print(name, value if np.ndim(value) == 0 else np.abs(value).max())
    np.savez_compressed(target, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
