"""EDM on CIFAR-10 (Karras et al. 2022): preconditioned DDPM++ with non-leaky augmentation.

    python -m genzoo.main --config=configs/edm_cifar.py --workdir=runs/edm

55,733,891 parameters, 55,735,299 with classes. The full run has not been made yet, so no result is
given.
Cost: 200 million images, 390,625 steps of 512, two days on eight accelerators.
Published: FID 1.97 unconditional, 1.79 with classes, in 35 evaluations (Heun, 18 steps).

Variants:
    :cond   with classes.
    :smoke  20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", dir="", flip=False),
            family=dict(name="edm", augment=0.12),
            network=dict(
                name="song_unet",
                width=128,
                multipliers=(2, 2, 2),
                blocks=4,
                attention=(16,),
                dropout=0.13,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=1e-3, warmup=19_532, clip=0.0),
            train=dict(
                steps=390_625,
                batch_size=512,
                steps_per_call=1,
                log_every=100,
                save_every=3125,
                averages=dict(ema=dict(decay=0.99929)),
                picture_first=1000,
                picture_count=64,
            ),
            sample=dict(weights="ema", method="edm", grid="karras", steps=18, count=64),
            eval=dict(weights="ema", batch_size=64),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "cond": dict(conditions=dict(label=dict())),
    "smoke": dict(
        data=dict(name="fashion_mini"),
        network=dict(width=16, multipliers=(1,), blocks=1, attention=(), patch=4,
                     dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
}
