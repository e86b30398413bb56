"""The discrete VAE of DALL-E (Ramesh et al. 2021) on CIFAR-10: 8 x 8 codes out of 8,192.

    python -m genzoo.main --config=configs/dvae_cifar.py --workdir=runs/dvae_cifar

The network is the published one with one group fewer, because the images are smaller. The KL weight
rises to 6.6 over 5,000 steps, the temperature falls from 1 to 1/16 over 150,000, as published. With
--config.network.groups=4 on images of 256 pixels it has the published 97,616,006 parameters. The
full run has not been made yet, so no result is given.

Variants:
    :smoke   20 steps of a tiny network on the embedded images, for the tests.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", flip=True),
            family=dict(
                name="dvae",
                codes=8192,
                decoder="logit_laplace",
                kl_weight=6.6,
                kl_steps=5000,
                temperature_start=1.0,
                temperature_end=0.0625,
                temperature_steps=150_000,
            ),
            network=dict(
                name="dalle", width=256, initial=128, groups=3, blocks=2, dtype="bfloat16"
            ),
            optimizer=dict(learning_rate=1e-4, warmup=1000, decay="cosine", weight_decay=1e-4),
            train=dict(
                steps=250_000,
                batch_size=128,
                steps_per_call=1,
                log_every=200,
                save_every=5000,
                averages=dict(ema=dict(decay=0.999)),
                picture_first=1000,
                picture_count=32,
            ),
            sample=dict(weights="ema"),
            eval=dict(weights="ema", batch_size=100),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        data=dict(name="fashion_mini"),
        family=dict(codes=16, kl_steps=10, temperature_steps=20),
        network=dict(width=8, initial=8, blocks=1, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(
            steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10, picture_count=4
        ),
        sample=dict(count=4, batch_size=4),
        eval=dict(count=40, batch_size=20),
    ),
}
