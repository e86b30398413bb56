"""Text to image by MM-DiT on your own captioned images.

    python -m genzoo.main --config=configs/mmdit_folder.py --workdir=runs/mine \\
        --config.data.name=folder:PATH
    python -m genzoo.main --workdir=runs/mine --mode=sample --config.sample.conditions.text="a cat"

Captions are in the column `text` of a `metadata.csv` in the folder, or in a text file beside each
image; they are read as bytes unless `data.tokenizer` says otherwise. Esser et al. 2024 (Stable
Diffusion 3): text and image are two streams that attend to each other in every block, times are
logit-normal, queries and keys are normalised. Theirs works on latents and texts of frozen encoders;
here pixels are predicted as by JiT (Li & He 2025), and the text encoder is trained along. 0.3
billion parameters; the full run has not been made.
Cost: 200,000 steps of 256 images, about 70 TFLOP each: three hours on four H100 at a third of their
peak. Compiled for v5e-256 at level O0: 5.9 GB and 0.27 TFLOP per chip and step.

Variants:
    :smoke   20 steps of a tiny network on coloured shapes, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="folder:PATH", size=256, channels=3, resize="crop", flip=False,
                      tokenizer="bytes", tokens=128),
            family=dict(
                name="flow_matching",
                path="straight",
                prediction="x_0",
                weighting="bounded_velocity",
                times_drawn="logit_normal",
                times_mean=0.8,
                times_deviation=0.8,
            ),
            conditions=dict(text=dict(way="attend", layers=6, dropout=0.1)),
            network=dict(
                name="mmdit",
                width=768,
                depth=12,
                heads=12,
                patch=16,
                qk_norm=True,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=2000, b2=0.95, clip=1.0),
            train=dict(
                steps=200_000,
                batch_size=256,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=1000,
                picture_count=36,
            ),
            sample=dict(
                weights="ema", method="heun", grid="trailing", steps=50, count=64,
                guidance_scale=3.0, guidance_high=0.9,
            ),
            eval=dict(weights="ema", batch_size=64, end=0.2),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="shapes", size=32),
        conditions=dict(text=dict(way="attend", layers=1, dropout=0.1)),
        network=dict(width=16, depth=2, heads=2, patch=8, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
}
