"""DDPM on CIFAR-10, the recipe of Ho et al. 2020.

    python -m genzoo.main --config=configs/ddpm_cifar.py --workdir=runs/ddpm_cifar

35,746,307 parameters. The full run has not been made yet.
Cost: 800,000 steps of batch 128, published as 10.6 hours on a TPU v3-8 (appendix B).
Published: FID 3.17 (50,000 samples against the training set), Inception Score 9.46, variational
bound 3.75 bits/dim on the test set.

Variants:
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
    :laptop  a class-conditional small network. Cost: about half an hour on 2 CPU cores. Result:
             guided samples show the right colours and rough shapes of the ten classes (a picture
             in configs/README.md).
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", dir="", flip=True),
            family=dict(
                name="ddpm",
                steps=1000,
                schedule="linear",
                prediction="eps",
                variance="fixed_large",
            ),
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
            optimizer=dict(learning_rate=2e-4, warmup=5000, decay="constant", clip=1.0),
            train=dict(
                steps=800_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=1000,
                picture_count=64,
            ),
            sample=dict(weights="ema", method="ancestral", steps=0, count=64, batch_size=64),
            eval=dict(weights="ema", batch_size=128, bound_steps=0, count=0),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        network=dict(width=16, multipliers=(1, 2), blocks=1, attention=(8,), patch=2,
                     norm_groups=4, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(method="ddim", steps=5, count=4, batch_size=4),
        eval=dict(count=48, batch_size=16, bound_steps=4),
    ),
    # Class-conditional with guidance: what a small network learns of ten classes in half an hour.
    "laptop": dict(
        family=dict(schedule="cosine", prediction="v", variance="fixed_small"),
        conditions=dict(label=dict(dropout=0.1)),
        network=dict(width=64, multipliers=(1, 2, 3), blocks=1, attention=(8,), heads=4,
                     dropout=0.0, patch=2, norm_groups=16, dtype="float32"),
        optimizer=dict(learning_rate=1e-3, warmup=200, decay="cosine", b2=0.99),
        train=dict(steps=6400, batch_size=32, log_every=50, save_every=400, picture_first=640,
                   picture_count=50, averages=dict(ema=dict(decay=0.999))),
        sample=dict(method="ddim", grid="trailing", steps=50, guidance_scale=4.0, count=100,
                    batch_size=50),
        eval=dict(count=1000, bound_steps=20),
    ),
}
