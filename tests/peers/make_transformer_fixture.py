"""Writes the outputs of diffusers' DiT and MM-DiT and of transformers' BERT on random weights.

They go to tests/nets.

Not part of the suite; needs torch, diffusers and transformers (written with 2.13.0, 0.42.1 and
5.24.0):

    python tests/peers/make_transformer_fixture.py tests/nets/fixtures/transformers_diffusers.npz

Weights are not stored: both sides draw each array from the CRC-32 of its path in our tree or, for
BERT, of its name there, so that the map of names is tested too. The outputs are computed in
float64. Two details of diffusers' DiT are set to those of the authors' code: the frequencies of the
time, and the epsilon of the second norm.
"""

import re
import sys

import numpy as np
import torch
from diffusers import DiTTransformer2DModel, SD3Transformer2DModel
from diffusers.models.embeddings import PatchEmbed
from make_unet_fixture import draw, to_numpy, to_torch
from transformers import BertConfig, BertModel

DIT = dict(
    num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=6, num_layers=2,
    sample_size=8, patch_size=2, num_embeds_ada_norm=5, norm_eps=1e-6,
)  # fmt: skip
SD3 = dict(
    sample_size=8, patch_size=2, in_channels=3, out_channels=3, num_layers=3, attention_head_dim=8,
    num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=16,
    pooled_projection_dim=5, pos_embed_max_size=4,
)  # fmt: skip
BERT = dict(
    vocab_size=11, hidden_size=12, num_hidden_layers=2, num_attention_heads=3,
    intermediate_size=24, max_position_embeddings=7, layer_norm_eps=1e-12, hidden_act="gelu",
)  # fmt: skip
SD35 = SD3 | dict(qk_norm="rms_norm", dual_attention_layers=(0,))

# A torch module, as a pattern -> (our path, which part of how many of the output).
MODULES = {
    r"pos_embed\.proj": ("entry", 0, 1),
    r".*timestep_embedder\.linear_(?P<n>\d)": ("condition/dense_{n}", 0, 1),
    r".*class_embedder\.embedding_table": ("condition/label", 0, 1),
    r".*text_embedder\.linear_(?P<n>\d)": ("condition/pooled/dense_{n}", 0, 1),
    r"context_embedder": ("condition/text/width", 0, 1),
    r"proj_out_1|norm_out\.linear": ("out_modulation", 0, 1),
    r"proj_out_2|proj_out": ("out", 0, 1),
}
IN_BLOCK = {
    r"norm1\.linear": ("{x}modulation", 0, 1),
    r"norm1_context\.linear": ("tokens/modulation", 0, 1),
    **{rf"attn1?\.to_{c}": ("{x}query_key_value", i, 3) for i, c in enumerate("qkv")},
    **{rf"attn\.add_{c}_proj": ("tokens/query_key_value", i, 3) for i, c in enumerate("qkv")},
    **{rf"attn2\.to_{c}": ("x/query_key_value_dual", i, 3) for i, c in enumerate("qkv")},
    r"attn1?\.to_out\.0": ("{x}out", 0, 1),
    r"attn\.to_add_out": ("tokens/out", 0, 1),
    r"attn2\.to_out\.0": ("x/out_dual", 0, 1),
    r"attn\.norm_q": ("x/query_norm", 0, 1),
    r"attn\.norm_k": ("x/key_norm", 0, 1),
    r"attn2\.norm_q": ("x/query_norm_dual", 0, 1),
    r"attn2\.norm_k": ("x/key_norm_dual", 0, 1),
    r"attn\.norm_added_q": ("tokens/query_norm", 0, 1),
    r"attn\.norm_added_k": ("tokens/key_norm", 0, 1),
    r"ff\.net\.0\.proj": ("{x}expand", 0, 1),
    r"ff\.net\.2": ("{x}contract", 0, 1),
    r"ff_context\.net\.0\.proj": ("tokens/expand", 0, 1),
    r"ff_context\.net\.2": ("tokens/contract", 0, 1),
}


def our_module(name, joint):
    """(our path, part, number of parts) of a torch module."""
    table = MODULES
    block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.*)", name)
    prefix = ""
    if block and "norm1.emb" not in name:
        prefix, name, table = f"block_{block[1]}/", block[2], IN_BLOCK
    for pattern, (path, part, parts) in table.items():
        if found := re.fullmatch(pattern, name):
            number = {k: int(v) - 1 for k, v in found.groupdict().items()}
            return prefix + path.format(x="x/" if joint else "", **number), part, parts
    raise KeyError(name)


def value(name, shape, joint, last):
    """The value of one torch parameter, from our array of the same meaning."""
    module, leaf = name.rsplit(".", 1)
    path, part, parts = our_module(module, joint)
    if path == "condition/label":
        return draw(f"{path}/embedding", shape)
    if leaf == "bias":
        ours = np.split(draw(f"{path}/bias", (parts * shape[0],)), parts)[part]
    elif len(shape) == 1:
        ours = draw(f"{path}/scale", shape)
    elif len(shape) == 4:  # a convolution of patches: theirs is [D, C, p, p]
        d, c, p, _ = shape
        ours = draw(f"{path}/kernel", (p * p * c, d)).reshape(p, p, c, d).transpose(3, 2, 0, 1)
    else:
        kernel = draw(f"{path}/kernel", (shape[1], parts * shape[0]))
        ours = np.split(kernel, parts, axis=1)[part].T
    # Their continuous norms give scale and shift, ours shift and scale.
    swapped = joint and (
        path == "out_modulation" or path == f"block_{last}/tokens/modulation"
    )
    return np.concatenate(np.split(ours, 2)[::-1]) if swapped else ours


def drawn(model, joint):
    """The model in float64 with random weights."""
    model, last = model.double().eval(), len(model.transformer_blocks) - 1
    for key, parameter in model.named_parameters():
        ours = value(key, tuple(parameter.shape), joint, last)
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(ours)))
    return model


def drawn_bert():
    """A BertModel in float64 with random weights."""
    model = BertModel(BertConfig(**BERT)).double().eval()
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(draw(bert_path(name), tuple(parameter.shape))))
    return model


def bert_path(name):
    """The path by which an array is drawn; gains of norms are close to 1."""
    return f"{name}/scale" if name.endswith("LayerNorm.weight") else name


@torch.no_grad()
def main(target):
    rng = np.random.RandomState(0)
    saved = {
        "x": rng.normal(size=(2, 8, 8, 3)).astype(np.float32),
        "time": np.array([3.0, 987.0], np.float32),
        "label": np.array([4, 1], np.int32),
        "tokens": rng.normal(size=(2, 5, 6)).astype(np.float32),
        "pooled": rng.normal(size=(2, 5)).astype(np.float32),
    }
    x, time = to_torch(saved["x"]), torch.from_numpy(saved["time"]).double()
    model = drawn(DiTTransformer2DModel(**DIT), joint=False)
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    labels = torch.from_numpy(saved["label"]).long()
    saved["dit"] = to_numpy(model(x, timestep=time, class_labels=labels).sample)
    for name, settings in (("sd3", SD3), ("sd35", SD35)):
        model = drawn(SD3Transformer2DModel(**settings), joint=True)
        told = dict(
            encoder_hidden_states=torch.from_numpy(saved["tokens"]).double(),
            pooled_projections=torch.from_numpy(saved["pooled"]).double(),
        )
        saved[name] = to_numpy(model(x, timestep=time, **told).sample)
        saved[f"{name}_count"] = sum(p.numel() for p in model.parameters())
    ids = np.array([[3, 10, 1, 5, 7], [2, 9, 0, 0, 0]], np.int32)  # 0 is padding here
    saved["bert_ids"], model = ids, drawn_bert()
    mask = torch.from_numpy(ids > 0).long()
    output = model(torch.from_numpy(ids).long(), attention_mask=mask)
    saved["bert"] = output.last_hidden_state.numpy().astype(np.float32)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    saved["bert_names"] = np.array(list(shapes))
    saved["bert_shapes"] = np.array([" ".join(map(str, shape)) for shape in shapes.values()])
    table = PatchEmbed(
        height=8, width=8, patch_size=2, in_channels=3, embed_dim=16, pos_embed_max_size=7
    )
    saved["cropped"] = table.cropped_pos_embed(6, 10)[0].numpy()
    for name, array in saved.items():
        numbers = np.ndim(array) and array.dtype.kind != "U"
        print(name, np.abs(array).max() if numbers else array)
    np.savez_compressed(target, **saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
