"""The variance-preserving score SDE on CIFAR-10 (Song et al. 2021): DDPM++, continuous training.

    python -m genzoo.main --config=configs/sde_vp_cifar.py --workdir=runs/sde_vp

55.7 million parameters. The full run has not been made yet, so no result is given.
Cost: 1.3 million steps of 128 images, days on one accelerator.
Published, for the network with 61.8 million parameters (one more level): FID 2.55 with
Euler-Maruyama and no corrector; 3.16 bits/dim.

Variants:
    :likelihood  the likelihood weighting, with importance sampling of t (Song et al. 2021b).
    :sub_vp      the sub-VP process, the better one for likelihoods. Published: 3.02 bits/dim, and
                 2.99 with twice the blocks.
    :smoke       20 steps of a tiny network, for the tests. Cost: seconds.
"""

from ml_collections import ConfigDict

from genzoo.config import choose


def get_config(variant: str = "") -> ConfigDict:
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(name="cifar10", dir="", flip=True),
            family=dict(name="score_sde", process="vp", prediction="eps", objective="simple"),
            network=dict(
                name="song_unet",
                width=128,
                multipliers=(2, 2, 2),
                blocks=4,
                attention=(16,),
                dropout=0.1,
                dtype="bfloat16",
            ),
            optimizer=dict(learning_rate=2e-4, warmup=5000, clip=1.0),
            train=dict(
                steps=1_300_000,
                batch_size=128,
                steps_per_call=1,
                log_every=100,
                save_every=5000,
                averages=dict(ema=dict(decay=0.9999)),
                picture_first=1000,
                picture_count=64,
            ),
            sample=dict(
                weights="ema", method="euler_maruyama", grid="uniform", steps=1000, count=64
            ),
            eval=dict(weights="ema", batch_size=64),
        )
    )
    return choose(config, VARIANTS, variant)


VARIANTS = {
    "likelihood": dict(family=dict(objective="likelihood_importance", dequantise=True)),
    "sub_vp": dict(family=dict(process="sub_vp")),
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
