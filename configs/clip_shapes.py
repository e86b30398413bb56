"""CLIP on coloured shapes and their captions: images and texts in one space.

    python -m genzoo.main --config=configs/clip_shapes.py:laptop --workdir=runs/clip_shapes
    python -m genzoo.main --workdir=runs/clip_shapes --mode=retrieve
    python -m genzoo.main --workdir=runs/clip_shapes --mode=retrieve \\
        --config.tools.first="a small red circle above a large blue star"

The first retrieval reports how often the caption of a test scene is found among 8 and among all
captions, and the scene of a caption among all scenes; the second draws the scenes nearest to a
text. --config.family.objective=sigmoid trains SigLIP. Chance is ln N, 4.9 for the laptop's batch.

Variants:
    :laptop  3,000 steps of 128 with small towers. Cost: thirteen minutes of one CPU core.
             Result: 0.998 of the images find their caption among eight, 0.634 among 1,565.
    :smoke   20 steps of tiny towers, for the tests. Cost: seconds.
Without a variant the networks are for an accelerator; that run has not been made yet.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="shapes", size=32),
            family=dict(name="contrastive", objective="info_nce"),
            network=dict(
                name="clip",
                width=384,
                depth=8,
                heads=6,
                patch=4,
                text_width=256,
                text_depth=4,
                text_heads=4,
                embedding=128,
                dtype="bfloat16",
            ),
            optimizer=dict(
                learning_rate=5e-4,
                warmup=1000,
                decay="cosine",
                b2=0.98,
                eps=1e-6,
                weight_decay=0.05,
                decay_biases=False,
                decay_gains=False,
            ),
            train=dict(
                steps=50_000,
                batch_size=1024,
                steps_per_call=1,
                log_every=100,
                save_every=1000,
                averages=dict(),
                picture_count=0,
            ),
            eval=dict(batch_size=250, count=2000),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "laptop": dict(
        network=dict(
            width=96,
            depth=4,
            heads=3,
            text_width=64,
            text_depth=2,
            text_heads=2,
            embedding=64,
            dtype="float32",
        ),
        optimizer=dict(learning_rate=1e-3, warmup=200),
        train=dict(steps=3000, batch_size=128, log_every=50, save_every=500),
    ),
    "smoke": dict(
        network=dict(
            width=16,
            depth=1,
            heads=2,
            patch=8,
            text_width=8,
            text_depth=1,
            text_heads=2,
            embedding=8,
            dtype="float32",
        ),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10),
        eval=dict(count=48, batch_size=16),
    ),
}
