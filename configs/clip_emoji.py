"""CLIP on Noto emoji and their names.

    python -m genzoo.main --config=configs/clip_emoji.py:laptop --workdir=runs/clip_emoji
    python -m genzoo.main --workdir=runs/clip_emoji --mode=retrieve --config.eval.count=34
    python -m genzoo.main --workdir=runs/clip_emoji --mode=retrieve \\
        --config.tools.first="face with a hat"

The emoji are downloaded from the npm registry (74 MB, once); see genzoo/data/emoji.py for licences.
Retrieval is reported on names that were held out: the first 34 combine words of the training names
in new ways, the other 51 have words that never occurred. There are 1,826 pairs to learn from, so
that dropout and weight decay matter.

Variants:
    :laptop  2,500 steps of 128 with small towers. Cost: half an hour of one CPU core (an
             estimate; the run has not been made yet).
    :smoke   20 steps of tiny towers, for the tests. Cost: seconds.
Without a variant the networks are for an accelerator; that run has not been made yet either.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="emoji", size=32),
            family=dict(name="contrastive", objective="info_nce"),
            network=dict(
                name="clip",
                width=256,
                depth=6,
                heads=4,
                patch=4,
                text_width=128,
                text_depth=2,
                text_heads=4,
                embedding=128,
                dropout=0.2,
                drop_path=0.1,
                dtype="bfloat16",
            ),
            optimizer=dict(
                learning_rate=5e-4,
                warmup=500,
                decay="cosine",
                b2=0.98,
                eps=1e-6,
                weight_decay=0.2,
                decay_biases=False,
                decay_gains=False,
            ),
            train=dict(
                steps=10_000,
                batch_size=256,
                steps_per_call=1,
                log_every=100,
                save_every=1000,
                averages=dict(ema=dict(decay=0.999)),
                picture_count=0,
            ),
            eval=dict(weights="ema", batch_size=85),
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
            text_depth=1,
            text_heads=2,
            embedding=64,
            dtype="float32",
        ),
        optimizer=dict(learning_rate=1e-3, warmup=200),
        train=dict(
            steps=2500,
            batch_size=128,
            log_every=50,
            save_every=500,
            averages=dict(ema=dict(decay=0.995)),
        ),
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
            dropout=0.0,
            drop_path=0.0,
            dtype="float32",
        ),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10),
        eval=dict(count=48, batch_size=16),
    ),
}
