"""DDPM on your own images: any folder, any mixture of formats; sub-folders are classes.

    python -m genzoo.main --config=configs/ddpm_folder.py --workdir=runs/mine \\
        --config.data.name=folder:PATH --config.data.size=64

A `metadata.csv` or `metadata.jsonl` in the folder adds captions, classes and numbers: its columns
are `file_name`, `text`, `label` and any others, which hold numbers. Captions may also be in a text
file beside each image. A model uses only those that are among its conditions: classes with
--config.conditions.label.dropout=0.1, numbers with --config.conditions.properties.dropout=0.1, and
captions with --config.conditions.text.dropout=0.1 --config.network.transformer_depth=1.

Images are cropped around the middle (or stretched, `data.resize`) and resized to `data.size`: one
number for a square or (height, width), multiples of 8. Unreadable files are listed before the first
step. The network is the CIFAR-10 one with attention at 16 pixels; at 64 pixels it costs four times
as much. `network.attention` names the smaller side of a feature map, which is the smaller side of
the images divided by 1, 2, 4 or 8: sides of 48 and 64 pixels go with
--config.network.attention="(12,)".

Variants:
    :smoke   20 steps of a tiny network. Cost: seconds.
    :laptop  3,000 steps of a small network at 32 pixels: checks that the data are read correctly.
             Cost: twelve to twenty minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="folder:PATH", size=64, channels=3, resize="crop", flip=True),
            family=dict(
                name="ddpm",
                steps=1000,
                schedule="cosine",
                prediction="v",
                variance="fixed_small",
            ),
            network=dict(
                name="unet",
                width=128,
                multipliers=(1, 2, 2, 2),
                blocks=2,
                attention=(16,),
                heads=4,
                dropout=0.1,
                patch=1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=1e-4, warmup=1000, decay="constant", clip=1.0),
            train=dict(
                steps=200_000,
                batch_size=64,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=1000,
                picture_count=36,
            ),
            sample=dict(weights="ema", method="ddim", grid="trailing", steps=100, count=64),
            eval=dict(weights="ema", batch_size=32, bound_steps=20),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(size=16),
        network=dict(width=16, multipliers=(1, 2), blocks=1, attention=(8,), heads=1,
                     norm_groups=4, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=8, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=5, count=4, batch_size=4),
        eval=dict(batch_size=8, bound_steps=4),
    ),
    "laptop": dict(
        data=dict(size=32),
        network=dict(width=16, multipliers=(1, 3, 6), blocks=1, attention=(8,), dropout=0.0,
                     norm_groups=4, embedding_width=64, dtype="float32"),
        optimizer=dict(learning_rate=1e-3, warmup=100, decay="cosine", b2=0.99),
        train=dict(steps=3000, batch_size=32, log_every=50, save_every=500, picture_first=250,
                   averages=dict(ema=dict(decay=0.997))),
        sample=dict(steps=50),
    ),
}
