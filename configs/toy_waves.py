"""Flow matching on signals: waves of one or two sinusoids, by class; about 3 minutes on one core.

    python -m genzoo.main --config=configs/toy_waves.py --workdir=runs/waves
    python -m genzoo.main --workdir=runs/waves --mode=sample

Samples are saved as an array and plotted beside data, with the power spectra of both. A wave of the
class "pure" has length |x_l| = 1 at every place l; samples had 0.993 on average with a standard
deviation of 0.046 (100 waves, 20 Heun steps).

Variants:
    :smoke  20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="waves", dir=""),
            family=dict(name="flow_matching", path="straight", prediction="velocity"),
            conditions=dict(label=dict(dropout=0.1)),
            network=dict(
                name="unet", width=32, multipliers=(1, 2, 2), blocks=1, attention=(16,), heads=4,
                norm_groups=8,
            ),
            optimizer=dict(learning_rate=1e-3, warmup=100, decay="cosine", clip=1.0),
            train=dict(
                steps=1500,
                batch_size=64,
                steps_per_call=1,
                log_every=100,
                save_every=500,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=300,
                picture_count=60,
            ),
            sample=dict(
                weights="ema", method="heun", grid="trailing", steps=50, count=600, batch_size=200
            ),
            eval=dict(weights="ema", count=100, batch_size=100, tolerance=1e-3),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        network=dict(width=8, multipliers=(1,), attention=(), heads=1, norm_groups=4),
        optimizer=dict(warmup=5),
        train=dict(steps=20, steps_per_call=10, batch_size=16, log_every=10, save_every=20,
                   picture_first=20, picture_count=6),
        sample=dict(steps=4, count=6, batch_size=6),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
}
