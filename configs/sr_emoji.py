"""Noto emoji enlarged from 16 x 16 to 32 x 32 pixels or more: the second model of a cascade.

    python -m genzoo.main --config=configs/sr_emoji.py:laptop --workdir=runs/emoji_32

Flow matching given a small copy of the image, with noise that training adds to that copy and tells
the network (Ho et al. 2022, conditioning augmentation), and the name of the emoji.
configs/cascade_emoji.py puts it behind a model of small images.

Variants:
    :laptop  from 16 x 16 to 32 x 32. Cost: about half an hour of one core (an estimate; the run has
             not been made yet).
    :large   the third model, from 32 x 32 to 64 x 64, as small. Cost: about two hours of one core
             (an estimate; the run has not been made yet).
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
Without a variant the network is for an accelerator, from 32 x 32 to 64 x 64; not trained yet.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="emoji", size=64),
            family=dict(name="flow_matching", path="straight", prediction="x_0",
                        weighting="bounded_velocity", least_time=0.3),
            conditions=dict(
                text=dict(way="attend", layers=4, dropout=0.1),
                low=dict(of="x", transform="downsample2", noise=0.5, null=False),
            ),
            network=dict(
                name="unet",
                width=96,
                multipliers=(1, 2, 3),
                blocks=2,
                attention=(16,),
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
                batch_size=34,
            ),
            eval=dict(weights="ema", batch_size=85, end=0.2),
        )
    )
    return choose(config, VARIANTS, variant)


# The text encoder, optimizer and average of fm_emoji:laptop.
_LAPTOP = dict(
    conditions=dict(text=dict(way="attend", layers=2, dropout=0.1)),
    network=dict(width=24, multipliers=(1, 2, 3), blocks=1, attention=(8,), heads=4, patch=2,
                 context_width=64, norm_groups=8, embedding_width=64, dropout=0.0,
                 dtype="float32"),
    optimizer=dict(method="muon", learning_rate=1e-3, warmup=200, b2=0.99),
    train=dict(steps=3000, batch_size=32, log_every=50, save_every=500, picture_first=250,
               picture_count=34, averages=dict(ema=dict(decay=0.998))),
    eval=dict(count=85, tolerance=1e-3),
)
VARIANTS = {
    "smoke": dict(
        data=dict(name="shapes", size=64),
        conditions=dict(text=dict(way="attend", layers=1, dropout=0.1)),
        network=dict(name="dit", width=16, depth=1, heads=2, patch=16, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=2, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
    "laptop": dict(data=dict(size=32), **_LAPTOP),
    "large": _LAPTOP,
}
