"""Variational diffusion on CIFAR-10 (Kingma et al. 2021): a likelihood bound in continuous time.

    python -m genzoo.main --config=configs/vdm_cifar.py --workdir=runs/vdm

30,578,181 parameters, all at the full resolution of the image. The full run has not been made yet,
so no result is given.
Cost: 10 million steps of 128 images, weeks on eight accelerators.
Published: 2.65 bits/dim.

Variants:
    :monotone  a learned monotone network instead of the two learned endpoints of the schedule.
    :smoke     20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", dir="", flip=False),
            family=dict(name="vdm", schedule="linear", gamma_min=-13.3, gamma_max=5.0),
            network=dict(name="vdm_unet", width=128, blocks=32, dropout=0.1, dtype="bfloat16"),
            optimizer=dict(
                learning_rate=2e-4, b2=0.99, weight_decay=0.01, decay_biases=False, warmup=100,
                clip=0.0,
            ),
            train=dict(
                steps=10_000_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=1000,
                picture_count=64,
            ),
            sample=dict(weights="ema", method="ancestral", grid="trailing", steps=1000, count=64),
            eval=dict(weights="ema", batch_size=64, draws=16),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "monotone": dict(family=dict(schedule="monotone")),
    "smoke": dict(
        data=dict(name="fashion_mini"),
        network=dict(width=16, blocks=1, dropout=0.0, patch=2, dtype="float32"),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=16, batch_size=8, draws=2),
    ),
}
