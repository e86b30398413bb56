"""Text to image on Noto emoji and their names by flow matching with cross-attention.

    python -m genzoo.main --config=configs/fm_emoji.py:laptop --workdir=runs/emoji
    python -m genzoo.main --workdir=runs/emoji --mode=sample \\
        --config.sample.conditions.text="('woman elf','large orange square')"

The emoji are downloaded from the npm registry (74 MB, once); see genzoo/data/emoji.py for licences.
The vocabulary consists of the 1,761 words of the training captions; other words are refused.
Without a text, `--mode=sample` draws the names of the test split in turn: the first 34 combine
words of the training split in new ways.

Variants:
    :laptop  3.4M parameters, 6,000 steps of 32. Cost: 27 minutes on 2 CPU cores (44 of one core).
             Result: what was trained is recognised at once; of new combinations, colours and
             shapes, persons and their hats or glasses come together, rarer things do not.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="emoji", size=64),
            # As in fm_shapes, whose comments say why.
            family=dict(name="flow_matching", path="straight", prediction="x_0",
                        weighting="bounded_velocity", least_time=0.3),
            conditions=dict(text=dict(way="attend", layers=4, dropout=0.1)),
            network=dict(
                name="unet",
                width=128,
                multipliers=(1, 2, 3),
                blocks=2,
                attention=(16, 32),
                heads=4,
                dropout=0.1,
                transformer_depth=1,
                context_width=256,
                scale_shift=True,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=500, decay="cosine", clip=1.0),
            train=dict(
                steps=100_000,
                batch_size=256,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.9995)),
                picture_first=500,
                picture_count=64,
            ),
            sample=dict(
                weights="ema", method="dpmpp_2m", grid="trailing", steps=20, count=34,
                batch_size=34, guidance_scale=2.0,
            ),
            eval=dict(weights="ema", batch_size=85, end=0.2),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(size=32),
        conditions=dict(text=dict(way="attend", layers=1, dropout=0.1)),
        network=dict(width=8, multipliers=(1, 2), blocks=1, attention=(4,), heads=1, patch=4,
                     context_width=16, norm_groups=4, dropout=0.0, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=2, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
    "laptop": dict(
        data=dict(size=32),
        conditions=dict(text=dict(way="attend", layers=2, dropout=0.1)),
        network=dict(width=32, multipliers=(1, 2, 3), blocks=1, attention=(4, 8), heads=4,
                     patch=2, context_width=64, norm_groups=8, embedding_width=64, dropout=0.0,
                     dtype="float32"),
        optimizer=dict(method="muon", learning_rate=1e-3, warmup=200, b2=0.99),
        train=dict(steps=6000, batch_size=32, log_every=50, save_every=500, picture_first=250,
                   picture_count=34, averages=dict(ema=dict(decay=0.998))),
        eval=dict(count=85, tolerance=1e-3),
    ),
}
