"""Flow matching on CIFAR-10 (Lipman et al. 2023): the straight path, velocity prediction.

    python -m genzoo.main --config=configs/fm_cifar.py --workdir=runs/fm

35,746,307 parameters. The full run has not been made yet, so no result is given.
Cost: 400,000 steps of 128 images, about a day and a half on one accelerator.
Published: FID about 3.5 with an adaptive solver (Tong et al. 2024), with this recipe and a network
of the same size whose attention has four heads of 64 channels (network.heads = 4).

Variants:
    :paired  noise and data paired by optimal transport within the batch.
    :x_0     x_0-prediction with the velocity loss (Li & He 2025).
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", dir="", flip=True),
            family=dict(name="flow_matching", path="straight", prediction="velocity"),
            network=dict(
                name="unet",
                width=128,
                multipliers=(1, 2, 2, 2),
                blocks=2,
                attention=(16,),
                heads=1,
                dropout=0.1,
                patch=1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=5000, clip=1.0),
            train=dict(
                steps=400_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=1000,
                picture_count=64,
            ),
            sample=dict(weights="ema", method="rk45", count=64),
            eval=dict(weights="ema", batch_size=64),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "paired": dict(family=dict(paired=True)),
    "x_0": dict(
        family=dict(
            prediction="x_0", weighting="bounded_velocity", times_drawn="logit_normal",
            times_mean=0.8, times_deviation=0.8,
        ),
    ),
    "smoke": dict(
        data=dict(name="fashion_mini"),
        network=dict(width=16, multipliers=(1,), blocks=1, attention=(), heads=1, patch=4,
                     norm_groups=4, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
}
