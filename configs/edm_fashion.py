"""EDM on the embedded subset of Fashion-MNIST: needs no download.

    python -m genzoo.main --config=configs/edm_fashion.py:laptop --workdir=runs/edm_fashion

Variants:
    :laptop  Cost: eight minutes of one CPU core. Result: garments of the right class,
             FD-fashion 5.9, 3.66 bits/dim.
    :smoke   20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="fashion_mini", dir="", flip=False),
            family=dict(name="edm", data_deviation=0.7),
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
            optimizer=dict(learning_rate=5e-4, warmup=500, decay="cosine", clip=1.0),
            train=dict(
                steps=60_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=2000,
                averages=dict(ema=dict(decay=0.9995)),
                picture_first=500,
                picture_count=64,
            ),
            sample=dict(weights="ema", method="edm", grid="karras", steps=18, count=64),
            eval=dict(weights="ema", batch_size=100),
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
        eval=dict(count=8, batch_size=8, tolerance=1e-2),
    ),
    # As in ddpm_fashion: on a CPU convolutions are fast where they are wide and the image is small.
    # A short run learns the large scales only if it sees more noise than in the paper.
    "laptop": dict(
        family=dict(noise_mean=-0.2),
        network=dict(width=16, multipliers=(1, 3, 6), blocks=1, attention=(), heads=1, dropout=0.0,
                     norm_groups=4, embedding_width=64, dtype="float32"),
        optimizer=dict(method="muon", learning_rate=1e-3, warmup=100, b2=0.99),
        train=dict(steps=2765, batch_size=16, log_every=50, save_every=900, picture_first=180,
                   averages=dict(ema=dict(decay=0.995))),
        sample=dict(guidance_scale=1.5),
        eval=dict(count=100, tolerance=1e-3),
    ),
}
