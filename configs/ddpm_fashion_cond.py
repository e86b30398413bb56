"""Class-conditional DDPM with guidance on the embedded subset of Fashion-MNIST.

    python -m genzoo.main --config=configs/ddpm_fashion_cond.py:laptop --workdir=runs/cond
    python -m genzoo.main --workdir=runs/cond --mode=sample --config.sample.pictures=guidance

Variants:
    :laptop  Cost: five to ten minutes on 2 CPU cores. Result: garments of the right class,
             FD-fashion 5.7, 3.78 bits/dim.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", dir="", flip=False),
            family=dict(
                name="ddpm",
                steps=1000,
                schedule="cosine",
                prediction="v",
                variance="fixed_small",
            ),
            conditions=dict(label=dict(dropout=0.1)),
            network=dict(
                name="unet",
                width=96,
                multipliers=(1, 2, 2),
                blocks=2,
                attention=(14,),
                heads=4,
                dropout=0.1,
                patch=1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=3e-4, warmup=500, decay="cosine", clip=1.0),
            train=dict(
                steps=60_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.9995)),
                picture_first=500,
                picture_count=60,
            ),
            sample=dict(
                weights="ema", method="dpmpp_2m", grid="trailing", steps=20, count=60,
                guidance_scale=1.5,
            ),
            eval=dict(weights="ema", batch_size=100, bound_steps=20),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "smoke": dict(
        network=dict(width=16, multipliers=(1,), blocks=1, attention=(), heads=1, patch=4,
                     norm_groups=4, dtype="float32"),
        optimizer=dict(warmup=5),
        train=dict(steps=20, batch_size=16, log_every=5, save_every=10, picture_first=10,
                   picture_count=4),
        sample=dict(steps=4, count=4, batch_size=4),
        eval=dict(count=16, batch_size=16, bound_steps=4),
    ),
    # As in ddpm_fashion: on a CPU convolutions are fast where they are wide and the image is small.
    # Of fourteen settings of equal time (configs/README.md) this one has the least FD-fashion: the
    # class as a condition is worth most, then Muon with small batches, then a little guidance.
    "laptop": dict(
        network=dict(width=16, multipliers=(1, 3, 6), blocks=1, attention=(), heads=1, dropout=0.0,
                     norm_groups=4, embedding_width=64, dtype="float32"),
        optimizer=dict(method="muon", learning_rate=1e-3, warmup=100, b2=0.99),
        train=dict(steps=2700, batch_size=16, log_every=50, save_every=900, picture_first=180,
                   averages=dict(ema=dict(decay=0.995))),
        eval=dict(count=500),
    ),
}
