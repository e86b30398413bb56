"""The cases that device.sh times: a config with its batch sizes, and the same network in diffusers.

Full sizes are those of the papers; --dry has tiny ones of the same kind, for a CPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from device_report import DRY


@dataclass(frozen=True, kw_only=True)
class Case:
    """config, changes: of genzoo. measures: timed in this order; "train_N" is a training step with
    batch N, "ddim_N" is N samples by DDIM. contenders: besides genzoo, by measure. tiny: changes
    for --dry. sample_steps: of DDIM."""

    config: str
    measures: tuple[str, ...]
    changes: Mapping[str, str] = ()
    tiny: Mapping[str, str] = ()
    contenders: Mapping[str, tuple[str, ...]] = ()
    sample_steps: int = 50

    def settings(self, measure: str) -> dict[str, str]:
        """The changes to the config for one measure."""
        changes = {
            **dict(self.changes), "sample.method": "ddim", "sample.clip": "none",
            "sample.steps": str(self.sample_steps),
            **(dict(self.tiny) if DRY else {}),
        }  # fmt: skip
        kind, size = measure.split("_")
        changes["train.batch_size" if kind == "train" else "sample.batch_size"] = size
        return changes


# "torch": torch.compile with defaults. "torch_graphs": its mode "reduce-overhead", which replays
# CUDA graphs and keeps their memory. It helps if the host is the bottleneck, so it is left out for
# the largest batch.
_BOTH = ("torch", "torch_graphs")
_ADM = {
    "data.name": "tfds:imagenet_resized/64x64", "data.size": "64", "data.channels": "3",
    "data.num_classes": "1000", "conditions.label.null": "False", "family.schedule": "cosine",
    "family.variance": "learned_range", "family.objective": "hybrid",
    "network.width": "192", "network.multipliers": "(1, 2, 3, 4)", "network.blocks": "3",
    "network.attention": "(32, 16, 8)", "network.head_width": "64", "network.scale_shift": "True",
    "network.resample": "block",
    "network.time_embedding": "sinusoidal_adm", "network.norm_epsilon": "1e-5",
}  # fmt: skip
_TINY = {
    "network.width": "16", "network.multipliers": "(1,)", "network.blocks": "1",
    "network.norm_groups": "8", "network.dtype": "float32",
}  # fmt: skip
_TINY_ADM = {
    **_TINY, "network.multipliers": "(1, 2)", "network.attention": "()",
    "network.head_width": "16", "data.size": "8", "data.num_classes": "4",
}  # fmt: skip
_TINY_EDM = {
    "network.width": "16", "network.multipliers": "(1,)", "network.blocks": "1",
    "network.attention": "()", "network.patch": "4", "network.dtype": "float32",
}  # fmt: skip


def _measures(full: tuple[str, ...], tiny: tuple[str, ...]) -> dict:
    return {"measures": tiny if DRY else full, "sample_steps": 2 if DRY else 50}


CASES = {
    "ddpm_cifar": Case(
        config="configs/ddpm_cifar.py",
        tiny={**_TINY, "network.attention": "()"},
        contenders={"train_128": _BOTH, "ddim_256": _BOTH, "train_1024": ("torch",),
                    "train_4": ("torch",), "ddim_2": ("torch",)},
        **_measures(("train_128", "ddim_256", "train_1024"), ("train_4", "ddim_2")),
    ),
    "edm_cifar": Case(
        config="configs/edm_cifar.py",
        tiny=_TINY_EDM,
        **_measures(("train_512", "ddim_256"), ("train_4",)),
    ),
    "adm64": Case(
        config="configs/ddpm_cifar.py",
        changes=_ADM,
        tiny=_TINY_ADM,
        contenders={"train_64": ("torch",), "ddim_64": ("torch",), "train_2": ("torch",)},
        **_measures(("train_64", "ddim_64"), ("train_2",)),
    ),
}  # fmt: skip


def twin(network: Mapping, side: int, classes: int, learned_variance: bool) -> dict:
    """The keyword arguments of diffusers' UNet2DModel for the network of a config: DDPM's, or ADM's
    if it has resampling blocks."""
    adm = network["resample"] == "block"
    sides = [side >> level for level in range(len(network["multipliers"]))]
    attends = [s in network["attention"] for s in sides]
    kinds = ["Attn{}Block2D" if a else "Resnet{}sampleBlock2D" if adm else "{}Block2D"
             for a in attends]  # fmt: skip
    both = dict(
        sample_size=side, in_channels=3, out_channels=6 if learned_variance else 3,
        layers_per_block=network["blocks"], dropout=network["dropout"],
        block_out_channels=tuple(int(network["width"] * m) for m in network["multipliers"]),
        norm_num_groups=network["norm_groups"], norm_eps=network["norm_epsilon"],
        down_block_types=tuple(kind.format("Down") for kind in kinds),
        up_block_types=tuple(kind.format("Up") for kind in reversed(kinds)),
    )  # fmt: skip
    if not adm:
        return dict(
            **both, attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False,
            freq_shift=1,
        )  # fmt: skip
    return dict(
        **both, downsample_type="resnet", upsample_type="resnet", freq_shift=0,
        attention_head_dim=network["head_width"], resnet_time_scale_shift="scale_shift",
        flip_sin_to_cos=True, num_class_embeds=classes or None,
        attn_norm_num_groups=network["norm_groups"],
    )  # fmt: skip
