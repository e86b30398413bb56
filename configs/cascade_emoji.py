"""A cascade for emoji: drawn at 16 x 16 pixels from a name, then enlarged to 32 x 32 and 64 x 64.

    python -m genzoo.main --config=configs/fm_emoji.py:laptop --config.data.size=16 \\
        --config.network.patch=1 --workdir=runs/emoji_16
    python -m genzoo.main --config=configs/sr_emoji.py:laptop --workdir=runs/emoji_32
    python -m genzoo.main --config=configs/sr_emoji.py:large --workdir=runs/emoji_64
    python -m genzoo.main --config=configs/cascade_emoji.py --workdir=runs/cascade
    python -m genzoo.main --workdir=runs/cascade --mode=sample --config.sample.noise=0.1,

Ho et al. 2022 (Cascaded diffusion models). Nothing is trained: the three models are copied into the
workdir, which is then enough. sample.noise is the level of the noise in each enlarged image; with
--mode=eval and eval.distances it can be searched for. The models have not been trained yet.

Variants:
    :two    without the third model, up to 32 x 32. Cost: seconds, once the models are trained.
    :smoke  two tiny models of coloured shapes, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="emoji", size=64),
            family=dict(name="cascade", models=3),
            frozen=dict(
                base=dict(workdir="runs/emoji_16", weights="ema"),
                second=dict(workdir="runs/emoji_32", weights="ema"),
                third=dict(workdir="runs/emoji_64", weights="ema"),
            ),
            conditions=dict(text=dict(way="attend", layers=2, dropout=0.1)),
            train=dict(steps=1, batch_size=100, averages=dict(), picture_count=34),
            sample=dict(count=34, batch_size=34, noise=(0.1,)),
            eval=dict(batch_size=85),
        )
    )
    if variant:
        del config.frozen.third
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "two": dict(data=dict(size=32), family=dict(models=2)),
    "smoke": dict(
        data=dict(name="shapes", size=64),
        family=dict(models=2),
        frozen=dict(base=dict(workdir="runs/mmdit_shapes"), second=dict(workdir="runs/sr_emoji")),
        conditions=dict(text=dict(layers=1)),
        train=dict(picture_count=4),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=8, batch_size=8),
    ),
}
